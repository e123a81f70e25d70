"""The executor's estimate of the database's time, and the one place that knows of real time.

Promises: ``now()`` never runs ahead of the database's clock (so that no timer fires early), and never goes back
within one process. Production leaves the time of every statement to the database (``stamp`` is None); a virtual clock
gives its own.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Microseconds since 1970-01-01 UTC, by the database's clock as well as it is known here."""

    def now(self) -> int:
        """A lower bound of the database's time."""
        ...

    def stamp(self) -> int | None:
        """What to pass as ``now`` to the store: None leaves it to the database."""
        ...

    def observe(self, database: int) -> None:
        """The database said that its time was this, in an answer that has just been received."""
        ...


class SystemClock:
    """Runs on the monotonic clock, set by each answer of the database.

    An answer's time was read before the answer arrived, so database >= answer + (elapsed since arrival): taking the
    largest such bound seen lately keeps the estimate tight and still never early.
    """

    WINDOW = 60_000_000  # after this long the bound is taken anew, so that drift of either clock cannot add up

    __slots__ = ("_at", "_last", "_offset")

    def __init__(self) -> None:
        self._offset: int | None = None
        self._at = 0
        self._last = 0

    def now(self) -> int:
        monotonic = time.monotonic_ns() // 1000
        offset = self._offset if self._offset is not None else time.time_ns() // 1000 - monotonic
        now = monotonic + offset
        self._last = max(self._last, now)
        return self._last

    def stamp(self) -> int | None:
        return None

    def observe(self, database: int) -> None:
        monotonic = time.monotonic_ns() // 1000
        offset = database - monotonic
        if self._offset is None or offset > self._offset or monotonic - self._at > self.WINDOW:
            self._offset, self._at = offset, monotonic
