"""A codec, end to end: nothing plain in the database, replays as without, and what cannot be decoded is held."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from pathlib import Path
from typing import Any

import pytest

import perdure.sync
from perdure import App, Client, Codec, Event, Retry, Topic, recv, set_event, write_stream
from perdure.errors import ConfigError, StepFailed, Unserializable, WorkflowConflict
from perdure.testing import harness
from tests.runtime.support import Ledger, crash, history, row, until, until_sync

MARK = "zq7hunter2"  # in every value; nowhere in a name
NEWS, CHAPTER = Topic[str]("news"), Event[str]("chapter")


def xor(key: int) -> Codec:
    """What it gives is no UTF-8, and it does not notice a wrong key."""

    def turn(data: bytes) -> bytes:
        return bytes(byte ^ key for byte in data)

    return Codec(encode=turn, decode=turn)


ZLIB = Codec(encode=zlib.compress, decode=zlib.decompress)
SECRET = xor(0xA5)


class Denied(Exception):
    pass


def build(database: str, codec: Codec | None, ledger: Ledger, *, limit: int = 3, pauses: bool = False) -> App:
    """An app that does all that puts values into a database; ``pauses``: it stops behind its first message."""
    app = App("shop", database=database, codec=codec)

    @app.step(name="charge", retry=Retry(attempts=3, on=ConnectionError, delay=0.01))
    async def charge(card: str, *, cents: int) -> dict[str, Any]:
        ledger.note("charge")
        if ledger.count("charge") == 1:
            raise ConnectionError(f"no route for {card}")
        await write_stream("story", f"charged {card}")
        return {"card": card, "cents": cents}

    @app.step(name="decline")
    def decline(card: str) -> None:
        raise Denied(card)

    @app.workflow(name="child")
    async def child(card: str) -> str:
        return f"child of {card}"

    @app.workflow(name="fails")
    async def fails(card: str) -> None:
        await decline(card)

    @app.workflow(name="order")
    async def order(card: str, turn: int = 1) -> list[Any]:
        paid = await charge(card, cents=5)
        await set_event(CHAPTER, f"paid with {card}")
        got = await recv(NEWS)
        if pauses:
            await recv("go on")
        below = await child(card)
        try:
            await fails(card)
        except (StepFailed, Denied) as denied:
            below += f", {denied}"
        if turn < limit:
            order.continue_as_new(card, turn + 1)
        return [paid, got, below, turn]

    app.order, app.child, app.fails = order, child, fails  # type: ignore[attr-defined]
    return app


def everything_in(path: Path) -> str:
    """The bytes of a file, with what is not yet in its pages."""
    log = path.with_name(path.name + "-wal")
    found = b""
    with contextlib.suppress(FileNotFoundError):  # it goes with the last connection, at any moment, into the file
        found = log.read_bytes()
    return (found + path.read_bytes()).decode("latin-1")


async def everything(database: str) -> str:
    """All that the database holds, as text."""
    if database.startswith("sqlite"):
        return everything_in(Path(database.removeprefix("sqlite:///")))
    import asyncpg

    conn = await asyncpg.connect(database)
    try:
        tables = await conn.fetch("select relname from pg_stat_user_tables where schemaname = 'perdure'")
        rows = [row for (name,) in tables for row in await conn.fetch(f"select t::text from perdure.{name} t")]
    finally:
        await conn.close()
    return "\n".join(text for (text,) in rows)


async def assert_hidden(database: str) -> None:
    text = await everything(database)
    assert "order" in text
    for form in (MARK, MARK.encode().hex(), MARK[::-1]):
        assert form not in text


async def held(app: App, id: str) -> Any:
    return await until(lambda: _held(app, id))


async def _held(app: App, id: str) -> Any:
    found = await row(app, id)
    return found if found.status == "held" else None


# -- nothing plain, and everything as without


@pytest.mark.parametrize("codec", [SECRET, ZLIB], ids=["xor", "zlib"])
async def test_no_value_is_plain_in_the_database_and_all_arrive(database: str, ledger: Ledger, codec: Codec) -> None:
    app: Any = build(database, codec, ledger)
    async with app:
        handle = await app.order.options(id="o").start(MARK)
        for turn in (1, 2, 3):
            await handle.send(f"{MARK} {turn}", NEWS)
        below = f"child of {MARK}, {MARK}"
        assert await handle.result(timeout=30) == [{"card": MARK, "cents": 5}, f"{MARK} 3", below, 3]
        assert await handle.get_event(CHAPTER) == f"paid with {MARK}"
        assert [told async for told in handle.read_stream("story")] == [f"charged {MARK}"] * 3
        with pytest.raises(Denied, match=MARK):
            await app.fails(MARK)
        assert [r.shown for r in await history(app, "o") if r.kind.name in {"STEP", "CHILD"}] == ["…"] * 3
    await assert_hidden(database)
    async with Client(database, app="shop", codec=codec) as client:
        assert (await client.handle("o").result())[3] == 3
        with pytest.raises(WorkflowConflict, match=MARK):
            await client.workflow("order", returns=list).options(id="o").start("another")


async def test_without_one_all_is_as_ever(database: str, ledger: Ledger) -> None:
    app: Any = build(database, None, ledger, limit=1)
    async with app:
        handle = await app.order.options(id="o").start(MARK)
        await handle.send("news", NEWS)
        await handle.result(timeout=30)
        assert type(app._home.engine().line.store).__name__ in {"SQLiteStore", "PostgresStore"}
    assert MARK in await everything(database)


async def test_replay_after_a_crash_knows_what_was_recorded(database: str, ledger: Ledger) -> None:
    app: Any = build("", SECRET, ledger, limit=2)
    async with harness(app, database=database) as h:
        h.crash_after("charge")
        handle = await app.order.options(id="o").start(MARK)
        await h.advance(1)  # past the delay of the retry
        assert h.crashes == 1
        await h.crash()
        await handle.send(f"{MARK} 1", NEWS)
        await h.settle()
        await h.crash()
        await handle.send(f"{MARK} 2", NEWS)
        assert await handle.result() == [{"card": MARK, "cents": 5}, f"{MARK} 2", f"child of {MARK}, {MARK}", 2]
        assert ledger.counts == {"charge": 3}, "one failed attempt, and one charge for each of two runs"
        await assert_hidden(database)


def test_the_sync_face_has_it_too(database: str) -> None:
    app = perdure.sync.App("shop", database=database, codec=SECRET)

    @app.step(name="double")
    def double(card: str) -> str:
        return card * 2

    @app.workflow(name="order")
    def order(card: str) -> str:
        perdure.sync.set_event(CHAPTER, card)
        return double(card) + perdure.sync.recv(NEWS)

    with app:
        handle = order.options(id="o").start(MARK)
        handle.send(MARK, NEWS)
        assert handle.result(timeout=30) == MARK * 3
    asyncio.run(assert_hidden(database))
    with perdure.sync.Client(database, app="shop", codec=SECRET) as client:
        assert client.handle("o").get_event(CHAPTER) == MARK


# -- what cannot be stored


async def test_the_limit_is_that_of_what_is_stored(database: str) -> None:
    app = App("shop", database=database, codec=SECRET)
    large = "x" * 1_600_000

    @app.step(name="grow")
    async def grow(text: str) -> str:
        return text * 1_600_000

    @app.workflow(name="order")
    async def order(text: str) -> str:
        try:
            return await grow(text[:1])
        except Unserializable as error:
            await set_event(CHAPTER, str(error))
        return large if text == "result" else await recv(NEWS)

    async with app:
        with pytest.raises(Unserializable, match=r"args: 2,133,\d\d\d bytes") as caught:
            await order.options(id="o").start(large)
        assert caught.value.path == "args"
        assert [info async for info in app.client.list()] == []
        with pytest.raises(Unserializable, match=r"result: 2,133,\d\d\d bytes"):
            await order("result")
        handle = await order.options(id="o").start("x")
        assert "result of grow: 2,133," in str(await handle.get_event(CHAPTER))
        with pytest.raises(Unserializable, match=r"value: 2,133,\d\d\d bytes"):
            await handle.send(large, NEWS)
        await handle.send("small", NEWS)
        assert await handle.result(timeout=30) == "small"


async def test_a_codec_that_fails_refuses_the_start(database: str) -> None:
    def fails(data: bytes) -> bytes:
        raise OSError("no key server")

    app: Any = build(database, Codec(encode=fails, decode=fails), Ledger())
    async with app:
        with pytest.raises(Unserializable, match=r"args: the codec could not encode 14 bytes \(OSError\)"):
            await app.child(MARK)
        assert [info async for info in app.client.list()] == []


def test_what_is_no_codec_is_refused() -> None:
    with pytest.raises(ConfigError, match="is no Codec; write codec=Codec"):
        App("shop", codec=zlib)  # type: ignore[arg-type]


# -- what cannot be decoded: held, and it goes on with the right codec


@pytest.mark.parametrize("wrong", [None, xor(0x5A), ZLIB], ids=["none", "another key", "another codec"])
async def test_a_history_that_cannot_be_decoded_is_held_and_released(
    database: str, ledger: Ledger, wrong: Codec | None
) -> None:
    app: Any = build(database, SECRET, ledger, limit=1)
    await app.open()
    await app.order.options(id="o").start(MARK)
    await until(lambda: ledger.counts.get("charge") == 2)
    await until(lambda: _recorded(app, "charge"))
    await crash(app)
    async with build(database, wrong, ledger, limit=1) as other:
        found = await held(other, "o")
        assert found.reason == "undecodable"
        assert "its input was written with a codec, and " in found.detail
        assert "give App(…, codec=…)" in found.detail
        with pytest.raises(Unserializable, match="written with a codec"):
            await other.client.handle("o").get_event(CHAPTER)
    async with build(database, SECRET, ledger, limit=1) as again:
        await again.client.handle("o").send("news", NEWS)
        result: Any = await again.client.handle("o").result(timeout=30)
    assert result == [{"card": MARK, "cents": 5}, "news", f"child of {MARK}, {MARK}", 1]
    assert ledger.counts == {"charge": 2}, "nothing ran again"


async def _recorded(app: App, step: str) -> bool:
    return any(r.kind.name == "STEP" and r.name == step for r in await history(app, "o"))


async def test_one_record_of_a_lost_key_is_named(database: str, ledger: Ledger) -> None:
    """Plain rows from before stay readable; a step's result of a key that is gone holds its workflow."""
    app: Any = build(database, None, ledger, limit=1)
    await app.open()
    await app.child.options(id="whole").start(MARK)
    await app.order.options(id="o").start(MARK)
    await until(lambda: _recorded(app, "charge"))
    await crash(app)
    lost: Any = build(database, SECRET, ledger, limit=1, pauses=True)
    await lost.open()
    await lost.client.handle("o").send(MARK, NEWS)
    await until(lambda: _has(lost, "RECV"))
    await crash(lost)
    async with build(database, xor(0x5A), ledger, limit=1) as other:
        found = await held(other, "o")
        assert "what its history has at 3 (recv news) was written with a codec" in found.detail
        assert "(UnicodeDecodeError)" in found.detail or "(DecodeError)" in found.detail
        assert await other.client.handle("whole").result() == f"child of {MARK}"


