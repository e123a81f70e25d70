"""Deadlines and what inherits them; cancels beside pauses, ends and resumes."""

# waits: `until` looks again until a workflow stands where it is wanted.

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

import perdure.sync
from perdure import App, Client, recv
from perdure.api.process import Process
from perdure.errors import Cancelled, WorkflowCancelled, WorkflowTimedOut
from perdure.schemes.grammar import State
from tests.runtime.support import Ledger, crash, executor, history, in_memory, row, until
from tests.runtime.test_queues import Gate


async def test_the_deadline_of_a_grandparent_bounds_every_kind_of_child(app: App) -> None:
    """A call, a start, one in a line, one of a longer time; one that is abandoned has its own."""
    queue = app.queue("q", concurrency=1)

    @app.workflow(name="leaf")
    async def leaf() -> None:
        await recv()

    @app.workflow(name="middle")
    async def middle() -> None:
        await leaf.options(id="started").start()
        await leaf.options(id="long", timeout=3600).start()
        await leaf.options(id="short", timeout=0.1).start()
        await leaf.options(id="lined", queue=queue).start()
        await leaf.options(id="behind", queue=queue).start()
        await leaf.options(id="abandoned", on_parent_close="abandon").start()
        await leaf.options(id="called")()

    @app.workflow(name="top")
    async def top() -> None:
        await middle.options(id="m")()

    async with app:
        handle = await top.options(id="t", timeout=1.5).start()
        await until(lambda: in_memory(app, "called"))
        await until(lambda: in_memory(app, "lined"))
        deadline = (await row(app, "t")).deadline
        found = {id: (await row(app, id)).deadline for id in ("m", "started", "long", "lined", "behind", "abandoned")}
        assert found.pop("abandoned") is None
        assert found["m"] == found["started"] == found["long"] == found["lined"] == found["behind"] == deadline
        with pytest.raises(WorkflowTimedOut):
            await app.client.handle("short").result(timeout=10)
        with pytest.raises(WorkflowTimedOut):
            await handle.result(timeout=20)
        for id in ("m", "started", "long", "lined", "behind", "called"):
            await until(partial(ended_as, app, id))
            assert await ended_as(app, id) in ("timed_out", "cancelled"), id
        assert not await ended_as(app, "abandoned")


async def ended_as(app: App, id: str) -> str:
    found = await row(app, id)
    return "" if found.status.open else str(found.status)


async def test_an_inherited_deadline_outlives_a_death(app: App) -> None:
    @app.workflow(name="leaf")
    async def leaf() -> None:
        await recv()

    @app.workflow(name="top")
    async def top() -> None:
        await leaf.options(id="c")()

    async with app:
        await top.options(id="t", timeout=1.0).start()
        await until(lambda: in_memory(app, "c"))
        deadline = (await row(app, "c")).deadline
        await crash(app)
    async with app:
        assert (await row(app, "c")).deadline == deadline
        with pytest.raises(WorkflowTimedOut):
            await app.client.handle("t").result(timeout=20)
        assert await until(lambda: ended_as(app, "c")) in ("timed_out", "cancelled")


@pytest.mark.parametrize("own", [None, 3600.0, 1.5], ids=["inherited alone", "longer own time", "shorter own time"])
async def test_an_inherited_deadline_bounds_the_whole_chain_of_a_child(app: App, own: float | None) -> None:
    """Its runs end by what the parent gave it, also after a death and a replay; a time of its own begins anew."""

    @app.step
    async def act(n: int) -> int:
        return n

    @app.workflow(name="leaf", timeout=own)
    async def leaf(n: int) -> None:
        await act(n)
        await recv(timeout=0.01)
        if n < 3:
            leaf.continue_as_new(n + 1)
        await recv()

    @app.workflow(name="top")
    async def top() -> None:
        await leaf.options(id="c", on_parent_close="wait").start(1)
        await recv()

    async with app:
        await top.options(id="t", timeout=4.0).start()
        await until(partial(at_run, app, "c", 3))
        await until(partial(has_recorded, app, "c", 2))
        found, bound = await row(app, "c"), (await row(app, "t")).deadline
        assert bound is not None
        assert found.started is not None
        assert found.deadline == (min(bound, found.started + 1_500_000) if own == 1.5 else bound)
        await crash(app)
    async with app:
        with pytest.raises(WorkflowTimedOut):
            await app.client.handle("c").result(timeout=20)
        assert (await row(app, "c")).run == 3


async def test_a_process_at_rest_ends_by_the_deadline_of_its_parent(app: App) -> None:
    """Also where nothing else would wake it, in a later run than the one that it began with."""

    @app.process(name="desk")
    class Desk(Process):
        here = State(initial=True)
        left = State(final=True)
        go = here.to(left)

    @app.workflow(name="top")
    async def top() -> None:
        await Desk.options(id="d", on_parent_close="wait").start()
        await recv()

    async with app:
        await top.options(id="t", timeout=1.5).start()
        await until(partial(at_run, app, "d", 2))
        assert (await row(app, "d")).deadline == (await row(app, "t")).deadline
        with pytest.raises(WorkflowTimedOut):
            await app.client.handle("d").result(timeout=20)
        assert (await row(app, "d")).run < 20


async def at_run(app: App, id: str, run: int) -> bool:
    found = (await app._home.engine().line.store.rows([id])).get(id)
    return found is not None and found.run == run


