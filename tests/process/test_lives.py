"""Processes over several lives of an app, as it is opened: drains, modes of recovery, other code, the sync face."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

import perdure.sync
from perdure import App
from perdure.api.process import Process
from perdure.errors import ConfigError, Interrupted, NotAvailable
from perdure.recovery import Decision, Default, Incident, RunFrom
from perdure.runtime.pasts import read_pasts
from perdure.runtime.replay_check import Finding, Replayer
from perdure.schemes.grammar import State
from perdure.sync.process import Process as SyncProcess
from tests.effort import by_effort
from tests.process.world import World, moves, names
from tests.runtime.support import crash, executor, row, until

OVERDUE = by_effort(150, 300, 1_000)  # timers


async def stands(p: Any, status: str, state: str) -> None:
    async def so() -> bool:
        return (await p.status(), await p.state()) == (status, state)

    await until(so)


async def test_a_drain_lets_actions_end(database: str) -> None:
    app = App("hr", database=database)
    world = World(app)
    async with app:
        p = await world.S.options(id="a").start()
        await stands(p, "Idled", "Draft")
        world.shut("Check")
        call = asyncio.ensure_future(p.execute("submit"))
        await world.in_action("Check")
        app.client  # noqa: B018  the line stays open meanwhile
        closing = asyncio.ensure_future(app.close())
        await until(lambda: executor(app).draining)
        world.open("Check")
        await closing
        call.cancel()
    again = World(App("hr", database=database))
    async with again.app:
        p = again.S.handle("a")
        await stands(p, "Idled", "Review")
        assert "Error" not in [str(step.status) for step in await p.history()]
        assert (world.counts, again.counts) == ({"Draft": 1, "Check": 1}, {"Review": 1})


async def test_what_a_drain_cuts_off_goes_on_and_policies_for_it_are_asked(database: str) -> None:
    app = App("hr", database=database)
    world = World(app)
    async with app:
        p = await world.S.options(id="a").start()
        await stands(p, "Idled", "Draft")
        world.shut("Check")
        call = asyncio.ensure_future(p.execute("submit"))
        await world.in_action("Check")
        executor(app).hurried = True
        call.cancel()
    again = World(App("hr", database=database))
    told = again.policy(Default(), on={"drained"})
    async with again.app:
        await stands(again.S.handle("a"), "Idled", "Review")
    assert [(incident.cause, incident.state, incident.entering) for incident in told] == [("drained", "Draft", "Check")]


async def test_in_single_mode_a_restart_changes_what_was_running_alone(database: str) -> None:
    app = App("hr", database=database, recovery="single")
    world = World(app)
    await app.open()
    kinds = {"run": 5, "idle": 5, "done": 1, "wrong": 1}
    ids = [f"{kind}{n}" for kind, many in kinds.items() for n in range(many)]
    handles = {id: await world.S.options(id=id).start() for id in ids}
    for p in handles.values():
        await stands(p, "Idled", "Draft")
    await handles["done0"].execute("submit")
    await handles["done0"].execute("approve")
    world.fails["Check"] = [ValueError("no")]
    with pytest.raises(ValueError, match="no"):
        await handles["wrong0"].execute("submit")
    resting = [id for id in handles if not id.startswith("run")]
    before = await executor(app).line.store.rows(resting)
    world.shut("Check")
    calls = [asyncio.ensure_future(handles[f"run{n}"].execute("submit")) for n in range(5)]
    await until(lambda: world.counts.get("Check", 0) == 7)
    await crash(app)
    for call in calls:
        call.cancel()
    again = World(App("hr", database=database, recovery="single"))
    async with again.app:
        for n in range(5):
            await stands(again.S.handle(f"run{n}"), "Error", "Draft")
        assert await executor(again.app).line.store.rows(resting) == before
        with pytest.raises(ConfigError, match="single"):
            await World(App("hr", database=database, recovery="single")).app.open()
        assert again.ledger == []


async def test_by_hand_alone_a_plan_says_what_recovery_then_does(database: str) -> None:
    from perdure.runtime.plan import plan

    app = App("hr", database=database)
    world = World(app)
    await app.open()
    p = await world.S.options(id="a").start()
    await stands(p, "Idled", "Draft")
    world.shut("Check")
    call = asyncio.ensure_future(p.execute("submit"))
    await world.in_action("Check")
    await crash(app)
    call.cancel()
    again = World(App("hr", database=database, recovery="manual"))
    async with again.app:
        before = await row(again.app, "a")
        [planned] = await plan(executor(again.app), {"a": "x"})
        assert (planned.decision, planned.cause) == ("set_status Error", "crash")
        assert await row(again.app, "a") == before
        assert await again.S.handle("a").status() == "Running"
        owner = before.owner
        assert owner is not None
        await again.app.client.recover_executors(owner.hex())
        await stands(again.S.handle("a"), "Error", "Draft")


def build(database: str, *, review: bool, version: str) -> tuple[App, Any]:
    """A scheme that has lost a state, or has it still."""
    app = App("hr", database=database, version=version)

    if review:

        @app.process(name="P")
        class Old(Process):
            draft = State(initial=True)
            review = State()
            end = State(final=True)
            submit = draft.to(review)
            approve = review.to(end)

        return app, Old

    @app.process(name="P")
    class New(Process):
        draft = State(initial=True)
        end = State(final=True)
        submit = draft.to(end)

    return app, New


async def test_other_code_goes_on_if_it_has_the_state_else_it_is_held(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, old = build(database, review=True, version="v1")
    async with app:
        for id in ("draft", "review"):
            await stands(await old.options(id=id).start(), "Idled", "draft")
        await old.handle("review").execute("submit")
    app, new = build(database, review=False, version="v2")
    async with app:
        p = new.handle("draft")  # which the new code may just have claimed, to look at it

        async def adopted() -> bool:
            return (await row(app, "draft")).version == "v2"

        await until(adopted)
        replayer = Replayer(app._home.registry, version="v2")
        [past] = await read_pasts(app._home.engine().line.store, [await row(app, "review")])
        verdict = await replayer.check(past)  # as the gate tells before the deploy
        replayer.close()
        assert (verdict.finding, "state 'review'" in verdict.detail) == (Finding.NO_STATE, True)
        await p.execute("submit")
        assert await p.status() == "Finalized"

        async def moved() -> bool:
            return (await row(app, "review")).version == "v2"

        await until(moved)
        monkeypatch.setattr("perdure.api.process.SETTLE", 1_000_000)
        stuck = asyncio.ensure_future(new.handle("review").execute("submit"))

        async def held() -> bool:
            return str((await row(app, "review")).status) == "held"

        await until(held)
        with pytest.raises((Interrupted, NotAvailable), match=r"is held \(no_code: "):  # before the order, or by it
            await stuck
        info = await new.handle("review").info()
        assert (info.reason, "state 'review'" in info.detail, "draft" in info.detail) == ("no_code", True, True)
        with pytest.raises(
            NotAvailable, match=r"takes no orders: it is held \(no_code: .*perdure workflow resume review"
        ):
            await new.handle("review").execute("submit")
        p = new.handle("review")
        assert (await p.status(), await p.state(), list(await p.commands())) == ("Idled", "review", [])
        for order in (p.set_state("draft"), p.resume()):  # what one that is Terminated takes
            with pytest.raises(NotAvailable, match=r"it is held \(no_code: .*perdure workflow resume review"):
                await order
    app, old = build(database, review=True, version="v3")
    async with app:
        await stands(old.handle("review"), "Idled", "review")


async def test_one_that_is_held_where_it_rests_keeps_its_status_and_offers_nothing(database: str) -> None:
    world = World(App("hr", database=database))
    async with world.app.connect():
        p = await world.S.options(id="a").start()
        await p.pause()
        assert (await p.status(), await names(p)) == ("Initialized", [])
        await p.unpause()
    world = World(App("hr", database=database))
    async with world.app:
        p = world.S.handle("a")
        await stands(p, "Idled", "Draft")
        await p.pause()
        assert (await p.status(), await p.state(), await names(p)) == ("Idled", "Draft", [])
        assert (await p.info()).reason == "paused"
        await p.unpause()
        assert await names(p) == ["submit"]


async def test_a_policy_may_move_what_has_lost_its_state(database: str) -> None:
    """Killed in a state that other code does not have: decided by that code's policy, into one that it has."""
    app = App("hr", database=database, version="v1")
    inside, told = asyncio.Event(), []

    @app.step(name="wait")
    async def wait() -> None:
        inside.set()
        await asyncio.Event().wait()

    @app.process(name="P")
    class Old(Process):
        draft = State(initial=True)
        review = State()
        end = State(final=True)
        submit = draft.to(review)
        approve = review.to(end)

        async def on_enter_end(self) -> None:
            await wait()

    await app.open()
    p = await Old.options(id="a").start()
    await stands(p, "Idled", "draft")
    await p.execute("submit")
    call = asyncio.ensure_future(p.execute("approve"))
    await inside.wait()
    await crash(app)
    call.cancel()
    app, new = build(database, review=False, version="v1")

    @app.recovery_policy(new)
    async def back(incident: Incident) -> Decision:
        told.append(incident)
        return RunFrom("draft", because="its state is gone")

    async with app:
        await stands(new.handle("a"), "Idled", "draft")
    [incident] = told
    assert (incident.state, incident.default.name) == ("review", "hold")