async def _has(app: App, kind: str) -> bool:
    return any(r.kind.name == kind for r in await history(app, "o"))


WORDS = {"message": "a message on 'news'", "result": "the end of g", "event": "event chapter of g"}


def takers(database: str, codec: Codec | None) -> Any:
    app: Any = App("shop", database=database, codec=codec)

    @app.workflow(name="giver")
    async def giver(card: str) -> str:
        await set_event(CHAPTER, card)
        return card

    @app.workflow(name="taker")
    async def taker(kind: str) -> str | None:
        handle = giver.handle("g")
        if kind == "message":
            return await recv(NEWS)
        return await (handle.result() if kind == "result" else handle.get_event(CHAPTER))

    app.giver, app.taker = giver, taker
    return app


@pytest.mark.parametrize("kind", WORDS)
async def test_what_comes_from_others_holds_whoever_would_see_it(database: str, kind: str) -> None:
    async with takers(database, SECRET) as app:
        assert await app.giver.options(id="g")(MARK) == MARK
    async with takers(database, None) as app:
        await app.taker.options(id="t").start(kind)
        async with Client(database, app="shop", codec=SECRET) as client:
            if kind == "message":
                await client.handle("t").send(MARK, NEWS)
        found = await held(app, "t")
        assert found.reason == "undecodable"
        assert found.detail.startswith(f"{WORDS[kind]} was written with a codec, and no codec is set here")
    async with takers(database, SECRET) as app:
        assert await app.client.handle("t").result(timeout=20) == MARK


