"""The deterministic loop under a tiny stand-in for the engine: call orders, paths, timers, refusals, hosts."""

from __future__ import annotations

import asyncio
import contextvars
import json
import os
import subprocess
import sys
import time
from typing import Any

import pytest

from perdure.errors import NotDurable
from perdure.runtime.loop import DELAY_MAX, LoopTask, LoopTimer, WorkflowLoop
from tests.runtime.loop_driver import START, Driver, call, here, step

# waits: on the workflow's loop, whose timers the driver fires: no real time passes.

SECOND = 1_000_000


def paths(driver: Driver) -> list[str]:
    return [path for path, _ in driver.calls]


# -- call orders


def orders(seed: str) -> dict[str, list[Any]]:
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    command = [sys.executable, "-W", "error", "-m", "tests.runtime.call_orders"]
    return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)


def test_the_order_of_calls_is_the_same_in_every_run_and_process() -> None:
    first, second = orders("1"), orders("2")
    assert {body: len(found) for body, found in first.items()} == dict.fromkeys(first, 1)
    assert first == second


def test_hashes_depend_on_the_run_and_the_order_of_creation_alone() -> None:
    async def body() -> list[int]:
        loop = asyncio.get_running_loop()
        made = [loop.create_future(), asyncio.gather(loop.create_future()), asyncio.create_task(asyncio.sleep(0))]
        await asyncio.sleep(0)
        made[1].cancel()
        return [hash(one) for one in made]

    first, again, other = (Driver(identity).run(body) for identity in (b"one" * 5, b"one" * 5, b"two" * 5))
    assert first == again
    assert not set(first) & set(other)
    assert all(0 <= number < (1 << 61) for number in first + other)


def test_patched_functions_leave_other_loops_alone() -> None:
    async def host() -> Any:
        got = [await f for f in asyncio.as_completed([asyncio.sleep(0, 1)])]
        return got, len(asyncio.all_tasks()), len({asyncio.gather(asyncio.sleep(0))})

    assert asyncio.run(host()) == ([1], 1, 1)


# -- paths


def test_paths_follow_the_tasks() -> None:
    async def nested() -> None:
        await step("c")
        await asyncio.create_task(step("d"))
        await step("e")

    async def body() -> None:
        await step("a")
        task = asyncio.create_task(nested())
        await step("b")
        await task
        asyncio.get_running_loop().call_soon(lambda: call("outside any task"))
        await asyncio.sleep(0)
        await step("f")

    driver = Driver()
    driver.run(body)
    assert sorted(driver.calls) == [
        ("1", "a"),
        ("2.1", "c"),
        ("2.2.1", "d"),
        ("2.3", "e"),
        ("3", "b"),
        ("4", "outside any task"),
        ("5", "f"),
    ]


def test_timers_have_paths_of_their_own() -> None:
    async def body() -> None:
        await asyncio.gather(asyncio.sleep(5), asyncio.sleep(2))
        await step("a")
        await asyncio.sleep(1)

    driver = Driver()
    main = driver.start(body)
    assert [(timer.path, timer.deadline) for timer in driver.timers] == [
        ("1.t1", START + 5 * SECOND),
        ("2.t1", START + 2 * SECOND),
    ]
    assert list(driver.loop.timers) == ["1.t1", "2.t1"]
    driver.drive(main)
    assert driver.calls == [("3", "a")]


def test_tasks_made_behind_the_loop_get_a_path_when_they_call() -> None:
    async def body() -> Any:
        loop = asyncio.get_running_loop()
        stray = asyncio.Task(step("a", 1), loop=loop)
        await asyncio.sleep(0)
        assert stray in asyncio.all_tasks()
        return await stray, await step("b", 2)

    driver = Driver()
    assert driver.run(body) == (1, 2)
    assert driver.calls == [("1.1", "a"), ("2", "b")]


def test_names_of_tasks_are_told_by_their_paths() -> None:
    async def body() -> list[str]:
        return [asyncio.create_task(step("a")).get_name(), asyncio.create_task(step("b"), name="mine").get_name()]

    assert Driver().run(body) == ["task 1", "mine"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_eager_tasks_keep_their_paths_and_hashes() -> None:
    async def child() -> int:
        assert asyncio.current_task() in asyncio.all_tasks()
        return await step("child", 1)

    async def body() -> Any:
        loop: Any = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        first = asyncio.create_task(child())
        assert isinstance(first, LoopTask)
        assert here().calls == [("1.1", "child")]
        at_once = asyncio.create_task(asyncio.sleep(0, 2))
        loop.set_task_factory(None)
        second = loop.create_task(child(), eager_start=True)
        raw = asyncio.Task(step("raw", 1), loop=loop, eager_start=True)
        assert paths(here()) == ["1.1", "3.1", "4.1"]
        return await asyncio.gather(first, at_once, second, raw)

    assert Driver().run(body) == [1, 2, 1, 1]


def test_what_is_no_coroutine_makes_no_task() -> None:
    async def body() -> int:
        with pytest.raises(TypeError, match="coroutine"):
            asyncio.get_running_loop().create_task(5)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="unexpected"):
            asyncio.get_running_loop().create_task(5, colour="red")  # type: ignore[call-arg, arg-type]
        return len(asyncio.all_tasks())

    assert Driver().run(body) == 1


