"""How a run leaves its loop: leftovers at the end of main, async generators, and being put away."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any, Self

import pytest

from perdure.errors import Evicted
from perdure.runtime.loop import WorkflowLoop
from tests.runtime.loop_driver import Driver, call, here, step

# waits: on the workflow's loop, whose timers the driver fires: no real time passes.


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


# -- the end of main


def test_leftovers_are_cancelled_once_in_order_of_creation() -> None:
    log: list[str] = []

    async def member(i: int) -> None:
        try:
            await step(f"s{i}")
        except asyncio.CancelledError:
            log.append(f"cancelled {i}")
            await step(f"clean {i}")
            log.append(f"cleaned {i}")
            raise

    async def body() -> None:
        for i in range(5):
            asyncio.create_task(member(i))  # noqa: RUF006  the loop holds it
        await asyncio.sleep(0)

    driver = Driver()
    main = driver.start(body)
    assert main.done()
    left = driver.loop.cancel_leftovers()
    assert [task.get_name() for task in left] == [f"task {i}" for i in range(1, 6)]
    driver.burst()
    assert driver.loop.cancel_leftovers() == left
    assert log == [f"cancelled {i}" for i in range(5)]
    while driver.waiting:
        driver.deliver()
    assert log[5:] == [f"cleaned {i}" for i in range(5)]
    assert driver.loop.cancel_leftovers() == []
    assert all(task.cancelled() for task in left)
    driver.loop.unwind()


def test_abandoned_generators_are_closed_when_main_has_ended_and_not_before() -> None:
    log: list[str] = []

    async def pages(name: str) -> AsyncIterator[int]:
        try:
            for i in range(10):
                yield await step(f"page {name}", i)
        finally:
            await step(f"close {name}")
            log.append(f"closed {name}")

    async def body() -> None:
        for name in ("a", "b"):
            async for page in pages(name):
                if page == 1:
                    break
        gc.collect()
        asyncio.create_task(forever())  # noqa: RUF006
        await step("next")

    driver = Driver()
    driver.drive(driver.start(body))
    assert [name for _, name in driver.calls] == ["page a", "page a", "page b", "page b", "next"]
    left = driver.loop.cancel_leftovers()
    assert len(left) == 2
    driver.burst()
    while driver.waiting:
        driver.deliver()
    assert log == ["closed a", "closed b"]
    assert driver.loop.cancel_leftovers() == []
    assert driver.loop.errors == []
    driver.loop.unwind()


def test_finished_generators_and_tasks_are_not_kept() -> None:
    async def one() -> AsyncIterator[int]:
        yield 1

    async def body() -> None:
        for _ in range(500):
            async for _ in one():
                pass
            await asyncio.create_task(asyncio.sleep(0))

    driver = Driver()
    driver.drive(driver.start(body))
    assert len(driver.loop._generators) < 100
    assert len(driver.loop._tasks) < 100
    driver.loop.unwind()


def test_cancelling_main() -> None:
    log: list[str] = []

    async def body() -> str:
        try:
            await asyncio.gather(step("a"), asyncio.sleep(50))
        except asyncio.CancelledError:
            log.append(await step("clean", "cleaned"))
            raise
        return "never"

    driver = Driver()
    main = driver.start(body)
    driver.loop.cancel_main()
    driver.burst()
    driver.waiting.pop(0)
    driver.deliver()
    assert main.cancelled()
    assert log == ["cleaned"]
    assert not driver.loop.pending()
    driver.loop.unwind()


# -- being put away


class Resource:
    """Logs what its exit sees, and tries to call a step from there."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.log.append(f"exit {kind.__name__ if kind else None}")
        await step("release")


def bodies(log: list[str]) -> dict[str, Any]:
    async def in_finally() -> None:
        try:
            await step("a")
        finally:
            log.append("finally")

    async def in_finally_awaits() -> None:
        try:
            await step("a")
        finally:
            log.append("finally")
            await asyncio.sleep(0)
            log.append("not reached")

    async def calls_in_except() -> None:
        try:
            await step("a")
        except BaseException as error:
            log.append(type(error).__name__)
            await step("refund")

    async def in_exit() -> None:
        async with Resource(log):
            await step("a")

    async def in_group() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(in_finally())
            group.create_task(in_exit())
            await in_finally()

    async def in_gather() -> None:
        async with asyncio.timeout(50):
            await asyncio.gather(in_finally(), asyncio.gather(in_exit(), call("direct")), asyncio.sleep(9))

    async def in_wait() -> None:
        await asyncio.wait([asyncio.create_task(in_finally()), asyncio.shield(in_exit())], timeout=5)

    async def in_stack() -> None:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(5):
                await stack.enter_async_context(Resource(log))
            await in_finally_awaits()

    async def makes_tasks() -> None:
        try:
            await step("a")
        finally:
            log.append("finally")
            await asyncio.create_task(step("b"))

    async def as_completed() -> None:
        for f in asyncio.as_completed([in_finally(), in_exit()]):
            await f

    return {name: f for name, f in locals().items() if name != "log"}


