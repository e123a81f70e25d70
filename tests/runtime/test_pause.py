"""Pause and unpause: where a workflow stops, what holds of it meanwhile, and that it goes on from there, once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

import perdure.sync
from perdure import App, Client, Event, Retry, Status, Topic, recv, set_event, sleep
from perdure.errors import Misuse, WorkflowCancelled, WorkflowNotFound, WorkflowTimedOut
from perdure.model.records import Kind
from perdure.model.states import Reason
from perdure.testing import harness
from tests.runtime.support import Ledger, crash, executor, history, in_memory, row, until, until_sync

go = Topic[str]("go")
stage = Event[str]("stage")


class Shop:
    """Steps that a test lets end; what they did."""

    def __init__(self, app: App, ledger: Ledger) -> None:
        self.app, self.ledger = app, ledger
        self.gate, self.last = asyncio.Event(), asyncio.Event()

        @app.step(name="act")
        async def act(what: str, slow: bool = False) -> str:
            ledger.note(f"{what} begins")
            if slow:
                await (self.last if what == "last" else self.gate).wait()
            ledger.note(what)
            return what

        @app.step(name="dare", at_most_once=True)
        async def dare(what: str) -> str:
            ledger.note(what)
            return what

        @app.workflow(name="two")
        async def two() -> list[str]:
            return [await act("one", slow=True), await dare("two")]

        @app.workflow(name="both")
        async def both(after: bool = False) -> list[str]:
            done = list(await asyncio.gather(act("left", slow=True), act("right"), act("third", slow=True)))
            return [*done, await act("after")] if after else done

        @app.workflow(name="letter")
        async def letter() -> list[str | None]:
            try:
                first = await recv(go)
                await act("between")
                return [first, await recv(go)]
            except asyncio.CancelledError:
                await act("cleaned")
                raise

        @app.workflow(name="nap")
        async def nap(seconds: float) -> str:
            await sleep(seconds)
            return await act("awake")

        @app.workflow(name="race")
        async def race() -> list[str]:
            tasks = [asyncio.create_task(act(what, slow=True)) for what in ("left", "right")]
            done, late = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in late:
                task.cancel()
            await set_event(stage, "decided")
            return sorted([*(task.result() for task in done), await act("after")])

        @app.workflow(name="beside")
        async def beside() -> list[Any]:
            return list(await asyncio.gather(race.__wrapped__(), act("last", slow=True)))

        self.act, self.two, self.both, self.letter, self.nap, self.race = act, two, both, letter, nap, race
        self.beside = beside


@pytest.fixture
def shop(app: App, ledger: Ledger) -> Shop:
    return Shop(app, ledger)


async def paused(app: App, id: str) -> bool:
    found = await row(app, id)
    return found.reason is Reason.PAUSED


async def told(app: App, id: str) -> bool:
    """Whether its execution here has heard of it."""
    execution = executor(app).executions.get(id)
    return execution is not None and execution.pausing is not None


async def waits(app: App, id: str) -> bool:
    execution = executor(app).executions.get(id)
    return execution is not None and bool(execution.waiting)


async def test_the_step_in_flight_ends_and_the_next_begins_when_it_is_unpaused(shop: Shop, ledger: Ledger) -> None:
    async with shop.app:
        handle = await shop.two.options(id="w").start()
        await until(lambda: ledger)
        pausing = asyncio.ensure_future(handle.pause(reason="a look"))
        await until(lambda: told(shop.app, "w"))
        assert not pausing.done(), "the step is in flight"
        shop.gate.set()
        assert await pausing is Status.HELD
        assert ledger == ["one begins", "one"]
        info = await handle.info()
        assert (info.status, info.reason) == (Status.HELD, "paused")
        assert info.detail.endswith(": a look")
        assert [(r.kind, r.name) for r in await history(shop.app, "w")] == [
            (Kind.STEP, "act"), (Kind.DECISION, "pause")
        ]  # fmt: skip
        assert await handle.unpause(reason="go") is Status.QUEUED
        assert await handle.result() == ["one", "two"]
        assert ledger.counts == {"one begins": 1, "one": 1, "two": 1}
        names = [r.name for r in await history(shop.app, "w") if r.name]
        assert names == ["act", "pause", "unpause", "dare"]


async def test_of_steps_in_parallel_each_ends_and_is_recorded(shop: Shop, ledger: Ledger) -> None:
    async with shop.app:
        handle = await shop.both.options(id="w").start(after=True)
        await until(lambda: ledger.count("right") and "third begins" in ledger)
        pausing = asyncio.ensure_future(handle.pause())
        await until(lambda: told(shop.app, "w"))
        shop.gate.set()
        assert await pausing is Status.HELD
        assert "after begins" not in ledger
        await handle.unpause()
        assert await handle.result() == ["left", "right", "third", "after"]
    assert set(ledger.counts.values()) == {1}


async def test_what_loses_a_race_while_it_is_told_to_pause_loses_it_in_every_replay(shop: Shop, ledger: Ledger) -> None:
    """Two steps end together: the body sees the first alone, and gives the other up, as it does without a pause."""
    async with shop.app:
        handle = await shop.race.options(id="w").start()
        await until(lambda: len(ledger) == 2)
        pausing = asyncio.ensure_future(handle.pause())
        await until(lambda: told(shop.app, "w"))
        shop.gate.set()
        assert await pausing is Status.HELD
        assert "after begins" not in ledger
        await crash(shop.app)
    async with shop.app:
        handle = shop.race.handle("w")
        await handle.unpause()
        assert await handle.result() in (["after", "left"], ["after", "right"])
    assert ledger.counts["after"] == 1


async def test_a_cancel_after_it_leaves_what_the_body_saw_in_the_order_it_was_seen(shop: Shop, ledger: Ledger) -> None:
    """The race is over while another step keeps the pause from being done; then it is told to cancel."""
    async with shop.app:
        handle = await shop.beside.options(id="w").start()
        await until(lambda: len(ledger) == 3)
        pausing = asyncio.ensure_future(handle.pause())
        await until(lambda: told(shop.app, "w"))
        shop.gate.set()
        execution = executor(shop.app).executions["w"]
        await until(lambda: execution.running == 1)
        cancelling = asyncio.ensure_future(handle.cancel())
        await until(lambda: execution.cancelling is not None)
        shop.last.set()
        assert await cancelling is Status.CANCELLED
        assert await pausing is Status.CANCELLED
        kept = [r.kind for r in await history(shop.app, "w")]
        assert kept.count(Kind.STEP) == 2, "of the race one outcome was seen, and one is kept"
        fork = await handle.fork(id="again")
        with pytest.raises(WorkflowCancelled):  # its replay comes to the cancel
            await fork.result()


async def test_a_body_that_ends_at_what_was_in_flight_has_ended(shop: Shop, ledger: Ledger) -> None:
    async with shop.app:
        handle = await shop.both.options(id="w").start()
        await until(lambda: ledger.count("right") and "third begins" in ledger)
        pausing = asyncio.ensure_future(handle.pause())
        await until(lambda: told(shop.app, "w"))
        shop.gate.set()
        assert await pausing is Status.COMPLETED
        assert await handle.result() == ["left", "right", "third"]


async def test_a_failed_step_is_tried_again_after_the_pause(app: App, ledger: Ledger) -> None:
    gate = asyncio.Event()

    @app.step(name="shaky", retry=Retry(attempts=3, on=ConnectionError, delay=0))
    async def shaky() -> int:
        ledger.note("try")
        if len(ledger) == 1:
            await gate.wait()
        if len(ledger) < 3:
            raise ConnectionError
        return len(ledger)

    @app.workflow(name="stubborn")
    async def stubborn() -> int:
        return await shaky()

    async with app:
        handle = await stubborn.options(id="w").start()
        await until(lambda: ledger)
        pausing = asyncio.ensure_future(handle.pause())
        await until(lambda: told(app, "w"))
        gate.set()
        assert await pausing is Status.HELD
        assert ledger == ["try"]
        await handle.unpause()
        assert await handle.result() == 3


async def test_mail_is_kept_and_received_once_after_a_restart_of_everybody(
    shop: Shop, ledger: Ledger, database: str
) -> None:
    async with shop.app:
        handle = await shop.letter.options(id="w").start()
        await until(lambda: waits(shop.app, "w"))
        assert await handle.pause() is Status.HELD
        await handle.send("first", go)
        await crash(shop.app)
    async with shop.app:
        handle = shop.letter.handle("w")
        await handle.send("second", go)
        assert not in_memory(shop.app, "w")
        assert await paused(shop.app, "w")
        await handle.unpause()
        assert await handle.result() == ["first", "second"]
    assert ledger == ["between begins", "between"]


async def test_what_left_memory_is_paused_at_once_by_a_client_with_nobody_there(
    shop: Shop, ledger: Ledger, database: str, quick_eviction: None
) -> None:
    async with shop.app:
        await shop.letter.options(id="w").start()
        await until(lambda: waiting(shop.app, "w"))
    async with Client(database, app="shop") as client:
        handle = client.handle("w")
        assert await handle.pause(reason="maintenance") is Status.HELD
        assert await handle.pause() is Status.HELD, "again: nothing"
        assert [info.id async for info in client.list("status = held")] == ["w"]
        async with shop.app:
            await handle.send("x", go)
            await until(lambda: executor(shop.app).looks > 3)
            assert await paused(shop.app, "w")
            await handle.unpause()
            await handle.send("y", go)
            assert await handle.result() == ["x", "y"]


async def waiting(app: App, id: str) -> bool:
    return (await row(app, id)).status is Status.WAITING


async def test_timers_keep_their_time_and_an_overdue_one_fires_at_the_unpause(shop: Shop, database: str) -> None:
    async with harness(shop.app, database=database) as h:
        handle = await shop.nap.options(id="w").start(60)
        await h.advance(10)
        assert await handle.pause() is Status.HELD
        await h.advance(100)
        assert (await handle.info()).status is Status.HELD
        await handle.unpause()
        await h.settle()
        assert await handle.result() == "awake"
        other = await shop.nap.options(id="v").start(60)
        await h.advance(10)
        await other.pause()
        await h.advance(20)
        await other.unpause()
        await h.advance(29)
        assert (await other.info()).closed is None, "not before its time"
        await h.advance(2)
        assert await other.result() == "awake"


async def test_its_deadline_holds(shop: Shop, ledger: Ledger, database: str) -> None:
    async with harness(shop.app, database=database) as h:
        handle = await shop.letter.options(id="w", timeout=60).start()
        await h.settle()
        assert await handle.pause() is Status.HELD
        await h.advance(30)
        assert (await handle.info()).status is Status.HELD
        await h.advance(31)
        with pytest.raises(WorkflowTimedOut):
            await handle.result()
    assert ledger == ["cleaned begins", "cleaned"]


async def test_a_cancel_of_a_paused_one_works_at_once_and_cleans_up(shop: Shop, ledger: Ledger) -> None:
    async with shop.app:
        handle = await shop.letter.options(id="w").start()
        await until(lambda: waits(shop.app, "w"))
        assert await handle.pause() is Status.HELD
        assert await handle.cancel(reason="enough") is Status.CANCELLED
        assert ledger == ["cleaned begins", "cleaned"]
        with pytest.raises(WorkflowCancelled):
            await handle.result()
        assert await handle.pause() is Status.CANCELLED
        assert await handle.unpause() is Status.CANCELLED


async def test_a_cancel_is_stronger_than_a_pause_that_waits(shop: Shop, ledger: Ledger) -> None:
    async with shop.app:
        handle = await shop.two.options(id="w").start()
        await until(lambda: ledger)
        pausing = asyncio.ensure_future(handle.pause())
        await until(lambda: told(shop.app, "w"))
        cancelling = asyncio.ensure_future(handle.cancel())
        await until(lambda: executor(shop.app).executions["w"].cancelling)
        shop.gate.set()
        assert await cancelling is Status.CANCELLED
        assert await pausing is Status.CANCELLED


async def test_a_pause_that_is_not_done_yet_is_taken_back(shop: Shop, ledger: Ledger) -> None:
    async with shop.app:
        handle = await shop.two.options(id="w").start()
        await until(lambda: ledger)
        pausing = asyncio.ensure_future(handle.pause())
        await until(lambda: told(shop.app, "w"))
        assert await handle.unpause() is Status.RUNNING
        assert await pausing is Status.RUNNING, "somebody took it back"
        shop.gate.set()
        assert await handle.result() == ["one", "two"]
    assert ledger == ["one begins", "one", "two"]


async def test_who_dies_before_it_has_stopped_leaves_the_pause_to_whoever_takes_over(
    shop: Shop, ledger: Ledger, database: str
) -> None:
    async with Client(database, app="shop") as client:
        async with shop.app:
            await shop.two.options(id="w").start()
            await until(lambda: ledger)
            pausing = asyncio.ensure_future(client.handle("w").pause())
            await until(lambda: told(shop.app, "w"))
            await crash(shop.app)
        shop.gate.set()
        async with shop.app:
            assert await pausing is Status.HELD
            assert ledger == ["one begins"]
            await shop.two.handle("w").unpause()
            assert await shop.two.handle("w").result() == ["one", "two"]


async def test_what_is_scheduled_keeps_its_time(shop: Shop, database: str) -> None:
    async with harness(shop.app, database=database) as h:
        early = await shop.nap.options(id="early", delay=60).start(0)
        late = await shop.nap.options(id="late", delay=60).start(0)
        assert await early.pause() is Status.HELD
        assert await late.pause() is Status.HELD
        await h.advance(30)
        assert await early.unpause() is Status.SCHEDULED
        await h.advance(60)
        assert await early.result() == "awake"
        assert (await early.info()).started - (await early.info()).created == timedelta(seconds=60)
        assert (await late.info()).started is None
        assert await late.unpause() is Status.QUEUED
        await h.settle()
        assert await late.result() == "awake"


async def test_in_line_it_takes_no_slot_and_gets_its_place_back(app: App, ledger: Ledger) -> None:
    gate = asyncio.Event()

    @app.step(name="enter")
    async def enter(who: str) -> str:
        ledger.note(who)
        await gate.wait()
        return who

    @app.workflow(name="work", queue=app.queue("q", concurrency=1))
    async def work(who: str) -> str:
        return await enter(who)

    async with app:
        handles = [await work.options(id=who).start(who) for who in "abcd"]
        await until(lambda: ledger)
        assert await handles[1].pause() is Status.HELD
        [queue] = await app.client.queues()
        assert (queue.in_line, queue.in_progress) == (2, 1)
        assert await handles[1].unpause() is Status.QUEUED
        assert await handles[2].pause() is Status.HELD
        gate.set()
        await handles[3].result()
        assert ledger == ["a", "b", "d"]
        assert await handles[2].cancel() is Status.CANCELLED
    assert ledger == ["a", "b", "d"]


async def test_what_has_begun_keeps_its_slot(app: App, ledger: Ledger) -> None:
    gate = asyncio.Event()

    @app.step(name="enter")
    async def enter(who: str) -> str:
        ledger.note(who)
        await gate.wait()
        return who

    @app.workflow(name="work", queue=app.queue("q", concurrency=1))
    async def work(who: str) -> list[str]:
        return [await enter(who), await enter(who)]

    async with app:
        first, second = [await work.options(id=who).start(who) for who in "ab"]
        await until(lambda: ledger)
        pausing = asyncio.ensure_future(first.pause())
        await until(lambda: told(app, "a"))
        gate.set()
        assert await pausing is Status.HELD
        [queue] = await app.client.queues()
        assert (queue.in_line, queue.in_progress) == (1, 1)
        await first.unpause()
        assert await first.result() == ["a", "a"]
        assert await second.result() == ["b", "b"]
    assert ledger == ["a", "a", "b", "b"]


async def test_what_continues_as_new_stays_paused(app: App, ledger: Ledger) -> None:
    gate = asyncio.Event()

    @app.step(name="act")
    async def act(n: int) -> int:
        ledger.note(n)
        await gate.wait()
        return n

    @app.workflow(name="loop")
    async def loop(n: int) -> int:
        if n == 2:
            return n
        task = asyncio.ensure_future(act(n))
        await set_event(stage, "begun")
        await task
        await loop.continue_as_new(n + 1)
        return n

    async with app:
        handle = await loop.options(id="w").start(0)
        await until(lambda: ledger)
        pausing = asyncio.ensure_future(handle.pause())
        await until(lambda: told(app, "w"))
        gate.set()
        assert await pausing is Status.HELD
        await handle.unpause()
        assert await loop.handle("w").result() == 2
    assert ledger == ["0", "1"]


async def test_what_is_not_paused_or_not_there_is_answered(shop: Shop) -> None:
    async with shop.app:
        handle = await shop.nap.options(id="w").start(0)
        await handle.result()
        assert await handle.pause() is Status.COMPLETED
        assert await handle.unpause() is Status.COMPLETED
        other = await shop.letter.options(id="v").start()
        assert await other.unpause() in (Status.RUNNING, Status.WAITING)
        with pytest.raises(WorkflowNotFound):
            await shop.app.client.handle("nobody").pause()
        with pytest.raises(WorkflowNotFound):
            await shop.app.client.handle("nobody").unpause()


async def test_not_inside_a_workflow(shop: Shop) -> None:
    @shop.app.workflow(name="meddler")
    async def meddler() -> None:
        await shop.letter.handle("w").pause()

    async with shop.app:
        with pytest.raises(Misuse):
            await meddler()


async def test_a_deploy_and_its_retries_leave_it_alone(shop: Shop, ledger: Ledger, database: str) -> None:
    async with shop.app:
        handle = await shop.letter.options(id="w").start()
        await until(lambda: waits(shop.app, "w"))
        await handle.pause()
        before = await row(shop.app, "w")
    next_app = App("shop", database=database, version="next")
    Shop(next_app, ledger)
    async with next_app:
        await until(lambda: executor(next_app).looks > 3)
        await executor(next_app).adopter.round()
        assert await row(next_app, "w") == before
        await next_app.client.handle("w").unpause()
        await next_app.client.handle("w").send("a", go)
        await next_app.client.handle("w").send("b", go)
        assert await next_app.client.handle("w").result() == ["a", "b"]


def test_a_blocking_body_stops_before_its_next_step(sync_app: perdure.sync.App, ledger: Ledger) -> None:
    import threading

    gate = threading.Event()

    @sync_app.step(name="act")
    def act(what: str) -> str:
        ledger.note(what)
        gate.wait()
        return what

    @sync_app.workflow(name="two")
    def two() -> list[Any]:
        return [act("one"), act("two"), perdure.sync.recv("go")]

    with sync_app:
        handle = two.options(id="w").start()
        until_sync(lambda: ledger)
        answers: list[Status] = []
        pausing = threading.Thread(target=lambda: answers.append(handle.pause()))
        pausing.start()
        until_sync(lambda: executor(sync_app).executions["w"].pausing)
        gate.set()
        pausing.join()
        assert answers == [Status.HELD]
        assert ledger == ["one"]
        handle.unpause()
        until_sync(lambda: ledger == ["one", "two"])
        until_sync(lambda: executor(sync_app).executions["w"].waiting)
        assert handle.pause() is Status.HELD, "in a wait, too"
        handle.send("there", "go")
        handle.unpause()
        assert handle.result() == ["one", "two", "there"]
    assert ledger == ["one", "two"]
