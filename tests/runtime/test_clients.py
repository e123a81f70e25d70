"""A client, from a process that runs nothing and has no code: everything a caller or an operator needs; both faces."""

# waits: `until` looks again until a workflow stands where it is wanted.

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

import perdure.sync
from perdure import App, Client, Event, Rate, Stream, Topic, close_stream, recv, set_event, write_stream
from perdure.batches import Cancel
from perdure.errors import ConfigError, DatabaseTrouble, NotOpen, WorkflowConflict, WorkflowNotFound
from tests.runtime.support import until, until_sync

go, stage, words = Topic[str]("go"), Event[str]("stage"), Stream[str]("words")


def declare(app: App) -> None:
    app.queue("q", concurrency=2)

    @app.step(name="act")
    async def act(n: int) -> int:
        return n

    @app.workflow(name="order")
    async def order(n: int) -> str:
        await act(n)
        await set_event(stage, f"packed {n}")
        await write_stream(words, f"word {n}")
        await close_stream(words)
        return f"{n} {await recv(go)}"


async def test_everything(app: App, database: str) -> None:
    declare(app)
    async with app, Client(database, app="shop") as client:
        order = client.workflow("order", returns=str)
        # callers
        a = await order.options(id="a", queue="q", attributes={"customer": 7}).start(1)
        assert (await order.options(id="a", queue="q").start(1)).id == "a"
        with pytest.raises(WorkflowConflict, match="One id is one call"):
            await order.options(id="a").start(2)
        assert await a.get_event(stage, timeout=20) == "packed 1"
        assert [word async for word in a.read_stream(words)] == ["word 1"]
        await a.send("go", go, key="k")
        await a.send("twice", go, key="k")
        assert await a.result(timeout=20) == "1 go"
        many = await order.options(queue="q", dedup="d").start_many([5, 6])
        assert len({handle.id for handle in many}) == 1
        assert await many[0].cancel(reason="a slip") == "cancelled"
        # operators
        b = await order.options(id="b").start(2)
        await b.get_event(stage, timeout=20)
        assert await b.cancel() == "cancelled"
        assert await b.resume() == "queued"
        await b.send("b", go)
        assert await b.result(timeout=20) == "2 b"
        again = await b.restart(id="b-2")
        forked = await b.fork("act", id="b-3")
        for handle in (again, forked):
            await handle.send(handle.id, go)
        assert [await handle.result(timeout=20) for handle in (again, forked)] == ["2 b-2", "2 b-3"]
        await b.reset("act", exclude="messages", reason="again")
        await until(lambda: is_waiting(b))
        assert await b.pause() == "held"
        await b.unpause()
        assert await b.terminate() == "terminated"
        assert [info.id async for info in client.list("attributes.customer = 7")] == ["a"]
        assert (await client.count("type = order GROUP BY status")) == 5
        c = await order.options(id="c").start(3)
        await until(lambda: is_waiting(c))
        await client.batch(Cancel(), "id = c", reason="c is wrong").apply()
        await until(lambda: is_closed(c))
        assert await c.status() == "cancelled"
        await client.set_queue("q", concurrency=5, rate=Rate(100, per=1))
        await client.pause_queue("q")
        [info] = await client.queues()
        assert (info.paused, info.concurrency) == (True, 5)
        await client.resume_queue("q")
        await client.reset_queue("q")
        assert (await client.queues())[0].concurrency == 2
        assert (await client.size()).bytes > 0
        purged = await client.purge(older_than=timedelta(0), statuses=["completed"])
        assert sum(one.count for one in purged) == 3
        await c.delete()
        for gone in ("a", "c"):
            with pytest.raises(WorkflowNotFound):
                await client.handle(gone).status()


async def is_closed(handle: Any) -> bool:
    return not (await handle.status()).open


async def is_waiting(handle: Any) -> bool:
    return await handle.status() in ("waiting", "running")


def test_everything_in_blocking_code(database: str) -> None:
    app = perdure.sync.App("shop", database=database)
    app.queue("q", concurrency=2)

    @app.workflow(name="order")
    def order(n: int) -> str:
        perdure.sync.set_event(stage, f"packed {n}")
        perdure.sync.write_stream(words, f"word {n}")
        perdure.sync.close_stream(words)
        return f"{n} {perdure.sync.recv(go)}"

    with app, perdure.sync.Client(database, app="shop") as client:
        there = client.workflow("order", returns=str)
        a = there.options(id="a", queue="q").start(1)
        assert a.get_event(stage, timeout=20) == "packed 1"
        assert list(a.read_stream(words)) == ["word 1"]
        a.send("go", go)
        assert a.result(timeout=20) == "1 go"
        many = there.options(queue="q", dedup="d", delay=3600).start_many([5, 6])
        assert [handle.cancel() for handle in many] == ["cancelled"] * 2
        b = there.options(id="b").start(2)
        until_sync(lambda: b.status() in ("running", "waiting"))
        assert b.cancel() == "cancelled"
        assert b.resume() == "queued"
        b.send("b", go)
        assert b.result(timeout=20) == "2 b"
        assert [info.id for info in client.list("status = completed ORDER BY id")] == ["a", "b"]
        client.set_queue("q", concurrency=5)
        client.pause_queue("q")
        assert client.queues()[0].paused
        client.resume_queue("q")
        client.reset_queue("q")
        assert client.queues()[0].concurrency == 2
        assert client.count("status = cancelled") == 1
        done = client.batch(Cancel(), "id = b", reason="it has ended").apply()
        assert (done.total, done.done, done.skipped) == (1, 0, 1)
        assert client.size().bytes > 0
        assert client.purge(older_than=0)


async def test_it_says_that_nobody_is_there(tmp_path: Any) -> None:
    with pytest.raises((ConfigError, DatabaseTrouble)) as caught:
        async with Client("postgresql://nobody@127.0.0.1:1/none", app="shop"):
            pass
    assert "127.0.0.1:1" in str(caught.value)


async def test_a_client_that_is_not_open_says_how_to_open_one(app: App, database: str) -> None:
    """Of an app there is nothing here that could be opened."""
    async with app:
        pass
    client = Client(database)
    with pytest.raises(
        NotOpen, match=r"^the client is not open, or closed already: async with Client\(…\) as client: "
    ):
        await client.handle("a").status()
    async with client:
        with pytest.raises(ConfigError, match=r"^the client of app 'shop' is open already; close it first"):
            await client.open()
    with pytest.raises(NotOpen, match=r"^the client of app 'shop' is not open, or closed already: async with Client"):
        await client.handle("a").status()
    with pytest.raises(NotOpen, match=r"^the client of app 'shop' .*: with Client\(…\) as client: "):
        perdure.sync.Client(database, app="shop").handle("a").status()