def sync_takers(database: str, codec: Codec | None) -> Any:
    app: Any = perdure.sync.App("shop", database=database, codec=codec)

    @app.workflow(name="giver")
    def giver(card: str) -> str:
        perdure.sync.set_event(CHAPTER, card)
        return card

    @app.workflow(name="taker")
    def taker(kind: str) -> str | None:
        handle = giver.handle("g")
        if kind == "message":
            return perdure.sync.recv(NEWS)
        return handle.result() if kind == "result" else handle.get_event(CHAPTER)

    app.giver, app.taker = giver, taker
    return app


@pytest.mark.parametrize("kind", WORDS)
def test_the_same_of_a_sync_body(database: str, kind: str) -> None:
    with sync_takers(database, SECRET) as app:
        assert app.giver.options(id="g")(MARK) == MARK
    with sync_takers(database, None) as app:
        handle = app.taker.options(id="t").start(kind)
        with perdure.sync.Client(database, app="shop", codec=SECRET) as client:
            if kind == "message":
                client.handle("t").send(MARK, NEWS)
        until_sync(lambda: handle.status() == "held")
        assert handle.info().detail.startswith(f"{WORDS[kind]} was written with a codec, and no codec is set here")
    with sync_takers(database, SECRET) as app:
        assert app.client.handle("t").result(timeout=20) == MARK


# -- what a row says of trouble


async def test_a_mismatch_and_a_misfit_show_no_arguments(database: str) -> None:
    def make(code: Any, hint: Any) -> Any:
        app: Any = App("shop", database=database, codec=SECRET)

        @app.step(name="charge")
        async def charge(card: str) -> None: ...

        async def order(card: str) -> Any:
            await charge(code(card))
            return await recv(NEWS)

        async def fits(card: Any) -> Any:
            return await recv(NEWS)

        fits.__annotations__["card"] = hint
        app.order, app.fits = app.workflow(name="order")(order), app.workflow(name="fits")(fits)
        return app

    app = make(str.upper, str)
    await app.open()
    await app.order.options(id="o").start(MARK)
    await app.fits.options(id="f").start(MARK)
    await until(lambda: _recorded(app, "charge"))
    await crash(app)
    async with make(str.title, int) as app:
        assert (await held(app, "o")).detail == (
            "at 1: history has step charge(…); the code has the same call with other arguments"
        )
        assert (await held(app, "f")).detail == (
            "its input does not fit the code at args[0]: Unserializable; the executor's log says more"
        )
    text = (await everything(database)).lower()
    assert MARK not in text
