"""A workflow that waits is a row, and nothing in the process: no timer, no entry, no handle."""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import weakref
from collections.abc import Awaitable, Callable

import pytest

from perdure import App, recv, sleep
from perdure.client.timers import Timers
from perdure.clock import SystemClock
from tests.runtime.support import executor, until

COUNT = 2000
BLOCKS_EACH = 0.4  # a block left behind by half of them is half, a timer by a quarter one; caches that grow are a fifth


async def test_what_is_cancelled_leaves_the_heap() -> None:
    """However far its time is; and what is left fires in its order."""
    clock, rng = SystemClock(), random.Random(7)
    timers = Timers(clock, asyncio.get_running_loop())
    day = clock.now() + 86_400_000_000
    fired: list[int] = []
    left = [timers.at(day + rng.randrange(10**9), lambda: None) for _ in range(50)]
    for _ in range(40):
        some = [timers.at(day + rng.randrange(10**9), lambda: None) for _ in range(200)]
        rng.shuffle(some)
        for timer in some:
            timer.cancel()
            timer.cancel()  # once is enough
        assert len(timers._heap) <= 300
    assert {entry[2] for entry in timers._heap} >= set(left)
    assert timers.next() == min(timer.when for timer in left)
    due = clock.now() - 1000
    for n in rng.sample(range(20), 20):
        timers.at(due + n, lambda n=n: fired.append(n))  # type: ignore[misc]
    timers.fire()
    assert fired == list(range(20))
    timers.close()


async def test_a_callback_that_raises_costs_no_other_its_time(caplog: pytest.LogCaptureFixture) -> None:
    clock = SystemClock()
    timers = Timers(clock, asyncio.get_running_loop())
    fired, later = asyncio.Event(), asyncio.Event()

    def broken() -> None:
        raise ConnectionError("a bug")

    timers.at(clock.now(), broken)
    timers.at(clock.now() + 1, fired.set)
    await asyncio.wait_for(fired.wait(), 15)
    timers.at(clock.now() + 1, later.set)
    await asyncio.wait_for(later.wait(), 15)
    assert "a bug" in caplog.text
    timers.close()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_what_ends_the_process_goes_through_a_timer(error: type[BaseException]) -> None:
    clock = SystemClock()
    timers = Timers(clock, asyncio.get_running_loop())
    fired = asyncio.Event()

    def end() -> None:
        raise error

    timers.at(clock.now() - 2, end)
    timers.at(clock.now() - 1, fired.set)
    assert timers._handle is not None
    timers._handle.cancel()  # as if it were this one that fires
    with pytest.raises(error):
        timers.fire()
    await asyncio.wait_for(fired.wait(), 15)
    timers.close()


@pytest.mark.slow
async def test_nothing_is_left_in_memory_of_whoever_waits(database: str, quick_eviction: None) -> None:
    """By the clock or for a message, started here or queued by another; after as many that went before."""
    app = App("shop", database=database)

    @app.workflow
    async def wait(n: int) -> None:
        if n % 2:
            await sleep(86_400 * (1 + n % 7) - n)
        await recv("word")

    async def many(first: int) -> None:
        for n in range(first, first + COUNT, 200):
            await wait.start_many(range(n, n + 100))
            await wait.options(delay=0).start_many(range(n + 100, n + 200))
        await until(lambda: len(executor(app).executions) == 0, 60)

    async def claimed(count: int) -> None:
        store = app._home.engine().line.store
        await until(lambda: all_wait(store, count), 60)

    async with app:
        await many(0)
        await claimed(COUNT)
        before = blocks()
        await many(COUNT)
        await claimed(2 * COUNT)
        after = blocks()
    assert after - before < BLOCKS_EACH * COUNT, f"{(after - before) / COUNT:.1f} blocks of memory each"


def blocks() -> int:
    """Of memory, in use: tables that stay as large as they have been are one each."""
    gc.collect()
    return sys.getallocatedblocks()


async def all_wait(store: object, count: int) -> bool:
    kinds = (await store.upkeep.sizes()).kinds  # type: ignore[attr-defined]
    return sum(kind.count for kind in kinds if kind.status == "waiting") == count


# -- nothing waits for the collector: thousands of bodies that were put away would be there at once


async def for_a_time() -> None:
    await sleep(86_400)


async def for_a_message() -> None:
    await recv("word")


async def for_a_message_in_time() -> None:
    await recv("word", timeout=86_400)


async def for_several() -> None:
    await asyncio.gather(sleep(86_400), recv("word"), recv("other", timeout=86_400))


async def in_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(for_a_time())
        group.create_task(for_a_message())


async def within_a_limit() -> None:
    async with asyncio.timeout(86_400):
        await recv("word")


async def on_the_loop() -> None:
    asleep = asyncio.ensure_future(asyncio.sleep(86_400))  # waits: on the workflow's loop, durably
    await asyncio.wait([asleep, asyncio.ensure_future(for_a_message())])


@pytest.mark.parametrize(
    "wait",
    [for_a_time, for_a_message, for_a_message_in_time, for_several, in_a_group, within_a_limit, on_the_loop],
    ids=lambda wait: wait.__name__,
)
async def test_who_is_put_away_does_not_wait_for_the_collector(
    database: str, quick_eviction: None, wait: Callable[[], Awaitable[None]]
) -> None:
    app = App("shop", database=database)

    @app.workflow
    async def body() -> None:
        await wait()

    async with app:
        gc.collect()
        gc.disable()
        try:
            handle = await body.start()
            [run] = executor(app).executions.values()
            seen = [weakref.ref(run), weakref.ref(run.loop)]
            del run
            await until(lambda: not executor(app).executions)
            await until(lambda: all_wait(app._home.engine().line.store, 1))
            await until(lambda: not any(one() for one in seen), 5)
            await handle.cancel()
        finally:
            gc.enable()
