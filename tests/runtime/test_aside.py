"""What the journal sets aside, alone: when each is due, by a clock that the test moves and timers that it rings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from perdure.client.aside import SECONDS, SECONDS_MAX, SHARE, Aside, Unwritten
from perdure.client.sources import NOTHING, Outside

EARLY = 1e-6


class Clockwork:
    """As much of a loop as ``Aside`` needs."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[tuple[float, Callable[[], object]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> None:
        self.timers.append((when, lambda: callback(*args)))

    def create_future(self) -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future()

    def waits(self) -> list[float]:
        return sorted(when - self.now for when, _ in self.timers)

    def ring(self) -> None:
        """The next timer, a moment early, as a loop may ring it."""
        self.timers.sort(key=lambda timer: timer[0])
        when, callback = self.timers.pop(0)
        self.now = when - EARLY
        callback()


@pytest.fixture
async def clock() -> Clockwork:
    return Clockwork()


@pytest.fixture
async def woken() -> list[int]:
    """How many were due each time that the journal was woken."""
    return []


@pytest.fixture
async def aside(clock: Clockwork, woken: list[int]) -> Aside:
    made = Aside(cast(asyncio.AbstractEventLoop, clock), lambda: woken.append(len(made.due)))
    return made


def source() -> Outside:
    return Outside(NOTHING, asyncio.get_running_loop().create_future())


def add(aside: Aside, of: Outside | None = None) -> Unwritten:
    of = of or source()
    aside.add(of, NOTHING)
    return aside.units[id(of)]


async def test_it_is_due_when_its_timer_rings_though_that_is_early(
    aside: Aside, clock: Clockwork, woken: list[int]
) -> None:
    one = add(aside)
    assert clock.waits() == pytest.approx([SECONDS])
    assert (aside.due, woken) == ({}, [])
    clock.ring()
    assert woken == [1]
    assert aside.pop_due() is one
    assert not aside.due, "it is tried once"


async def test_it_is_put_off_for_twice_as_long_each_time_to_an_end(aside: Aside, clock: Clockwork) -> None:
    one = add(aside)
    waits = list[float]()
    for _ in range(12):
        clock.ring()
        assert aside.pop_due() is one
        aside.put_off(one, 0.0)
        waits += clock.waits()
    assert waits[:4] == pytest.approx([SECONDS, 2 * SECONDS, 4 * SECONDS, 8 * SECONDS])
    assert waits[-1] == pytest.approx(SECONDS_MAX)


async def test_a_try_that_takes_long_leaves_the_others_most_of_the_time(aside: Aside, clock: Clockwork) -> None:
    add(aside)
    clock.ring()
    aside.put_off(aside.pop_due(), 60.0)
    assert clock.waits() == pytest.approx([SHARE * 60.0] * 2)


async def test_after_a_try_that_failed_all_rest(aside: Aside, clock: Clockwork, woken: list[int]) -> None:
    add(aside)
    second = add(aside)
    clock.ring()
    clock.ring()
    aside.put_off(aside.pop_due(), 0.5)
    assert not aside.ready, "the other is due, and rests too"
    clock.ring()
    assert aside.ready
    assert woken == [1, 2, 1]
    assert aside.pop_due() is second


async def test_who_is_due_for_longest_is_tried_first(aside: Aside, clock: Clockwork) -> None:
    first, second = add(aside), add(aside)
    clock.ring()
    clock.ring()
    assert [aside.pop_due(), aside.pop_due()] == [first, second]


async def test_what_is_withdrawn_is_told_at_once_and_its_timer_means_nothing_then(
    aside: Aside, clock: Clockwork, woken: list[int]
) -> None:
    of = source()
    one = add(aside, of)
    assert not aside.withdraw(source()), "of another"
    assert aside.withdraw(of)
    assert woken == [1]
    assert aside.pop_due() is one
    assert one.withdrawn
    aside.drop(one)
    again = add(aside, of)
    clock.ring()
    assert not aside.due, "the timer was of the one before"
    clock.ring()
    assert aside.pop_due() is again


async def test_what_is_withdrawn_during_a_try_that_fails_is_not_put_off(aside: Aside, clock: Clockwork) -> None:
    of = source()
    one = add(aside, of)
    clock.ring()
    aside.pop_due()
    aside.withdraw(of)
    aside.put_off(one, 60.0)
    assert clock.waits() == pytest.approx([SHARE * 60.0]), "that of the rest"
    assert aside.pop_due() is one
    assert not aside.due


async def test_what_is_withdrawn_during_a_try_that_succeeds_is_not_tried_again(aside: Aside, clock: Clockwork) -> None:
    of = source()
    one = add(aside, of)
    clock.ring()
    aside.pop_due()
    aside.withdraw(of)
    aside.drop(one)
    assert (aside.units, aside.due) == ({}, {})


async def test_a_source_with_more_to_write_is_known_by_it(aside: Aside) -> None:
    of = source()
    assert not aside.holds_up(of)
    one = add(aside, of)
    assert not one.has_more
    assert aside.holds_up(of)
    assert one.has_more


async def test_what_is_dropped_is_here_no_more_and_who_waits_for_it_is_let_go_by_the_end(
    aside: Aside, clock: Clockwork
) -> None:
    of, other = source(), source()
    one, another = add(aside, of), add(aside, other)
    assert aside.of(of) is one
    aside.drop(one)
    assert aside.of(of) is None
    assert not another.told.done()
    aside.abort()
    await another.told
    assert aside.of(other) is None
    while clock.timers:
        clock.ring()
    assert not aside.due
