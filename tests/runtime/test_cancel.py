"""Cancelling, from every state, with a definite answer; and the workflow's own time."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from datetime import timedelta

import pytest

import perdure.sync
from perdure import App, recv, sleep
from perdure.errors import Cancelled, WorkflowCancelled, WorkflowTimedOut
from tests.runtime.support import Ledger, crash, history, in_memory, row, status, until


async def test_cancel_before_anybody_works(app: App, ledger: Ledger) -> None:
    @app.workflow
    async def body() -> None:
        ledger.note("ran")

    async with app.connect():
        handle = await body.options(id="a").start()
        assert await handle.cancel(reason="changed my mind") == "cancelled"
        with pytest.raises(WorkflowCancelled, match="workflow a was cancelled: changed my mind") as caught:
            await handle.result()
        assert (caught.value.id, caught.value.status) == ("a", "cancelled")
    async with app:
        assert await status(app, "a") == "cancelled"
    assert ledger == []


async def test_cancel_of_what_a_drained_executor_handed_back_lets_it_clean_up(app: App, ledger: Ledger) -> None:
    @app.step
    async def step(what: str) -> None:
        ledger.note(what)

    @app.workflow
    async def body() -> None:
        try:
            await step("done")
            await sleep(3600)
        finally:
            await step("undone")

    async with app:
        await body.options(id="a").start()
        await until(lambda: ledger == ["done"])
    async with app.connect():
        assert await status(app, "a") == "queued"
        line = app._home.engine().line
        await line.store.cancel("a", "enough", line.new_token())
    async with app:
        with pytest.raises(WorkflowCancelled):
            await app.client.handle("a").result(timeout=20)
    assert ledger == ["done", "undone"]


async def test_cancel_while_scheduled(app: App, ledger: Ledger) -> None:
    @app.workflow
    async def body() -> None:
        ledger.note("ran")

    async with app:
        handle = await body.options(id="a", delay=3600).start()
        assert await handle.cancel() == "cancelled"
    assert ledger == []


WAITS = {
    "sleep": lambda: sleep(3600),
    "recv": recv,
    "asyncio.sleep": lambda: asyncio.sleep(3600),  # waits: cancelled at once
}


@pytest.mark.parametrize("wait", WAITS)
async def test_cancel_in_a_wait_raises_once_and_cleanup_steps_run(app: App, ledger: Ledger, wait: str) -> None:
    @app.step
    async def undo(what: str) -> None:
        ledger.note(f"undo {what}")

    @app.workflow
    async def body() -> None:
        try:
            await WAITS[wait]()
        except asyncio.CancelledError:
            ledger.note("cancelled")
            await undo("reservation")
            await sleep(0.01)  # cleanup may wait, too
            await undo("payment")
            raise

    async with app:
        handle = await body.options(id="a").start()
        await until(lambda: in_memory(app, "a"))
        assert await handle.cancel(reason="why not") == "cancelled"
        with pytest.raises(WorkflowCancelled, match="was cancelled: why not"):
            await handle.result()
    assert ledger == ["cancelled", "undo reservation", "undo payment"]
    async with app.connect():
        with pytest.raises(WorkflowCancelled, match="was cancelled: why not"):
            await handle.result()


async def test_cancel_in_a_step_waits_for_the_step_and_records_it(app: App, ledger: Ledger) -> None:
    started, free = asyncio.Event(), asyncio.Event()

    @app.step
    async def charge() -> str:
        started.set()
        await free.wait()
        ledger.note("charged")
        return "charge-1"

    @app.step
    async def never() -> None:
        ledger.note("never")

    @app.workflow
    async def body() -> None:
        await charge()
        await never()

    async with app:
        handle = await body.options(id="a").start()
        await started.wait()
        answer = asyncio.create_task(handle.cancel())
        await until(lambda: row_cancel(app))
        assert not answer.done()
        free.set()
        assert await answer == "cancelled"
        assert [r.kind.name for r in await history(app, "a")] == ["STEP", "CANCEL"]
    assert ledger == ["charged"]


async def row_cancel(app: App) -> bool:
    return app._home.engine().executor.executions["a"].cancelling is not None


async def test_cancel_between_attempts_of_a_step(app: App, ledger: Ledger) -> None:
    from perdure import Retry

    @app.step(retry=Retry(10, delay=3600))
    async def charge() -> None:
        ledger.note("tried")
        raise OSError("no")

    @app.workflow
    async def body() -> None:
        await charge()

    async with app:
        handle = await body.options(id="a").start()
        await until(lambda: history(app, "a"))
        assert await handle.cancel() == "cancelled"
    assert ledger == ["tried"]


async def test_cancel_during_cleanup_changes_nothing(app: App, ledger: Ledger) -> None:
    cleaning, free = asyncio.Event(), asyncio.Event()

    @app.step
    async def undo() -> None:
        cleaning.set()
        await free.wait()
        ledger.note("undone")

    @app.workflow
    async def body() -> None:
        try:
            await recv()
        finally:
            await undo()

    async with app:
        handle = await body.options(id="a").start()
        first = asyncio.create_task(handle.cancel())
        await cleaning.wait()
        second = asyncio.create_task(handle.cancel())
        free.set()
        assert [await first, await second] == ["cancelled", "cancelled"]
    assert ledger == ["undone"]


async def test_cancel_twice_and_after_the_end(app: App) -> None:
    @app.workflow
    async def waits() -> None:
        await recv()

    @app.workflow
    async def quick() -> int:
        return 1

    @app.workflow
    async def fails() -> None:
        raise ValueError("no")

    async with app:
        handle = await waits.options(id="a").start()
        assert [await handle.cancel(), await handle.cancel()] == ["cancelled", "cancelled"]
        done = await quick.options(id="b").start()
        assert await done.result() == 1
        assert await done.cancel() == "completed"
        assert await done.result() == 1
        failed = await fails.options(id="c").start()
        with pytest.raises(ValueError, match="no"):
            await failed.result()
        assert await failed.cancel() == "failed"


async def test_a_delivered_cancel_is_final_whatever_the_body_makes_of_it(app: App) -> None:
    @app.workflow
    async def swallows() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await recv()
        return "as if nothing were"

    @app.workflow
    async def breaks() -> None:
        try:
            await recv()
        finally:
            raise RuntimeError("cleanup failed")

    async with app:
        for body in (swallows, breaks):
            handle = await body.options(id=body.name).start()
            assert await handle.cancel() == "cancelled"
            with pytest.raises(WorkflowCancelled):
                await handle.result()


async def test_cancel_reaches_every_task_through_the_main_one(app: App, ledger: Ledger) -> None:
    async def branch(name: str) -> None:
        try:
            await recv(name)
        except asyncio.CancelledError:
            ledger.note(name)
            raise

    @app.workflow
    async def body() -> None:
        async with asyncio.TaskGroup() as group:
            for name in "abc":
                group.create_task(branch(name))

    async with app:
        handle = await body.options(id="a").start()
        assert await handle.cancel() == "cancelled"
    assert sorted(ledger) == ["a", "b", "c"]


async def test_a_cancel_is_itself_recorded_and_replayed(app: App, ledger: Ledger) -> None:
    @app.step
    async def undo() -> str:
        ledger.note("undone")
        return "ok"

    @app.workflow
    async def body() -> None:
        try:
            await recv()
        finally:
            await undo()
            ledger.note("cleanup")
            await recv("more")

    await app.open()
    await body.options(id="a").start()
    answer = asyncio.create_task(body.handle("a").cancel(reason="out of stock"))
    await until(lambda: "cleanup" in ledger)
    await until(lambda: two_records(app))
    answer.cancel()
    await asyncio.gather(answer, return_exceptions=True)
    await crash(app)
    async with app:
        assert not (await row(app, "a")).status.value.startswith("c")
        await body.handle("a").send(True, "more")
        with pytest.raises(WorkflowCancelled, match="out of stock"):
            await body.handle("a").result()
    assert ledger == ["undone", "cleanup", "cleanup"]


async def two_records(app: App) -> bool:
    return [r.kind.name for r in await history(app, "a")] == ["CANCEL", "STEP"]


async def test_cancel_of_an_evicted_workflow_wakes_it(app: App, ledger: Ledger, quick_eviction: None) -> None:
    @app.step
    async def undo() -> None:
        ledger.note("undone")

    @app.workflow
    async def body() -> None:
        try:
            await recv()
        except asyncio.CancelledError:
            await undo()
            raise

    async with app:
        handle = await body.options(id="a").start()
        await until(lambda: not in_memory(app, "a"))
        assert await status(app, "a") == "waiting"
        assert await handle.cancel() == "cancelled"
    assert ledger == ["undone"]


async def test_cancel_by_a_caller_that_only_connects(database: str, ledger: Ledger) -> None:
    worker, web = App("shop", database=database), App("shop", database=database)

    @worker.workflow(name="body")
    async def body() -> None:
        try:
            await recv()
        finally:
            ledger.note("cleanup")

    async with worker, web.connect() as client:
        await body.options(id="a").start()
        assert await client.handle("a").cancel() == "cancelled"
    assert ledger == ["cleanup"]


# -- the sync face


def test_cancel_of_a_sync_body_in_a_wait(sync_app: perdure.sync.App, ledger: Ledger) -> None:
    @sync_app.step
    def undo() -> None:
        ledger.note("undone")

    @sync_app.workflow
    def body() -> None:
        try:
            perdure.sync.sleep(3600)
        except Cancelled:
            ledger.note("cancelled")
            undo()
            perdure.sync.sleep(0.01)
            undo()
            raise

    with sync_app:
        handle = body.options(id="a").start()
        assert handle.cancel() == "cancelled"
        with pytest.raises(WorkflowCancelled):
            handle.result()
        assert handle.cancel() == "cancelled"
    assert ledger == ["cancelled", "undone", "undone"]


def test_cancel_of_a_sync_body_in_a_step_comes_at_its_next_step(sync_app: perdure.sync.App, ledger: Ledger) -> None:
    started, free = threading.Event(), threading.Event()

    @sync_app.step
    def charge() -> str:
        started.set()
        free.wait(20)
        ledger.note("charged")
        return "ok"

    @sync_app.step
    def never() -> None:
        ledger.note("never")

    @sync_app.workflow
    def body() -> None:
        charge()
        never()

    with sync_app:
        handle = body.options(id="a").start()
        assert started.wait(10)
        answers: list[str] = []
        canceller = threading.Thread(target=lambda: answers.append(handle.cancel()))
        canceller.start()
        executor = sync_app._home.engine().executor
        while executor.executions["a"].cancelling is None:
            pass
        free.set()
        canceller.join(20)
        assert answers == ["cancelled"]
    assert ledger == ["charged"]


# -- the workflow's own time


async def test_a_workflow_that_runs_out_of_its_time(app: App, ledger: Ledger) -> None:
    @app.step
    async def undo() -> None:
        ledger.note("undone")

    @app.workflow(timeout=timedelta(milliseconds=100))
    async def body() -> None:
        try:
            await recv()
        except asyncio.CancelledError:
            await undo()
            raise

    async with app:
        handle = await body.options(id="a").start()
        with pytest.raises(WorkflowTimedOut, match="ran out of its time"):
            await handle.result()
        info = await handle.info()
        assert info.status == "timed_out"
        assert info.deadline is not None
        assert info.deadline - info.created < timedelta(seconds=1)
        assert await handle.cancel() == "timed_out"
    assert ledger == ["undone"]


async def test_an_option_wins_over_the_declared_timeout(app: App) -> None:
    @app.workflow(timeout=3600)
    async def body() -> None:
        await recv()

    async with app:
        with pytest.raises(WorkflowTimedOut):
            await body.options(timeout=0.05)()


async def test_children_inherit_the_deadline(app: App) -> None:
    @app.workflow(name="child")
    async def child() -> None:
        await recv()

    @app.workflow(name="parent")
    async def parent() -> None:
        await child.options(id="c", timeout=3600)()

    async with app:
        handle = await parent.options(id="p", timeout=0.2).start()
        await until(lambda: in_memory(app, "c"))
        assert (await row(app, "c")).deadline == (await row(app, "p")).deadline
        with pytest.raises(WorkflowTimedOut):
            await handle.result()
        ended = await until(lambda: closed_status(app, "c"))
        assert ended in ("timed_out", "cancelled")


async def closed_status(app: App, id: str) -> str:
    found = (await row(app, id)).status
    return "" if found.open else str(found)


async def test_the_deadline_survives_a_restart_and_fires_while_evicted(app: App, quick_eviction: None) -> None:
    @app.workflow(timeout=0.6)
    async def body() -> None:
        await recv()

    async with app:
        await body.options(id="a").start()
        deadline = (await row(app, "a")).deadline
        await until(lambda: not in_memory(app, "a"))
    async with app:
        assert (await row(app, "a")).deadline == deadline
        with pytest.raises(WorkflowTimedOut):
            await body.handle("a").result()


async def test_the_deadline_counts_from_the_first_claim_not_from_the_start(app: App) -> None:
    @app.workflow(timeout=2)
    async def body() -> str:
        return "in time"

    async with app.connect():
        await body.options(id="a").start()
        await app.client.workflow(body.name, returns=str).options(id="b").start()
        assert (await row(app, "a")).deadline is None
    async with app:
        assert await body.handle("a").result() == "in time"
        assert await body.handle("b").result() == "in time"
        stored = await row(app, "a")
        assert stored.deadline is not None
        assert stored.started is not None
        assert stored.deadline - stored.started == 2_000_000
