"""What a body leaves behind: tasks that outlive it, outcomes that come while it computes, exceptions nobody takes."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import perdure.sync
from perdure import App, Retry, current, recv, set_event
from perdure.core.run import Op
from perdure.model.records import Kind
from perdure.runtime.execution import Execution
from perdure.runtime.loop import WorkflowLoop
from tests.runtime.support import Ledger, executor, history, in_memory, kinds, row, status, until

MANY = 40


@pytest.fixture
def short_bursts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four callbacks, and others get their turn."""
    monkeypatch.setattr(WorkflowLoop, "burst_callbacks_max", 1)


async def ended(app: App) -> bool:
    return await status(app, "a") == "completed"


async def at_rest(app: App) -> bool:
    return await status(app, "a") in ("completed", "held")


def waits_for_a_message(app: App) -> bool:
    execution = executor(app).executions.get("a")
    return execution is not None and any(op.kind is Kind.RECV for op in execution.waiting.values())


def is_ending(app: App) -> bool:
    return in_memory(app, "a") and executor(app).executions["a"].final is not None


@pytest.mark.usefixtures("short_bursts")
@pytest.mark.parametrize("what", ["step", "timer", "callback"])
async def test_nothing_that_outlives_the_body_begins_however_long_its_end_takes(
    app: App, ledger: Ledger, what: str
) -> None:
    @app.step
    async def effect(n: int) -> None:
        ledger.note(n)

    @app.workflow
    async def body() -> str:
        async def left_over(n: int) -> None:
            try:
                await (effect(n) if what == "step" else asyncio.sleep(3600))
            finally:
                for _ in range(3):
                    await asyncio.sleep(0)
                await effect(-n)

        if what == "callback":
            for _ in range(MANY):
                asyncio.get_running_loop().call_later(3600, print)
            return "done"
        tasks = [asyncio.create_task(left_over(n)) for n in range(MANY)]
        await asyncio.sleep(0)
        return f"done, and {len(tasks)} left"

    async with app:
        handle = await body.options(id="a").start()
        await until(lambda: ended(app))
        assert (await handle.result()).startswith("done")
        assert await kinds(app, "a") == []
    assert ledger == []


