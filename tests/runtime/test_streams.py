"""Streams: appended in a body and in steps, once each; read from anywhere, in order, live, up to the end."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import dataclass
from typing import Any

import pytest

import perdure.sync
from perdure import App, Retry, Stream, close_stream, current, recv, write_stream
from perdure.errors import Evicted, Misuse, OutsideWorkflow, Unserializable, WorkflowNotFound, WrongFace
from perdure.model.cuts import rewind
from perdure.model.ids import TokenMaker
from perdure.model.states import Cause
from perdure.model.writes import Decided, Delete, Unit
from tests.runtime.support import crash, executor, history, in_memory, kinds, until, until_sync
from tests.store.build import dump


@dataclass
class Token:
    text: str


words = Stream[str]("words")
tokens = Stream[Token]("tokens")


async def read(handle: Any, stream: Any = words, offset: int = 0) -> list[Any]:
    return [value async for value in handle.read_stream(stream, offset=offset)]


async def take(reader: Any, count: int) -> list[Any]:
    return [await anext(reader) for _ in range(count)]


async def test_what_a_body_writes_is_read_typed_in_order_and_ends_with_it(app: App) -> None:
    @app.workflow
    async def body() -> str:
        for text in ("a", "b", "c"):
            await write_stream(tokens, Token(text))
        return "done"

    async with app:
        handle = await body.options(id="a").start()
        assert await read(handle, tokens) == [Token("a"), Token("b"), Token("c")]
        assert await read(handle, "tokens", 1) == [{"text": "b"}, {"text": "c"}]  # by name alone: any value
        assert await read(handle, tokens, 3) == []
        assert await read(handle, tokens, 99) == []
        assert await read(handle, "another") == []
        assert await kinds(app, "a") == ["STREAM tokens NONE"] * 3
        assert await handle.result() == "done"
        assert await read(handle, tokens) == [Token("a"), Token("b"), Token("c")]  # also after the end


async def test_any_value_goes_also_none(app: App) -> None:
    values = [None, 0, "", [], {"a": [1, None]}, "x" * 100_000]

    @app.workflow
    async def body() -> None:
        for value in values:
            await write_stream("any", value)

    async with app:
        handle = await body.start()
        assert await read(handle, "any") == values


async def test_a_reader_follows_what_is_written(app: App) -> None:
    @app.workflow
    async def body() -> None:
        while (word := await recv()) != "end":
            await write_stream(words, word)

    async with app:
        handle = await body.start()
        reader = handle.read_stream(words)
        for word in ("one", "two", "three"):
            waiting = asyncio.ensure_future(anext(reader))
            await handle.send(word)
            assert await waiting == word
        waiting = asyncio.ensure_future(anext(reader, None))
        await handle.send("end")
        assert await waiting is None


async def test_closing_ends_what_is_read_while_the_workflow_goes_on(app: App) -> None:
    @app.workflow
    async def body() -> None:
        await write_stream(words, "last")
        await close_stream(words)
        await close_stream("words")  # once more is once
        with pytest.raises(Misuse, match="'words' of workflow 'a' was closed"):
            await write_stream(words, "too late")
        await write_stream("other", 1)
        await recv()

    async with app:
        handle = await body.options(id="a").start()
        assert await read(handle) == ["last"]
        assert str(await handle.status()) in ("running", "waiting")
        await handle.send(True)
        await handle.result()
        assert await read(handle) == ["last"]
        assert await read(handle, "other") == [1]


async def test_a_stream_that_is_closed_empty_ends(app: App) -> None:
    @app.workflow
    async def body() -> None:
        await close_stream(words)
        await recv()

    async with app:
        assert await read(await body.start()) == []


@pytest.mark.parametrize("how", ["cancel", "terminate", "fail"])
async def test_however_a_workflow_ends_its_blocked_readers_come_to_the_end(app: App, how: str) -> None:
    @app.workflow
    async def body() -> None:
        await write_stream(words, "only")
        await recv()
        raise ValueError("as ordered")

    async with app:
        handle = await body.options(id="a").start()
        readers = [asyncio.ensure_future(read(handle)) for _ in range(3)]
        await until(lambda: len(app._home.engine().line.watcher._streams._waiting) == 3)
        if how == "cancel":
            await handle.cancel()
        elif how == "fail":
            await handle.send(True)
        else:
            await app._home.engine().line.store.terminate("a", "by hand", b"n" * 16)
        assert await asyncio.gather(*readers) == [["only"]] * 3


async def test_an_unknown_workflow_is_an_error(app: App) -> None:
    @app.workflow
    async def body() -> str:
        try:
            return str(await read(app.client.handle("nobody")))
        except WorkflowNotFound:
            return "not found"

    async with app:
        with pytest.raises(WorkflowNotFound, match="nobody"):
            await read(app.client.handle("nobody"))
        assert await body() == "not found"
        with pytest.raises(Misuse, match="offsets are 0, 1, 2"):
            app.client.handle("a").read_stream(words, offset=-1)


async def test_a_value_that_cannot_be_stored_fails_at_the_call_and_leaves_nothing(app: App) -> None:
    @app.workflow
    async def body() -> str:
        with contextlib.suppress(Unserializable):
            await write_stream(tokens, "no token")  # type: ignore[arg-type]
        try:
            await write_stream("big", "x" * 3_000_000)
        except Unserializable as error:
            return str(error)
        return ""

    async with app:
        handle = await body.start()
        assert "stream 'big'" in await handle.result()
        assert await read(handle, tokens) == await read(handle, "big") == []


async def test_outside_a_workflow_nothing_can_be_written(app: App) -> None:
    @app.step
    async def step() -> str:
        try:
            await close_stream(words)
        except OutsideWorkflow as error:
            return str(error)
        return ""

    @app.workflow
    async def body() -> str:
        return await step()

    with pytest.raises(OutsideWorkflow, match="outside any workflow"):
        await write_stream(words, "x")
    with pytest.raises(OutsideWorkflow, match="outside any workflow"):
        await close_stream(words)
    async with app:
        assert "in a step, which may run again" in await body()


# -- steps


async def test_what_a_step_writes_is_read_while_it_runs_and_is_no_record(app: App) -> None:
    go_on = asyncio.Event()

    @app.step
    async def think() -> str:
        await write_stream(words, "hel")
        await go_on.wait()
        await write_stream(words, "lo")
        return "hello"

    @app.workflow
    async def body() -> str:
        await write_stream(words, "begin")
        said = await think()
        await write_stream(words, "end")
        return said

    async with app:
        handle = await body.options(id="a").start()
        reader = handle.read_stream(words)
        assert await take(reader, 2) == ["begin", "hel"]
        go_on.set()
        assert await take(reader, 2) == ["lo", "end"]
        assert await handle.result() == "hello"
        assert [what.split()[0] for what in await kinds(app, "a")] == ["STREAM", "STEP", "STREAM"]


async def test_a_retried_step_appends_each_value_once_and_the_first_stays(app: App) -> None:
    @app.step(retry=Retry(3, delay=0.001))
    async def flaky() -> int:
        attempt = current().attempt
        for n in range(attempt + 1):
            await write_stream(words, f"{n} of attempt {attempt}")
            await write_stream("other", n)
        if attempt < 3:
            raise ConnectionError("again")
        return attempt

    @app.workflow
    async def body() -> int:
        return await flaky()

    async with app:
        handle = await body.start()
        assert await handle.result() == 3
        assert await read(handle) == ["0 of attempt 1", "1 of attempt 1", "2 of attempt 2", "3 of attempt 3"]
        assert await read(handle, "other") == [0, 1, 2, 3]


async def test_a_step_that_crashed_half_way_appends_the_rest(app: App, database: str) -> None:
    reached, runs = asyncio.Event(), []

    def declared(app: App) -> Any:
        @app.step
        async def think() -> None:
            runs.append(1)
            for n in range(6):
                await write_stream(words, f"{n} in run {len(runs)}")
                if n == 3 and len(runs) == 1:
                    reached.set()
                    await asyncio.Event().wait()

        @app.workflow
        async def body() -> None:
            await think()
            await write_stream(words, "end")

        return body

    body = declared(app)
    await app.open()
    handle = await body.options(id="a").start()
    reader = handle.read_stream(words)
    assert await take(reader, 4) == [f"{n} in run 1" for n in range(4)]
    await reached.wait()
    await crash(app)
    second = App("shop", database=database)
    declared(second)
    async with second:
        handle = second.client.handle("a")
        expected = [*(f"{n} in run 1" for n in range(4)), "4 in run 2", "5 in run 2", "end"]
        assert await read(handle) == expected


async def test_steps_side_by_side_lose_and_double_nothing(app: App) -> None:
    @app.step
    async def say(who: int) -> None:
        for n in range(20):
            await write_stream(words, f"{who}/{n}")
            await asyncio.sleep(0)

    @app.step
    def say_in_thread(who: int) -> None:
        for n in range(20):
            perdure.sync.write_stream(words, f"{who}/{n}")

    @app.workflow
    async def body() -> None:
        await asyncio.gather(*(say(who) for who in range(5)), *(say_in_thread(who) for who in range(5, 10)))

    async with app:
        handle = await body.start()
        found = await read(handle)
        assert sorted(found) == sorted(f"{who}/{n}" for who in range(10) for n in range(20))
        for who in range(10):
            assert [word for word in found if word.startswith(f"{who}/")] == [f"{who}/{n}" for n in range(20)]


@pytest.mark.parametrize("threaded", [False, True])
async def test_a_step_that_writes_much_waits_for_room(app: App, threaded: bool) -> None:
    most = [0]

    def seen() -> None:
        box = next(iter(executor(app).executions.values())).outbox
        most[0] = max(most[0], len(box.waiting) + len(box.flying))

    @app.step
    async def much() -> None:
        for n in range(3000):
            await write_stream("numbers", n)
            seen()

    @app.step
    def much_in_thread() -> None:
        for n in range(3000):
            perdure.sync.write_stream("numbers", n)
            seen()

    @app.workflow
    async def body() -> None:
        await (much_in_thread() if threaded else much())

    async with app:
        handle = await body.start()
        assert await read(handle, "numbers") == list(range(3000))
        assert 0 < most[0] <= 256


async def test_an_attempt_that_ran_out_of_time_writes_no_more(app: App) -> None:
    release, over = threading.Event(), threading.Event()

    @app.step(timeout=0.05, retry=Retry(2, delay=0.001))
    def slow() -> int:
        attempt = current().attempt
        perdure.sync.write_stream(words, f"begun by {attempt}")
        if attempt == 1:
            release.wait(10)
            try:
                perdure.sync.write_stream(words, "late")
            finally:
                over.set()
        else:
            release.set()
            over.wait(0.03)
            perdure.sync.write_stream(words, f"second by {attempt}")
        return attempt

    @app.workflow
    async def body() -> int:
        return await slow()

    async with app:
        handle = await body.start()
        assert await handle.result() == 2
        await until(over.is_set)
        assert await read(handle) == ["begun by 1", "second by 2"]


# -- readers


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
            line._hinted = lambda: None  # every notification is lost
            line.store.on_hint(lambda: None)
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


# -- the blocking face


def test_the_same_in_blocking_code(sync_app: perdure.sync.App) -> None:
    app = sync_app

    @app.step
    def think(word: str) -> str:
        for letter in word:
            perdure.sync.write_stream("letters", letter)
        return word

    @app.step
    async def think_on_the_loop(word: str) -> str:
        for letter in word:
            await write_stream("letters", letter)
        return word

    @app.workflow
    def body() -> str:
        perdure.sync.write_stream("letters", ">")
        said = think("ab") + think_on_the_loop("cd")
        perdure.sync.close_stream("letters")
        return said + str(perdure.sync.recv())

    @app.workflow
    def reader(id: str) -> list[str]:
        return list(body.handle(id).read_stream("letters", offset=1))

    with app:
        handle = body.options(id="a").start()
        assert list(handle.read_stream("letters")) == [">", "a", "b", "c", "d"]
        assert reader("a") == ["a", "b", "c", "d"]
        handle.send("!")
        assert handle.result() == "abcd!"
        until_sync(lambda: str(handle.status()) == "completed")


async def test_the_other_face_is_refused(app: App) -> None:
    @app.workflow
    async def body() -> str:
        try:
            perdure.sync.write_stream(words, "x")
        except WrongFace:
            return "refused"
        return ""

    async with app:
        assert await body() == "refused"
