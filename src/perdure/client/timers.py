"""One heap for all that waits for a time, by the database's clock as estimated here. Never early.

What is cancelled leaves memory soon, however far its time is: a workflow that was evicted while it sleeps for a month
is a row, and nothing here.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Callable

from perdure.clock import Clock

log = logging.getLogger("perdure")

CANCELLED_MIN = 100  # fewer are left in the heap, whatever else is in it


class Timer:
    """A wait that can be cancelled."""

    __slots__ = ("_timers", "callback", "when")

    def __init__(self, when: int, callback: Callable[[], None], timers: Timers) -> None:
        self.when = when
        self.callback: Callable[[], None] | None = callback
        self._timers = timers

    def cancel(self) -> None:
        if self.callback is not None:
            self.callback = None
            self._timers.note_cancelled()


class Timers:
    """Callbacks run from a plain callback of the loop, in order of their times."""

    def __init__(self, clock: Clock, loop: asyncio.AbstractEventLoop) -> None:
        self._clock = clock
        self._loop = loop
        self._heap: list[tuple[int, int, Timer]] = []
        self._count = 0
        self._cancelled = 0  # of those in the heap
        self._handle: asyncio.TimerHandle | None = None
        self._armed_for = 0

    def at(self, when: int, callback: Callable[[], None]) -> Timer:
        """Run ``callback`` not before ``when`` (microseconds)."""
        timer = Timer(when, callback, self)
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, timer))
        if self._handle is None or when < self._armed_for:
            self._arm()
        return timer

    def next(self) -> int | None:
        """The time of the next live timer."""
        heap = self._heap
        while heap and heap[0][2].callback is None:
            heapq.heappop(heap)
            self._cancelled -= 1
        return heap[0][0] if heap else None

    def note_cancelled(self) -> None:
        """One of those in the heap waits no more; when most do not, the heap is made anew, without them."""
        self._cancelled += 1
        if self._cancelled > max(CANCELLED_MIN, len(self._heap) // 2):
            self._heap = [entry for entry in self._heap if entry[2].callback is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def _arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        when = self.next()
        if when is None or self._clock.stamp() is not None:  # a virtual clock: who moves it fires what is due
            return
        self._armed_for = when
        # Not longer than a minute at once: the estimate of the database's clock may be corrected meanwhile.
        delay = min(max(0.0, (when - self._clock.now()) / 1e6), 60.0)
        self._handle = self._loop.call_later(delay, self.fire)

    def fire(self) -> None:
        """Run what is due (also called by a virtual clock that moved)."""
        now = self._clock.now()
        try:
            while (when := self.next()) is not None and when <= now:
                _, _, timer = heapq.heappop(self._heap)
                callback, timer.callback = timer.callback, None
                if callback is not None:
                    _run(callback)
        finally:  # nobody else would: all that is set later comes after what was due
            self._arm()

    def close(self) -> None:
        self._heap.clear()
        self._cancelled = 0
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


def _run(callback: Callable[[], None]) -> None:
    try:
        callback()
    except Exception:  # one waiter's bug must not cost the others their time
        log.exception("what was due could not be done: %r", callback)
