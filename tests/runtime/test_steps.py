"""Steps: once recorded never again, retries, timeouts, pure steps, idempotency keys, what a step may know of itself."""

from __future__ import annotations

import asyncio
import functools
import threading
from datetime import timedelta
from typing import Any

import pytest

import perdure.sync
from perdure import App, Retry, current, recv, sleep
from perdure.errors import DefinitionError, OutsideWorkflow, StepFailed, StepOutcomeUnknown, StepTimeout
from tests.runtime.support import Ledger, crash, executor, history, kinds, row, until


async def test_a_recorded_step_never_runs_again(app: App, ledger: Ledger) -> None:
    @app.step
    async def step(name: str) -> str:
        ledger.note(name)
        return name

    @app.workflow
    async def body() -> list[str]:
        done = [await step("one")]
        done.append(str(await recv("go")))
        done.append(await step("two"))
        return done

    async with app:
        await body.options(id="a").start()
        await until(lambda: history(app, "a"))
    await app.open()
    await until(lambda: app._home.engine().executor.has("a"))
    await crash(app)
    async with app:
        await body.handle("a").send("on", "go")
        assert await body.handle("a").result() == ["one", "on", "two"]
    assert ledger == ["one", "two"]


class AtTheCall(functools.partial):  # type: ignore[type-arg]
    """A wrapped ``async def`` that may raise where it is called, before it gives a coroutine, as a validator does."""

    before: Any

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        self.before()
        return super().__call__(*args, **kwargs)


@pytest.mark.parametrize("error", [ValueError("negative"), StopIteration("negative"), asyncio.CancelledError()])
async def test_what_a_step_raises_at_the_call_is_its_outcome(app: App, error: BaseException) -> None:
    async def check() -> int:
        return 1

    def refuse() -> None:
        raise error

    checked = AtTheCall(check)
    checked.before = refuse
    step = app.step(name="check")(checked)

    @app.workflow(name="body")
    async def body() -> str:
        try:
            return str(await step())
        except (Exception, asyncio.CancelledError) as failure:
            return f"caught {failure}"

    async with app:
        assert await asyncio.wait_for(body.options(id="a")(), 15) in {
            "caught negative", "caught StopIteration: negative", "caught ",
        }  # fmt: skip
        assert await kinds(app, "a") == ["STEP check ERROR"]
        assert not executor(app).executions


async def test_an_attempt_that_raises_at_the_call_is_tried_again_and_other_waits_end(app: App) -> None:
    """It begins from the timer of its delay, which serves all others, too."""
    attempts: list[str] = []

    async def flaky() -> int:
        if len(attempts) == 1:
            raise ConnectionError("in the body")
        return len(attempts)

    def call() -> None:
        attempts.append("call")
        if len(attempts) == 2:
            raise ConnectionError("at the call")

    called = AtTheCall(flaky)
    called.before = call
    step = app.step(name="flaky", retry=Retry(attempts=5, delay=timedelta(milliseconds=10)))(called)

    @app.workflow(name="body")
    async def body() -> int:
        return await step()

    @app.workflow(name="waits")
    async def waits() -> str:
        await sleep(0.05)
        return "awake"

    async with app:
        assert await asyncio.wait_for(body(), 15) == 3
        assert await asyncio.wait_for(waits(), 15) == "awake"


