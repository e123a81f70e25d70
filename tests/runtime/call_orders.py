"""A program: run bodies that asyncio orders by address, 300 times each, and print each order found, as JSON.

Started by test_loop.py under different hash seeds; run by itself: ``python -m tests.runtime.call_orders``.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
from typing import Any

from tests.runtime.loop_driver import Driver, call, step

# waits: on the workflow's loop, whose timers the driver fires: no real time passes.

RUNS = 300


async def helper(i: int) -> int:
    return await step(f"s{i}", i)


async def gathers() -> None:
    await asyncio.gather(*[helper(i) for i in range(6)])


async def as_completed() -> None:
    for f in asyncio.as_completed([helper(i) for i in range(6)]):
        await step(f"got {await f}")


async def as_completed_async() -> None:
    async for f in asyncio.as_completed([helper(i) for i in range(6)]):
        await step(f"got {await f}")


async def wait() -> None:
    done, _ = await asyncio.wait([asyncio.create_task(helper(i)) for i in range(9)])
    for task in done:
        await step(f"after {task.result()}")


async def wait_for_futures() -> None:
    done, _ = await asyncio.wait([call(f"f{i}", i) for i in range(9)])
    for future in done:
        await step(f"after {future.result()}")


async def wait_for_gathers() -> None:
    done, _ = await asyncio.wait([asyncio.gather(helper(i), helper(i + 10)) for i in range(6)])
    for future in done:
        await step(f"after {future.result()}")


async def task_group_fails() -> None:
    async def member(i: int) -> None:
        try:
            await step(f"s{i}", i)
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            await step(f"clean {i}")
            raise

    async def boom() -> None:
        await asyncio.sleep(1)
        raise ValueError

    try:
        async with asyncio.TaskGroup() as group:
            for i in range(6):
                group.create_task(member(i))
            group.create_task(boom())
    except* ValueError:
        pass


async def all_tasks() -> None:
    tasks = [asyncio.create_task(helper(i), name=f"task {i}") for i in range(12)]
    await asyncio.sleep(0)
    for task in asyncio.all_tasks():
        await step(f"saw {task.get_name()}")
    await asyncio.gather(*tasks)


async def eager() -> None:
    loop: Any = asyncio.get_running_loop()
    if hasattr(asyncio, "eager_task_factory"):
        loop.set_task_factory(asyncio.eager_task_factory)
        assert loop.get_task_factory() is asyncio.eager_task_factory
    tasks = [asyncio.create_task(helper(i)) for i in range(5)]
    done, _ = await asyncio.wait(tasks)
    for task in done:
        await step(f"after {task.result()}")


BODIES = [
    gathers,
    as_completed,
    as_completed_async,
    wait,
    wait_for_futures,
    wait_for_gathers,
    task_group_fails,
    all_tasks,
    eager,
]


def main() -> None:
    found: dict[str, list[list[tuple[str, str]]]] = {}
    rng = random.Random()
    junk: list[Any] = []
    for body in BODIES:
        orders = found[body.__name__] = []
        for _ in range(RUNS):
            # Another memory layout each time, other runs alive in asyncio's process-wide set, the collector at work.
            junk.append([object() for _ in range(rng.randint(0, 50))])
            if rng.random() < 0.3:
                junk.pop(rng.randrange(len(junk)))
            if rng.random() < 0.05:
                gc.collect()
            other = Driver(rng.randbytes(16))
            other.start(gathers)
            driver = Driver(b"the same run each time")
            driver.run(body)
            other.loop.unwind()
            assert not driver.loop.errors
            if driver.calls not in orders:
                orders.append(driver.calls)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