def test_other_task_factories_are_refused() -> None:
    async def body() -> None:
        asyncio.get_running_loop().set_task_factory(lambda loop, coro, **_: asyncio.Task(coro, loop=loop))  # type: ignore[arg-type, misc]

    with pytest.raises(NotDurable, match="Put it in a step"):
        Driver().run(body)


# -- time


def test_deadlines_are_exact_microseconds() -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        assert round(loop.time() * 1e6) == START
        for delay in (5, 0.1, 1e-6, 86_400 * 365):
            loop.call_later(delay, print)
            loop.call_at(loop.time() + delay, print)
        loop.call_later(1e-9, print)
        loop.call_later(float("inf"), print)
        with pytest.raises(ValueError, match="not a number"):
            loop.call_later(float("nan"), print)

    driver = Driver()
    driver.start(body)
    deltas = [timer.deadline - START for timer in driver.timers]
    assert deltas == [5 * SECOND] * 2 + [100_000] * 2 + [1] * 2 + [86_400 * 365 * SECOND] * 2 + [1, DELAY_MAX]
    driver.loop.unwind()


def test_a_cancelled_timer_is_disarmed_once_and_a_fired_one_never() -> None:
    async def body() -> None:
        timer = asyncio.get_running_loop().call_later(5, call, "never")
        assert isinstance(timer, LoopTimer)
        timer.cancel()
        timer.cancel()
        assert timer.cancelled()
        await asyncio.sleep(1)
        async with asyncio.timeout(5):
            await step("a")

    driver = Driver()
    driver.run(body)
    assert driver.disarmed == ["t1", "t3"]
    assert driver.calls == [("1", "a")]


def test_a_timer_fires_once_and_not_after_it_was_cancelled() -> None:
    async def body() -> None:
        await asyncio.get_running_loop().create_future()

    driver = Driver()
    driver.start(body)
    log: list[str] = []
    with driver.loop.deliver():
        timer = driver.loop.call_later(1, log.append, "rang")
        late = driver.loop.call_later(1, log.append, "cancelled between firing and turn")
    for one in (timer, timer, late):
        driver.loop.fire(one)  # type: ignore[arg-type]
    late.cancel()
    driver.burst()
    driver.loop.fire(timer)  # type: ignore[arg-type]
    driver.burst()
    assert log == ["rang"]
    assert driver.disarmed == []


# -- bursts


def test_bursts_are_bounded_in_callbacks() -> None:
    async def body() -> int:
        for _ in range(25_000):
            await asyncio.sleep(0)
        return 1

    driver = Driver()
    main = driver.loop.start(body())
    bursts = 1
    while not driver.loop.burst():
        bursts += 1
        assert driver.loop.pending()
    assert main.result() == 1
    assert bursts >= 3


def test_one_burst_hands_over_outcomes_in_order_each_when_all_is_quiet() -> None:
    log: list[object] = []

    async def body(driver: Driver) -> int:
        first, second = driver.call("first", 1), driver.call("second", 2)
        log.append(await first + await second)
        await asyncio.sleep(0)
        log.append("quiet")
        return int(await driver.call("third", 3))

    driver = Driver()
    main = driver.loop.start(body(driver))

    def more() -> bool:
        if not driver.waiting:
            return False
        name, value, future = driver.waiting.pop(0)
        log.append(name)
        future.set_result(value)
        return True

    assert driver.loop.burst(more)
    assert main.result() == 3
    assert log == ["first", "second", 3, "quiet", "third"]


def test_a_long_replay_gives_the_host_back_within_its_bounds() -> None:
    async def body(driver: Driver) -> int:
        return sum([await driver.call("one", 1) for _ in range(25_000)])

    driver = Driver()
    main = driver.loop.start(body(driver))
    bursts = 1

    def more() -> bool:
        if driver.waiting:
            _, value, future = driver.waiting.pop()
            future.set_result(value)
            return True
        return False

    while not driver.loop.burst(more):
        bursts += 1
    assert main.result() == 25_000
    assert bursts >= 3


def test_bursts_are_bounded_in_time() -> None:
    async def body() -> None:
        while True:
            time.sleep(0.005)  # noqa: ASYNC251  a body that computes
            await asyncio.sleep(0)

    driver = Driver()
    driver.loop.start(body())
    began = time.monotonic()
    assert not driver.loop.burst()
    assert 0.04 < time.monotonic() - began < 1
    assert driver.loop.unwind() == []