async def test_a_step_for_which_no_thread_is_granted_fails(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    @app.step(name="step")
    def step() -> int:
        return 1

    @app.workflow(name="body")
    async def body() -> int:
        return await step()

    def refuse(*_given: Any) -> None:
        raise RuntimeError("can't start new thread")

    async with app:
        monkeypatch.setattr(executor(app).step_pool, "_one_more", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            await asyncio.wait_for(body(), 15)


async def test_a_step_under_way_at_a_crash_runs_again_with_the_same_key(app: App, ledger: Ledger) -> None:
    reached = asyncio.Event()

    @app.step
    async def charge() -> str:
        ledger.note(current().idempotency_key)
        if len(ledger) == 1:
            reached.set()
            await asyncio.Event().wait()
        return "charged"

    @app.workflow
    async def body() -> str:
        return await charge()

    await app.open()
    await body.options(id="a").start()
    await reached.wait()
    await crash(app)
    async with app:
        assert await body.handle("a").result() == "charged"
        assert (await row(app, "a")).attempts == 1
    assert len(ledger) == 2
    assert ledger[0] == ledger[1]


async def test_the_idempotency_key_is_the_same_at_every_attempt_and_differs_between_steps(app: App) -> None:
    keys: list[str] = []
    attempts: list[int] = []

    @app.step(retry=Retry(3, delay=0))
    async def charge() -> None:
        keys.append(current().idempotency_key)
        attempts.append(current().attempt)
        if len(keys) % 3:
            raise OSError("again")

    @app.workflow
    async def body() -> None:
        await charge()
        await charge()

    async with app:
        await body()
        await body()
    assert attempts == [1, 2, 3] * 4
    assert [len(set(keys[i : i + 3])) for i in range(0, 12, 3)] == [1, 1, 1, 1]
    assert len(set(keys)) == 4


# -- retries


async def test_retries_wait_and_give_the_last_exception_with_the_earlier_ones_as_notes(
    app: App, ledger: Ledger
) -> None:
    @app.step(retry=Retry(attempts=3, on=ConnectionError, delay=0.01))
    async def charge() -> None:
        ledger.note("tried")
        raise ConnectionError(f"try {len(ledger)}")

    @app.workflow
    async def body() -> list[str]:
        try:
            await charge()
        except ConnectionError as error:
            return [str(error), *error.__notes__]
        return []

    async with app:
        handle = await body.options(id="a").start()
        assert await handle.result() == [
            "try 3",
            "attempt 1 failed: ConnectionError: try 1",
            "attempt 2 failed: ConnectionError: try 2",
        ]
        name = "test_retries_wait_and_give_the_last_exception_with_the_earlier_ones_as_notes.charge"
        assert await kinds(app, "a") == [f"ATTEMPT {name} ERROR", f"ATTEMPT {name} ERROR", f"STEP {name} ERROR"]
        assert [r.attempt for r in await history(app, "a")] == [1, 2, 3]
    assert ledger == ["tried"] * 3


async def test_there_is_no_retry_by_default_and_none_for_what_on_leaves_out(app: App, ledger: Ledger) -> None:
    @app.step
    async def plain() -> None:
        ledger.note("plain")
        raise OSError("a")

    @app.step(retry=Retry(5, on=lambda error: "again" in str(error), delay=0))
    async def asked() -> None:
        ledger.note("asked")
        raise OSError("again" if len(ledger) < 3 else "enough")

    @app.workflow
    async def body() -> list[str]:
        said: list[str] = []
        for step in (plain, asked):
            try:
                await step()
            except OSError as error:
                said.append(str(error))
        return said

    async with app:
        assert await body() == ["a", "enough"]
    assert ledger == ["plain", "asked", "asked"]


async def test_attempts_survive_a_restart(app: App, ledger: Ledger) -> None:
    @app.step(retry=Retry(3, delay=0.3, factor=1))
    async def charge() -> None:
        ledger.note(current().attempt)
        raise OSError(f"try {len(ledger)}")

    @app.workflow
    async def body() -> list[str]:
        try:
            await charge()
        except OSError as error:
            return [str(error), *error.__notes__]
        return []

    await app.open()
    await body.options(id="a").start()
    await until(lambda: history(app, "a"))
    await crash(app)
    async with app:
        assert await body.handle("a").result() == [
            "try 3",
            "attempt 1 failed: OSError: try 1",
            "attempt 2 failed: OSError: try 2",
        ]
    assert ledger == ["1", "2", "3"]


async def test_attempts_survive_a_crash_while_an_attempt_is_under_way(app: App, ledger: Ledger) -> None:
    reached = asyncio.Event()

    @app.step(retry=Retry(2, delay=0))
    async def charge() -> None:
        ledger.note(current().attempt)
        if len(ledger) == 2:
            reached.set()
            await asyncio.Event().wait()
        raise OSError("no")

    @app.workflow
    async def body() -> None:
        await charge()

    await app.open()
    await body.options(id="a").start()
    await reached.wait()
    await crash(app)
    async with app:
        with pytest.raises(OSError, match="no"):
            await body.handle("a").result()
        assert [r.kind.name for r in await history(app, "a")] == ["ATTEMPT", "STEP"]
    assert ledger == ["1", "2", "2"]  # the interrupted attempt is made again, the recorded one is not


def test_retries_of_the_sync_face(sync_app: perdure.sync.App, ledger: Ledger) -> None:
    @sync_app.step(retry=Retry(3, delay=0.01))
    def charge() -> None:
        ledger.note(current().attempt)
        raise ConnectionError(f"try {len(ledger)}")

    @sync_app.step(retry=Retry(3, delay=0.01))
    async def on_the_loop() -> str:
        ledger.note(current().attempt)
        if current().attempt < 3:
            raise ConnectionError("again")
        return "ok"

    @sync_app.workflow
    def body() -> list[str]:
        try:
            charge()
        except ConnectionError as error:
            return [str(error), *error.__notes__, on_the_loop()]
        return []

    with sync_app:
        assert body() == [
            "try 3",
            "attempt 1 failed: ConnectionError: try 1",
            "attempt 2 failed: ConnectionError: try 2",
            "ok",
        ]
    assert ledger == ["1", "2", "3"] * 2


# -- timeouts


async def test_a_step_that_runs_too_long_fails_and_its_body_is_cancelled(app: App, ledger: Ledger) -> None:
    @app.step(timeout=timedelta(milliseconds=50))
    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ledger.note("cancelled")

    @app.workflow
    async def body() -> str:
        try:
            await slow()
        except TimeoutError as error:
            return f"{type(error).__name__}: {error}"
        return "no error"

    async with app:
        assert await body() == (
            "StepTimeout: step test_a_step_that_runs_too_long_fails_and_its_body_is_cancelled.slow "
            "ran longer than its timeout of 0.05 s"
        )
    assert ledger == ["cancelled"]


async def test_the_timeout_is_of_one_attempt(app: App, ledger: Ledger) -> None:
    @app.step(timeout=0.05, retry=Retry(3, on=TimeoutError, delay=0))
    async def slow() -> str:
        ledger.note(current().attempt)
        if current().attempt < 3:
            await asyncio.Event().wait()
        return "at last"

    @app.workflow
    async def body() -> str:
        return await slow()

    async with app:
        assert await body() == "at last"
    assert ledger == ["1", "2", "3"]


async def test_a_def_step_that_runs_too_long_is_left_alone(app: App) -> None:
    free = threading.Event()

    @app.step(timeout=0.05)
    def slow() -> None:
        free.wait(20)

    @app.workflow
    async def body() -> None:
        await slow()

    async with app:
        with pytest.raises(StepTimeout, match=r"timeout of 0\.05 s"):
            await body()
        free.set()


def test_a_def_step_with_a_timeout_in_the_sync_face(sync_app: perdure.sync.App) -> None:
    free = threading.Event()

    @sync_app.step(timeout=0.05)
    def slow() -> None:
        free.wait(20)

    @sync_app.step(timeout=5)
    def quick() -> str:
        return "ok"

    @sync_app.workflow
    def body() -> str:
        try:
            slow()
        except StepTimeout as error:
            return f"{quick()} {error}"
        return "no error"

    with sync_app:
        said = body()
        free.set()
    assert said.startswith("ok step ")
    assert said.endswith("ran longer than its timeout of 0.05 s")


# -- pure steps


async def test_a_pure_step_is_recorded_like_any_other(app: App, ledger: Ledger) -> None:
    @app.step(pure=True)
    async def square(x: int) -> int:
        ledger.note(x)
        return x * x

    @app.workflow
    async def body() -> int:
        total = sum([await square(x) for x in range(4)])
        await sleep(0.2)
        return total

    async with app:
        await body.options(id="a").start()
        await until(lambda: history(app, "a"))
    async with app:
        assert await body.handle("a").result() == 14
    assert ledger == ["0", "1", "2", "3"]


async def test_pure_steps_wait_for_no_commit(app: App) -> None:
    async def commits(pure: bool) -> int:
        @app.step(pure=pure, name=f"square {pure}")
        async def square(x: int) -> int:
            return x * x

        @app.workflow(name=f"body {pure}")
        async def body() -> int:
            return sum([await square(x) for x in range(20)])

        journal = app._home.engine().line.journal
        before = journal.commits
        assert await body() == 2470
        return journal.commits - before

    async with app:
        # What has gathered is written as the database comes round, but no step waits for that.
        assert await commits(pure=True) < 10
        assert await commits(pure=False) >= 20  # a barrier before each effect


# -- what a step may know


async def test_current_in_a_step_and_in_a_workflow(app: App) -> None:
    seen: dict[str, Any] = {}

    @app.step
    async def step() -> None:
        me = current()
        seen["step"] = (me.id, me.run, me.name, me.attempt, me.executor)

    @app.workflow(name="checkout")
    async def body() -> None:
        me = current()
        seen["workflow"] = (me.id, me.run, me.name, me.attempt, me.executor)
        try:
            _ = me.idempotency_key
        except OutsideWorkflow as error:
            seen["key"] = str(error)
        await step()

    app._home.arguments["executor_id"] = "here"
    async with app:
        await body.options(id="a")()
    assert seen["step"] == seen["workflow"] == ("a", 1, "checkout", 1, "here")
    assert "a key belongs to one step" in seen["key"]


async def test_a_step_that_cancels_itself_has_that_as_its_outcome(app: App) -> None:
    @app.step
    async def step() -> None:
        raise asyncio.CancelledError("by itself")

    @app.workflow
    async def body() -> str:
        try:
            await step()
        except asyncio.CancelledError as error:
            return f"cancelled {error}"
        return "no error"

    async with app:
        handle = await body.options(id="a").start()
        assert await handle.result() == "cancelled by itself"
        assert await handle.status() == "completed"


async def test_a_step_that_cancels_itself_cancels_no_caller(app: App, ledger: Ledger) -> None:
    @app.step
    async def step() -> None:
        raise asyncio.CancelledError("by a library")

    @app.workflow
    async def body() -> None:
        try:
            await step()
        except asyncio.CancelledError as error:
            ledger.note(f"{type(error).__name__} {error}")
            raise

    @app.workflow
    async def parent() -> None:
        await body.options(id="b")()

    async with app:
        handle = await body.options(id="a").start()
        for call in (handle.result, parent):
            with pytest.raises(StepFailed, match="CancelledError: by a library") as caught:
                await call()
            assert caught.value.message == "by a library"
        assert await handle.status() == "failed"
    assert ledger == ["CancelledError by a library"] * 2


async def test_at_most_once_is_not_run_again_and_the_workflow_is_told(app: App, ledger: Ledger) -> None:
    never = asyncio.Event()

    @app.step(name="fire", at_most_once=True)
    async def fire(what: str) -> str:
        ledger.note(what)
        await never.wait()
        return what

    @app.step(name="plain", at_most_once=True)
    async def plain() -> str:
        ledger.note("plain")
        return "fine"

    @app.workflow(name="body")
    async def body() -> str:
        first = await plain()
        try:
            return await fire("rocket")
        except StepOutcomeUnknown as unknown:
            return f"{first}, {unknown}"

    await app.open()
    await body.options(id="a").start()
    await until(lambda: "rocket" in ledger)
    await crash(app)
    for _ in range(2):  # and the same from its record
        async with app:
            told = await body.handle("a").result()
        assert told.startswith("fine, step fire is declared at_most_once, and its executor died")
    assert ledger == ["plain", "rocket"]
    async with app:
        assert await kinds(app, "a") == ["STEP plain VALUE", "STEP fire ERROR"]


@pytest.mark.parametrize("other", [{"retry": Retry(3)}, {"pure": True}], ids=["retry", "pure"])
def test_at_most_once_and_again_contradict_each_other(app: App, other: dict[str, Any]) -> None:
    async def fire() -> None: ...

    with pytest.raises(DefinitionError, match="contradict each other"):
        app.step(at_most_once=True, **other)(fire)
    with pytest.raises(DefinitionError, match="cannot have a retry"):
        app.step(at_most_once=True, name="fire")(fire).options(retry=Retry(3))
