"""Orders: who may give which, at most once, a definite answer; what a process that is Running says."""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta
from typing import Any

import pytest

from perdure import App, Client, recv
from perdure.api.process import Process
from perdure.errors import (
    Busy,
    NotAllowed,
    NotAvailable,
    ProcessError,
    StateNotFound,
    WorkflowConflict,
    WorkflowNotFound,
)
from perdure.runtime.eviction import evict_if_idle, is_waiting
from perdure.schemes.grammar import State
from perdure.testing import Harness, harness
from tests.process.world import World, moves, names
from tests.runtime.support import executor, until


async def test_a_running_process_is_busy_at_once(world: World, h: Harness) -> None:
    p = await world.start(h)
    world.shut("Check")
    call = asyncio.ensure_future(p.execute("submit"))
    await world.in_action("Check")
    assert (await p.status(), await p.state(), await names(p)) == ("Running", "Draft", [])
    for order in (p.execute("submit"), p.set_state("Review"), p.resume(), p.delete()):
        with pytest.raises(Busy, match="submit from Draft"):
            await order
    world.open("Check")
    await call
    assert await p.status() == "Idled"


async def test_an_order_right_after_the_start_waits_for_the_actions_of_the_initial_state(
    world: World, h: Harness
) -> None:
    world.shut("Draft")
    p: Any = await world.S.options(id="a").start()
    await world.in_action("Draft")
    call = asyncio.ensure_future(p.execute("submit"))
    await asyncio.sleep(0)
    world.open("Draft")
    await call
    assert await p.state() == "Review"


async def test_an_order_may_wait_for_a_running_process(world: World, h: Harness) -> None:
    p = await world.start(h)
    world.shut("Check")
    call = asyncio.ensure_future(p.execute("submit"))
    await world.in_action("Check")
    patient = asyncio.ensure_future(p.within(60).execute("approve"))
    await asyncio.sleep(0)
    world.open("Check")
    await asyncio.gather(call, patient)
    assert await p.status() == "Finalized"


async def test_of_two_that_order_at_the_same_instant_one_is_obeyed(world: World, h: Harness) -> None:
    p = await world.start(h)
    await p.execute("submit")
    answers = await asyncio.gather(*(p.execute("reject") for _ in range(5)), return_exceptions=True)
    assert answers.count(None) == 1
    assert all(isinstance(answer, (Busy, NotAvailable)) for answer in answers if answer is not None)
    assert (await moves(p)).count("Review>Draft command") == 1


async def test_of_many_that_order_what_ends_it_one_is_obeyed_and_the_others_hear_that_it_takes_none(
    world: World, h: Harness
) -> None:
    p = await world.start(h)
    await p.execute("submit")
    answers = await asyncio.gather(*(p.execute("approve") for _ in range(5)), return_exceptions=True)
    assert answers.count(None) == 1
    assert all(isinstance(answer, (Busy, NotAvailable)) for answer in answers if answer is not None)
    assert any("Finalized in state 'Done', and takes no orders" in str(answer) for answer in answers)


async def test_a_start_that_does_not_fit_shows_the_parameters_of_the_process(world: World, h: Harness) -> None:
    with pytest.raises(TypeError, match=r"process S\(\*, note: str = '', was_failed: .*unexpected .*'days'") as said:
        await world.S.start(days=3)
    assert "perdure_at" not in str(said.value)


async def test_where_it_stands_is_nothing_that_a_start_may_say(world: World, h: Harness, database: str) -> None:
    with pytest.raises(TypeError, match=r"process S\(\*, note: .*unexpected keyword argument 'perdure_at'"):
        await world.S.start(perdure_at={"state": "Done"})
    async with Client(database, app=h.store.app) as elsewhere:  # where its code is not
        with pytest.raises(TypeError, match="'perdure_at' is no argument of callers"):
            await elsewhere.workflow("S", returns=object).start(perdure_at={"state": "Done"})
    assert [info async for info in world.app.client.list()] == []


async def test_an_order_that_saw_an_earlier_burst_is_refused(world: World, h: Harness) -> None:
    """Though the command would be possible: whoever gave it had seen the process before it was set back."""
    p = await world.start(h)
    seen = await p._at_rest()
    await p.execute("submit")
    await p.execute("reject")
    stale: Any = type(p)(p._home, p.id, p._registered)

    async def as_then() -> Any:
        return seen

    stale._at_rest = as_then
    with pytest.raises(Busy, match="moved while"):
        await stale.execute("submit")
    assert await p.state() == "Draft"


async def test_what_cannot_be_done_is_said(world: World, h: Harness) -> None:
    p = await world.start(h)
    with pytest.raises(NotAvailable, match="'approve' is no command in state 'Draft'; those are: submit"):
        await p.execute("approve")
    with pytest.raises(ProcessError, match="has no parameter 'why'"):
        await p.execute("submit", why=1)
    with pytest.raises(StateNotFound, match="no state 'Nowhere'"):
        await p.set_state("Nowhere")
    with pytest.raises(ProcessError, match="'Booking' is not settable; those are: Draft, Review"):
        await p.set_state("Booking")
    assert (await p.status(), await moves(p)) == ("Idled", [">Draft start"])
    with pytest.raises(WorkflowNotFound):
        await world.S.handle("unknown").status()