def test_pending_says_whether_the_body_could_ever_wake() -> None:
    async def body() -> None:
        await asyncio.sleep(1)
        await asyncio.get_running_loop().create_future()

    driver = Driver()
    driver.loop.start(body())
    assert driver.loop.pending()
    driver.burst()
    assert driver.loop.pending()
    driver.fire()
    assert not driver.loop.pending()
    driver.loop.unwind()


def test_errors_of_callbacks_are_collected() -> None:
    async def fails() -> None:
        raise ValueError("lost")

    async def body() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        asyncio.create_task(fails())  # noqa: RUF006
        await asyncio.sleep(1)

    driver = Driver()
    main = driver.start(body)
    driver.drive(main)
    assert driver.loop.cancel_leftovers() == []
    assert [type(error.exception) for error in driver.loop.errors] == [ZeroDivisionError, ValueError]
    assert "never retrieved" in driver.loop.errors[1].message
    driver.loop.unwind()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_process_leaves_the_burst(error: type[BaseException]) -> None:
    async def body() -> None:
        raise error

    driver = Driver()
    driver.loop.start(body())
    with pytest.raises(error):
        driver.loop.burst()
    assert asyncio._get_running_loop() is None
    driver.loop.unwind()


# -- what is refused

WORKING = {
    "call_at",
    "call_exception_handler",
    "call_later",
    "call_soon",
    "create_future",
    "create_task",
    "get_debug",
    "get_exception_handler",
    "get_task_factory",
    "is_closed",
    "is_running",
    "set_debug",
    "set_task_factory",
    "time",
}
METHODS = [name for name in dir(asyncio.AbstractEventLoop) if not name.startswith("_")]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_of_the_loop_works_or_refuses(name: str) -> None:
    method = getattr(Driver().loop, name)
    if name in WORKING:
        assert getattr(WorkflowLoop, name) is not getattr(asyncio.AbstractEventLoop, name)
        return
    with pytest.raises(NotDurable, match=rf"loop\.{name}\(\).*in a step") as caught:
        method()
    assert "workflow body cannot do I/O" in str(caught.value)


async def to_thread() -> None:
    await asyncio.to_thread(time.sleep, 0)


async def connect() -> None:
    await asyncio.open_connection("127.0.0.1", 1)


async def run_program() -> None:
    await asyncio.create_subprocess_exec("true")


async def set_debug() -> None:
    asyncio.get_running_loop().set_debug(False)
    asyncio.get_running_loop().set_debug(True)


@pytest.mark.parametrize("body", [to_thread, connect, run_program, set_debug])
def test_real_io_is_refused(body: Any) -> None:
    with pytest.raises(NotDurable, match="step"):
        Driver().run(body)


def test_futures_of_another_loop_are_explained() -> None:
    host = asyncio.new_event_loop()
    try:
        future = host.create_future()

        async def body() -> None:
            await future

        async def in_a_group() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(body())

        for one in (body, in_a_group):
            driver = Driver()
            main = driver.start(one)
            error = main.exception()
            assert error is not None
            assert isinstance(driver.loop.in_our_words(error), NotDurable)
        assert driver.loop.in_our_words(other := RuntimeError("else")) is other
    finally:
        host.close()


# -- hosts


def hosts() -> list[Any]:
    found = [pytest.param(asyncio.new_event_loop, id="asyncio")]
    try:
        import uvloop
    except ImportError:
        return found
    return [*found, pytest.param(uvloop.new_event_loop, id="uvloop")]


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


@pytest.mark.parametrize("new_loop", hosts())
def test_nothing_leaks_between_host_and_body(new_loop: Any) -> None:
    async def abandoned() -> Any:
        yield 1

    async def body() -> Any:
        seen = [VARIABLE.get()]
        VARIABLE.set("of the body")
        async for _ in abandoned():
            break
        task = asyncio.create_task(asyncio.sleep(0, VARIABLE.get()))
        await step("a")
        return [*seen, VARIABLE.get(), await task]

    async def program() -> None:
        VARIABLE.set("of the host")
        loop = asyncio.get_running_loop()
        finished = loop.create_future()
        mine, hooks = asyncio.current_task(), sys.get_asyncgen_hooks()

        def host_callback() -> None:
            driver = Driver()
            main = driver.start(body)
            assert asyncio.get_running_loop() is loop
            assert asyncio.current_task() is None
            assert driver.drive(main) == ["unset", "of the body", "of the body"]
            assert VARIABLE.get() == "of the host"
            assert sys.get_asyncgen_hooks() == hooks
            driver.loop.unwind()
            finished.set_result(None)

        loop.call_soon(host_callback)
        await finished
        assert asyncio.current_task() is mine
        driver = Driver()
        driver.loop.start(body())
        with pytest.raises(RuntimeError, match="inside a task"):
            driver.loop.burst()
        driver.loop.unwind()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(program())


def test_a_burst_inside_a_burst_is_refused() -> None:
    async def body() -> None:
        here().loop.call_soon(print)
        here().loop.burst()

    with pytest.raises(RuntimeError, match="burst"):
        Driver().run(body)
