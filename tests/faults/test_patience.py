"""The database is away for longer than a caller's patience: Postgres stopped, a SQLite file locked by another program.

The call ends, and says what is known; repeated when the database is back, it takes effect once. No workflow fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import pytest

import perdure.sync
from perdure import App, recv
from perdure.errors import DatabaseUnavailable
from tests.postgres import Cluster
from tests.runtime.support import Ledger, until

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.timeout(120)]

PATIENCE = 0.4
ENOUGH = 10.0  # seconds in which a call of that patience certainly ends


class Place(NamedTuple):
    """A database that goes away and comes back. Told so in the test's own thread: a server ends with who started it."""

    url: str
    leave: Callable[[], object]
    come_back: Callable[[], object]
    reads: bool  # whether it still answers questions meanwhile


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "postgres":
        cluster: Cluster = request.getfixturevalue("cluster")
        yield Place(cluster.url(cluster.create_database()), cluster.stop, cluster.start, False)
        return
    path = tmp_path / "shop.db"
    holder: Any = None

    def lock() -> None:
        nonlocal holder
        holder = apsw.Connection(str(path))
        holder.set_busy_timeout(10_000)
        holder.execute("begin immediate")

    def unlock() -> None:
        nonlocal holder
        if holder is not None:
            holder.close()
            holder = None

    yield Place(f"sqlite:///{path}", lock, unlock, True)
    unlock()


def declare(app: Any, ledger: Ledger) -> Any:
    @app.step
    async def act(what: str) -> None:
        ledger.note(what)

    @app.workflow
    async def work(what: str) -> str:
        await act(what)
        return f"{what} {await recv()}"

    return work


async def gives_up(call: Awaitable[Any]) -> DatabaseUnavailable:
    async with asyncio.timeout(ENOUGH):
        with pytest.raises(DatabaseUnavailable, match=f"has not answered for {PATIENCE:g} s") as caught:
            await call
    return caught.value


async def test_each_call_ends_and_is_repeated_without_harm(place: Place) -> None:
    app, ledger = App("shop", database=place.url, patience=PATIENCE), Ledger()
    work = declare(app, ledger)
    async with app.connect() as client:
        first = await work.options(id="first").start("first")
        place.leave()
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: work.options(id="late").start("late"),
            lambda: work.options(queue="mail", dedup="k", id="only").start("only"),
            lambda: first.send("hello", key="h"),
            lambda: client.set_queue("mail", concurrency=3),
        ]
        reads: list[Callable[[], Awaitable[Any]]] = [
            first.status, first.result, lambda: first.get_event("e"), client.count, client.queues,
            lambda: anext(client.list()),
        ]  # fmt: skip
        for call in calls:
            await gives_up(call())
        if not place.reads:
            for read in reads:
                error = await gives_up(read())
                assert not error.unknown
                assert "Nothing was changed" in str(error)
        place.come_back()
        async with asyncio.timeout(60):
            for call in calls:
                await again(call)
        assert await client.count() == 3
    async with app:
        await until(lambda: len(ledger) == 3)
        assert sorted(ledger) == ["first", "late", "only"]
        assert await first.result() == "first hello"
        for id in ("late", "only"):
            await app.client.handle(id).send(id)
            assert await app.client.handle(id).result() == f"{id} {id}"
    assert sorted(ledger) == ["first", "late", "only"]


async def again(call: Callable[[], Awaitable[Any]]) -> Any:
    """A server that has just started may answer later than this patience."""
    while True:
        try:
            return await call()
        except DatabaseUnavailable:
            continue


async def test_workflows_and_their_steps_wait_where_callers_give_up(place: Place) -> None:
    """In the executor's own process: what a body or a step asks for is waited for, and nothing fails."""
    app, ledger, step_asks = App("shop", database=place.url, patience=PATIENCE), Ledger(), asyncio.Event()
    work = declare(app, ledger)

    @app.step
    async def tell() -> int:
        await step_asks.wait()
        await app.client.handle("other").send("told", key="once")
        return 1

    @app.workflow
    async def asks() -> str:
        await tell()
        return str(await work.handle("other").result())

    async with app:
        other = await work.options(id="other").start("other")
        asking = await asks.options(id="asks").start()
        await until(lambda: len(ledger) == 1)
        place.leave()
        step_asks.set()
        error = await gives_up(work.options(id="here")("here"))
        assert error.unknown
        assert "repeat it with .options(id='here') or --id here, which starts it once" in str(error)
        await gives_up(work.options(id="here").start("here"))  # it stands in this process, unwritten
        if not place.reads:
            await gives_up(other.status())
        place.come_back()
        here = await again(lambda: work.options(id="here").start("here"))
        assert await asking.result(timeout=60) == "other told"
        await again(lambda: here.send("now", key="now"))
        assert await here.result(timeout=60) == "here now"
    assert sorted(ledger) == ["here", "other"]


async def test_blocking_calls_end_too(place: Place) -> None:
    app, ledger = perdure.sync.App("shop", database=place.url, patience=PATIENCE), Ledger()

    @app.workflow
    def work(what: str) -> str:
        ledger.note(what)
        return what

    def call(fn: Callable[[], Any]) -> Awaitable[Any]:
        return asyncio.to_thread(fn)

    await call(app.open)
    try:
        assert await call(lambda: work("a")) == "a"
        place.leave()
        late = work.options(id="late")
        assert (await gives_up(call(lambda: late("late")))).unknown
        await gives_up(call(lambda: late.start("late")))
        place.come_back()
        assert await again(lambda: call(lambda: late("late"))) == "late"
    finally:
        place.come_back()
        await call(app.close)
