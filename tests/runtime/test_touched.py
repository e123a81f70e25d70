"""A body's own asyncio objects, set or cancelled by somebody else: refused where it is done, as no history has it."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest

from perdure import App, Retry, recv
from perdure.errors import NotDurable
from tests.runtime.loop_driver import Driver, here, step
from tests.runtime.support import Ledger, executor, kinds, row, status, until

Touch = Callable[[], object]


def sets_an_event() -> tuple[Any, Touch]:
    event = asyncio.Event()
    return event.wait(), event.set


def sets_a_future() -> tuple[Any, Touch]:
    future = asyncio.get_running_loop().create_future()
    return future, lambda: future.set_result(None)


def puts_into_a_queue() -> tuple[Any, Touch]:
    queue = asyncio.Queue[int]()
    return queue.get(), lambda: queue.put_nowait(1)


def releases_a_lock() -> tuple[Any, Touch]:
    lock = asyncio.Semaphore(0)
    return lock.acquire(), lock.release


def notifies_a_condition() -> tuple[Any, Touch]:
    condition = asyncio.Condition()

    async def wait() -> None:
        async with condition:
            await condition.wait()

    condition.locked = lambda: True  # type: ignore[method-assign]  # as for who has acquired it
    return wait(), condition.notify


def cancels_a_task() -> tuple[Any, Touch]:
    task = asyncio.create_task(asyncio.Event().wait())
    return task, task.cancel


def makes_a_task() -> tuple[Any, Touch]:
    loop = asyncio.get_running_loop()

    async def nothing() -> None: ...

    def make() -> None:
        coro = nothing()
        try:
            assert loop.create_task(coro)
        finally:
            coro.close()

    return asyncio.Event().wait(), make


def calls_soon() -> tuple[Any, Touch]:
    loop = asyncio.get_running_loop()
    return asyncio.Event().wait(), lambda: loop.call_soon(print)


def calls_later() -> tuple[Any, Touch]:
    loop = asyncio.get_running_loop()
    return asyncio.Event().wait(), lambda: loop.call_later(3600, print)


def cancels_a_timer() -> tuple[Any, Touch]:
    timer = asyncio.get_running_loop().call_later(3600, print)
    return asyncio.Event().wait(), timer.cancel


TOUCHES = [
    sets_an_event, sets_a_future, puts_into_a_queue, releases_a_lock, notifies_a_condition, cancels_a_task,
    makes_a_task, calls_soon, calls_later, cancels_a_timer,
]  # fmt: skip


@pytest.mark.parametrize("how", ["async", "thread", "swallowed", "retried"])
@pytest.mark.parametrize("touch", TOUCHES)
async def test_a_step_that_touches_its_workflows_body_is_refused_there(
    app: App, ledger: Ledger, touch: Callable[[], tuple[Any, Touch]], how: str
) -> None:
    made: list[Touch] = []

    def touched() -> None:
        try:
            made[0]()
        except NotDurable as error:
            ledger.note(error)
            if how != "swallowed":
                raise

    async def on_the_loop() -> None:
        touched()
        if how == "swallowed":
            await asyncio.Event().wait()

    meddle: Any = app.step(name="meddle", retry=Retry(delay=0) if how == "retried" else None)(
        touched if how == "thread" else on_the_loop
    )

    @app.step(name="never")
    async def never() -> None: ...

    @app.workflow
    async def body() -> None:
        awaited, do = touch()
        made.append(do)
        waiting = asyncio.gather(awaited)
        await asyncio.sleep(0)
        later = never()
        await meddle()
        await waiting
        await later

    async with app:
        handle = await body.options(id="a").start()
        with pytest.raises(NotDurable, match="Let the step return a value") as raised:
            await handle.result(timeout=15)
        assert await kinds(app, "a") == []
    notes = "".join(getattr(raised.value, "__notes__", ()))
    assert "of workflow 'a'; touched by step meddle (path " in notes
    assert "never awaited" not in notes
    assert len(ledger) == 1


async def test_the_program_around_a_body_is_refused_as_well(app: App) -> None:
    events: list[asyncio.Event] = []

    @app.workflow
    async def body() -> None:
        events.append(asyncio.Event())
        waiting = asyncio.create_task(events[0].wait())
        await recv("never")
        await waiting

    async with app:
        await body.options(id="a").start()
        await until(lambda: "a" in executor(app).executions and executor(app).executions["a"].waiting)
        with pytest.raises(NotDurable, match=r"handle\.send"):
            events[0].set()
        await until(lambda: ended(app))
        assert await status(app, "a") == "failed"


async def ended(app: App) -> bool:
    return not (await row(app, "a")).status.open


async def test_who_touches_a_body_that_has_ended_does_not_change_its_end(app: App) -> None:
    """Its main task has ended, and a child is waited for."""
    futures: list[asyncio.Future[None]] = []

    @app.workflow(name="child")
    async def child() -> str:
        return str(await recv("go"))

    @app.workflow
    async def body() -> str:
        await child.options(id="c", on_parent_close="wait").start()
        futures.append(asyncio.get_running_loop().create_future())
        futures[0].add_done_callback(print)
        return "done"

    async with app:
        handle = await body.options(id="a").start()
        await until(lambda: "a" in executor(app).executions and executor(app).executions["a"].final is not None)
        with pytest.raises(NotDurable):
            futures[0].set_result(None)
        await child.handle("c").send("on", "go")
        assert await handle.result() == "done"


def test_another_thread_is_refused_also_while_a_burst_is_under_way() -> None:
    raised: list[BaseException] = []

    async def body() -> None:
        future = here().loop.create_future()
        future.add_done_callback(print)

        def touch() -> None:
            try:
                future.set_result(None)
            except NotDurable as error:
                raised.append(error)

        thread = threading.Thread(target=touch)
        thread.start()
        thread.join()
        await step("a")

    driver = Driver()
    driver.run(body)
    assert raised == driver.spoilt
    assert len(raised) == 1


@pytest.mark.parametrize("what", ["a timer", "a lock"])
def test_the_collector_that_closes_a_body_is_not_refused(what: str) -> None:
    """A loop that was dropped, as by a process that ends: nothing is printed."""

    async def holds(lock: asyncio.Lock) -> None:
        async with lock:
            await step("a")

    async def body() -> None:
        lock = asyncio.Lock()
        tasks: list[asyncio.Task[None]] = []
        for _ in range(3):
            call = asyncio.sleep(3600) if what == "a timer" else holds(lock)  # waits: a durable timer that nobody fires
            tasks.append(asyncio.create_task(call))
        await asyncio.wait(tasks)

    driver = Driver()
    driver.start(body)
    spoilt = driver.spoilt
    del driver
    gc.collect()
    assert spoilt == []


def test_what_is_put_away_may_be_touched() -> None:
    futures: list[asyncio.Future[None]] = []

    async def body() -> None:
        futures.append(here().loop.create_future())
        await futures[0]

    driver = Driver()
    driver.start(body)
    driver.loop.unwind()
    futures[0].add_done_callback(print)
    futures[0].set_result(None)
    driver.loop.call_soon(print)
    driver.loop.call_later(1, print)
    assert driver.spoilt == []
