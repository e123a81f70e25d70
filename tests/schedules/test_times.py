"""Nominal times against the oracle: twenty zones, ten years, gaps and folds; and what expressions may say."""

from __future__ import annotations

import os
import random
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from perdure.errors import DefinitionError
from perdure.model.info import from_datetime, to_datetime
from perdure.model.schedules import Spec
from perdure.schedules.times import Times, check, times_of
from tests.effort import EFFORT
from tests.schedules.oracle import ZONES, oracle

SEED = int(os.environ.get("PERDURE_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
DAILY = "30 2 * * *"  # some of the others have no time in some years
FULL = EFFORT == "all" or os.environ.get("PERDURE_TEST_SCHEDULES") == "all"  # all expressions, all ten years
YEARS = range(2016, 2026)
DENSE = ("*/20 * * * *", "30 * * * *", "0 */10 1-3 * * *", "*/15 0-3 * * *")  # on days around changes of the clock
SPARSE = (
    "0 2 * * *", "30 2 * * *", "30 1 * * *", "0 0 * * *", "15 3 * * 0", "0 12 1 * *", "59 23 31 12 *", "45 1,2 * * 6,0",
    "0 0 29 2 *", "0 3 1-7 4,10 1", "30 0 2 * * *",
)  # fmt: skip


def found(cron: str, zone: str, first: datetime, last: datetime) -> list[datetime]:
    times = Times(cron, None, zone, 0)
    return [to_datetime(at) for at in times.within(from_datetime(first), from_datetime(last))]


def backwards(cron: str, zone: str, first: datetime, last: datetime) -> list[datetime]:
    times, start = Times(cron, None, zone, 0), from_datetime(first)
    back: list[datetime] = []
    at = times.before(from_datetime(last) + 1)
    while at is not None and at >= start:
        back.append(to_datetime(at))
        at = times.before(at)
    return back[::-1]


def compare(cron: str, zone: str, first: date, last: date) -> int:
    """Forwards, backwards, and from a random instant; the days at the edges are the oracle's alone."""
    edge = timedelta(days=2)
    start, end = (datetime(one.year, one.month, one.day, tzinfo=UTC) for one in (first, last))
    want = [at for at in oracle(cron, zone, first - edge, last + edge) if start <= at <= end]
    assert found(cron, zone, start, end) == want, f"{cron} in {zone}, {first} to {last}, seed {SEED}"
    assert backwards(cron, zone, start, end) == want, f"{cron} in {zone}, backwards, {first} to {last}, seed {SEED}"
    rng = random.Random(f"{SEED} {cron} {zone} {first}")
    for _ in range(20):
        at = start + (end - start) * rng.random()
        times = Times(cron, None, zone, 0)
        after, before = times.after(from_datetime(at)), times.before(from_datetime(at))
        later, earlier = [one for one in want if one > at], [one for one in want if one < at]
        if later:
            assert after is not None
            assert to_datetime(after) == later[0], f"{cron} in {zone} after {at}"
        if earlier:
            assert before is not None
            assert to_datetime(before) == earlier[-1], f"{cron} in {zone} before {at}"
    return len(want)


def changes(zone: str, year: int) -> list[date]:
    """The days on which the clocks are changed."""
    start = datetime(year, 1, 1, tzinfo=UTC)
    hours = [(start + timedelta(hours=n)).astimezone(ZoneInfo(zone)) for n in range(24 * 366)]
    return sorted({b.date() for a, b in pairwise(hours) if a.utcoffset() != b.utcoffset()})


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.slow
@pytest.mark.timeout(7200 if FULL else 120)
def test_as_by_brute_force(zone: str) -> None:
    rng = random.Random(f"{SEED} {zone}")
    compared = 0
    years = list(YEARS) if FULL else rng.sample(YEARS, 1)
    for year in years:
        for cron in SPARSE if FULL else (DAILY, rng.choice(SPARSE)):
            compared += compare(cron, zone, date(year, 1, 1), date(year, 12, 31))
        for day in changes(zone, year):
            for cron in (*DENSE, *SPARSE) if FULL else (*rng.sample(DENSE, 2), *rng.sample(SPARSE, 4)):
                compared += compare(cron, zone, day - timedelta(days=2), day + timedelta(days=2))
    print(f"\n{zone}: {compared} times compared, seed {SEED}")
    assert compared > 10


BERLIN = "Europe/Berlin"


@pytest.mark.parametrize(
    ("cron", "zone", "day", "instants"),
    [
        ("30 2 * * *", BERLIN, date(2026, 3, 29), ["2026-03-29T01:00"]),  # a gap: at its end, three o'clock
        ("0,15,30 2 * * *", BERLIN, date(2026, 3, 29), ["2026-03-29T01:00"]),  # three in it: once
        ("30 2 * * *", BERLIN, date(2026, 10, 25), ["2026-10-25T00:30"]),  # a fold: its first coming
        (
            "30 * * * *",
            BERLIN,
            date(2026, 10, 25),
            [f"2026-10-2{4 + (h > 1)}T{(h + 22) % 24:02}:30" for h in range(25)],
        ),
        ("0 0 * * *", "America/Sao_Paulo", date(2017, 10, 15), ["2017-10-15T03:00"]),  # there was no midnight
        ("45 1 * * *", "Australia/Lord_Howe", date(2026, 4, 5), ["2026-04-04T14:45"]),  # half an hour comes twice
        ("0 2 * * *", BERLIN, date(2026, 7, 1), ["2026-07-01T00:00"]),
    ],
)
def test_a_day_of_changing_clocks(cron: str, zone: str, day: date, instants: list[str]) -> None:
    start = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)).astimezone(UTC)
    end = datetime(day.year, day.month, day.day, 23, 59, tzinfo=ZoneInfo(zone)).astimezone(UTC)
    seen = [at.strftime("%Y-%m-%dT%H:%M") for at in found(cron, zone, start, end)]
    assert seen == instants


