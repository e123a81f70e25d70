"""Who is about to write: threads that were just let go, and usually come back with a write of their own at once.

A commit that leaves without them makes them wait for it and for their own. So an idle journal waits a moment for one or
two of them; of many, enough have come already. It learns: after waits in vain it does not wait for a while.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

FEW = 2  # of more, those who are back already make a commit worth its while
SECONDS = 0.001  # the longest wait; a loop cannot measure less
LATE_SECONDS = 0.005  # who is out for longer does something that takes its time
PASSES_MIN, PASSES_MAX = 4, 256  # commits that do not wait after a wait in vain: twice as many after each


class Company:
    """Counts who is out. Everything runs on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._out: deque[float] = deque()  # since when each is out, longest first
        self._passes = 0
        self._penalty = PASSES_MIN
        self._flush: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._soon: asyncio.Handle | None = None  # the flush, as all are back

    def let_go(self) -> None:
        """A thread goes on; it may come back at once, late or never."""
        self._out.append(self._loop.time())

    def back(self) -> None:
        """One has come back, and says in this turn of the loop what it has to write."""
        if self._out:
            self._out.popleft()
        if not self._out and self._flush is not None:
            self._penalty = PASSES_MIN
            self._soon = self._loop.call_soon(self._go)

    def all_said(self) -> None:
        """Nothing more comes in this turn of the loop: who waits for its end need not."""
        if self._soon is not None:
            self._go()

    def hold(self, flush: Callable[[], None]) -> bool:
        """Whether ``flush`` is called a moment later, because somebody is worth it."""
        late = self._loop.time() - LATE_SECONDS
        while self._out and self._out[0] < late:
            self._out.popleft()  # at work, or gone: no longer expected
        if not 0 < len(self._out) <= FEW:
            return False
        if self._passes:
            self._passes -= 1
            return False
        self._flush = flush
        self._timer = self._loop.call_later(SECONDS, self._in_vain)
        return True

    def _in_vain(self) -> None:
        self._out.clear()
        self._passes = self._penalty
        self._penalty = min(2 * self._penalty, PASSES_MAX)
        self._go()

    def _go(self) -> None:
        flush, self._flush = self._flush, None
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        if self._timer is not None:
            self._timer.cancel()
        if flush is not None:
            flush()
