"""When timers are due."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pytest

from perdure.errors import DefinitionError, SchemeError
from perdure.model.info import from_datetime
from perdure.schemes.form import Timer
from perdure.schemes.times import again, due, span

NOON = from_datetime(datetime(2026, 7, 1, 12, tzinfo=UTC))
SECOND = 1_000_000


def when(timer: Timer, now: int = NOON, **values: Any) -> int | None:
    asked = due(timer, now)
    try:
        name = next(asked)
        while True:
            name = asked.send(values[name])
    except StopIteration as end:
        found: int | None = end.value
        return found


def at(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> int:
    return from_datetime(datetime(year, month, day, hour, minute, tzinfo=UTC))


def test_intervals() -> None:
    assert when(Timer(after=5)) == NOON + 5
    assert when(Timer(every=5)) == NOON + 5
    assert when(Timer(after=0)) == NOON


def test_dates() -> None:
    assert when(Timer(at="2026-12-24T18:00:00+01:00")) == at(2026, 12, 24, 17)
    assert when(Timer(at="2026-12-24T18:00", tz="Europe/Berlin")) == at(2026, 12, 24, 17)
    assert when(Timer(at="2026-12-24")) == at(2026, 12, 24)
    assert when(Timer(at="2020-01-01")) == at(2020, 1, 1)  # past: due at once


def test_times_of_day() -> None:
    assert when(Timer(at="13:00")) == at(2026, 7, 1, 13)
    assert when(Timer(at="12:00")) == at(2026, 7, 2, 12)  # now is not next
    assert when(Timer(at="09:30", tz="Europe/Berlin")) == at(2026, 7, 2, 7, 30)


def test_a_time_of_day_that_the_clocks_jump_over() -> None:
    """2026-03-29 02:30 does not exist in Berlin: it is the same while after the jump. At 03:45 it is past."""
    before = at(2026, 3, 29, 0, 30)
    assert when(Timer(at="02:30", tz="Europe/Berlin"), before) == at(2026, 3, 29, 1, 30)
    assert when(Timer(at="02:30", tz="Europe/Berlin"), at(2026, 3, 29, 1, 45)) == at(2026, 3, 30, 0, 30)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (90, NOON + 90 * SECOND),
        (0.5, NOON + SECOND // 2),
        (-3, NOON),
        (timedelta(hours=1), NOON + 3600 * SECOND),
        (timedelta(days=-1), NOON),
        (datetime(2026, 8, 1, tzinfo=UTC), at(2026, 8, 1)),
        (datetime(2026, 8, 1, 2), at(2026, 8, 1)),
        (date(2026, 8, 1), at(2026, 7, 31, 22)),
        (time(23), at(2026, 7, 1, 21)),
    ],
)
def test_expressions(value: object, expected: int | None) -> None:
    assert when(Timer(at="deadline", tz="Europe/Berlin"), deadline=value) == expected


def test_an_expression_computes() -> None:
    assert when(Timer(at="days * 86400"), days=2) == NOON + 2 * 86_400 * SECOND


@pytest.mark.parametrize("value", ["tomorrow", True, [1]])
def test_what_is_no_time(value: object) -> None:
    with pytest.raises(TypeError, match="give a datetime, a duration, seconds from now, or None for never"):
        when(Timer(at="deadline"), deadline=value)


def test_again() -> None:
    every = Timer(every=10)
    assert again(every, 100, 100) == 110
    assert again(every, 100, 109) == 110
    assert again(every, 100, 110) == 120  # the one at 110 is missed: this firing stands for it
    assert again(every, 100, 105) == 110
    assert again(every, 100, 95) == 110
    assert again(Timer(after=10), 100, 100) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3d", 259_200),
        ("1d 2h 30m", 95_400),
        ("90s", 90),
        ("250ms", 0.25),
        ("1w", 604_800),
        ("1.5s", 1.5),
        (2, 2),
        (0.5, 0.5),
    ],
)
def test_durations_in_files(text: object, expected: float) -> None:
    assert span(text) == timedelta(seconds=expected)


@pytest.mark.parametrize("text", ["", "3", "soon", "3 days", "-3d", None, True, "3d4"])
def test_no_durations(text: object) -> None:
    with pytest.raises(SchemeError, match="is not a duration; write '3d'"):
        span(text)


def test_a_duration_that_is_negative() -> None:
    from perdure.schemes.envelope import timer

    with pytest.raises(DefinitionError, match="negative"):
        timer(-3, "stale")