async def test_a_state_may_be_set_without_its_actions(world: World, h: Harness) -> None:
    p = await world.start(h)
    await p.set_state("Review", run=False)
    assert (await p.state(), world.counts) == ("Review", {"Draft": 1})


async def test_what_an_action_raises_reaches_the_caller(world: World, h: Harness) -> None:
    p = await world.start(h)
    world.fails["Check"] = [ValueError("no paper")]
    with pytest.raises(ValueError, match="no paper"):
        await p.execute("submit")
    assert (await p.status(), await p.state()) == ("Error", "Draft")
    assert (await p.parameters()).note == "D"
    info = await p.info()
    assert "ValueError: no paper" in info.detail
    await p.execute("submit")
    assert (await p.status(), await p.state()) == ("Idled", "Review")


async def test_as_long_as_it_is_in_error_it_has_a_problem(world: World, h: Harness) -> None:
    """Whatever wakes it meanwhile; it is over when it gets on."""
    client: Client = world.app.client
    p = await world.start(h)
    await world.start(h, "other")

    async def has() -> list[tuple[str, str]]:
        found = [(info.id, str(info.problem)) async for info in client.list("problem IS NOT NULL")]
        assert await client.count("problem = step_failed") == len(found)
        return found

    world.fails["Check"] = [ValueError("no paper"), ValueError("still none")]
    with pytest.raises(ValueError, match="no paper"):
        await p.execute("submit")
    assert await has() == [("a", "step_failed")]
    with pytest.raises(NotAvailable):
        await p.execute("approve")
    await p.send("hello", "some topic")
    await h.settle()
    await h.crash()
    assert (await p.status(), await has()) == ("Error", [("a", "step_failed")])
    with pytest.raises(ValueError, match="still none"):
        await p.execute("submit")
    *before, now = await p.problems()
    assert (now.kind, now.text, now.cleared) == ("step_failed", "in state Draft: ValueError: still none", None)
    assert all(one.cleared is not None for one in before)
    await p.execute("submit")
    assert (await p.status(), await has()) == ("Idled", [])
    assert all(one.cleared is not None for one in await p.problems())


async def test_a_finalized_process_takes_no_orders(world: World, h: Harness) -> None:
    p = await world.start(h)
    for command in ("submit", "approve"):
        await p.execute(command)
    with pytest.raises(NotAvailable, match="is Finalized in state 'Done'"):
        await p.execute("submit")
    assert (await p.result()).note == "DCRBD"


async def test_a_deleted_process_is_gone_and_its_id_free(world: World, h: Harness) -> None:
    p, other = await world.start(h), await world.start(h, "other")
    await p.execute("submit")
    before = await h.store.rows(["other"])
    await p.delete()
    with pytest.raises(WorkflowNotFound):
        await p.status()
    assert await h.store.rows(["other"]) == before
    again = await world.start(h)
    assert (await moves(again), await other.state()) == ([">Draft start"], "Draft")


async def test_with_it_goes_what_it_began(app: App, database: str) -> None:
    world = World(app)

    @app.workflow(name="aside")
    async def aside() -> None:
        await recv()

    @app.process(name="Parent")
    class Parent(Process):
        a = State(initial=True, settable=True)

        async def on_enter_a(self) -> None:
            await world.S.options(id="child").start()
            await aside.options(id="aside").start()

    async with harness(app, database=database) as h:
        p = await Parent.options(id="parent").start()
        await h.settle()
        await world.start(h, "other")
        ids = ["aside", "child", "other", "parent"]
        assert sorted(await h.store.rows(ids)) == ids
        await p.delete()
        assert list(await h.store.rows(ids)) == ["other"]


async def test_what_is_not_for_it_leaves_it_at_rest(app: App, database: str) -> None:
    """The end of a child, a message on another topic: woken by these, it rests again at once, and is not Busy."""
    world = World(app)

    @app.process(name="Parent")
    class Parent(Process):
        a = State(initial=True)
        b = State(final=True)
        go = a.to(b)

        async def on_enter_a(self) -> None:
            await world.S.options(id="child").start()

    async with harness(app, database=database) as h:
        p = await Parent.options(id="parent").start()
        await h.settle()
        await p.send("hello", "some topic")
        await h.settle()
        for command in ("submit", "approve"):
            await world.S.handle("child").execute(command)
        await h.settle()
        info = await p.info()
        assert (await p.status(), info.status) == ("Idled", "waiting")
        assert len(await p.history()) == 1
        await p.execute("go")
        assert await p.status() == "Finalized"