async def has_recorded(app: App, id: str, count: int) -> bool:
    return len(await history(app, id)) >= count


async def test_what_was_in_flight_at_the_cancel_is_not_repeated_after_a_resume(app: App, ledger: Ledger) -> None:
    gate = Gate()

    @app.step
    async def charge() -> str:
        ledger.note("charge")
        return await gate.enter("charge")

    @app.step
    async def ship(charge: str) -> str:
        ledger.note("ship")
        return charge

    @app.workflow(name="order")
    async def order() -> str:
        return await ship(await charge())

    async with app:
        handle = await order.options(id="o").start()
        await until(lambda: gate.inside)
        answer = asyncio.create_task(handle.cancel())
        await until(lambda: wants_cancel(app, "o"))
        gate.open()
        assert await answer == "cancelled"
        assert ledger == ["charge"]
        assert await handle.resume() == "queued"
        assert await handle.result() == "charge"
    assert ledger == ["charge", "ship"]


def wants_cancel(app: App, id: str) -> bool:
    return executor(app).executions[id].cancelling is not None


async def test_a_cancel_after_the_last_step_is_answered_with_how_it_ended(app: App) -> None:
    """The step in flight was the last: the workflow is told to stop before it can end, or has ended: never both."""
    gate = Gate()

    @app.step
    async def last() -> str:
        return await gate.enter("last")

    @app.workflow(name="order")
    async def order() -> str:
        return await last()

    async with app:
        handle = await order.options(id="o").start()
        await until(lambda: gate.inside)
        answer = asyncio.create_task(handle.cancel())
        await until(lambda: wants_cancel(app, "o"))
        gate.open()
        told = await answer
        assert told == await handle.status()
        if told == "cancelled":
            with pytest.raises(WorkflowCancelled):
                await handle.result()
        else:
            assert await handle.result() == "last"


async def test_a_timed_out_one_is_resumed_with_its_time_anew(app: App, ledger: Ledger) -> None:
    @app.step
    async def act() -> None:
        ledger.note("act")

    @app.workflow(name="order", timeout=0.4)
    async def order() -> str:
        await act()
        return str(await recv("go"))

    async with app:
        handle = await order.options(id="o").start()
        with pytest.raises(WorkflowTimedOut):
            await handle.result(timeout=20)
        assert await handle.resume() == "queued"
        await handle.send("on", "go")
        assert await handle.result(timeout=20) == "on"
    assert ledger == ["act"]


async def test_many_are_cancelled_at_once_and_each_is_answered(app: App, ledger: Ledger) -> None:
    @app.step
    async def undo(n: int) -> None:
        ledger.note(n)

    @app.workflow(name="order")
    async def order(n: int) -> None:
        try:
            await recv()
        except asyncio.CancelledError:
            await undo(n)
            raise

    async with app:
        handles = await order.start_many(range(50))
        assert await asyncio.gather(*(handle.cancel() for handle in handles)) == ["cancelled"] * 50
    assert sorted(map(int, ledger)) == list(range(50))


async def test_a_timeout_of_a_step_in_a_cancelled_workflow_is_recorded(app: App) -> None:
    inside = asyncio.Event()

    @app.step(timeout=0.3)
    async def slow() -> None:
        inside.set()
        await asyncio.Event().wait()

    @app.workflow(name="order")
    async def order() -> None:
        await slow()

    async with app:
        handle = await order.options(id="o").start()
        await inside.wait()
        assert await handle.cancel() == "cancelled"
        assert [record.kind.name for record in await history(app, "o")] == ["STEP", "CANCEL"]


async def test_a_client_cancels_pauses_and_unpauses_what_another_process_runs(app: App, database: str) -> None:
    @app.workflow(name="order")
    async def order() -> str:
        return str(await recv("go"))

    async with app, Client(database, app="shop") as client:
        await order.options(id="o").start()
        await until(lambda: in_memory(app, "o"))
        handle: Any = client.handle("o")
        assert await handle.pause(reason="a look") == "held"
        await handle.send("on", "go")
        assert await handle.status() == "held"
        assert await handle.unpause() in ("queued", "running")
        assert await handle.result(timeout=20) == "on"
        await order.options(id="p").start()
        assert await client.handle("p").cancel(reason="why not") == "cancelled"
        assert await client.handle("p").cancel() == "cancelled"
        assert await client.handle("o").cancel() == "completed"


def test_a_sync_client_does_the_same(sync_app: perdure.sync.App, database: str) -> None:
    @sync_app.workflow(name="order")
    def order() -> str:
        try:
            return str(perdure.sync.recv("go"))
        except Cancelled:
            undone.append("undo")
            raise

    undone: list[str] = []
    with sync_app, perdure.sync.Client(database, app="shop") as client:
        handle = order.options(id="o").start()
        there = client.handle("o")
        assert there.pause(reason="a look") == "held"
        there.send("on", "go")
        assert there.unpause() in ("queued", "running")
        assert handle.result(timeout=20) == "on"
        order.options(id="p").start()
        assert client.handle("p").cancel(reason="why not") == "cancelled"
        with pytest.raises(WorkflowCancelled, match="why not"):
            client.handle("p").result()
        work = client.workflow("order", returns=str)
        with pytest.raises(WorkflowTimedOut):
            work.options(id="t", timeout=0.2).start().result(timeout=20)
