"""Retry: whether a failed step runs again, and how long to wait first.

Promises: a ``Retry`` is a frozen value that was checked when it was made; its answers depend on nothing but their
arguments, so that a replay on another executor decides the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from perdure.errors import DefinitionError
from perdure.model.durations import Duration, to_us

RetryOn = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]
"""Which exceptions are retried: a class, several, or a function that is asked."""

ATTEMPTS_MAX = 1_000_000


class Retry:
    """Run a failed step again, a bounded number of times, waiting longer each time.

    The wait after failed attempt ``n`` (1, 2, 3 …) is ``min(delay * factor ** (n - 1), max_delay)``, without jitter.
    ``attempts`` counts the first one: ``attempts=1`` never retries. After the last attempt the last exception is
    raised::

        @app.step(retry=Retry(attempts=5, on=ConnectionError, delay=0.5))
        async def charge(order: str) -> str: ...

        Retry(on=(TimeoutError, ConnectionError))
        Retry(on=lambda error: getattr(error, "status", 0) >= 500)

    A predicate runs at the executor that saw the failure; one that raises counts as "do not retry".
    """

    __slots__ = ("_delay_us", "_max_us", "attempts", "delay", "factor", "max_delay", "on")

    attempts: int
    on: RetryOn
    delay: Duration
    factor: float
    max_delay: Duration
    _delay_us: int
    _max_us: int

    def __init__(
        self,
        attempts: int = 3,
        *,
        on: RetryOn = Exception,
        delay: Duration = 1,
        factor: float = 2,
        max_delay: Duration = 3600,
    ) -> None:
        fields = {
            "attempts": _attempts(attempts),
            "on": _on(on),
            "delay": delay,
            "factor": _factor(factor),
            "max_delay": max_delay,
            "_delay_us": to_us(delay, "Retry(delay)"),
            "_max_us": to_us(max_delay, "Retry(max_delay)"),
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def wait_us(self, attempt: int) -> int:
        """Give the microseconds to wait after failed attempt ``attempt`` (the first is 1).

        ``Retry(delay=1, factor=2).wait_us(3)`` is 4_000_000.
        """
        if attempt < 1:
            raise ValueError(f"attempt={attempt!r}: attempts count from 1.")
        if self._delay_us == 0:
            return 0
        try:
            wait = self._delay_us * float(self.factor) ** (attempt - 1)
        except OverflowError:
            return self._max_us
        return self._max_us if wait >= self._max_us else int(wait)

    def wants(self, exc: BaseException, attempt: int) -> bool:
        """Say whether to run again after attempt ``attempt`` (the first is 1) failed with ``exc``.

        Cancellation, exits and everything else that is no ``Exception`` is never retried.
        """
        if attempt >= self.attempts or not isinstance(exc, Exception):
            return False
        on: Any = self.on
        if isinstance(on, (type, tuple)):
            return isinstance(exc, on)
        try:
            return bool(on(exc))
        except Exception:  # a broken predicate must not hide the step's own failure
            return False

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"Retry is frozen; make another one instead of setting {name}.")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"Retry is frozen; make another one instead of deleting {name}.")

    def __reduce__(self) -> tuple[Any, ...]:
        return _remake, (self.attempts, self.on, self.delay, self.factor, self.max_delay)

    def _key(self) -> tuple[object, ...]:
        return self.attempts, self.on, self._delay_us, self.factor, self._max_us

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Retry) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return (
            f"Retry(attempts={self.attempts}, on={_on_text(self.on)}, delay={self.delay!r}, "
            f"factor={self.factor!r}, max_delay={self.max_delay!r})"
        )


def _remake(attempts: int, on: RetryOn, delay: Duration, factor: float, max_delay: Duration) -> Retry:
    return Retry(attempts, on=on, delay=delay, factor=factor, max_delay=max_delay)


def _attempts(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise DefinitionError(f"Retry(attempts={value!r}) is not a whole number; 3 means two retries after the first.")
    if not 1 <= value <= ATTEMPTS_MAX:
        raise DefinitionError(
            f"Retry(attempts={value!r}) is out of range; give 1 (never retry) to {ATTEMPTS_MAX:_}, the first included."
        )
    return value


def _factor(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise DefinitionError(f"Retry(factor={value!r}) is not a number; 2 doubles the wait each time.")
    if not 1 <= value <= 1000:  # also refuses NaN
        raise DefinitionError(f"Retry(factor={value!r}) is out of range; give 1 (constant waits) to 1000.")
    return value


def _on(value: object) -> RetryOn:
    if isinstance(value, type):
        if issubclass(value, Exception):
            return value
        raise DefinitionError(f"Retry(on={value.__qualname__}) is not a subclass of Exception, so it is never retried.")
    if isinstance(value, tuple):
        members = cast("tuple[object, ...]", value)
        if not members or not all(isinstance(member, type) and issubclass(member, Exception) for member in members):
            raise DefinitionError(f"Retry(on={value!r}) must be a tuple of subclasses of Exception, at least one.")
        return cast("tuple[type[Exception], ...]", members)
    if callable(value):
        return cast("Callable[[Exception], bool]", value)
    raise DefinitionError(
        f"Retry(on={value!r}) is neither an exception class, a tuple of them, nor a function of the exception."
    )


def _on_text(on: Any) -> str:
    if isinstance(on, type):
        return on.__qualname__
    if isinstance(on, tuple):
        names = [_on_text(cls) for cls in cast("Iterable[type[Exception]]", on)]
        return f"({', '.join(names)}{',' if len(names) == 1 else ''})"
    return getattr(on, "__qualname__", None) or repr(on)