def test_a_day_that_never_was() -> None:
    """Samoa had no 30 December 2011: what was due on it comes at the first moment of the next day."""
    start, end = datetime(2011, 12, 29, 12, tzinfo=UTC), datetime(2011, 12, 31, 0, tzinfo=UTC)
    zone = ZoneInfo("Pacific/Apia")
    assert [str(at.astimezone(zone)) for at in found("0 12 * * *", "Pacific/Apia", start, end)] == [
        "2011-12-29 12:00:00-10:00", "2011-12-31 00:00:00+14:00", "2011-12-31 12:00:00+14:00",
    ]  # fmt: skip


def test_every_counts_from_its_anchor() -> None:
    times = times_of(Spec(workflow="w", every=30_000_000), anchor=7)
    assert [times.after(at) for at in (-1, 7, 8, 30_000_006, 30_000_007)] == [
        7, 30_000_007, 30_000_007, 30_000_007, 60_000_007,
    ]  # fmt: skip
    assert [times.before(at) for at in (7, 8, 30_000_007, 30_000_008)] == [-29_999_993, 7, 7, 30_000_007]


GRAMMAR = [
    ("* * * * *", "2026-01-01T00:01:00"),
    ("*/15 * * * *", "2026-01-01T00:15:00"),
    ("5/20 * * * *", "2026-01-01T00:05:00"),
    ("0 9-17/4 * * *", "2026-01-01T09:00:00"),
    ("0 0 1,15 * *", "2026-01-15T00:00:00"),
    ("0 0 L * *", "2026-01-31T00:00:00"),
    ("0 0 LW * *", "2026-01-30T00:00:00"),
    ("0 0 * * 5L", "2026-01-30T00:00:00"),
    ("0 0 * * MON#2", "2026-01-12T00:00:00"),
    ("0 0 * * 7", "2026-01-04T00:00:00"),
    ("0 0 * * 0", "2026-01-04T00:00:00"),
    ("0 0 * * sun", "2026-01-04T00:00:00"),
    ("0 0 1 feb *", "2026-02-01T00:00:00"),
    ("0 0 13 * 5", "2026-01-02T00:00:00"),  # both days named: either
    ("0 0 29 2 *", "2028-02-29T00:00:00"),
    ("30 * * * * *", "2026-01-01T00:00:30"),
    ("*/7 0 0 * * *", "2026-01-01T00:00:07"),
    ("@daily", "2026-01-02T00:00:00"),
    ("@hourly", "2026-01-01T01:00:00"),
    ("@weekly", "2026-01-04T00:00:00"),
    ("@yearly", "2027-01-01T00:00:00"),
    ("  0   2 * * *  ", "2026-01-01T02:00:00"),
]


