"""Resources around the working life of an app, draining, recovery, and what a close hands back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import perdure.sync
from perdure import App, Client, recv
from perdure.errors import DefinitionError, NotOpen
from tests.runtime.support import Ledger, crash, executor, history, in_memory, row, status, until, until_sync

# -- resources


async def test_resources_open_before_the_first_claim_and_close_after_the_drain(app: App, ledger: Ledger) -> None:
    started, free = asyncio.Event(), asyncio.Event()

    @app.resource
    async def pool() -> AsyncIterator[str]:
        ledger.note("pool opens")
        yield "the pool"
        ledger.note("pool closes")

    @app.resource
    async def http() -> AsyncIterator[str]:
        ledger.note(f"http opens over {pool()}")
        yield "the client"
        ledger.note("http closes")

    @app.step
    async def use() -> str:
        ledger.note(f"step with {pool()} and {http()}")
        started.set()
        await free.wait()
        ledger.note("step ends")
        return http()

    @app.workflow
    async def body() -> str:
        return await use()

    async with app.connect():
        await body.options(id="a").start()
        with pytest.raises(NotOpen, match=r"resource 'test_.*pool' .*connect\(\) alone opens no resources"):
            pool()
    await app.open()
    await started.wait()
    closing = asyncio.create_task(app.close())
    await until(lambda: app._home.engine().executor.draining)
    free.set()
    await closing
    assert ledger == [
        "pool opens",
        "http opens over the pool",
        "step with the pool and the client",
        "step ends",
        "http closes",
        "pool closes",
    ]
    with pytest.raises(NotOpen, match="is not open: it is opened when the app begins to work"):
        http()


async def test_a_resource_opens_anew_with_each_opening(app: App, ledger: Ledger) -> None:
    @app.resource
    async def number() -> AsyncIterator[int]:
        ledger.note("open")
        yield len(ledger)

    @app.workflow
    async def body() -> int:
        return await read()

    @app.step
    async def read() -> int:
        return number()

    for expected in (1, 2):
        async with app:
            assert await body() == expected


async def test_a_resource_that_cannot_open_closes_those_before_it(app: App, ledger: Ledger) -> None:
    @app.resource
    async def first() -> AsyncIterator[int]:
        ledger.note("open")
        yield 1
        ledger.note("closed")

    @app.resource
    async def second() -> AsyncIterator[int]:
        raise ConnectionError("no server")
        yield 2

    with pytest.raises(ConnectionError, match="no server"):
        await app.open()
    assert ledger == ["open", "closed"]


def test_resources_of_the_sync_face(sync_app: perdure.sync.App, ledger: Ledger) -> None:
    @sync_app.resource
    def http() -> Iterator[str]:
        ledger.note("open")
        yield "client"
        ledger.note("closed")

    @sync_app.step
    def use() -> str:
        return http()

    @sync_app.workflow
    def body() -> str:
        return use()

    with sync_app:
        assert body() == "client"
    assert ledger == ["open", "closed"]
    with pytest.raises(NotOpen):
        http()


def test_a_resource_is_a_generator_function_of_its_face(app: App) -> None:
    with pytest.raises(DefinitionError, match="must be a generator function of the face perdure"):
        app.resource(lambda: 1)  # type: ignore[arg-type, return-value]


def test_two_resources_of_one_name_show_both_places(app: App) -> None:
    def declare_another() -> None:
        async def http() -> AsyncIterator[int]:
            yield 2

        http.__qualname__ = "http"
        app.resource(http)

    app.resource(_named_http())
    with pytest.raises(DefinitionError, match=r"two resources are named 'http': .*test_life\.py:\d+ and .*:\d+"):
        declare_another()


def _named_http():
    async def http() -> AsyncIterator[int]:
        yield 0

    http.__qualname__ = "http"
    return http


# -- closing


async def test_a_close_lets_steps_end_and_hands_the_rest_back(app: App, ledger: Ledger) -> None:
    started, free = asyncio.Event(), asyncio.Event()

    @app.step
    async def slow() -> str:
        ledger.note("begin")
        started.set()
        await free.wait()
        ledger.note("end")
        return "slow"

    @app.step
    async def after() -> str:
        ledger.note("after")
        return "after"

    @app.workflow
    async def body() -> list[str]:
        return [await slow(), await after()]

    @app.workflow
    async def waits() -> str:
        return str(await recv())

    await app.open()
    await body.options(id="a").start()
    await waits.options(id="b").start()
    await started.wait()
    closing = asyncio.create_task(app.close())
    await until(lambda: app._home.engine().executor.draining)
    free.set()
    await closing
    assert ledger == ["begin", "end"]
    async with app.connect():
        for id in "ab":
            stored = await row(app, id)
            assert stored.status.open
            assert (stored.owner, stored.attempts) == (None, 0)
        assert len(await history(app, "a")) == 1
    async with app:
        await waits.handle("b").send("x")
        assert await body.handle("a").result() == ["slow", "after"]
        assert await waits.handle("b").result() == "x"
        assert (await row(app, "a")).attempts == 0  # interrupted is not an attempt
    assert ledger == ["begin", "end", "after"]


async def test_work_begun_by_nobody_waits_for_the_next_executor(app: App) -> None:
    @app.workflow
    async def body() -> str:
        return "ok"

    async with app.connect():
        await body.options(id="a").start()
        assert await status(app, "a") == "queued"
    async with app:
        assert await body.handle("a").result() == "ok"


def test_a_sync_close_lets_steps_end_and_hands_the_rest_back(sync_app: perdure.sync.App, ledger: Ledger) -> None:
    started, free = threading.Event(), threading.Event()

    @sync_app.step
    def slow() -> str:
        ledger.note("begin")
        started.set()
        assert free.wait(20)
        ledger.note("end")
        return "slow"

    @sync_app.step
    def after() -> str:
        ledger.note("after")
        return "after"

    @sync_app.workflow
    def body() -> list[str]:
        return [slow(), after()]

    sync_app.open()
    body.options(id="a").start()
    assert started.wait(10)
    executor = sync_app._home.engine().executor
    closing = threading.Thread(target=sync_app.close)
    closing.start()
    until_sync(lambda: executor.draining)
    free.set()
    closing.join(20)
    assert not closing.is_alive()
    assert ledger == ["begin", "end"]
    with sync_app:
        assert body.handle("a").result(timeout=15) == ["slow", "after"]
    assert ledger == ["begin", "end", "after"]


# -- crashes


@pytest.mark.usefixtures("stay_in_memory")
async def test_a_launch_takes_over_what_a_dead_process_left(app: App, ledger: Ledger) -> None:
    @app.step
    async def step(n: int) -> int:
        ledger.note(n)
        return n

    @app.workflow
    async def body(n: int) -> int:
        first = await step(n)
        return first + int(await recv("go"))

    await app.open()
    for n in range(20):
        await body.options(id=f"w{n}").start(n)
    await until(lambda: len(ledger) == 20)
    for n in range(20):
        await until(lambda n=n: history(app, f"w{n}"))
    await crash(app)
    async with app:
        assert app._home.engine().executor.recovered == 20
        for n in range(20):
            await body.handle(f"w{n}").send(100, "go")
        assert [await body.handle(f"w{n}").result() for n in range(20)] == [100 + n for n in range(20)]
        assert {(await row(app, f"w{n}")).attempts for n in range(20)} == {1}
    assert sorted(map(int, ledger)) == list(range(20))


@pytest.mark.parametrize("how", ["waiting", "in a step"])
async def test_who_is_declared_dead_goes_on_under_a_new_identity(database: str, ledger: Ledger, how: str) -> None:
    """As after trouble that outlasted the lease, when another executor found the database first."""
    app = App("shop", database=database, lease=1)
    go = asyncio.Event()

    @app.step
    async def effect(what: str) -> str:
        ledger.note(what)
        await go.wait()
        return what

    @app.workflow(name="body")
    async def body() -> str:
        first = await effect("first") if how == "in a step" else await recv()
        return f"{first} {await effect('second')}"

    async with app:
        dead = executor(app).me.id
        handle = await body.options(id="a").start()
        called = asyncio.create_task(body.options(id="b")())
        await until(lambda: in_memory(app, "b") and (how == "waiting" or len(ledger) == 2))
        await app._home.engine().line.store.bury([dead], expired_only=False)
        await until(lambda: executor(app).me.id != dead)
        go.set()
        for one in (handle, body.handle("b")):
            if how == "waiting":
                await one.send("first")
            assert await one.result(timeout=10) == "first second"
        assert await called == "first second"
        # What ran when it was declared dead ran once more; what did not, once.
        assert ledger.counts == {"second": 2} | ({"first": 4} if how == "in a step" else {})
        if how == "in a step":
            assert await body() == "first second"
        assert (await row(app, "a")).attempts == 1


async def test_what_was_claimed_under_an_identity_that_died_meanwhile_is_taken_over_and_runs_once(
    database: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to a claim comes when the executor has another identity: whoever finds the dead has that, too."""
    app = App("shop", database=database, lease=1)

    @app.step
    async def effect() -> None:
        ledger.note("effect")

    @app.workflow(name="body")
    async def body() -> None:
        await effect()

    async with app:
        store = app._home.engine().line.store
        dead, claim = executor(app).me.id, store.claim

        async def claim_and_die(*given: Any, **options: Any) -> Any:
            claimed = await claim(*given, **options)
            if claimed and executor(app).me.id == dead:
                await store.bury([dead], expired_only=False)
                await until(lambda: executor(app).me.id != dead)
            return claimed

        monkeypatch.setattr(store, "claim", claim_and_die)
        async with Client(database, app="shop") as outside:
            await outside.workflow("body", returns=type(None)).options(id="a").start()
        await body.handle("a").result(timeout=20)
        assert executor(app).me.id != dead
        assert ledger == ["effect"]