EXPECTED = {
    "in_finally": ["finally"],
    "in_finally_awaits": ["finally"],
    "calls_in_except": ["Evicted"],
    "in_exit": ["exit Evicted"],
    "in_group": ["exit Evicted", "finally", "finally"],
    "in_gather": ["finally", "exit Evicted"],  # the inner gather() made its task first
    "in_wait": ["exit Evicted", "finally"],
    "in_stack": ["finally"] + ["exit Evicted"] * 5,
    "makes_tasks": ["finally"],
    "as_completed": ["exit Evicted", "finally"],
}


# AsyncExitStack ties exceptions to its frame, shield() its outer future to itself: those wait for the collector.
KNOT_BY_THEMSELVES = {"in_stack", "in_wait"}


@pytest.mark.parametrize("name", EXPECTED)
def test_unwinding_runs_cleanup_once_without_a_word_and_leaves_no_cycle(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    log: list[str] = []
    driver = Driver()
    frames: list[weakref.ref[Any]] = []

    async def body() -> None:
        marker = Resource(log)  # lives as long as this frame
        frames.append(weakref.ref(marker))
        await bodies(log)[name]()

    driver.start(body)
    calls = len(driver.calls)
    loop = weakref.ref(driver.loop)
    gc.collect()
    gc.disable()
    try:
        assert driver.loop.unwind() == []
        assert log == EXPECTED[name]
        assert len(driver.calls) == calls
        assert driver.loop.gone
        assert driver.loop.run is None
        assert driver.loop.errors == []
        while driver.waiting:
            future = driver.waiting.pop()[2]
            if not future.done():
                future.set_result("too late to matter")
        del future
        assert driver.loop.burst()
        driver.timers.clear()
        del driver
        if name not in KNOT_BY_THEMSELVES:
            assert frames[0]() is None
            assert loop() is None
    finally:
        gc.enable()
    gc.collect()
    assert frames[0]() is None
    assert loop() is None
    assert capfd.readouterr() == ("", "")


def test_unwinding_in_the_middle_of_everything_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    log: list[str] = []

    async def failing() -> None:
        raise ValueError("nobody asks for this")

    async def counting() -> AsyncIterator[int]:
        try:
            yield await step("n", 1)
            yield 2
        finally:
            log.append("generator closed")
            await asyncio.sleep(1)

    async def body() -> None:
        asyncio.create_task(failing())  # noqa: RUF006
        asyncio.create_task(forever())  # noqa: RUF006
        async for _ in counting():
            break
        asyncio.create_task(step("never begun"))  # noqa: RUF006
        await step("last")

    driver = Driver()
    driver.start(body)
    driver.deliver()
    assert driver.loop.unwind() == []
    assert driver.loop.unwind() == []
    assert log == ["generator closed"]
    del driver
    gc.collect()
    assert capfd.readouterr() == ("", "")


def test_tasks_that_never_ran_are_put_away_too(capfd: pytest.CaptureFixture[str]) -> None:
    driver = Driver()
    driver.loop.start(forever())
    assert driver.loop.unwind() == []
    del driver
    gc.collect()
    assert capfd.readouterr() == ("", "")


def test_bodies_that_swallow_eviction_are_named(capfd: pytest.CaptureFixture[str]) -> None:
    async def returns() -> str:
        with contextlib.suppress(BaseException):
            await step("a")
        return "as if nothing had happened"

    tested: list[bool] = []

    async def stays() -> None:
        while not tested:
            try:
                await asyncio.sleep(1)
            except BaseException:
                continue

    async def body() -> None:
        await asyncio.gather(returns(), stays())

    driver = Driver()
    driver.start(body)
    names = driver.loop.unwind()
    assert [name.split(":")[0] for name in names] == ["task 2", "task 1"]
    assert "stays" in names[0]
    assert "returns" in names[1]
    del driver
    gc.collect()
    tested.append(True)  # at the end of the process it may leave
    assert capfd.readouterr() == ("", "")


def test_unwinding_code_knows_its_loop_its_task_and_its_context() -> None:
    seen: list[Any] = []

    async def child() -> None:
        try:
            await step("a")
        finally:
            task = asyncio.current_task()
            assert task is not None
            seen.append((task.get_name(), isinstance(asyncio.get_running_loop(), WorkflowLoop), here().loop.gone))
            with pytest.raises(Evicted):
                await step("b")

    async def body() -> None:
        await asyncio.create_task(child())

    driver = Driver()
    driver.start(body)
    driver.loop.unwind()
    assert seen == [("task 1", True, True)]
    assert driver.refused == ["b"]


def test_a_body_cannot_be_put_away_from_inside_its_burst() -> None:
    async def body() -> None:
        here().loop.unwind()

    with pytest.raises(RuntimeError, match="inside its own burst"):
        Driver().run(body)


def test_timers_of_a_run_that_is_gone_hold_nothing() -> None:
    driver = Driver()
    driver.start(asyncio.sleep, 5)
    (timer,) = driver.timers
    driver.loop.unwind()
    assert timer.call is None
    assert timer.owner is None
    assert driver.disarmed == []
    driver.loop.fire(timer)
    timer.cancel()
    assert driver.loop.burst()
