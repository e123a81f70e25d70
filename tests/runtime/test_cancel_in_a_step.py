"""A cancel that comes while a step runs: the step ends, is recorded, and the body is cancelled at that very call."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import pytest

import perdure.sync
from perdure import App, recv
from perdure.errors import WorkflowCancelled, WorkflowTimedOut
from perdure.model.records import Kind
from tests.runtime.support import Ledger, crash, executor, history, until, until_sync


class Shop:
    """An app with a step that can be kept waiting, one that fails after that, and one that undoes."""

    def __init__(self, app: App, ledger: Ledger) -> None:
        self.app = app
        self.started: list[str] = []
        self.free = asyncio.Event()

        @app.step
        async def charge(fails: bool = False, name: str = "charged") -> str:
            self.started.append(name)
            await self.free.wait()
            ledger.note(name)
            if fails:
                raise ValueError("no money")
            return name

        @app.step
        async def undo(what: str) -> str:
            ledger.note(f"undone {what}")
            return what

        self.charge, self.undo = charge, undo

    async def cancelled_in_the_step(self, body: Any, steps: int = 1, **given: Any) -> None:
        """Start it, ask it to stop while the steps are under way, let these end."""
        handle = await body.options(id="a").start(**given)
        await until(lambda: len(self.started) == steps)
        answer = asyncio.create_task(handle.cancel())
        await until(lambda: executor(self.app).executions["a"].cancelling is not None)
        self.free.set()
        assert await answer == "cancelled"
        with pytest.raises(WorkflowCancelled):
            await handle.result()


@pytest.fixture
def shop(app: App, ledger: Ledger) -> Shop:
    return Shop(app, ledger)


async def kinds(app: Any) -> list[tuple[str, str]]:
    """What was recorded but intents, which ride with the record before them if that is not taken yet."""
    return [(record.kind.name, record.path) for record in await history(app, "a") if record.kind is not Kind.INTENT]


@pytest.mark.parametrize("fails", [False, True], ids=["it succeeds", "it fails"])
async def test_every_step_of_a_finally_runs(shop: Shop, app: App, ledger: Ledger, fails: bool) -> None:
    @app.workflow
    async def body() -> None:
        try:
            await shop.charge(fails)
        finally:
            await shop.undo("seat")
            await shop.undo("room")

    async with app:
        await shop.cancelled_in_the_step(body)
        assert [kind for kind, _ in await kinds(app)] == ["STEP", "CANCEL", "STEP", "STEP"]
    assert ledger == ["charged", "undone seat", "undone room"]


async def test_what_an_exit_stack_holds_is_undone(shop: Shop, app: App, ledger: Ledger) -> None:
    """Also in the last step, behind which the body would have ended well."""

    @app.workflow
    async def trip() -> str:
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(shop.undo, "room")
            await shop.charge()
            stack.pop_all()
        return "fine"

    async with app:
        await shop.cancelled_in_the_step(trip)
    assert ledger == ["charged", "undone room"]


async def test_each_of_several_tasks_is_cancelled_where_it_waited(shop: Shop, app: App, ledger: Ledger) -> None:
    """The one whose step ends first sees nothing of it before the other's has ended, too."""

    async def leg(name: str) -> None:
        try:
            await shop.charge(name=name)
            ledger.note(f"{name} went on")
        except asyncio.CancelledError:
            await shop.undo(name)
            raise

    @app.workflow
    async def body() -> None:
        async with asyncio.TaskGroup() as group:
            for name in "ab":
                group.create_task(leg(name))

    async with app:
        await shop.cancelled_in_the_step(body, steps=2)
        assert [kind for kind, _ in await kinds(app)] == ["STEP", "STEP", "CANCEL", "STEP", "STEP"]
    assert sorted(ledger) == ["a", "b", "undone a", "undone b"]


async def test_whom_the_cancel_does_not_reach_gets_its_outcome(shop: Shop, app: App, ledger: Ledger) -> None:
    @app.workflow
    async def body() -> None:
        task = asyncio.ensure_future(shop.charge())
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            ledger.note(f"told of {await task}")
            raise

    async with app:
        await shop.cancelled_in_the_step(body)
    assert ledger == ["charged", "told of charged"]


async def test_a_message_that_comes_meanwhile_is_left_to_the_cleanup(shop: Shop, app: App, ledger: Ledger) -> None:
    @app.workflow
    async def body() -> None:
        waits = asyncio.ensure_future(recv("word"))
        try:
            await asyncio.gather(shop.charge(), waits)
        finally:
            ledger.note(f"told {await recv('word', timeout=60)}")

    async with app:
        handle = await body.options(id="a").start()
        await until(lambda: shop.started)
        answer = asyncio.create_task(handle.cancel())
        await until(lambda: executor(app).executions["a"].cancelling is not None)
        await handle.send("stop", "word")
        shop.free.set()
        assert await answer == "cancelled"
    assert ledger == ["charged", "told stop"]


async def test_a_deadline_comes_as_a_cancel_does(shop: Shop, app: App, ledger: Ledger) -> None:
    @app.workflow
    async def body() -> None:
        try:
            await shop.charge()
        finally:
            await shop.undo("room")

    async with app:
        handle = await body.options(id="a", timeout=0.05).start()
        await until(lambda: executor(app).executions["a"].cancelling is not None)
        shop.free.set()
        with pytest.raises(WorkflowTimedOut):
            await handle.result()
    assert ledger == ["charged", "undone room"]