async def test_many_timers_that_are_overdue_fire_once_while_commands_are_answered(database: str) -> None:
    app = App("hr", database=database)

    def build_timed(app: App) -> Any:
        @app.process(name="T")
        class Timed(Process):
            wait = State(initial=True)
            end = State(final=True)
            other = State(final=True)
            fire = wait.to(end, after=timedelta(milliseconds=1))
            move = wait.to(other)

        return Timed

    timed = build_timed(app)
    world = World(app)
    async with app.connect():
        for some in range(0, OVERDUE, 50):
            starts = [timed.options(id=f"t{n}").start() for n in range(some, min(some + 50, OVERDUE))]
            await asyncio.gather(*starts)
        await world.S.options(id="a").start()
    app = App("hr", database=database)
    timed, world = build_timed(app), World(app)
    async with app:
        p = world.S.handle("a")
        await stands(p, "Idled", "Draft")
        await asyncio.wait_for(p.execute("submit"), 10)
        for n in range(0, OVERDUE, 50):
            steps = await _ended(timed.handle(f"t{n}"))
            assert [str(step.trigger) for step in steps] == ["start", "timer"]
            assert steps[-1].late > timedelta(0)
        await until(lambda: _all(app, "type = 'T' AND status = completed", OVERDUE), 60)


