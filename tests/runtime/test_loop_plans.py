"""A body does the same on every Python: what asyncio does otherwise on an older one is made up for on our loop."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import Any

import pytest

from perdure.errors import Evicted
from perdure.runtime.loop import LoopTimer
from tests.runtime.loop_driver import Driver, step
from tests.runtime.loop_plans import PLANS, digest

# waits: on the workflow's loop, whose timers the driver fires: no real time passes.

LIVED = Path(__file__).with_name("loop_plans.txt")  # on Python 3.11, 3.12 and 3.13


def test_a_thousand_plans_are_played_alike_on_every_python() -> None:
    """Each as it was when the file was made: calls, their paths and order, timers, and what the body saw of it."""
    lived = dict(line.split() for line in LIVED.read_text().splitlines())
    assert len(lived) == PLANS
    other = [seed for seed, said in lived.items() if digest(int(seed)) != said]
    assert not other, (
        f"{len(other)} plans are lived otherwise here, the first of them {other[:5]}: a history that was written by "
        "another Python would not replay; see perdure/runtime/pythons.py"
    )


def test_wait_for_gives_no_path_to_what_it_waits_for() -> None:
    async def two() -> None:
        await step("b")
        await step("c")

    async def body() -> None:
        await step("a")
        await asyncio.wait_for(two(), 10)
        await asyncio.wait_for(asyncio.wait_for(step("d"), None), 10)

    driver = Driver()
    driver.run(body)
    assert driver.calls == [("1", "a"), ("2", "b"), ("3", "c"), ("4", "d")]


def test_wait_for_ends_what_takes_too_long() -> None:
    ended: list[str] = []

    async def long() -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def body() -> None:
        for seconds in (1, 0, -1):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(long(), seconds)

    driver = Driver()
    driver.run(body)
    assert ended == ["cancelled"]  # what has no time at all is not begun


def test_what_is_refused_before_it_waits_leaves_no_coroutine_behind() -> None:
    """With warnings as errors: at a mismatch the timer is refused, and nobody would await what was made for it."""

    class Engine(Driver):
        def timer_armed(self, timer: LoopTimer) -> None:
            raise Evicted

    async def body() -> None:
        await step("a")
        await asyncio.wait_for(step("b"), 5)

    driver = Engine()
    with pytest.raises(Evicted):
        driver.run(body)
    gc.collect()
    assert driver.calls == [("1", "a")]


@pytest.mark.parametrize("how", [{}, {"return_exceptions": True}])
def test_a_gather_of_what_is_done_takes_no_turn(how: dict[str, bool]) -> None:
    async def fails() -> None:
        raise ValueError("no")

    async def body() -> list[Any]:
        good = [asyncio.create_task(asyncio.sleep(0, n)) for n in range(2)]
        bad, running = asyncio.create_task(fails()), asyncio.create_task(asyncio.sleep(9))
        await asyncio.wait([*good, bad])
        all_done = asyncio.gather(*good, **how)
        one_failed = asyncio.gather(good[0], bad, running, **how)
        seen: list[Any] = [all_done.done(), one_failed.done()]
        running.cancel()
        seen += await all_done
        seen += await asyncio.gather(one_failed, return_exceptions=True)
        return seen

    said = Driver().run(body)
    assert said[:4] == [True, not how, 0, 1]
    if how:
        assert [type(one) for one in said[4]] == [int, ValueError, asyncio.CancelledError]
    else:
        assert type(said[4]) is ValueError


@pytest.mark.parametrize("how", [{}, {"return_exceptions": True}])
def test_a_gather_of_what_is_done_hands_on_an_exception_that_was_returned(how: dict[str, bool]) -> None:
    async def returns() -> ValueError:
        return ValueError("a value")

    async def body() -> list[str]:
        task = asyncio.create_task(returns())
        await task
        return [str(one) for one in await asyncio.gather(task, task, **how)]

    assert Driver().run(body) == ["a value", "a value"]


def test_a_gather_of_one_that_was_cancelled() -> None:
    async def body() -> str:
        gone = asyncio.create_task(asyncio.sleep(9))
        gone.cancel()
        await asyncio.wait([gone])
        try:
            await asyncio.gather(gone)
        except asyncio.CancelledError:
            return "cancelled"
        return "nothing"

    assert Driver().run(body) == "cancelled"


def test_a_group_that_failed_leaves_the_timeout_around_it_as_it_was() -> None:
    async def fails() -> None:
        await step("fails")
        raise ValueError("no")

    async def body() -> str:
        try:
            async with asyncio.timeout(1):
                try:
                    async with asyncio.TaskGroup() as group:
                        group.create_task(fails())
                except* ValueError:
                    await step("caught")
                await asyncio.sleep(5)
        except TimeoutError:
            return "late"
        return "in time"

    assert Driver().run(body) == "late"


def test_a_cancel_from_outside_of_a_group_that_failed_is_seen_at_the_next_await() -> None:
    async def fails() -> None:
        raise ValueError("no")

    async def inner() -> str:
        task = asyncio.current_task()
        assert task is not None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(fails())
                task.cancel()  # as somebody outside would
                await asyncio.sleep(1)
        except* ValueError:
            pass
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            return "seen"
        return "unseen"

    async def body() -> str:
        return await asyncio.create_task(inner())

    assert Driver().run(body) == "seen"


def test_on_other_loops_asyncio_is_as_it_was() -> None:
    """Whether ``wait_for`` makes a task, and a gather of what is done takes a turn, is for this Python to say."""

    async def host() -> tuple[bool, bool]:
        async def me() -> Any:
            return asyncio.current_task()

        done = [asyncio.create_task(asyncio.sleep(0))]
        await asyncio.wait(done)
        gathered = asyncio.gather(*done)
        at_once = gathered.done()
        await gathered
        return await asyncio.wait_for(me(), 5) is asyncio.current_task(), at_once

    new = hasattr(asyncio, "eager_task_factory")  # which came with both
    assert asyncio.run(host()) == (new, new)
