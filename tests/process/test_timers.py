"""Timers of processes: absolute times, outside recovery, one firing each."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from perdure import App
from perdure.api.process import Process
from perdure.schemes.grammar import State
from perdure.testing import Harness, harness
from tests.process.world import World, moves


async def in_review(world: World, h: Harness, id: str = "a") -> Any:
    p = await world.start(h, id)
    await p.set_state("Review", run=False)
    return p


async def test_a_timer_fires_when_it_is_due(world: World, h: Harness) -> None:
    p = await in_review(world, h)
    await h.advance(1.9)
    assert await p.state() == "Review"
    await h.advance(0.1)
    assert (await p.status(), await p.state()) == ("Idled", "Escalated")
    last = (await p.history())[-1]
    assert (last.trigger, last.name, last.actor, last.late) == ("timer", "stale", None, timedelta(0))
    await h.advance(100)
    assert (await moves(p)).count("Review>Escalated timer") == 1


async def test_due_while_nobody_works_it_fires_once_and_says_how_late(app: App, database: str) -> None:
    world = World(app)
    async with harness(app, database=database) as h:
        handles = [await in_review(world, h, f"p{n}") for n in range(5)]
        h._work.engine.executor._stop_polling()  # type: ignore[union-attr]  # nobody looks
        looks = h._work.engine.executor
        looks._closed = True  # type: ignore[union-attr]
        h.clock.move_to(h.clock.now() + 60_000_000)
        await asyncio.sleep(0)
        assert [await p.state() for p in handles] == ["Review"] * 5
        await h.crash()
        await h.settle()
        for p in handles:
            last = (await p.history())[-1]
            assert (last.target, last.trigger, last.late) == ("Escalated", "timer", timedelta(seconds=58))


async def test_killed_in_the_action_that_a_timer_began_it_fires_again(world: World, h: Harness) -> None:
    p = await in_review(world, h)
    world.shut("Escalated")
    moving = asyncio.ensure_future(h.advance(2))
    await world.in_action("Escalated")
    await h.crash()
    world.open("Escalated")
    await moving
    await h.settle()
    assert (await p.status(), await p.state()) == ("Idled", "Escalated")
    assert (await moves(p))[-2:] == ["=Review recovery", "Review>Escalated timer"]


async def test_in_error_its_timer_fires_at_its_old_time(world: World, h: Harness) -> None:
    p = await in_review(world, h)
    await h.advance(1)
    world.fails["Booking"] = [ValueError("no")]
    with pytest.raises(ValueError, match="no"):
        await p.execute("approve")
    assert (await p.status(), await p.state()) == ("Error", "Review")
    await h.advance(0.9)
    assert await p.status() == "Error"
    await h.advance(0.1)
    assert (await p.status(), await p.state()) == ("Idled", "Escalated")


async def test_a_timer_whose_action_fails_waits_anew(world: World, h: Harness) -> None:
    p = await in_review(world, h)
    world.fails["Escalated"] = [ValueError("no"), ValueError("no")]
    await h.advance(2)
    assert (await p.status(), await p.state(), world.counts["Escalated"]) == ("Error", "Review", 1)
    await h.advance(1.9)
    assert world.counts["Escalated"] == 1
    await h.advance(0.1)
    assert world.counts["Escalated"] == 2
    await h.advance(2)
    assert (await p.status(), await p.state()) == ("Idled", "Escalated")


class Clocks:
    def __init__(self, app: App) -> None:
        @app.process
        class Clock(Process):
            times: int = 0
            a = State(initial=True)
            b = State()
            end = State(final=True)
            again = a.to(a)
            kept = a.to(end, after=timedelta(seconds=10), keep=True)
            anew = a.to(b, after=timedelta(seconds=8))
            back = b.to(a)

            async def on_enter_a(self) -> None:
                self.times += 1

        @app.process
        class Beat(Process):
            beats: int = 0
            on = State(initial=True)
            off = State(final=True)
            beat = on.to.itself(every=timedelta(seconds=3), internal=True, on="count")
            stop = on.to(off, auto=True, cond="beats >= 3")

            async def count(self) -> None:
                self.beats += 1

        self.Clock, self.Beat = Clock, Beat


async def test_kept_or_anew_when_the_state_is_entered_again(app: App, database: str) -> None:
    clocks = Clocks(app)
    async with harness(app, database=database) as h:
        p = await clocks.Clock.options(id="c").start()
        await h.advance(5)
        await p.execute("again")
        await h.crash()
        await h.advance(4.9)
        assert await p.state() == "a"
        await h.advance(0.1)
        assert (await p.status(), await p.state(), (await p.parameters()).times) == ("Finalized", "end", 2)


async def test_every_so_often_until_the_state_is_left(app: App, database: str) -> None:
    clocks = Clocks(app)
    async with harness(app, database=database) as h:
        p = await clocks.Beat.options(id="b").start()
        await h.advance(8)
        assert (await p.parameters()).beats == 2
        await h.advance(1)
        assert (await p.status(), (await p.parameters()).beats) == ("Finalized", 3)