async def test_a_replay_sees_it_as_it_was(shop: Shop, app: App, ledger: Ledger) -> None:
    """Killed in the cleanup: what is called after that is what was called before."""

    async def leg(name: str) -> None:
        try:
            await shop.charge(name=name)
        finally:
            await shop.undo(name)

    @app.workflow
    async def body() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for name in "ab":
                    group.create_task(leg(name))
        finally:
            ledger.note("cleanup")
            await recv("more")

    await app.open()
    handle = await body.options(id="a").start()
    await until(lambda: len(shop.started) == 2)
    answer = asyncio.create_task(handle.cancel())
    await until(lambda: executor(app).executions["a"].cancelling is not None)
    shop.free.set()
    await until(lambda: "cleanup" in ledger)

    async def all_there() -> bool:
        return len(await kinds(app)) == 5

    await until(all_there)
    before = await kinds(app)
    answer.cancel()
    await asyncio.gather(answer, return_exceptions=True)
    await crash(app)
    async with app:
        await body.handle("a").send(True, "more")
        with pytest.raises(WorkflowCancelled):
            await body.handle("a").result()
        assert (await kinds(app))[:5] == before
    assert sorted(ledger) == ["a", "b", "cleanup", "cleanup", "undone a", "undone b"]


@pytest.mark.parametrize("of_async", [False, True], ids=["def step", "async def step"])
def test_a_blocking_body_is_cancelled_at_the_step_too(
    sync_app: perdure.sync.App, ledger: Ledger, of_async: bool
) -> None:
    """Killed in its cleanup: the replay is cancelled there, too."""
    started, free = threading.Event(), threading.Event()

    def wait() -> str:
        started.set()
        assert free.wait(20)
        ledger.note("charged")
        return "ok"

    async def wait_on_the_loop() -> str:
        return await asyncio.to_thread(wait)

    charge: Callable[[], str] = sync_app.step(wait_on_the_loop if of_async else wait, name="charge")  # type: ignore[assignment]

    @sync_app.step
    def undo(what: str) -> None:
        ledger.note(f"undone {what}")

    @sync_app.workflow
    def body() -> None:
        try:
            charge()
            ledger.note("went on")
        finally:
            undo("seat")
            ledger.note("cleanup")
            perdure.sync.recv("more")
            undo("room")

    sync_app.open()
    body.options(id="a").start()
    assert started.wait(10)
    execution, loop = executor(sync_app).executions["a"], sync_app._home.engine().loop
    assert loop is not None
    loop.call_soon_threadsafe(execution.cancel, "out of stock")
    until_sync(lambda: execution.cancelling is not None)
    free.set()
    until_sync(lambda: "cleanup" in ledger and execution.waiting)
    until_sync(lambda: len(asyncio.run_coroutine_threadsafe(kinds(sync_app), loop).result(10)) == 3)
    asyncio.run_coroutine_threadsafe(crash(sync_app), loop).result(10)
    with sync_app, ThreadPoolExecutor(1) as caller:
        result = caller.submit(body.handle("a").result)  # before the end: no command of the database has the reason
        until_sync(lambda: executor(sync_app).line.watcher.awaited("a"))
        body.handle("a").send(True, "more")
        with pytest.raises(WorkflowCancelled, match="out of stock"):
            result.result(20)
    assert ledger == ["charged", "undone seat", "cleanup", "cleanup", "undone room"]


def busy(milliseconds: float) -> None:
    """Plain Python of a body, long enough that its burst is cut."""
    end = time.perf_counter() + milliseconds / 1000
    while time.perf_counter() < end:
        pass


@pytest.mark.parametrize("ends", ["cancel", "drain"])
async def test_what_ended_while_the_body_was_at_work_is_recorded(
    app: App, ledger: Ledger, ends: Literal["cancel", "drain"]
) -> None:
    """The body counts, in bursts that are cut; a step beside it ends; then it is told to stop, or handed back."""
    counting, charged, turns = asyncio.Event(), asyncio.Event(), 0
    enough = 10**9

    @app.step
    async def charge() -> str:
        await counting.wait()
        ledger.note("charged")
        charged.set()
        return "ok"

    @app.step
    async def quick() -> None: ...

    async def count() -> None:
        nonlocal turns
        await quick()
        while turns < enough:
            turns += 1
            counting.set()
            busy(1)
            await asyncio.sleep(0)

    @app.workflow
    async def body() -> None:
        await asyncio.gather(count(), charge())

    await app.open()
    handle = await body.options(id="a").start()
    await charged.wait()
    await until(lambda: executor(app).executions["a"]._late)
    if ends == "cancel":
        answer = asyncio.create_task(handle.cancel())
        await until(lambda: executor(app).executions["a"].cancelling is not None)
        enough = turns
        assert await answer == "cancelled"
    else:
        closing = asyncio.create_task(app.close())
        await until(lambda: executor(app) is None or executor(app).draining)
        enough = turns
        await closing
        await app.open()
        await handle.result()
    assert [name for kind, name in await named(app) if kind == "STEP"] == ["quick", "charge"]
    await app.close()
    assert ledger == ["charged"]


async def named(app: App) -> list[tuple[str, str]]:
    return [(record.kind.name, record.name.rpartition(".")[2]) for record in await history(app, "a")]