async def test_cleanup_that_comes_too_late_is_told_with_its_line_and_what_to_do(
    app: App, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    @app.step
    async def effect(n: int) -> None:
        ledger.note(n)

    @app.workflow
    async def body() -> str:
        async def left_over() -> None:
            try:
                await recv("never")
            finally:
                await effect(1)  # of the task

        async def values(n: int) -> AsyncIterator[int]:
            try:
                yield n
            finally:
                closed.append(n)
                await effect(2)  # of the generator

        task = asyncio.create_task(left_over())
        begun = [values(1), values(2)]
        return f"{[await anext(one) for one in begun]} and {task.done()}"

    closed: list[int] = []
    async with app:
        await body.options(id="a").start()
        await until(lambda: ended(app))
    assert (ledger, closed) == ([], [1, 2]), "the first generator's trouble does not leave the second open"
    said = [record for record in caplog.records if record.levelno == logging.ERROR]
    where = "test_cleanup_that_comes_too_late_is_told_with_its_line_and_what_to_do.<locals>.body.<locals>."
    assert [record.getMessage() for record in said] == [
        f"workflow a: cleanup of {where}{name}, which the body left behind, was cut off"
        for name in ("values", "values", "left_over")
    ]
    assert caplog.text.count("await effect(1)  # of the task") == 1
    assert caplog.text.count("await effect(2)  # of the generator") == 2
    assert caplog.text.count("NotDurable: a step or another call of Perdure's was made after") == 3
    assert "Evicted()" not in caplog.text
    assert "errors.Evicted" not in caplog.text


@pytest.mark.usefixtures("short_bursts")
async def test_the_end_of_what_is_left_over_is_the_same_on_replay(app: App, ledger: Ledger) -> None:
    """The body has ended, and waits for its child; the process is another then."""

    @app.step
    async def effect(n: int) -> int:
        ledger.note(n)
        return n

    @app.workflow
    async def child() -> str:
        return str(await recv("go"))

    @app.workflow
    async def body() -> int:
        async def left_over(n: int) -> None:
            try:
                await recv("never")
            finally:
                await effect(n)

        await child.options(id="c", on_parent_close="wait").start()
        tasks = [asyncio.create_task(left_over(n)) for n in range(MANY)]
        return await effect(len(tasks))

    async with app:
        await body.options(id="a").start()
        await until(lambda: is_ending(app))
    async with app:
        await app.client.workflow("child", returns=str).handle("c").send("on", "go")
        assert await body.handle("a").result() == MANY
    assert ledger == [str(MANY)]


async def test_what_comes_while_a_burst_is_interrupted_is_handed_over_in_its_order(
    app: App, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds at once: each begins a burst of its own."""
    many = 600
    free = asyncio.Event()
    came = 0
    real = Execution.step_done

    def step_done(self: Execution, *args: Any) -> None:
        nonlocal came
        real(self, *args)
        came += 1

    monkeypatch.setattr(Execution, "step_done", step_done)

    @app.step
    async def one(n: int) -> int:
        if n:
            await free.wait()
        ledger.note(n)
        return n

    @app.workflow
    async def body() -> int:
        async def spin() -> int:
            await one(0)
            free.set()
            while came < many - 1:  # noqa: ASYNC110  turns of the body's own loop
                await asyncio.sleep(0)
            return 0

        return sum(await asyncio.gather(spin(), *(one(n) for n in range(1, many))))

    async with app:
        handle = await body.options(id="a").start()
        await until(lambda: ended(app))
        assert await handle.result() == sum(range(many))
        steps = [record.path for record in await history(app, "a") if record.kind is Kind.STEP]
    assert [0 if "." in path else int(path) for path in steps] == [int(n) for n in ledger]


@pytest.mark.usefixtures("short_bursts")
@pytest.mark.parametrize("then", ["cancelled", "awaited"])
async def test_an_attempt_that_fails_while_a_burst_is_interrupted_is_met_by_a_replay(
    app: App, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    """The rest of the burst gives the step up, or not: a record from before that would have no place on replay."""
    spins = asyncio.Event()
    came = []
    real = Execution.step_done

    def step_done(self: Execution, op: Op, *outcome: Any) -> None:
        real(self, op, *outcome)
        came.append(op.name)

    monkeypatch.setattr(Execution, "step_done", step_done)

    @app.step(name="quick")
    async def quick() -> None: ...

    @app.step(name="fails", retry=Retry(attempts=2, delay=0))
    async def fails() -> str:
        ledger.note("fails")
        await spins.wait()
        if current().attempt == 1:
            raise ValueError("at first")
        return "at last"

    @app.workflow
    async def body() -> str:
        trying = asyncio.create_task(fails())
        await quick()
        spins.set()
        while "fails" not in came:  # noqa: ASYNC110  turns of the body's own loop
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        await set_event("seen", then)
        if then == "cancelled":
            trying.cancel()
        await asyncio.wait([trying])
        return f"{await recv('go')}, {'given up' if trying.cancelled() else trying.result()}"

    async with app:
        await body.options(id="a").start()
        await until(lambda: waits_for_a_message(app))
        attempts = [record.path for record in await history(app, "a") if record.kind is Kind.ATTEMPT]
    async with app:
        await body.handle("a").send("on", "go")
        await until(lambda: at_rest(app))
        assert await status(app, "a") == "completed", (await row(app, "a")).detail
        assert await body.handle("a").result() == ("on, given up" if then == "cancelled" else "on, at last")
    assert len(attempts) == (then == "awaited")
    assert ledger == ["fails"] * (1 + len(attempts))


# -- exceptions that nobody takes


def in_a_task() -> None:
    async def fails() -> None:
        raise ZeroDivisionError

    kept.append(asyncio.get_running_loop().create_task(fails()))


def in_a_callback() -> None:
    def fails() -> None:
        raise ZeroDivisionError

    asyncio.get_running_loop().call_soon(fails)


def in_the_end_of_a_task() -> None:
    async def fails() -> None:
        try:
            await asyncio.sleep(3600)  # waits: a durable timer, called off
        finally:
            raise ZeroDivisionError

    kept.append(asyncio.get_running_loop().create_task(fails()))


kept: list[asyncio.Task[None]] = []


@pytest.mark.parametrize("where", [in_a_task, in_a_callback, in_the_end_of_a_task])
async def test_an_exception_that_nobody_takes_is_logged_once_and_not_on_replay(
    app: App, caplog: pytest.LogCaptureFixture, where: Callable[[], None]
) -> None:
    caplog.set_level(logging.ERROR, logger="perdure")

    @app.step
    async def step() -> None: ...

    @app.workflow
    async def body() -> str:
        where()
        await step()
        return str(await recv("go"))

    async with app:
        await body.options(id="a").start()
        await until(lambda: has_history(app))
    async with app:
        await body.handle("a").send("on", "go")
        assert await body.handle("a").result() == "on"
    kept.clear()
    told = [record for record in caplog.records if record.name == "perdure"]
    assert [(str(r.args[0]), r.exc_info[0]) for r in told if r.args and r.exc_info] == [("a", ZeroDivisionError)]
    assert "in fails" in caplog.text
    assert caplog.text.count("raise ZeroDivisionError") == 1


async def test_generators_that_are_left_unfinished_are_all_closed_and_what_their_cleanup_calls_is_told_of(
    app: App, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    @app.step
    async def step(name: str) -> str:
        ledger.note(name)
        return name

    @app.workflow
    async def body() -> str:
        never = asyncio.create_task(recv("never"))

        async def pages(ends: str) -> AsyncIterator[str]:
            try:
                while True:
                    yield await step("page")
            finally:
                ledger.note(f"closes: {ends}")
                if ends == "by a call":
                    await step("release")
                elif ends == "by a wait":
                    await never

        for ends in ("by a call", "by a wait", "plainly"):
            async for _ in pages(ends):
                break
        return "done"

    async with app:
        assert await body() == "done"
    assert ledger == ["page", "page", "page", "closes: by a call", "closes: by a wait", "closes: plainly"]
    (told,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert told.endswith(".pages, which the body left behind, was cut off")
    assert "contextlib.aclosing" in caplog.text


@pytest.fixture
def unraised(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is raised where Python can only print it."""
    said: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda raised: said.append(repr(raised.exc_value)))
    return said


def collected_with(clean_up: Callable[[], object]) -> None:
    """Leave a generator to the collector, which finds it at once."""

    def pages(of: list[object]) -> Iterator[object]:
        try:
            yield of
        finally:
            clean_up()

    knot: list[object] = []
    begun = pages(knot)
    next(begun)
    knot.append(begun)
    del knot, begun
    gc.collect()


def test_what_the_collector_calls_is_no_call_of_the_body_that_is_running(
    sync_app: perdure.sync.App, ledger: Ledger, unraised: list[str]
) -> None:
    @sync_app.step
    def step(name: str) -> None:
        ledger.note(name)

    @sync_app.workflow
    def body() -> None:
        step("before")
        collected_with(lambda: step("release"))
        step("after")

    with sync_app:
        body()
        assert ledger == ["before", "after"]
        collected_with(lambda: step("of one that was put away"))
    assert ledger == ["before", "after"]
    assert len(unraised) == 2
    for said in unraised:
        assert said.startswith("NotDurable('The garbage collector called Perdure")
        assert "contextlib.closing(…)" in said


async def test_nor_in_an_async_body(app: App, ledger: Ledger, unraised: list[str]) -> None:
    @app.step
    async def step(name: str) -> None:
        ledger.note(name)

    @app.workflow
    async def body() -> None:
        collected_with(lambda: asyncio.ensure_future(step("release")))
        await step("after")

    async with app:
        await body.options(id="a").start()
        await until(lambda: ended(app))
        assert [record.path for record in await history(app, "a") if record.kind is Kind.STEP] == ["1"]
    assert ledger == ["after"]
    assert [said[:10] for said in unraised] == ["NotDurable"]


async def two_records(app: App) -> bool:
    return len(await history(app, "a")) >= 1


async def has_history(app: App) -> bool:
    return bool(await history(app, "a"))
