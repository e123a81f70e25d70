"""Drive: runs a coroutine from plain callbacks, beginning it at once.

A task costs two turns of the loop that a commit need not wait for: one until it begins, one until its end is told. In a
turn of a busy loop a hundred other callbacks run, so a commit would leave late by all of them. What is driven has no
``asyncio.current_task()``: it must not use ``asyncio.timeout``; if it fails for that or any other reason, the caller
does the same again in a real task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Drive(Generic[T]):
    """One coroutine under way; ``done`` is told its value or its error, once, from a plain callback of the loop."""

    __slots__ = ("_coroutine", "_done", "_dropped", "_loop")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, T],
        done: Callable[[T | None, BaseException | None], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._coroutine = coroutine
        self._done = done
        self._loop = loop
        self._dropped = False

    def begin(self) -> None:
        """Run to the first wait, now."""
        self._step(None)

    def cancel(self) -> None:
        """Nobody wants the outcome any more: the coroutine is cancelled where it waits, and left to end by itself."""
        self._dropped = True
        self._loop.call_soon(self._step, asyncio.CancelledError())

    def _step(self, error: BaseException | None) -> None:
        try:
            waits_for = self._coroutine.send(None) if error is None else self._coroutine.throw(error)
        except StopIteration as end:
            self._tell(end.value, None)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as raised:
            self._tell(None, raised)
        else:
            if waits_for is None:  # asyncio.sleep(0)
                self._loop.call_soon(self._step, None)
            else:
                # As a task does: the wait has been taken up.
                waits_for._asyncio_future_blocking = False  # noqa: SLF001 - asyncio's protocol has no public name
                waits_for.add_done_callback(self._wake)

    def _wake(self, future: asyncio.Future[Any]) -> None:
        # The coroutine's own await takes the result, or raises the exception, out of the future.
        if self._dropped and not future.cancelled():
            future.exception()  # it was thrown out of that await: asyncio would tell of an error that nobody took
        self._step(None)

    def _tell(self, value: T | None, error: BaseException | None) -> None:
        if not self._dropped:
            self._done(value, error)
