"""Attempts that do not get a workflow on are visible from the first, over with the first that does, and kept."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import perdure.sync
from perdure import App, Problem, Retry, Topic, current, recv, sleep
from perdure.errors import Misuse
from perdure.runtime import leases, stalls, turns
from perdure.runtime.turns import look_at_turns
from perdure.store.open import open_store
from tests.runtime.support import IN_THREADS, crash, executor, in_memory, row, status, until, until_sync

GO: Topic[bool] = Topic("go")
SLOWLY = Retry(attempts=10, delay=600)
QUICKLY = Retry(attempts=10, delay=0)


async def problems(app: App, id: str = "w") -> list[Problem]:
    return await app.client.handle(id).problems()


async def kinds(app: App, id: str = "w", *, over: bool = False) -> list[str]:
    return [str(one.kind) for one in await problems(app, id) if (one.cleared is not None) is over]


async def has(app: App, kind: str, id: str = "w") -> bool:
    return str((await row(app, id)).problem) == kind


async def ids(app: App, query: str) -> list[str]:
    return sorted([info.id async for info in app.client.list(query)])


# -- a step that fails and is tried again


async def test_a_step_that_failed_is_visible_while_it_waits_for_its_next_attempt(app: App) -> None:
    fine = False

    @app.step(name="charge", retry=SLOWLY)
    async def charge(cents: int) -> int:
        if not fine:
            raise ConnectionError("no route to bank")
        return cents

    @app.workflow(name="order")
    async def order() -> int:
        return await charge(5)

    async with app:
        await order.options(id="w").start()
        await until(partial(has, app, "step_failed"))
        [problem] = await problems(app)
        assert (problem.kind, problem.step, problem.path, problem.attempt, problem.cleared) == (
            "step_failed", "charge", "1", 1, None,
        )  # fmt: skip
        assert problem.text == "ConnectionError: no route to bank"
        assert problem.version == (await row(app, "w")).version
        assert problem.first == problem.last
        assert problem.next is not None
        assert 590 < (problem.next - problem.last).total_seconds() < 700
        assert (await app.client.handle("w").info()).problem == "step_failed"
        for query in (
            "problem = step_failed",
            "problem IS NOT NULL",
            "ReportedProblems = 'category=WorkflowTaskFailed'",
        ):
            assert await ids(app, query) == ["w"]
        for query in (
            "problem = executor_died",
            "problem IS NULL",
            "ReportedProblems = 'category=WorkflowTaskTimedOut'",
        ):
            assert await ids(app, query) == []
        count = await app.client.count("status = open GROUP BY problem")
        assert [(group.fields["problem"], group.count) for group in count.groups] == [("step_failed", 1)]


@pytest.mark.usefixtures("quick_eviction")
async def test_it_is_over_with_the_outcome_and_kept(app: App) -> None:
    tries: list[int] = []

    @app.step(name="charge", retry=QUICKLY)
    async def charge() -> int:
        tries.append(current().attempt)
        if len(tries) < 4:
            raise ValueError(f"attempt {len(tries)}")
        return 1

    @app.workflow(name="order")
    async def order() -> int:
        done = await charge()
        await recv(GO)
        return done

    async with app:
        handle = await order.options(id="w").start()
        await until(partial(lambda: _is(app, "waiting")))
        assert (await row(app, "w")).problem is None
        [problem] = await problems(app)
        assert (problem.attempt, problem.text, problem.next) == (3, "ValueError: attempt 3", None)
        assert problem.cleared is not None
        assert problem.first <= problem.last <= problem.cleared
        await handle.send(True, GO)
        assert await handle.result() == 1
        assert [one.cleared for one in await problems(app)] == [problem.cleared]


async def _is(app: App, wanted: str, id: str = "w") -> bool:
    return await status(app, id) == wanted


@pytest.mark.usefixtures("quick_eviction")
async def test_put_away_and_taken_over_it_stays_a_problem(app: App) -> None:
    @app.step(name="charge", retry=SLOWLY)
    async def charge() -> None:
        raise ValueError("no")

    @app.workflow(name="order")
    async def order() -> None:
        await charge()

    await app.open()
    await order.options(id="w").start()
    await until(lambda: _is(app, "waiting"))
    assert await kinds(app) == ["step_failed"]
    await crash(app)
    async with app:
        assert await has(app, "step_failed"), "nobody ran it, so nobody died with it"
        await app.client.handle("w").cancel()
        assert (await app.client.handle("w").info()).problem is None
        [problem] = await problems(app)
        assert problem.cleared is not None


async def test_of_two_steps_the_one_that_still_fails_stays(app: App) -> None:
    done = asyncio.Event()

    @app.step(name="fails", retry=SLOWLY)
    async def fails() -> None:
        raise ValueError("no")

    @app.step(name="slow", retry=QUICKLY)
    async def slow() -> None:
        if current().attempt == 1:
            raise OSError("once")
        await done.wait()

    @app.workflow(name="both")
    async def both() -> None:
        await asyncio.gather(fails(), slow())

    async with app:
        await both.options(id="w").start()

        async def two() -> bool:
            return await kinds(app) == ["step_failed", "step_failed"]

        await until(two)
        done.set()

        async def one() -> bool:
            return [p.step for p in await problems(app) if p.cleared is None] == ["fails"]

        await until(one)
        assert await has(app, "step_failed")


async def test_a_step_that_the_body_gives_up_is_no_problem_any_more(app: App) -> None:
    @app.step(name="fails", retry=SLOWLY)
    async def fails() -> None:
        raise ValueError("no")

    @app.workflow(name="order")
    async def order() -> None:
        try:
            async with asyncio.timeout(0.05):
                await fails()
        except TimeoutError:
            await recv(GO)

    async with app:
        await order.options(id="w").start()

        async def over() -> bool:
            return await kinds(app, over=True) == ["step_failed"] and (await row(app, "w")).problem is None

        await until(over)


async def test_it_fails_for_good_and_continues_as_new(app: App) -> None:
    @app.step(name="fails", retry=Retry(attempts=2, delay=0))
    async def fails() -> None:
        raise ValueError("no")

    @app.workflow(name="order")
    async def order() -> None:
        await fails()

    @app.workflow(name="rounds")
    async def rounds(left: int) -> int:
        try:
            await fails()
        except ValueError:
            if left:
                rounds.continue_as_new(left - 1)
        return left

    async with app:
        handle = await order.options(id="w").start()
        with pytest.raises(ValueError, match="no"):
            await handle.result()
        assert await kinds(app, over=True) == ["step_failed"]
        assert (await row(app, "w")).problem is None
        assert await rounds.options(id="r")(1) == 0
        found = await problems(app, "r")
        assert [(one.run, one.attempt) for one in found] == [(1, 1), (2, 1)]
        assert all(one.cleared is not None for one in found)


async def test_a_problem_is_read_outside_only(app: App) -> None:
    @app.workflow(name="asks")
    async def asks() -> None:
        await app.client.handle("w").problems()

    async with app:
        with pytest.raises(Misuse, match="problems of 'w'"):
            await asks()


async def test_without_trouble_nothing_is_told(app: App) -> None:
    told: list[Any] = []

    @app.step(name="step")
    async def step() -> None: ...

    @app.workflow(name="order")
    async def order() -> None:
        await step()
        await sleep(0.01)
        await step()

    async with app:
        store = app._home.engine().line.store
        commit = store.commit

        async def watched(batch: Any, **more: Any) -> Any:
            told.extend(unit.trouble for unit in batch)
            return await commit(batch, **more)

        store.commit = watched  # type: ignore[method-assign]
        await asyncio.gather(*(order.options(id=f"w{n}")() for n in range(5)))
        assert told
        assert set(told) == {None}
        assert await store.problems([f"w{n}" for n in range(5)]) == []


def test_in_blocking_code(sync_app: perdure.sync.App) -> None:
    tries: list[int] = []

    @sync_app.step(name="charge", retry=QUICKLY)
    def charge() -> int:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("once")
        assert gate.wait(20)
        return len(tries)

    @sync_app.workflow(name="order")
    def order() -> int:
        return charge()

    gate = threading.Event()
    with sync_app:
        handle = order.options(id="w").start()
        [problem] = until_sync(handle.problems)
        assert (problem.kind, problem.step, problem.attempt, problem.cleared) == ("step_failed", "charge", 1, None)
        gate.set()
        assert handle.result() == 2
        assert [one.cleared is not None for one in handle.problems()] == [True]
        assert handle.info().problem is None


# -- whoever ran it died


async def test_a_death_is_visible_until_it_gets_on(app: App) -> None:
    gate = asyncio.Event()

    @app.step(name="slow")
    async def slow() -> int:
        await gate.wait()
        return 1

    @app.workflow(name="order")
    async def order() -> int:
        done = await slow()
        await recv(GO)
        return done

    await app.open()
    await order.options(id="w").start()
    await until(lambda: executor(app).executions["w"].running)
    for deaths in (1, 2):
        await crash(app)
        await app.open()
        await until(lambda: in_memory(app, "w") and executor(app).executions["w"].running)
        [problem] = await problems(app)
        assert (problem.kind, problem.attempt, problem.cleared) == ("executor_died", deaths, None)
        assert problem.text.startswith("executor ")
        assert " died (pid " in problem.text
        assert await ids(app, "ReportedProblems = 'category=WorkflowTaskTimedOut'") == ["w"]
    gate.set()

    async def over() -> bool:
        return await kinds(app, over=True) == ["executor_died"] and (await row(app, "w")).problem is None

    await until(over)
    await app.client.handle("w").send(True, GO)
    assert await app.client.handle("w").result() == 1


# -- the code could not go on

Body = Callable[[App], None]


def first(app: App) -> None:
    @app.step(name="reserve")
    async def reserve(n: int) -> int:
        return n

    @app.workflow(name="order")
    async def order(n: int) -> int:
        await reserve(n)
        await recv(GO)
        return n


def other(app: App) -> None:
    @app.step(name="book")
    async def book(n: int) -> int:
        return n

    @app.workflow(name="order")
    async def order(n: int) -> int:
        await book(n)
        await recv(GO)
        return n


def none(app: App) -> None:
    @app.workflow(name="another")
    async def another() -> None: ...


def texts(app: App) -> None:
    @app.workflow(name="order")
    async def order(n: list[str]) -> None: ...


@pytest.mark.usefixtures("quick_eviction")
@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        (other, "nondeterminism", "history has step reserve(7); the code has step book(7)"),
        (none, "no_code", "this executor has no workflow 'order'"),
        (texts, "undecodable", "cannot be read as list[str]"),
    ],
)
async def test_code_that_does_not_fit_is_visible_and_over_with_code_that_does(
    database: str, monkeypatch: pytest.MonkeyPatch, body: Body, kind: str, said: str
) -> None:
    monkeypatch.setenv("PERDURE_VERSION", "1")
    apps = [App("shop", database=database) for _ in range(3)]
    for one, declared in zip(apps, (first, body, first), strict=True):
        declared(one)
    async with apps[0] as app:
        await app.client.workflow("order", returns=int).options(id="w").start(7)
        await until(lambda: _is(app, "waiting"))
    async with apps[1] as app:
        await app.client.handle("w").send(True, GO)
        await until(lambda: _is(app, "held"))
        assert await has(app, kind)
        [problem] = await problems(app)
        assert (problem.kind, problem.attempt, problem.version, problem.step) == (kind, 1, "1", "")
        assert said in problem.text
        assert problem.next is None, "no time is waited for: it is tried as soon as other code is there"
        assert await ids(app, f"problem = {kind}") == ["w"]
    async with apps[2] as app:
        assert await app.client.handle("w").result(timeout=20) == 7
        assert await kinds(app, over=True) == [kind]
        assert (await app.client.handle("w").info()).problem is None


# -- a body that does not come to rest


def look_twice(app: Any) -> None:
    """As two rounds would, which lie five seconds apart."""
    look_at_turns(executor(app))
    look_at_turns(executor(app))


@IN_THREADS
def test_a_body_in_a_thread_that_does_not_come_to_rest(
    sync_app: perdure.sync.App, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked, gate = threading.Event(), threading.Event()

    @sync_app.step(name="step")
    def step() -> None: ...

    @sync_app.workflow(name="order")
    def order() -> str:
        step()
        blocked.set()
        assert gate.wait(20)  # this line is told
        step()
        return "done"

    monkeypatch.setattr(turns, "STALL_SECONDS", 0.0)
    with sync_app:
        handle = order.options(id="w").start()
        assert blocked.wait(20)

        def stuck() -> bool:
            executor(sync_app).line.loop.call_soon_threadsafe(look_twice, sync_app)
            return [str(one.kind) for one in handle.problems()] == ["turn_timeout"]

        until_sync(stuck)
        [problem] = handle.problems()
        assert problem.attempt >= 1  # it may have been looked at again by now
        assert problem.cleared is None
        assert "assert gate.wait(20)" in problem.text
        assert handle.info().problem == "turn_timeout"
        gate.set()
        assert handle.result() == "done"
        assert handle.problems()[0].cleared is not None


async def test_a_body_that_is_busy_for_ever(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    over = False

    @app.workflow(name="order")
    async def order() -> str:
        await recv(GO)
        while not over:  # noqa: ASYNC110  it is to be busy
            await asyncio.sleep(0)
        return "done"

    monkeypatch.setattr(turns, "STALL_SECONDS", 0.0)
    async with app:
        handle = await order.options(id="w").start()
        await handle.send(True, GO)

        async def stuck() -> bool:
            look_twice(app)
            return await kinds(app) == ["turn_timeout"]

        await until(stuck)
        over = True
        assert await handle.result() == "done"
        assert await kinds(app, over=True) == ["turn_timeout"]


async def test_a_body_that_blocks_the_loop_is_told_while_it_does(
    app: App, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stalls, "STALL_SECONDS", 0.2)
    monkeypatch.setattr(leases, "LOOK_SECONDS", 0.05)
    blocked, seen = threading.Event(), threading.Event()
    found: list[str] = []

    @app.workflow(name="order")
    async def order() -> str:
        await recv(GO)
        blocked.set()
        assert seen.wait(30)  # this line is told
        await recv(GO)
        return "done"

    async def look() -> None:
        store = open_store(database, "shop")
        await store.open()
        try:
            found.extend(one.text for one in await until(lambda: store.problems(["w"])))
            assert (await store.rows(["w"]))["w"].problem == "turn_timeout"
        finally:
            await store.close()

    def from_outside() -> None:
        assert blocked.wait(20)
        try:
            asyncio.run(look())
        finally:
            seen.set()

    looking = threading.Thread(target=from_outside)
    async with app:
        handle = await order.options(id="w").start()
        looking.start()
        await handle.send(True, GO)
        await asyncio.to_thread(looking.join)
        [text] = found
        assert "assert seen.wait(30)" in text
        await handle.send(True, GO)
        assert await handle.result() == "done"
        assert await kinds(app, over=True) == ["turn_timeout"]
        assert (await row(app, "w")).problem is None
