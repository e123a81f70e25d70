"""Each construct of asyncio that a body may use, on the deterministic loop under a tiny stand-in for the engine."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest

from tests.runtime.loop_driver import START, Driver, step

# waits: on the workflow's loop, whose timers the driver fires: no real time passes.

SECOND = 1_000_000


async def with_gather() -> Any:
    return await asyncio.gather(step("a", 1), step("b", 2), asyncio.gather(step("c", 3)))


async def with_gathered_errors() -> Any:
    good, bad = await asyncio.gather(step("a", 1), step("b", ValueError("no")), return_exceptions=True)
    return good, repr(bad)


async def with_task_group() -> Any:
    async with asyncio.TaskGroup() as group:
        first = group.create_task(step("a", 1))
        second = group.create_task(step("b", 2))
    return first.result(), second.result()


async def with_timeout() -> Any:
    try:
        async with asyncio.timeout(5):
            await asyncio.get_running_loop().create_future()
    except TimeoutError:
        return asyncio.get_running_loop().time()


async def with_timeout_at_in_a_task() -> Any:
    async def inner() -> str:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(loop.time() + 2) as outer, asyncio.timeout(10):
                await loop.create_future()
        except TimeoutError:
            return f"timed out: {outer.expired()}"
        return "not"

    return await asyncio.create_task(inner())


async def with_wait_for() -> Any:
    got = [await asyncio.wait_for(step("a", 1), 3)]
    try:
        await asyncio.wait_for(asyncio.sleep(100), 3)
    except TimeoutError:
        got.append("late")
    return got


async def with_wait() -> Any:
    tasks = [asyncio.ensure_future(step("a", 1)), asyncio.create_task(asyncio.sleep(50))]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    done_later, never = await asyncio.wait([asyncio.create_task(asyncio.sleep(50))], timeout=1)
    return [task.result() for task in done], len(pending), len(done_later), len(never)


async def with_as_completed() -> Any:
    got = [await f for f in asyncio.as_completed([step("a", 1), step("b", 2)])]
    tasks = [asyncio.create_task(asyncio.sleep(s, s)) for s in (3, 1, 2)]
    seen: list[Any] = []
    async for task in asyncio.as_completed(tasks):
        assert task in tasks
        seen.append(await task)
    late: list[str] = []
    for f in asyncio.tasks.as_completed([asyncio.sleep(9), asyncio.sleep(1)], timeout=5):
        try:
            await f
            late.append("done")
        except TimeoutError:
            late.append("late")
    with pytest.raises(TypeError, match="iterable"):
        asyncio.as_completed(tasks[0])
    return got, seen, late


async def with_shield() -> Any:
    inner = asyncio.ensure_future(step("a", 1))
    outer = asyncio.ensure_future(asyncio.shield(inner))
    await asyncio.sleep(0)
    outer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await outer
    return await inner


async def with_queue() -> Any:
    queue: asyncio.Queue[Any] = asyncio.Queue(maxsize=1)

    async def produce() -> None:
        for i in range(3):
            await queue.put(await step("p", i))

    producer = asyncio.create_task(produce())
    got = [await queue.get() for _ in range(3)]
    await producer
    return got


async def with_locks() -> Any:
    lock, gate, event, condition = asyncio.Lock(), asyncio.Semaphore(2), asyncio.Event(), asyncio.Condition()
    log: list[str] = []

    async def member(i: int) -> None:
        async with gate, lock:
            log.append(f"in {i}")
            await step(f"s{i}")
        await event.wait()
        async with condition:
            await condition.wait()
        log.append(f"out {i}")

    tasks = [asyncio.create_task(member(i)) for i in range(3)]
    await asyncio.sleep(1)
    event.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    async with condition:
        condition.notify_all()
    await asyncio.gather(*tasks)
    return log


async def with_task_sets() -> Any:
    task = asyncio.create_task(asyncio.sleep(1), name="mine")
    main = asyncio.current_task()
    assert main is not None
    return main.get_name(), {t.get_name() for t in asyncio.all_tasks()}, await task


async def with_callbacks() -> Any:
    loop, log = asyncio.get_running_loop(), []
    loop.call_soon(log.append, "soon")
    loop.call_soon(log.append, "dropped").cancel()
    loop.call_later(-1, log.append, "at once").when()
    loop.call_at(0, log.append, "long ago")
    loop.call_later(1, log.append, "later")
    handle = loop.call_soon(log.append, "context", context=contextvars.Context())
    assert not handle.cancelled()
    await asyncio.sleep(2)
    return log


async def with_anything_awaitable() -> Any:
    class Awaitable:
        def __await__(self) -> Any:
            return step("a", 1).__await__()

    return await asyncio.ensure_future(Awaitable()), await Awaitable()


CONSTRUCTS = [
    (with_gather, [1, 2, [3]]),
    (with_gathered_errors, (1, "ValueError('no')")),
    (with_task_group, (1, 2)),
    (with_timeout, (START + 5 * SECOND) / 1e6),
    (with_timeout_at_in_a_task, "timed out: True"),
    (with_wait_for, [1, "late"]),
    (with_wait, ([1], 1, 0, 1)),
    (with_as_completed, ([1, 2], [1, 2, 3], ["done", "late"])),
    (with_shield, 1),
    (with_queue, [0, 1, 2]),
    (with_locks, ["in 0", "in 1", "in 2", "out 0", "out 1", "out 2"]),
    (with_task_sets, ("main", {"main", "mine"}, None)),
    (with_callbacks, ["soon", "at once", "long ago", "context", "later"]),
    (with_anything_awaitable, (1, 1)),
]


@pytest.mark.parametrize(("body", "expected"), CONSTRUCTS, ids=[body.__name__ for body, _ in CONSTRUCTS])
def test_constructs_of_asyncio_work(body: Any, expected: Any) -> None:
    driver = Driver()
    main = driver.start(body)
    assert driver.drive(main) == expected
    assert driver.loop.errors == []
