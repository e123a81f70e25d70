"""After the death of an executor: Error if a command or a timer leaves the persisted state, else Terminated."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure import App
from perdure.errors import Interrupted
from perdure.testing import Harness, harness
from tests.process.world import World, moves, names


async def test_killed_in_the_action_after_a_command_it_is_in_error_where_it_stood(world: World, h: Harness) -> None:
    p = await world.start(h)
    told = await world.killed_in(h, "Check", p.execute("submit"))
    assert isinstance(told, Interrupted)
    assert (await p.status(), await p.state()) == ("Error", "Draft")
    assert not any("Check" in step for step in await moves(p))
    last = (await p.history())[-1]
    assert last.because == "its executor died in actions of Check; a command or a timer leaves Draft"
    assert await names(p) == ["submit"]
    await p.execute("submit")
    assert (await p.status(), await p.state()) == ("Idled", "Review")


async def test_the_command_is_gone_and_can_be_given_again(world: World, h: Harness) -> None:
    p = await world.start(h)
    await p.execute("submit")
    await world.killed_in(h, "Booking", p.execute("approve"))
    assert (await p.status(), await p.state(), await names(p)) == ("Error", "Review", ["approve", "reject"])
    assert world.counts["Booking"] == 1
    await p.execute("approve")
    assert world.counts["Booking"] == 2
    assert await p.status() == "Finalized"


async def in_done(world: World, h: Harness, **values: Any) -> Any:
    p = await world.start(h, **values)
    await p.execute("submit")
    await world.killed_in(h, "Done", p.execute("approve"))
    return p


async def test_killed_behind_an_automatic_exit_alone_it_is_terminated(world: World, h: Harness) -> None:
    p = await in_done(world, h)
    assert (await p.status(), await p.state()) == ("Terminated", "Booking")
    assert await names(p) == []
    info = await p.info()
    assert (info.status, info.reason, info.until) == ("held", "no_exit", None)
    assert (await moves(p))[-2:] == ["Review>Booking command", "=Booking recovery"]
    because = "its executor died in actions of Done; no command and no timer leaves Booking"
    assert (await p.history())[-1].because == because
    assert info.detail == f"in state Booking: {because}"


async def test_a_terminated_process_can_be_put_into_a_state(world: World, h: Harness) -> None:
    p = await in_done(world, h)
    before = world.counts["Review"]
    await p.set_state("Review", actor="ops", reason="by hand")
    assert (await p.status(), await p.state(), await names(p)) == ("Idled", "Review", ["approve", "reject"])
    assert world.counts["Review"] == before + 1
    last = (await p.history())[-1]
    assert (last.source, last.target, last.trigger, last.actor, last.because) == (
        "Booking", "Review", "set", "ops", "by hand",
    )  # fmt: skip


async def test_a_terminated_process_resumed_goes_on_along_its_automatic_exit(world: World, h: Harness) -> None:
    p = await in_done(world, h)
    booked = world.counts["Booking"]
    assert await p.resume() is True
    assert await p.status() == "Finalized"
    assert (world.counts["Booking"], world.counts["Done"]) == (booked, 2)


async def test_resumed_with_a_false_condition_it_is_idled_where_it_stands(world: World, h: Harness) -> None:
    p = await in_done(world, h)
    await p.set_state("Review", set={"lets": False})
    world.shut("Done")
    await p.execute("approve")
    assert (await p.status(), await p.state()) == ("Idled", "Booking")
    assert await p.resume() is False
    assert (await p.status(), await p.state()) == ("Idled", "Booking")


async def test_resumed_by_the_verb_of_workflows_it_goes_on_too(world: World, h: Harness) -> None:
    await in_done(world, h)
    await h.store.rows(["a"])
    handle = world.app.client.handle("a")
    await handle.resume(reason="looked at")
    await h.settle()
    assert await world.S.handle("a").status() == "Finalized"


async def test_with_a_command_beside_the_automatic_exit_it_is_in_error(app: App, database: str) -> None:
    world = World(app, undo=True)
    async with harness(app, database=database) as h:
        p = await in_done(world, h)
        assert (await p.status(), await p.state(), await names(p)) == ("Error", "Booking", ["undone"])
        await p.execute("undone")
        assert (await p.status(), await p.state()) == ("Idled", "Draft")


async def test_with_a_timer_beside_the_automatic_exit_it_is_in_error_and_the_timer_fires(
    app: App, database: str
) -> None:
    world = World(app, late=True)
    async with harness(app, database=database) as h:
        p = await in_done(world, h)
        assert (await p.status(), await p.state()) == ("Error", "Booking")
        await h.advance(59)
        assert await p.state() == "Booking"
        await h.advance(1)
        assert (await p.status(), await p.state()) == ("Idled", "Escalated")


async def test_killed_in_the_initial_action_the_same_start_finds_it(world: World, h: Harness) -> None:
    await world.killed_in(h, "Draft", world.S.options(id="a").start())
    p = world.S.handle("a")
    assert (await p.status(), await p.state(), await names(p)) == ("Error", "Draft", ["submit"])
    again = await world.S.options(id="a").start()
    assert again.id == "a"
    await h.settle()
    assert (await p.status(), world.counts) == ("Error", {"Draft": 1})
    await p.execute("submit")
    assert await p.state() == "Review"


async def test_killed_before_anything_has_begun_it_starts(world: World, h: Harness) -> None:
    world.shut("Draft")
    await world.S.options(id="a", delay=5).start()
    p = world.S.handle("a")
    assert await p.status() == "Initialized"
    await h.crash()
    world.open("Draft")
    await h.advance(5)
    assert (await p.status(), await p.state(), world.counts) == ("Idled", "Draft", {"Draft": 1})


async def test_parameters_of_the_interrupted_action_are_undone_those_before_it_stay(world: World, h: Harness) -> None:
    p = await in_done(world, h)
    assert (await p.parameters()).note == "DCRB"
    assert {seen["state"]: seen["for_now"] for seen in world.seen} == {
        "Draft": "fresh", "Check": "fresh", "Review": "Check", "Booking": "fresh", "Done": "Booking",
    }  # fmt: skip
    await p.resume()
    assert world.seen[-1] == {"state": "Done", "was_failed": False, "for_now": "fresh"}
    assert (await p.parameters()).note == "DCRBD"


async def test_a_process_at_rest_is_not_touched(world: World, h: Harness) -> None:
    idle = await world.start(h, "idle")
    done = await world.start(h, "done")
    for command in ("submit", "approve"):
        await done.execute(command)
    wrong = await world.start(h, "wrong")
    await world.killed_in(h, "Check", wrong.execute("submit"))
    busy = await world.start(h, "busy")
    before = await h.store.rows(["idle", "done", "wrong"])
    await world.killed_in(h, "Check", busy.execute("submit"))
    assert await h.store.rows(["idle", "done", "wrong"]) == before
    assert [await p.status() for p in (idle, done, wrong, busy)] == ["Idled", "Finalized", "Error", "Error"]


async def test_resume_on_crash_goes_on_from_the_last_recorded_step(app: App, database: str) -> None:
    world = World(app, on_crash="resume")
    async with harness(app, database=database) as h:
        p = await world.start(h)
        await p.execute("submit")
        assert await world.killed_in(h, "Done", p.execute("approve")) is None
        assert await p.status() == "Finalized"
        assert world.counts == {"Draft": 1, "Check": 1, "Review": 1, "Booking": 1, "Done": 2}


@pytest.mark.parametrize("times", [2])
async def test_it_may_die_again_while_it_recovers(world: World, h: Harness, times: int) -> None:
    p = await world.start(h)
    world.shut("Check")
    call = asyncio.ensure_future(p.execute("submit"))
    await world.in_action("Check")
    for _ in range(times):
        await h.crash()
    world.open("Check")
    await h.settle()
    assert isinstance((await asyncio.gather(call, return_exceptions=True))[0], Interrupted)
    assert (await p.status(), await p.state()) == ("Error", "Draft")
