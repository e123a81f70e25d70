"""What is the same on every replay: time, random numbers, ids, logs; what a body cannot await; continuing as new."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import datetime

import httpx
import pytest

import perdure.sync
from perdure import App, current, logger, now, random, recv, set_event, sleep, uuid4
from perdure.errors import NotAwaited, NotDurable, StepFailed, Unserializable
from perdure.runtime import steps
from tests.runtime.support import Ledger, crash, history, in_memory, row, status, until, until_sync


async def test_time_random_numbers_and_uuids_are_the_same_on_replay(app: App, ledger: Ledger) -> None:
    @app.step
    async def step() -> None: ...

    @app.workflow
    async def body() -> list[str]:
        seen = []
        for _ in range(2):
            seen += [now().isoformat(), str(random.random()), str(random.randint(1, 10**9)), str(uuid4())]
            seen.append("".join(random.sample("abcdefghij", 5)))
            await step()
        ledger.note(seen)
        await recv("go")
        return seen

    async with app:
        await body.options(id="a").start()
        await until(lambda: ledger)
        await until(lambda: two_steps(app))
    async with app:
        await body.handle("a").send(True, "go")
        seen = await body.handle("a").result()
    assert ledger == [str(seen), str(seen)]
    assert datetime.fromisoformat(seen[0]).tzinfo is not None
    assert len(set(seen)) == len(seen)  # all differ from each other, the two times included
    assert datetime.fromisoformat(seen[0]) < datetime.fromisoformat(seen[5])


async def test_what_history_has_shown_is_not_shown_again(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """An argument may be large, and its text costs a replay nothing: only what is new, or has changed, is shown."""
    shown: list[str] = []
    show = steps.show_call
    monkeypatch.setattr(steps, "show_call", lambda *given: shown.append(show(*given)) or shown[-1])
    argument = "first"

    @app.step
    async def step(name: str) -> None: ...

    @app.workflow
    async def body() -> None:
        await step(argument)
        await step("second")
        await recv("go")
        await step("third")

    async with app:
        await body.options(id="a").start()
        await until(lambda: two_steps(app))
        await crash(app)
    assert shown == ["'first'", "'second'"]
    async with app:
        await body.handle("a").send(True, "go")
        await body.handle("a").result()
        assert [record.shown for record in await history(app, "a") if record.shown] == shown
    assert shown == ["'first'", "'second'", "'third'"]


async def test_what_history_has_otherwise_is_shown(app: App) -> None:
    argument = "first"

    @app.step
    async def step(name: str) -> None: ...

    @app.workflow
    async def body() -> None:
        await step(argument)
        await recv("go")

    async with app:
        await body.options(id="a").start()
        await until(lambda: in_memory(app, "a"))
        await until(lambda: one_step(app))
        await crash(app)
    argument = "changed"
    async with app:
        await until(lambda: is_held(app))
        assert (await row(app, "a")).detail == "at 1: history has step %s('first'); the code has step %s('changed')" % (
            (step.definition.name,) * 2
        )


async def one_step(app: App) -> bool:
    return len(await history(app, "a")) == 1


async def is_held(app: App) -> bool:
    return await status(app, "a") == "held"


async def two_steps(app: App) -> bool:
    return len(await history(app, "a")) == 2


async def test_two_workflows_draw_different_numbers(app: App) -> None:
    @app.workflow
    async def body() -> list[str]:
        return [str(random.random()), str(uuid4())]

    async with app:
        assert not set(await body()) & set(await body())


async def test_durable_time_never_fires_early(app: App) -> None:
    @app.workflow
    async def body() -> float:
        before = now()
        await sleep(0.2)
        return (now() - before).total_seconds()

    async with app:
        assert 0.2 <= await body() < 5


async def test_a_sleep_is_not_begun_anew_by_a_restart(app: App) -> None:
    @app.workflow
    async def body() -> float:
        before = now()
        await sleep(0.8)
        return (now() - before).total_seconds()

    async with app:
        await body.options(id="a").start()
        await until(lambda: in_memory(app, "a"))
    async with app:
        assert 0.8 <= await body.handle("a").result() < 1.5


async def test_replaying_is_told(app: App) -> None:
    seen: list[bool] = []

    @app.step
    async def step() -> None: ...

    @app.workflow
    async def body() -> None:
        await step()
        seen.append(current().replaying)
        await step()
        await recv()

    async with app:
        await body.options(id="a").start()
        await until(lambda: two_steps(app))
    async with app:
        await body.handle("a").send(True)
        await body.handle("a").result()
    assert seen == [False, True]


async def test_the_logger_is_silent_on_replay_and_has_the_ids(app: App, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="perdure.user")

    @app.step
    async def step(n: int) -> None:
        logger.info("step %s", n)

    @app.workflow(name="checkout")
    async def body() -> None:
        logger.info("begin")
        await step(1)
        logger.info("middle")
        await recv()
        logger.info("end")

    async with app:
        logger.info("outside")
        await body.options(id="a").start()
        await until(lambda: history(app, "a"))
        await until(lambda: "middle" in caplog.text)
    async with app:
        await body.handle("a").send(True)
        await body.handle("a").result()
    records = [r for r in caplog.records if r.name == "perdure.user"]
    assert [r.getMessage() for r in records] == ["outside", "begin", "step 1", "middle", "end"]
    assert [getattr(r, "workflow_id", None) for r in records] == [None, "a", "a", "a", "a"]
    assert {getattr(r, "workflow_name", None) for r in records[1:]} == {"checkout"}
    assert {getattr(r, "workflow_run", None) for r in records[1:]} == {1}
    assert [getattr(r, "step_path", None) for r in records[1:4]] == [None, "1", None]
    assert getattr(records[2], "attempt", None) == 1


# -- what a body cannot do


async def test_awaiting_a_foreign_future_is_a_clear_error(app: App) -> None:
    foreign: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @app.workflow
    async def body() -> None:
        await foreign

    async with app:
        handle = await body.options(id="a").start()
        with pytest.raises(NotDurable, match="in a step"):
            await handle.result(timeout=10)
        assert await handle.status() == "failed"


async def test_awaiting_what_nobody_wakes_is_a_clear_error(app: App) -> None:
    @app.workflow
    async def body() -> None:
        await asyncio.Event().wait()

    async with app:
        with pytest.raises(NotDurable, match="nothing can ever wake it: put real I/O"):
            await body()


@pytest.mark.parametrize("how", ["connection", "thread", "process"])
async def test_real_io_is_refused_with_the_words_put_it_in_a_step(app: App, how: str) -> None:
    @app.workflow
    async def body() -> None:
        if how == "connection":
            await asyncio.open_connection("127.0.0.1", 9)
        elif how == "thread":
            await asyncio.to_thread(print)
        else:
            await asyncio.create_subprocess_exec("true")

    async with app:
        with pytest.raises(NotDurable, match="Put it in a step"):
            await body()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_client_of_http_in_a_body_is_told_the_same(app: App, host: str) -> None:
    """It looks for its host in a task group, whose error would say nothing."""

    @app.workflow
    async def body() -> None:
        async with httpx.AsyncClient() as client:
            await client.get(f"http://{host}:9/")

    async with app:
        with pytest.raises(NotDurable, match="Put it in a step"):
            await body()


async def test_a_step_that_is_never_awaited_is_an_error_with_its_line(app: App, ledger: Ledger) -> None:
    @app.step(name="send_mail")
    async def send_mail(to: str) -> None:
        ledger.note("sent")

    @app.workflow
    async def body() -> str:
        send_mail("ann")  # type: ignore[unused-coroutine]
        return "done"

    line = body.__wrapped__.__code__.co_firstlineno + 2
    async with app:
        with pytest.raises(NotAwaited) as caught:
            await body()
    assert str(caught.value) == (
        f"send_mail was called at {__file__}:{line} (path 1) and never awaited, so it did not run; "
        "write: await send_mail(…)"
    )
    assert ledger == []


async def test_a_child_that_is_never_awaited_is_an_error_with_its_line(app: App) -> None:
    @app.workflow(name="child")
    async def child() -> None: ...

    @app.workflow
    async def body() -> str:
        child()  # type: ignore[unused-coroutine]
        return "done"

    line = body.__wrapped__.__code__.co_firstlineno + 2
    async with app:
        with pytest.raises(NotAwaited, match=rf"child was called at .*test_replay\.py:{line} .*never awaited"):
            await body()


@pytest.mark.parametrize("what", ["sleep", "recv", "set_event", "Handle.send", "Workflow.start"])
async def test_nothing_else_is_dropped_in_silence_either(app: App, what: str) -> None:
    @app.workflow(name="other")
    async def other() -> None:
        await recv("never")

    @app.workflow
    async def body() -> str:
        calls = {
            "sleep": lambda: sleep(5),
            "recv": lambda: recv("box"),
            "set_event": lambda: set_event("stage", 1),
            "Handle.send": lambda: other.handle("o").send(1, "box"),
            "Workflow.start": other.start,
        }
        for _ in range(100):  # awaited ones are forgotten, whatever their number
            await sleep(0)
        calls[what]()
        for _ in range(100):
            await sleep(0)
        return "done"

    async with app:
        with pytest.raises(NotAwaited, match=rf"^{what} was called at .*test_replay\.py:\d+ and never awaited"):
            await body()


async def test_calls_that_are_called_off_before_their_turn_are_no_error(app: App, ledger: Ledger) -> None:
    @app.step
    async def step(name: str) -> None:
        ledger.note(name)

    @app.workflow(name="child")
    async def child(name: str) -> None:
        ledger.note(name)

    @app.workflow
    async def body() -> str:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(step("wait_for"), 0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.gather(step("gather"), child("child"))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(step("group"))
                raise ValueError
        except* ValueError:
            pass
        task = asyncio.create_task(step("task"))
        task.cancel()
        await asyncio.wait([task])
        await step("last")
        return "done"

    async with app:
        assert await body() == "done"
    assert ledger == ["last"]


async def test_the_bodys_own_error_is_not_hidden_by_a_call_that_nobody_awaits_but_tells_of_it(app: App) -> None:
    @app.step(name="add")
    async def add(x: int) -> int:
        return x + 1

    @app.workflow
    async def body() -> int:
        return add(1) + 1  # type: ignore[operator]

    line = body.__wrapped__.__code__.co_firstlineno + 2
    async with app:
        with pytest.raises(TypeError, match="unsupported operand") as caught:
            await body()
    assert caught.value.__notes__ == [
        f"add was called at {__file__}:{line} (path 1) and never awaited, so it did not run; write: await add(…)"
    ]


async def test_a_call_given_to_another_unawaited_is_told(app: App) -> None:
    @app.step(name="add")
    async def add(x: int) -> int:
        return x

    @app.workflow
    async def body() -> int:
        return await add(add(1))  # type: ignore[arg-type]

    async with app:
        with pytest.raises(Unserializable, match="got coroutine") as caught:
            await body()
    assert "write: await add(…)" in caught.value.__notes__[0]


async def test_a_step_in_a_task_that_nobody_awaits_did_not_silently_run(app: App) -> None:
    @app.step
    async def step() -> str:
        return "ran"

    @app.workflow
    async def body() -> str:
        task = asyncio.create_task(step())
        return await task

    async with app:
        assert await body() == "ran"


# -- asyncio as it is


async def test_plain_asyncio_is_durable(app: App, ledger: Ledger) -> None:
    @app.step
    async def step(x: int) -> int:
        ledger.note(x)
        return x

    async def slowly(x: int) -> int:
        await asyncio.sleep(0.01 * x)
        return await step(x)

    @app.workflow
    async def body() -> list[object]:
        gathered = await asyncio.gather(*(slowly(x) for x in range(3)))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(slowly(x)) for x in (10, 11)]
        done, pending = await asyncio.wait(
            [asyncio.create_task(slowly(20)), asyncio.create_task(recv("never"))], return_when=asyncio.FIRST_COMPLETED
        )
        for task in pending:
            task.cancel()
        try:
            async with asyncio.timeout(0.02):
                await recv("never")
        except TimeoutError:
            timed = "timed out"
        first = [await each for each in asyncio.as_completed([slowly(31), slowly(30)])]
        await recv("go")
        return [gathered, [t.result() for t in tasks], [t.result() for t in done], timed, first]

    async with app:
        await body.options(id="a").start()
        await until(lambda: ledger.counts.get("31"), 20)
        await until(lambda: seven_steps(app))
    async with app:
        await body.handle("a").send(True, "go")
        assert await body.handle("a").result() == [[0, 1, 2], [10, 11], [20], "timed out", [30, 31]]
    assert sorted(map(int, ledger)) == [0, 1, 2, 10, 11, 20, 30, 31]


async def seven_steps(app: App) -> bool:
    return [r.kind.name for r in await history(app, "a")].count("STEP") == 8


# -- continue as new


async def test_continue_as_new_is_the_next_run_of_the_same_id(app: App, ledger: Ledger) -> None:
    @app.step
    async def step(n: int) -> None:
        ledger.note(f"run {current().run} n {n}")

    @app.workflow
    async def counting(n: int) -> str:
        await step(n)
        if n < 3:
            counting.continue_as_new(n + 1)
        return f"run {current().run}"

    async with app:
        handle = await counting.options(id="a").start(1)
        assert await handle.result() == "run 3"
        assert (await handle.info()).run == 3
        assert [r.kind.name for r in await history(app, "a")].count("STEP") == 1  # a fresh history
        store = app._home.engine().line.store
        runs = [await store.run((await row(app, "a")).key._replace(run=n)) for n in (1, 2, 3)]
        assert [str(run.status) for run in runs if run is not None] == ["continued", "continued", "completed"]
    assert ledger == ["run 1 n 1", "run 2 n 2", "run 3 n 3"]


async def test_messages_not_taken_stay_for_the_next_run(app: App) -> None:
    @app.workflow
    async def body(n: int, got: list[str]) -> list[str]:
        got = [*got, await recv("t")]
        if n < 2:
            body.continue_as_new(n + 1, got)
        return got

    async with app:
        handle = await body.options(id="a").start(0, [])
        for text in ("x", "y", "z"):
            await handle.send(text, "t")
        assert await handle.result() == ["x", "y", "z"]


async def test_a_child_that_continues_as_new_answers_its_parent_at_its_real_end(app: App) -> None:
    @app.workflow
    async def child(n: int) -> int:
        if n < 2:
            child.continue_as_new(n + 1)
        return n

    @app.workflow
    async def parent() -> int:
        return await child(0)

    async with app:
        assert await parent() == 2


async def test_continue_as_new_cannot_be_caught_by_except_exception(app: App) -> None:
    @app.workflow
    async def body(n: int) -> int:
        try:
            if n == 0:
                body.continue_as_new(1)
        except Exception:
            pass
        return n

    async with app:
        assert await body(0) == 1


@pytest.mark.parametrize("where", ["body", "child", "nested", "beside an error"])
async def test_a_task_group_that_ends_with_nothing_else_goes_on_as_new(app: App, where: str) -> None:
    @app.workflow
    async def body(n: int) -> int:
        async def next_run() -> None:
            body.continue_as_new(n + 1)

        async def fails() -> None:
            raise ValueError

        async with asyncio.TaskGroup() as group:
            if n == 1 or where == "body":
                return n if n == 1 else await next_run() or n
            async with asyncio.TaskGroup() if where == "nested" else contextlib.nullcontext(group) as inner:
                inner.create_task(next_run())
                if where == "beside an error":
                    inner.create_task(fails())
        return -1

    async with app:
        if where == "beside an error":
            with pytest.raises(StepFailed, match="BaseExceptionGroup"):
                await body(0)
        else:
            assert await body(0) == 1


def test_continue_as_new_of_the_sync_face(sync_app: perdure.sync.App) -> None:
    @sync_app.workflow
    def body(n: int) -> str:
        if n < 2:
            body.continue_as_new(n + 1)
        return f"run {current().run} n {n}"

    with sync_app:
        assert body(0) == "run 3 n 2"


def test_the_sync_face_is_the_same_on_replay(sync_app: perdure.sync.App, ledger: Ledger) -> None:
    @sync_app.step
    def step() -> None: ...

    @sync_app.workflow
    def body() -> list[str]:
        seen = [perdure.sync.now().isoformat(), str(perdure.sync.random.random()), str(perdure.sync.uuid4())]
        step()
        seen += [perdure.sync.now().isoformat(), str(perdure.sync.uuid4()), str(current().replaying)]
        ledger.note(seen[:5])
        perdure.sync.recv()
        return seen

    with sync_app:
        body.options(id="a").start()
        until_sync(lambda: ledger)
    with sync_app:
        body.handle("a").send(True)
        seen = body.handle("a").result()
    assert ledger == [str(seen[:5])] * 2


@pytest.mark.usefixtures("stay_in_memory")
async def test_attempts_count_the_deaths_survived(app: App) -> None:
    seen: list[int] = []

    @app.workflow
    async def body() -> None:
        seen.append(current().attempt)
        await recv()

    for _ in range(3):
        await app.open()
        await body.options(id="a").start()
        await until(lambda: in_memory(app, "a"))
        await until(lambda: status(app, "a"))
        await crash(app)
    async with app:
        await body.handle("a").send(True)
        await body.handle("a").result()
    assert seen[-1] == 4