@pytest.mark.usefixtures("stay_in_memory")
async def test_too_many_deaths_are_held(app: App) -> None:
    @app.workflow(max_deaths=2)
    async def body() -> None:
        await recv()

    for _ in range(3):
        await app.open()
        await body.options(id="a").start()
        await until(lambda: in_memory(app, "a"))
        await crash(app)
    async with app:
        await until(lambda: is_held(app))
        stored = await row(app, "a")
        assert stored.reason == "recovery_limit"
        assert stored.detail == "3 executors died while it was in flight (limit 2)"


async def is_held(app: App) -> bool:
    return await status(app, "a") == "held"


async def test_two_executors_share_the_work_and_each_workflow_runs_once(database: str, ledger: Ledger) -> None:
    def declare(app: App):
        @app.step(name="step")
        async def step(n: int) -> int:
            ledger.note(n)
            return n

        @app.workflow(name="body")
        async def body(n: int) -> int:
            return await step(n)

        return body

    caller, one, two = (App("shop", database=database) for _ in range(3))
    body = declare(caller)
    declare(one)
    declare(two)
    async with caller.connect():
        handles = await body.start_many(range(100))
        async with one, two:
            assert [await handle.result(timeout=20) for handle in handles] == list(range(100))
    assert sorted(map(int, ledger)) == list(range(100))
