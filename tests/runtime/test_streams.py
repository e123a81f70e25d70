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
from perdure.errors import Misuse, OutsideWorkflow, Unserializable, WorkflowNotFound, WrongFace
from tests.runtime.support import crash, executor, kinds, until, until_sync


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
        with pytest.raises(Misuse, match="offset=-1 cannot be asked for: give a whole number from 0"):
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
