"""Steps: functions whose outcome is recorded once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, cast, overload

import msgspec

from perdure.definitions import StepDef, place_of
from perdure.errors import DefinitionError
from perdure.model.durations import Duration, to_us
from perdure.policy.retry import Retry
from perdure.runtime import aface
from perdure.runtime.steps import StepCall, shown
from perdure.serde.fingerprint import fingerprint

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")


class Step(Generic[P, R]):
    """A decorated function. In a workflow its outcome is recorded once; elsewhere it is the plain function.

    Made by ``@app.step``. A failed attempt is recorded too, so that attempts survive crashes.
    """

    def __init__(self, definition: StepDef, fn: Callable[..., Any], owner: object = None) -> None:
        self.definition = definition
        self._self = owner  # of a bound method; neither recorded nor fingerprinted
        self.__wrapped__ = fn
        self.__name__ = getattr(fn, "__name__", definition.name)
        self.__qualname__ = getattr(fn, "__qualname__", definition.name)
        self.__doc__ = fn.__doc__
        self.__module__ = getattr(fn, "__module__", __name__)

    # None, None: of Any, Any what overloads give, as those of asyncio.gather, is Any to mypy  # async-only
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[None, None, R]:
        definition = self.definition
        execution = aface.body(definition.name)
        bound: tuple[Any, ...] = args if self._self is None else (self._self, *args)
        if execution is None:
            outside: Coroutine[None, None, R] = aface.step_outside(definition, bound, kwargs)
            return outside
        definition.check(bound, kwargs)
        made = StepCall if definition.calls is None else definition.calls
        call = made(definition, bound, kwargs, definition.retry, definition.timeout, definition.name)
        if definition.is_method and self._self is None:
            args = cast("Any", args[1:])
        path, mark = execution.next_path(), fingerprint(definition.name, args, kwargs)
        text = shown(execution, path, mark, definition, args, kwargs)
        outcome: Coroutine[None, None, R] = execution.step(path, call, mark, text)
        return outcome

    def options(
        self, *, name: str | None = None, retry: Retry | None = None, timeout: Duration | None = None
    ) -> Step[P, R]:
        """The same step with another name, retry or timeout, for one call site.

        >>> # await upload.options(timeout=5)(path)
        """
        definition = self.definition
        changes: dict[str, Any] = {}
        if name is not None:
            changes["name"] = name
        if retry is not None:
            check_retry(retry)
            if definition.at_most_once:
                raise DefinitionError(f"step {definition.name} is declared at_most_once: it cannot have a retry")
            changes["retry"] = retry
        if timeout is not None:
            changes["timeout"] = to_us(timeout, "timeout")
        return Step[P, R](msgspec.structs.replace(definition, **changes), self.__wrapped__, self._self)

    @overload
    def __get__(self, obj: None, owner: type) -> Step[P, R]: ...
    @overload
    def __get__(self: Step[Concatenate[Any, Q], T], obj: object, owner: type) -> Step[Q, T]: ...
    def __get__(self, obj: object, owner: type) -> Any:
        if obj is None:
            return self
        return Step[Any, Any](self.definition, self.__wrapped__, obj)

    def __repr__(self) -> str:
        return f"<step {self.definition.name}>"


class StepDecorator(Protocol):
    """``@app.step`` and ``@app.step(retry=…)``."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Step[P, R]: ...  # as-is
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Step[P, R]: ...
    @overload
    def __call__(
        self,
        *,
        name: str = ...,
        retry: Retry | None = ...,
        timeout: Duration | None = ...,
        pure: bool = ...,
        at_most_once: bool = ...,
    ) -> StepDecorator: ...


def check_step(fn: Any) -> inspect.Signature:
    """A step's signature. Raises ``DefinitionError`` for what cannot be one."""
    if isinstance(fn, (staticmethod, classmethod)):
        raise DefinitionError(f"{fn!r}: put @app.step below @staticmethod; class methods cannot be steps")
    if not callable(fn):
        raise DefinitionError(f"@app.step was put on {fn!r}, which is not a function")
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise DefinitionError(
            f"step {fn.__qualname__} ({place_of(fn)}) is a generator, but a step has one outcome: return a list"
        )
    try:
        return inspect.signature(fn)
    except ValueError:
        raise DefinitionError(
            f"step {fn!r} does not say what arguments it takes; put it in a function of yours"
        ) from None


def check_retry(retry: Any) -> None:
    """Raises ``DefinitionError`` for what is no ``Retry``."""
    if retry is not None and not isinstance(retry, Retry):
        raise DefinitionError(f"retry={retry!r} is no Retry; write retry=Retry(attempts=3)")
