"""What the journal sets aside: units that fail as often as they are tried, while others are written.

Each has a timer of its own; when that rings, it is due, and the journal tries it once more between the batches of the
others. It is the timer that says so and no look at the clock, for a loop may ring a moment before the time. A unit that
fails again is put off for longer, up to half a minute. And after a try that failed all of them rest for so long that
the others have most of the time, however many are set aside: each may have waited for a lock.

It knows nothing of the store: the journal asks which is due, and says how the try went.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from perdure.client.sources import Source
from perdure.model.writes import Unit

SECONDS, SECONDS_MAX = 0.1, 30.0  # between two tries
SHARE = 4  # ... and so many times what a try takes


class Unwritten:
    """A unit that is set aside."""

    __slots__ = ("delay", "has_more", "source", "told", "unit", "withdrawn")

    def __init__(self, source: Source, unit: Unit, told: asyncio.Future[None], withdrawn: bool) -> None:
        self.source = source
        self.unit = unit
        self.told = told
        self.delay = SECONDS
        self.has_more = False  # its source has more to write, which waits for this
        self.withdrawn = withdrawn  # it is to be told, and not tried again


class Aside:
    """See the head of this file; ``wake`` is called when something is due."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wake: Callable[[], None]) -> None:
        self._loop = loop
        self._wake = wake
        self.units: dict[int, Unwritten] = {}  # by source, which has no other under way
        self.due: dict[int, Unwritten] = {}  # of these, longest due first
        self._rests = False

    def add(self, source: Source, unit: Unit, *, withdrawn: bool = False) -> None:
        """Set this aside; it is due after a moment."""
        one = self.units[id(source)] = Unwritten(source, unit, self._loop.create_future(), withdrawn)
        self._loop.call_at(self._loop.time() + one.delay, self._ring, one)

    @property
    def ready(self) -> bool:
        """Whether one is to be tried now."""
        return bool(self.due) and not self._rests

    def pop_due(self) -> Unwritten:
        """That one. Then say what it came to: ``put_off`` or ``drop``."""
        return self.due.pop(next(iter(self.due)))

    def put_off(self, one: Unwritten, seconds: float) -> None:
        """It failed again, in a try of so many seconds."""
        now, rest = self._loop.time(), SHARE * seconds
        if rest:
            self._rests = True
            self._loop.call_at(now + rest, self._rested)
        if one.withdrawn:
            self._ring(one)
            return
        self._loop.call_at(now + max(one.delay, rest), self._ring, one)
        one.delay = min(2 * one.delay, SECONDS_MAX)

    def drop(self, one: Unwritten) -> None:
        """It has its verdict."""
        del self.units[id(one.source)]
        self.due.pop(id(one.source), None)

    def holds_up(self, source: Source) -> bool:
        """Whether this source, which has more to write, waits for what is here of it."""
        if (one := self.units.get(id(source))) is None:
            return False
        one.has_more = True
        return True

    def withdraw(self, source: Source) -> bool:
        """Whether something of this source is here; the next look at it then tells it, without another try."""
        if (one := self.units.get(id(source))) is None:
            return False
        one.withdrawn = True
        self._ring(one)
        return True

    def of(self, source: Source) -> Unwritten | None:
        """What is here of this source."""
        return self.units.get(id(source))

    def abort(self) -> None:
        """Drop everything, and keep nobody waiting for it."""
        units, self.units, self.due = self.units, {}, {}
        for one in units.values():
            one.told.set_result(None)

    def _rested(self) -> None:
        self._rests = False
        if self.due:
            self._wake()

    def _ring(self, one: Unwritten) -> None:
        if self.units.get(id(one.source)) is one:  # else it was withdrawn and told before its time
            self.due[id(one.source)] = one
            self._wake()