async def _all(app: App, query: str, number: int) -> bool:
    return int(await app.client.count(query)) == number


async def _ended(p: Any) -> Any:
    await p.result(timeout=30)
    return await p.history()


def test_the_sync_face_is_the_same_without_await(database: str) -> None:
    app = perdure.sync.App("hr", database=database)

    @app.step
    def book(author: str) -> str:
        return f"b-{author}"

    @app.process
    class Vacation(SyncProcess):
        author: str
        ref: str | None = None
        draft = State(initial=True)
        review = State(settable=True)
        approved = State(final=True)
        submit = draft.to(review, by="author")

        @review.to(approved, by="manager")
        def approve(self, comment: str = "") -> None:
            self.ref = f"{book(self.author)} {comment}"

        def manager(self, actor: str) -> bool:
            return actor == "bob"

    with app:
        p = Vacation.options(id="v").start(author="ann")
        p.within(10).execute(Vacation.submit, actor="ann")
        assert (p.status(), p.state(), [c.name for c in p.commands(actor="bob")]) == ("Idled", "review", ["approve"])
        p.execute(Vacation.approve(comment="ok"), actor="bob")
        assert (p.result().ref, p.status()) == ("b-ann ok", "Finalized")
        assert [step.target for step in p.history()] == ["draft", "review", "approved"]


async def test_names_of_moves_are_there(database: str) -> None:
    world = World(App("hr", database=database))
    async with world.app:
        p = await world.S.options(id="a").start()
        await stands(p, "Idled", "Draft")
        assert (await moves(p), await names(p)) == ([">Draft start"], ["submit"])
