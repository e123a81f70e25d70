"""The executor's estimate of the database's time, and the one place that knows of real time.

Promises: ``now()`` never runs ahead of the database's clock (so that no timer fires early), and never goes back
within one process. Production leaves the time of every statement to the database (``stamp`` is None); a virtual clock
gives its own.
"""

from __future__ import annotations

from typing import Protocol

from perdure.model.real import time


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
    largest such bound seen lately keeps the estimate tight and still never early. Lately is this window or the one
    before it: taken anew from a single answer, the estimate would be late by as much as that one was under way.
    """

    WINDOW = 30_000_000  # a bound counts for so long at least and for twice as long at most: drift cannot add up

    __slots__ = ("_before", "_began", "_last", "_latest")

    def __init__(self) -> None:
        self._latest: int | None = None  # the largest offset of this window
        self._before = 0  # … and of the one before it
        self._began = 0  # this window, by the monotonic clock
        self._last = 0

    def now(self) -> int:
        monotonic = time.monotonic_ns() // 1000
        offset = time.time_ns() // 1000 - monotonic if self._latest is None else max(self._latest, self._before)
        self._last = max(self._last, monotonic + offset)
        return self._last

    def stamp(self) -> int | None:
        return None

    def observe(self, database: int) -> None:
        monotonic = time.monotonic_ns() // 1000
        offset = database - monotonic
        if self._latest is None or monotonic - self._began > 2 * self.WINDOW:
            self._latest = self._before = offset
            self._began = monotonic
        elif monotonic - self._began > self.WINDOW:
            self._latest, self._before, self._began = offset, self._latest, monotonic
        else:
            self._latest = max(self._latest, offset)