@pytest.mark.parametrize(("cron", "first"), GRAMMAR)
def test_grammar(cron: str, first: str) -> None:
    spec = Spec(workflow="w", cron=cron)
    check(spec)
    after = times_of(spec, 0).after(from_datetime(datetime(2026, 1, 1, tzinfo=UTC)))
    assert after is not None
    assert to_datetime(after).isoformat() == f"{first}+00:00"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"cron": "61 * * * *"}, "minute '61' cannot be; it takes 0-59"),
        ({"cron": "* 24 * * *"}, "hour '24' cannot be"),
        ({"cron": "* * 0 * *"}, "day-of-month '0' cannot be; it takes 1-31, L"),
        ({"cron": "* * * 13 *"}, "month '13' cannot be; it takes 1-12 or JAN-DEC"),
        ({"cron": "* * * * 8"}, "day-of-week '8' cannot be"),
        ({"cron": "* * * * MON#6"}, "day-of-week 'MON#6' cannot be"),
        ({"cron": "60 * * * * *"}, "second '60' cannot be"),
        ({"cron": "*/0 * * * *"}, "minute '*/0' cannot be"),
        ({"cron": "5-1 * * * *"}, "minute '5-1' cannot be"),
        ({"cron": "a b c d e"}, "minute 'a' cannot be"),
        ({"cron": "1,,2 * * * *"}, "minute '1,,2' cannot be"),
        ({"cron": "-1 * * * *"}, "minute '-1' cannot be"),
        ({"cron": "0 0 31 2 *"}, "'0 0 31 2 *' names a day that never comes"),
        ({"cron": "0 0 30 2 *"}, "'0 0 30 2 *' names a day that never comes"),
        ({"cron": "* * * *"}, "has 4 fields; give five"),
        ({"cron": "* * * * * * *"}, "has 7 fields; give five"),
        ({"cron": ""}, "has 0 fields; give five"),
        ({"cron": "@reboot"}, "has 1 field; give five"),
        ({"cron": "0 2 * * *", "tz": "Berlin"}, "tz='Berlin' is no time zone"),
        ({"cron": "0 2 * * *", "tz": "../etc/passwd"}, "is no time zone"),
        ({"cron": "0 2 * * *", "tz": ""}, "tz='' is no time zone"),
        ({}, "neither was given"),
        ({"cron": "0 2 * * *", "every": 60_000_000}, "both '0 2 * * *' and every=60 s was given"),
        ({"every": 500_000}, "every=0.5 s is too often"),
        ({"every": 60_000_000, "tz": BERLIN}, "means nothing to every="),
        ({"every": 60_000_000, "missed": "never"}, "missed='never' is none of 'skip', 'once', 'all'"),
        ({"every": 60_000_000, "overlap": "no"}, "overlap='no' is none of 'allow', 'skip', 'queue'"),
        ({"every": 60_000_000, "catch_up": 0}, "catch_up=0 cannot be"),
        ({"every": 60_000_000, "catch_up": 1_001}, "catch_up=1001 cannot be"),
    ],
)
def test_what_cannot_be_is_shown(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(DefinitionError) as raised:
        check(Spec(workflow="w", **fields))
    assert says in str(raised.value)
