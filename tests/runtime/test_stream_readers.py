"""Who reads a stream: in other processes, in workflows, many at once; and what becomes of it when a run is followed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure import App, Stream, close_stream, recv, write_stream
from perdure.errors import Evicted, Misuse, WorkflowNotFound
from perdure.model.cuts import rewind
from perdure.model.ids import TokenMaker
from perdure.model.states import Cause
from perdure.model.writes import Decided, Delete, Unit
from tests.runtime.support import crash, executor, history, in_memory, kinds, until
from tests.store.build import dump

words = Stream[str]("words")


async def read(handle: Any, stream: Any = words, offset: int = 0) -> list[Any]:
    return [value async for value in handle.read_stream(stream, offset=offset)]


async def take(reader: Any, count: int) -> list[Any]:
    return [await anext(reader) for _ in range(count)]


async def test_another_process_reads_live(app: App, database: str) -> None:
    @app.workflow
    async def body() -> None:
        while (word := await recv()) != "end":
            await write_stream(words, word)

    async with app, App("shop", database=database).connect() as client:
        handle = await body.options(id="a").start()
        reader = client.handle("a").read_stream(words, offset=1)
        for word in ("zero", "one", "two"):
            await handle.send(word)
        assert await take(reader, 2) == ["one", "two"]
        await handle.send("end")
        assert await anext(reader, None) is None


async def test_a_reader_finds_all_by_the_poll_alone(app: App, database: str) -> None:
    @app.workflow
    async def body() -> None:
        while (word := await recv()) != "end":
            await write_stream(words, word)

    async with app:
        handle = await body.options(id="a").start()
        async with App("shop", database=database).connect() as client:
            line = client._home.engine().line
            line._hinted = lambda _queues: None  # every notification is lost
            line.store.on_hint(lambda _queues: None)
            reader = client.handle("a").read_stream(words)
            await handle.send("heard")
            async with asyncio.timeout(5):
                assert await anext(reader) == "heard"
            waiting = asyncio.ensure_future(anext(reader, None))
            await handle.send("end")
            async with asyncio.timeout(5):
                assert await waiting is None


async def test_a_workflow_records_what_it_read_and_a_replay_asks_nothing(app: App, database: str) -> None:
    def declared(app: App) -> Any:
        @app.workflow
        async def source() -> None:
            for n in range(5):
                await write_stream("numbers", n)
            await recv()
            await write_stream("numbers", 5)

        @app.workflow
        async def reader(id: str) -> list[int]:
            found: list[int] = []
            async for value in app.client.handle(id).read_stream("numbers", offset=1):
                found.append(value)
                if value == 4:
                    await recv("go on")
            return found

        return source, reader

    source, reader = declared(app)
    await app.open()
    one = await source.options(id="source").start()
    await reader.options(id="reader").start("source")
    await until(lambda: in_memory(app, "reader") and len(executor(app).executions["reader"].waiting) == 1)
    await until(lambda: kinds_has(app, "reader", "READ"))
    await crash(app)
    second = App("shop", database=database)
    declared(second)
    async with second:
        await second.client.handle("source").send(True)
        await second.client.handle("source").result()
        await second.client.handle("reader").send(True, "go on")
        assert await second.client.handle("reader").result() == [1, 2, 3, 4, 5]
        reads = [record.name for record in await history(second, "reader") if record.kind.name == "READ"]
        assert reads[0] == "stream numbers of source from 1"
        assert 2 <= len(reads) <= 7
    assert one.id == "source"


async def kinds_has(app: App, id: str, kind: str) -> bool:
    return any(what.startswith(kind) for what in await kinds(app, id))


@pytest.mark.usefixtures("quick_eviction")
async def test_a_workflow_that_waits_for_more_leaves_memory_and_is_woken(app: App) -> None:
    @app.workflow
    async def source() -> None:
        while (word := await recv()) != "end":
            await write_stream(words, word)

    @app.workflow
    async def reader() -> list[str]:
        return [word async for word in source.handle("source").read_stream(words)]

    async with app:
        handle = await source.options(id="source").start()
        read_here = await reader.options(id="reader").start()
        await until(lambda: not in_memory(app, "reader"))
        for word in ("one", "two"):
            await handle.send(word)
            await until(lambda: not in_memory(app, "reader"))
        await handle.send("end")
        assert await read_here.result() == ["one", "two"]


async def test_many_who_wait_cost_one_query(app: App) -> None:
    @app.workflow
    async def body() -> None:
        await recv()
        await write_stream(words, "at last")

    async with app:
        handles = [await body.start() for _ in range(20)]
        readers = [asyncio.ensure_future(read(handle)) for handle in handles for _ in range(5)]
        watcher = app._home.engine().line.watcher
        await until(lambda: len(watcher._streams._waiting) == 100)
        asked: list[int] = []
        store, streams = watcher._store, watcher._store.streams

        async def counted(asks: Any) -> Any:
            asked.append(len(asks))
            return await streams(asks)

        store.streams = counted
        await watcher._look_once()
        assert asked == [20]  # who reads the same is asked for once
        for handle in handles:
            await handle.send(True)
        assert await asyncio.gather(*readers) == [["at last"]] * 100


async def test_a_long_stream_comes_in_pages(app: App) -> None:
    @app.step
    async def much() -> None:
        for n in range(500):
            await write_stream("big", f"{n} {'x' * 10_000}")

    @app.workflow
    async def body() -> None:
        await much()

    async with app:
        handle = await body.start()
        await handle.result()
        found = [int(value.split()[0]) async for value in handle.read_stream("big")]
        assert found == list(range(500))


async def test_a_reader_that_gives_up_is_forgotten(app: App) -> None:
    @app.workflow
    async def source() -> None:
        await recv()
        await write_stream(words, "late")

    @app.workflow
    async def reader() -> list[str]:
        try:
            async with asyncio.timeout(0.05):
                return [word async for word in source.handle("source").read_stream(words)]
        except TimeoutError:
            return ["gave up"]

    async with app:
        handle = await source.options(id="source").start()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(read(handle), 0.05)
        assert await reader() == ["gave up"]
        assert not app._home.engine().line.watcher._streams
        blocked = await reader.options(id="blocked").start()
        assert str(await blocked.cancel()) in ("cancelled", "completed")
        await handle.send(True)
        assert await read(handle) == ["late"]


async def test_what_a_step_left_behind_writes_no_more(app: App) -> None:
    left: list[asyncio.Task[None]] = []

    @app.step
    async def careless() -> None:
        async def later() -> None:
            await over.wait()
            await write_stream(words, "too late")

        left.append(asyncio.create_task(later()))

    over = asyncio.Event()

    @app.workflow
    async def body() -> None:
        await careless()

    async with app:
        handle = await body.options(id="a").start()
        await handle.result()
        over.set()
        with pytest.raises((Misuse, Evicted)):
            await left[0]
        assert await read(handle) == []


# -- what follows a run


async def test_a_run_that_continues_as_new_goes_on_with_the_stream(app: App) -> None:
    @app.workflow
    async def body(left: int) -> None:
        await write_stream(words, f"{left} left")
        await write_stream(words, "again")
        if left:
            body.continue_as_new(left - 1)

    async with app:
        handle = await body.options(id="a").start(2)
        expected = ["2 left", "again", "1 left", "again", "0 left", "again"]
        assert await read(handle) == expected
        assert await read(handle, offset=3) == expected[3:]


async def test_what_replaces_a_workflow_begins_a_stream_of_its_own(app: App) -> None:
    @app.workflow
    async def body(word: str) -> None:
        await write_stream(words, word)
        await write_stream(words, word)
        await recv()

    async with app:
        handle = await body.options(id="a").start("first")
        reader = handle.read_stream(words)
        assert await anext(reader) == "first"
        again = await body.options(id="a", on_conflict="replace").start("second")
        assert [word async for word in reader] in (["first"], [])
        fresh = again.read_stream(words)
        assert await take(fresh, 2) == ["second", "second"]


async def test_a_fork_has_copies_of_what_was_kept(app: App, database: str) -> None:
    @app.step
    async def say(word: str) -> str:
        await write_stream(words, word)
        return word

    @app.workflow
    async def body() -> None:
        await write_stream(words, "begin")
        await say("kept")
        await say("again")
        await close_stream(words)
        await recv()

    async with app:
        handle = await body.options(id="a").start()
        assert await read(handle) == ["begin", "kept", "again"]
        fork = await handle.fork("3", id="fork")
        assert await read(fork) == await read(handle) == ["begin", "kept", "again"]
        places = {id: await marks(app, database, id) for id in ("a", "fork")}
        assert places["a"] == [("1", 0), ("2", 0), ("3", 0)] == places["fork"]


async def marks(app: App, database: str, id: str) -> list[tuple[str, int]]:
    """Path and number of each value, in order, as the rows have them."""
    store: Any = app._home.engine().line.store
    store.test_url = database
    rows = (await dump(store))["stream_value"]
    return [(r["path"], r["n"]) for r in sorted(rows, key=lambda r: r["place"]) if r["id"] == id]


async def test_a_reader_of_a_resumed_workflow_goes_back_to_what_changed(app: App) -> None:
    """What a step wrote that never ended is cut off with it, and written again."""
    entered = asyncio.Event()

    @app.step
    async def say(word: str) -> None:
        await write_stream(words, word)

    @app.step
    async def hang() -> None:
        first = not entered.is_set()
        await write_stream(words, "of the first" if first else "of the second")
        entered.set()
        if first:
            await asyncio.Event().wait()

    @app.workflow
    async def body() -> None:
        await say("kept")
        await hang()
        await write_stream(words, "end")

    async with app:
        handle = await body.options(id="a").start()
        reader = handle.read_stream(words)
        assert await take(reader, 2) == ["kept", "of the first"]
        await entered.wait()
        store, clock = app._home.engine().line.store, app._home.engine().line.clock
        seen = (await store.rows(["a"]))["a"]
        past = (await store.histories([seen.key]))[seen.key]
        back = rewind(seen, past, b"[]", 1, TokenMaker(), at=clock.now(), by="a person")
        assert await store.rewind(seen, back)
        executor(app).looks = 0
        executor(app).look()
        assert [word async for word in reader] == ["of the second", "end"]
        assert await read(handle) == ["kept", "of the second", "end"]


async def test_a_deleted_workflow_has_no_stream(app: App, database: str) -> None:
    @app.workflow
    async def body() -> None:
        await write_stream(words, "x")
        await recv()

    async with app:
        handle = await body.options(id="a").start()
        reader = handle.read_stream(words)
        assert await anext(reader) == "x"
        waiting = asyncio.ensure_future(anext(reader, None))
        store = app._home.engine().line.store
        row = (await store.rows(["a"]))["a"]
        decision = Decided(
            cause=Cause.ERROR, decision="delete", policy="", because="", parameters=None, evidence=b"{}", executor=""
        )  # fmt: skip
        unit = Unit(key=row.key, claim=row.claim, nonce=b"d" * 16, change=Delete(), decision=decision)
        assert (await store.commit([unit])).verdicts[0].applied
        with pytest.raises(WorkflowNotFound):
            await waiting
        assert await marks(app, database, "a") == []
