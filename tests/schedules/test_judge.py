"""What becomes of times that are due, as a table; and that each is accounted for, whatever is thrown at it."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from perdure.model.schedules import Schedule, Spec, State
from perdure.schedules.judge import BATCH, WAITING_MAX, judge, left_out, workflow_id
from perdure.schedules.times import times_of

MINUTE = 60_000_000
HOUR = 60 * MINUTE
SECOND = 1_000_000


def row(every: int = HOUR, next: int = HOUR, **fields: Any) -> Schedule:
    names = Spec.__struct_fields__
    spec = Spec(workflow="w", every=every, **{k: v for k, v in fields.items() if k in names})
    rest = {k: v for k, v in fields.items() if k not in names}
    return Schedule(name="s", spec=spec, next=next, anchor=0, **rest)


def told(schedule: Schedule, now: int) -> list[str]:
    """Each firing in short: its hour, what became of it, why."""
    marks = {State.STARTED: "!", State.SKIPPED: "-", State.WAITING: "~"}
    firings = judge(schedule, now).firings
    return [
        f"{one.at // HOUR}{'' if one.until == one.at else f'..{one.until // HOUR}'}{marks[one.state]}{one.reason}"
        for one in firings
    ]


@pytest.mark.parametrize(
    ("fields", "now", "expected"),
    [
        ({}, HOUR, ["1!"]),
        ({}, HOUR + 59 * SECOND, ["1!"]),
        ({"missed": "skip"}, HOUR + 59 * SECOND, ["1!"]),
        ({"missed": "skip"}, HOUR + 61 * SECOND, ["1-missed"]),
        ({"missed": "once"}, HOUR + 61 * SECOND, ["1!"]),
        ({"missed": "once"}, 3 * HOUR + 30 * MINUTE, ["1-missed", "2-missed", "3!"]),
        ({"missed": "skip"}, 3 * HOUR + 30 * MINUTE, ["1-missed", "2-missed", "3-missed"]),
        ({"missed": "all"}, 3 * HOUR + 30 * MINUTE, ["1!", "2!", "3!"]),
        ({"missed": "once"}, 3 * HOUR + SECOND, ["1-missed", "2-missed", "3!"]),
        ({"missed": "skip"}, 3 * HOUR + SECOND, ["1-missed", "2-missed", "3!"]),
        ({"missed": "all", "catch_up": 2}, 4 * HOUR, ["1..2-catch_up", "3!", "4!"]),
        ({"missed": "all", "catch_up": 1}, 4 * HOUR, ["1..3-catch_up", "4!"]),
        ({"missed": "all", "catch_up": None, "catch_up_span": 2 * HOUR}, 5 * HOUR, ["1..2-catch_up", "3!", "4!", "5!"]),
        ({"missed": "once", "catch_up": None, "catch_up_span": HOUR}, 3 * HOUR + 30 * MINUTE, ["1..2-catch_up", "3!"]),
        (
            {"missed": "once", "catch_up": None, "catch_up_span": MINUTE},
            3 * HOUR + 30 * MINUTE,
            ["1..2-catch_up", "3-catch_up"],
        ),
        ({"overlap": "skip", "busy": True, "last": "x"}, HOUR, ["1-overlap"]),
        ({"overlap": "allow", "busy": True, "last": "x"}, HOUR, ["1!"]),
        ({"overlap": "queue", "busy": True, "last": "x"}, HOUR, ["1~"]),
        ({"overlap": "queue", "waiting": 1, "last": "x"}, HOUR, ["1~"]),
        ({"overlap": "queue", "busy": True, "waiting": WAITING_MAX}, HOUR, ["1-overlap"]),
        ({"overlap": "skip", "missed": "all"}, 3 * HOUR, ["1!", "2-overlap", "3-overlap"]),
        ({"overlap": "queue", "missed": "all"}, 3 * HOUR, ["1!", "2~", "3~"]),
    ],
)
def test_table(fields: dict[str, Any], now: int, expected: list[str]) -> None:
    assert told(row(**fields), now) == expected


def test_a_look_that_is_a_little_late_misses_nothing_of_a_schedule_of_seconds() -> None:
    schedule = row(every=SECOND, next=10 * SECOND, missed="skip")
    started = [one.at for one in judge(schedule, 12 * SECOND).firings if one.state is State.STARTED]
    assert started == [10 * SECOND, 11 * SECOND, 12 * SECOND]


def test_ids_tell_times_apart() -> None:
    assert workflow_id("nightly", 0) == "nightly@1970-01-01T00:00:00Z"
    assert workflow_id("nightly", 1) == "nightly@1970-01-01T00:00:00.000001Z"


def test_left_out_is_one_line() -> None:
    [line] = left_out(row(next=2 * HOUR), 5 * HOUR + 1, "paused", "why")
    assert (line.at, line.until, line.state, line.reason) == (2 * HOUR, 5 * HOUR, State.SKIPPED, "paused")
    assert left_out(row(next=2 * HOUR), 2 * HOUR - 1, "paused", "why") == ()


@pytest.mark.parametrize("seed", range(60))
def test_each_time_is_accounted_for_once(seed: int) -> None:
    """However late one looks, in however many commits: what is covered has neither gaps nor overlaps."""
    rng = random.Random(seed)
    bound: dict[str, Any] = {"catch_up": rng.choice([1, 7, 500])}
    if rng.random() < 0.4:
        bound = {"catch_up": None, "catch_up_span": rng.choice([0, 30 * SECOND, HOUR])}
    spec = Spec(
        workflow="w", missed=rng.choice(["skip", "once", "all"]), overlap=rng.choice(["allow", "skip", "queue"]),
        **(rng.choice([{"every": 7 * SECOND}, {"cron": "*/13 * * * * *"}, {"cron": "30 * * * *"}])), **bound,
    )  # fmt: skip
    times = times_of(spec, 3)
    first = times.after(1_700_000_000 * SECOND)
    assert first is not None
    schedule = Schedule(name="s", spec=spec, next=first, anchor=3)
    covered: list[int] = []
    now = first
    for _ in range(6):
        now += rng.choice([0, SECOND, 3 * SECOND, 90 * SECOND, 2 * HOUR])
        while schedule.next is not None and schedule.next <= now:
            judged = judge(schedule, now)
            assert len(judged.firings) <= BATCH + 1
            for one in judged.firings:
                covered += list(times.within(one.at, one.until))
            schedule = msgspec.structs.replace(judged.after, busy=rng.random() < 0.5)
    assert covered == list(times.within(first, now))
