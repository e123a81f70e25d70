"""A thread that makes a blocking call of a test's, and whether it is at work: time must not move then."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

from perdure.runtime.callers import CALLER

T = TypeVar("T")


class Caller:
    """See ``perdure.runtime.callers``. ``changed`` is called on the loop whenever ``works`` has changed."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = changed
        self.works = 1  # at work while not 0: its answers may overtake what it says before it waits for them

    def make(self, call: Callable[[], T]) -> T:
        """In the thread."""
        CALLER.set(self)
        return call()

    def waits(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: no test is left
            self._loop.call_soon_threadsafe(self._count, -1)

    def goes_on(self) -> None:
        self._count(1)

    def _count(self, by: int) -> None:
        self.works += by
        self._changed()
