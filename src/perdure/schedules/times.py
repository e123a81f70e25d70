"""Nominal times: the instants at which a schedule means to fire, computed from its spec alone.

Promises, for every zone and its changes of the clock, compared with a brute-force oracle in the tests:

- the times of a spec strictly increase, and are the same whatever time one asks from, forwards or backwards;
- a wall-clock time that the clocks jump over (a gap) is the first instant after the gap; several of them are that one;
- a wall-clock time that comes twice (a fold) is its first coming;
- an expression that names *every* hour goes by elapsed time instead: it fires in both comings of a repeated hour, and
  has nothing to make up for in a gap. ("Every five minutes" does not pause for an hour in October.)

Cron expressions have five fields, or six with seconds first; what they match is for ``cronsim`` to say, asked in plain
wall-clock time. Zones are resolved here: its own rule for gaps and folds is that of one cron, and not for six fields.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache

from cronsim import CronSim, CronSimError

from perdure.errors import DefinitionError
from perdure.model.info import EPOCH, from_datetime, to_datetime
from perdure.model.schedules import Spec

SECOND = 1_000_000
DAY = 86_400 * SECOND
EVERY_MIN = SECOND
CATCH_UP_MAX = 1_000  # each commit walks back so far: longer would keep the loop that does it
CRON_CHARS_MAX = 200
START = datetime(2000, 1, 1)  # noqa: DTZ001  wall-clock time is what expressions speak of
TAKES = {
    "second": "0-59", "minute": "0-59", "hour": "0-23", "day-of-month": "1-31, L (the last) or LW (the last weekday)",
    "month": "1-12 or JAN-DEC", "day-of-week": "0-7 or SUN-SAT (0 and 7 are Sunday), 5L (the last), 5#2 (the second)",
}  # fmt: skip
NEVER = "cron expression {!r} names a day that never comes; look at its day and month"
NICKNAMES = {
    "@HOURLY": "0 * * * *", "@DAILY": "0 0 * * *", "@MIDNIGHT": "0 0 * * *", "@WEEKLY": "0 0 * * 0",
    "@MONTHLY": "0 0 1 * *", "@YEARLY": "0 0 1 1 *", "@ANNUALLY": "0 0 1 1 *",
}  # fmt: skip


class Times:
    """The nominal times of one spec. ``anchor``: what ``every`` counts from."""

    def __init__(self, cron: str | None, every: int | None, tz: str, anchor: int) -> None:
        self._every = every
        self._anchor = anchor
        self._zone = zone(tz)
        self._cron = "" if cron is None else NICKNAMES.get(cron.strip().upper(), cron)
        self._by_hour = bool(cron) and CronSim(self._cron, START).hours == set(range(24))

    def after(self, at: int) -> int | None:
        """The first one after ``at``; None if there is none (within fifty years)."""
        if self._every is not None:
            return self._anchor + ((at - self._anchor) // self._every + 1) * self._every
        return self._elapsed_after(at) if self._by_hour else self._once_after(at)

    def before(self, at: int) -> int | None:
        """The last one before ``at``."""
        if self._every is not None:
            return self._anchor + ((at - 1 - self._anchor) // self._every) * self._every
        return self._elapsed_before(at) if self._by_hour else self._once_before(at)

    def within(self, first: int, last: int) -> Iterator[int]:
        """Those from ``first`` to ``last``, both inclusive."""
        at = self.after(first - 1)
        while at is not None and at <= last:
            yield at
            at = self.after(at)

    # -- wall-clock times, each fired once: the instant never goes back as the wall-clock time goes on

    def _once_after(self, at: int) -> int | None:
        for wall in CronSim(self._cron, self._wall(at)):
            if (instant := self._resolve(wall)) > at:
                return instant
        return None

    def _once_before(self, at: int) -> int | None:
        # Within a repeated hour, wall-clock times after the one shown now have been, too.
        wall_at = max(self._wall(at), EPOCH.replace(tzinfo=None) + timedelta(microseconds=at + self._offset(at - DAY)))
        for wall in CronSim(self._cron, wall_at + timedelta(seconds=1), reverse=True):
            if (instant := self._resolve(wall)) < at:
                return instant
        return None

    def _resolve(self, wall: datetime) -> int:
        """The instant of a wall-clock time: of two its first, of none the end of the gap."""
        instant = from_datetime(wall.replace(tzinfo=self._zone, fold=0).astimezone(UTC))
        if self._wall(instant) == wall:
            return instant
        change = self._last_change(instant - 2 * DAY, instant)
        assert change is not None, "only a change of the clock makes a gap"
        return change

    # -- elapsed time: the wall clock is followed from one change of it to the next

    def _elapsed_after(self, at: int) -> int | None:
        wall = self._wall(at)
        while True:
            found = next(CronSim(self._cron, wall), None)
            if found is None:
                return None
            instant = from_datetime(found.replace(tzinfo=UTC)) - self._offset(at)
            change = self._first_change(at, instant)
            if change is None:
                return instant
            at, wall = change, self._wall(change) - timedelta(seconds=1)

    def _elapsed_before(self, at: int) -> int | None:
        while True:
            offset = self._offset(at - 1)
            wall = EPOCH.replace(tzinfo=None) + timedelta(microseconds=at + offset)
            found = next(CronSim(self._cron, wall, reverse=True), None)
            if found is None:
                return None
            instant = from_datetime(found.replace(tzinfo=UTC)) - offset
            change = self._last_change(instant, at - 1)
            if change is None:
                return instant
            at = change

    # -- the zone

    def _wall(self, at: int) -> datetime:
        """What the clocks show, without a zone."""
        return to_datetime(at).astimezone(self._zone).replace(tzinfo=None, fold=0)

    def _offset(self, at: int) -> int:
        offset = to_datetime(at).astimezone(self._zone).utcoffset()
        return 0 if offset is None else offset // timedelta(microseconds=1)

    def _first_change(self, start: int, end: int) -> int | None:
        """When the clocks are first changed after ``start``, not after ``end``."""
        if self._zone is UTC:
            return None
        offset = self._offset(start)
        while start < end:
            stop = min(start + DAY, end)
            if self._offset(stop) != offset:
                return self._change_between(start, stop)
            start = stop
        return None

    def _last_change(self, start: int, end: int) -> int | None:
        """When they are last changed after ``start``, not after ``end``."""
        if self._zone is UTC:
            return None
        offset = self._offset(end)
        while end > start:
            stop = max(end - DAY, start)
            if self._offset(stop) != offset:
                return self._change_between(stop, end)
            end = stop
        return None

    def _change_between(self, low: int, high: int) -> int:
        """The instant (a whole second) of the one change after ``low``, not after ``high``."""
        before, low, high = self._offset(low), low // SECOND, -(-high // SECOND)
        while high - low > 1:
            middle = (low + high) // 2
            if self._offset(middle * SECOND) == before:
                low = middle
            else:
                high = middle
        return high * SECOND


@lru_cache(maxsize=1024)
def _times(cron: str | None, every: int | None, tz: str, anchor: int) -> Times:
    return Times(cron, every, tz, anchor)


def times_of(spec: Spec, anchor: int) -> Times:
    """The nominal times of a spec. Raises ``DefinitionError`` for a zone that this machine does not know."""
    return _times(*spec.timing, 0 if spec.every is None else anchor)


def local(at: int, tz: str) -> datetime:
    """An instant as the aware datetime of a zone."""
    return to_datetime(at).astimezone(zone(tz))


# -- checks: what users give


def zone(name: str) -> tzinfo:
    """The zone of a name. Raises ``DefinitionError``."""
    if name == "UTC":
        return UTC
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError, TypeError):
        raise DefinitionError(
            f"tz={name!r} is no time zone that is known here; give a name such as 'Europe/Berlin' or 'UTC' "
            "(a machine without zone data needs: pip install tzdata)"
        ) from None


def check(spec: Spec) -> None:
    """Raise ``DefinitionError``, showing the value and what to do, for a spec that cannot be."""
    if (spec.cron is None) == (spec.every is None):
        given = "neither" if spec.cron is None else f"both {spec.cron!r} and every={(spec.every or 0) / SECOND:g} s"
        raise DefinitionError(
            f"a schedule has a cron expression or every=, {given} was given: schedule('0 2 * * *'), or "
            "schedule(every=timedelta(minutes=5))"
        )
    zone(spec.tz)
    if spec.cron is not None:
        _check_cron(spec.cron)
    elif spec.every is not None and spec.every < EVERY_MIN:
        raise DefinitionError(
            f"every={spec.every / SECOND:g} s is too often: a schedule fires at most once a second; for more, "
            "let one workflow loop"
        )
    elif spec.tz != "UTC":
        raise DefinitionError(f"tz={spec.tz!r} means nothing to every=, which goes by elapsed time; leave it out")
    for what, value, known in (
        ("missed", spec.missed, ("skip", "once", "all")),
        ("overlap", spec.overlap, ("allow", "skip", "queue")),
    ):
        if value not in known:
            raise DefinitionError(f"{what}={value!r} is none of {', '.join(map(repr, known))}")
    if spec.catch_up is not None and not 1 <= spec.catch_up <= CATCH_UP_MAX:
        raise DefinitionError(
            f"catch_up={spec.catch_up!r} cannot be: give a number of times from 1 to {CATCH_UP_MAX:,}, or a timedelta; "
            "to catch up with none: missed='skip'"
        )


def _check_cron(cron: str) -> None:
    text = NICKNAMES.get(cron.strip().upper(), cron)
    parts = text.split()
    if len(parts) not in (5, 6) or len(cron) > CRON_CHARS_MAX:
        raise DefinitionError(
            f"cron expression {cron!r} has {len(parts)} field{'' if len(parts) == 1 else 's'}; give five: minute, "
            "hour, day of month, month, day of week (such as '0 2 * * *', at two o'clock), or six with seconds first"
        )
    try:
        first = next(CronSim(text, START), None)
    except CronSimError as error:
        name = str(error).removeprefix("Bad ")
        at = list(TAKES).index(name) - (len(parts) == 5)
        if name == "day-of-month" and _valid([*parts[: at + 1], "*", *parts[at + 2 :]]):
            raise DefinitionError(NEVER.format(cron)) from None  # the day is one, but not of that month
        raise DefinitionError(
            f"cron expression {cron!r}: {name} {parts[at]!r} cannot be; it takes {TAKES[name]}, "
            "with * , - and / (such as */15 or 1-5)"
        ) from None
    if first is None:
        raise DefinitionError(NEVER.format(cron))


def _valid(parts: Sequence[str]) -> bool:
    try:
        CronSim(" ".join(parts), START)
    except CronSimError:
        return False
    return True
