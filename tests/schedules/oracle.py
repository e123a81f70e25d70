"""Nominal times by brute force, by another road than the library's.

For each wall-clock time that matches: when does this zone show it? Asked of ``zoneinfo`` by trying all offsets that the
zone has around that day; nothing of the library's own arithmetic is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo

ZONES = (
    "UTC", "Europe/Berlin", "Europe/London", "Europe/Lisbon", "Europe/Moscow", "America/New_York", "America/St_Johns",
    "America/Sao_Paulo", "America/Santiago", "America/Havana", "America/Caracas", "Africa/Casablanca", "Africa/Cairo",
    "Asia/Tehran", "Asia/Kolkata", "Asia/Gaza", "Asia/Pyongyang", "Australia/Lord_Howe", "Pacific/Apia",
    "Pacific/Chatham",
)  # fmt: skip


def field(text: str, low: int, high: int) -> set[int]:
    """Stars, numbers, ranges, lists and steps: what the oracle is asked about."""
    found: set[int] = set()
    for part in text.split(","):
        body, _, step = part.partition("/")
        first, _, last = (f"{low}-{high}" if body == "*" else body).partition("-")
        end = int(last) if last else (high if step else int(first))
        found.update(range(int(first), end + 1, int(step or 1)))
    return found


class Wanted:
    """What an expression matches."""

    def __init__(self, cron: str) -> None:
        parts = cron.split()
        if len(parts) == 5:
            parts.insert(0, "0")
        self.seconds, self.minutes = field(parts[0], 0, 59), field(parts[1], 0, 59)
        self.hours, self.months = field(parts[2], 0, 23), field(parts[4], 1, 12)
        self.days, self.weekdays = field(parts[3], 1, 31), {n % 7 for n in field(parts[5], 0, 7)}
        self.both = parts[3].startswith("*") or parts[5].startswith("*")
        self.every_hour = self.hours == set(range(24))

    def day(self, day: date) -> bool:
        by_date, by_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return day.month in self.months and ((by_date and by_week) if self.both else (by_date or by_week))

    def walls(self, day: date) -> Iterator[datetime]:
        if self.day(day):
            for hour in sorted(self.hours):
                for minute in sorted(self.minutes):
                    for second in sorted(self.seconds):
                        yield datetime.combine(day, time(hour, minute, second))


@cache
def offsets(zone: str, day: date) -> tuple[timedelta, ...]:
    """All that the zone has from two days before to two days after, hour by hour."""
    start = datetime.combine(day - timedelta(days=2), time(), UTC)
    at = (start + timedelta(minutes=15 * n) for n in range(96 * 5))
    return tuple({one.astimezone(ZoneInfo(zone)).utcoffset() or timedelta() for one in at})


@cache
def gap_end(zone: str, wall: datetime) -> datetime:
    """The first instant whose wall clock shows more than a time that it never shows: minute by minute."""
    at = (wall - timedelta(days=2)).replace(second=0, tzinfo=UTC)
    while at.astimezone(ZoneInfo(zone)).replace(tzinfo=None) < wall:
        at += timedelta(minutes=1)
    return at


def oracle(cron: str, zone: str, first: date, last: date) -> list[datetime]:
    """The instants of an expression whose wall-clock times lie on these days, in order."""
    wanted = Wanted(cron)
    found: set[datetime] = set()
    day = first
    while day <= last:
        known = offsets(zone, day)
        for wall in wanted.walls(day):
            shown = sorted(
                {
                    at
                    for offset in known
                    if (at := (wall - offset).replace(tzinfo=UTC)).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
                    == wall
                }
            )
            if wanted.every_hour:
                found.update(shown)
            else:
                found.add(shown[0] if shown else gap_end(zone, wall))
        day += timedelta(days=1)
    return sorted(found)