class Declared:
    """A process with actors, conditions and typed parameters."""

    def __init__(self, app: App) -> None:
        self.app = app

        @app.process
        class Vacation(Process):
            author: str
            days: int = 0
            until: timedelta | None = None
            draft = State(initial=True)
            review = State()
            done = State(final=True)
            submit = draft.to(review, by="author", cond="days > 0")

            @review.to(done, by="manager", cond="grade > days")
            async def approve(self, grade: int, until: timedelta | None = None) -> None:
                self.until = until

            async def manager(self, actor: str) -> bool:
                return actor == "bob"

        self.Vacation = Vacation


async def test_actors_and_conditions_decide_who_may_what(app: App, database: str) -> None:
    vacation = Declared(app).Vacation
    async with harness(app, database=database) as h:
        p = await vacation.options(id="v").start(author="ann", days=3)
        await h.settle()
        assert (await names(p, "ann"), await names(p, "bob"), await names(p)) == (["submit"], [], ["submit"])
        with pytest.raises(NotAllowed, match="'bob' may not submit"):
            await p.execute(vacation.submit, actor="bob")
        await p.execute(vacation.submit, actor="ann")
        assert (await names(p, "ann"), await names(p, "bob")) == ([], ["approve"])
        with pytest.raises(NotAvailable, match="its condition does not hold"):
            await p.execute(vacation.approve(grade=3), actor="bob")
        with pytest.raises(ProcessError, match="needs the parameter 'grade'"):
            await p.execute("approve", actor="bob")
        await p.execute(vacation.approve(grade=4, until=timedelta(days=1)), actor="bob")
        assert (await p.parameters()).until == timedelta(days=1)
        none = await vacation.options(id="none").start(author="ann")
        await h.settle()
        assert await names(none, "ann") == []


async def test_a_process_is_a_workflow(world: World, h: Harness) -> None:
    p = await world.start(h)
    await p.execute("submit")
    client: Client = world.app.client
    found = [info.id async for info in client.list("type = 'S' and attributes.state = 'Review'")]
    assert found == ["a"]
    assert [info.id async for info in client.list("attributes.state = 'Draft'")] == []
    await p.execute("approve")
    ended = [info.id async for info in client.list("attributes.state = 'Done' and attributes.status = 'Finalized'")]
    assert ended == ["a"]


async def test_a_workflow_starts_a_process_and_orders_it_about(app: App, database: str) -> None:
    world = World(app)

    @app.workflow
    async def clerk() -> list[str]:
        p = await world.S.options(id="of-clerk").start(was_failed=True)
        await p.within(10).execute("submit")
        seen = [str(await p.status()), await p.state()]
        await p.execute("approve")
        return [*seen, (await p.result()).note]

    async with harness(app, database=database) as h:
        assert await h.run(clerk) == ["Idled", "Review", "DCRBD"]


async def test_a_conflict_shows_the_parameters_that_each_call_has_given(app: App, database: str) -> None:
    @app.process(name="Trip")
    class Trip(Process):
        author: str
        days: int = 0
        draft = State(initial=True)
        gone = State(final=True)
        longer = draft.to(draft)
        go = draft.to(gone)

        async def on_longer(self) -> None:
            self.days += 10

    said = 'workflow id \'t\' is taken by Trip(author="ann", days=3); this call is Trip(author="ann", days=4). One id'
    async with harness(app, database=database):
        p = await Trip.options(id="t").start(author="ann", days=3)
        for command in ("longer", "go"):
            await p.execute(command)
            with pytest.raises(WorkflowConflict) as conflict:
                await Trip.options(id="t").start(author="ann", days=4)
            assert str(conflict.value).startswith(said)


async def test_an_id_that_is_no_process_of_that_class_is_told_and_ordered_nothing(app: App) -> None:
    world = World(app)

    @app.workflow(name="clerk")
    async def clerk() -> object:
        return await recv("go")

    @app.process(name="Trip")
    class Trip(Process):
        draft = State(initial=True)
        gone = State(final=True)
        go = draft.to(gone)

    async with app:
        p: Any = await world.S.options(id="a").start()
        await p.set_state("Draft")  # it has begun
        handle = await clerk.options(id="w").start()
        await until(lambda: is_waiting(executor(app).executions["w"]))
        evict_if_idle(executor(app).executions["w"], math.inf)

        async def is_a_row() -> bool:
            return await handle.status() == "waiting"

        await until(is_a_row)
        by_id = app.client.process("w")
        for ask in (by_id.status(), by_id.execute("submit"), by_id.set_state("Draft"), by_id.history(), by_id.delete()):
            with pytest.raises(ProcessError, match="'w' is no process but a workflow, 'clerk'"):
                await ask
        other: Any = Trip.handle("a")
        for ask in (other.execute("go"), other.parameters(), other.commands(), other.state()):
            with pytest.raises(ProcessError, match="'a' is the id of 'S', and this handle is of process 'Trip'"):
                await ask
        with pytest.raises(ProcessError, match="'w' is the id of 'clerk'"):
            await Trip.handle("w").execute("go")
        await handle.send(1, "go")
        assert (await handle.result(), await p.state()) == (1, "Draft")
        with pytest.raises(ProcessError, match="'w' is no process"):
            await by_id.state()
