"""The proxy itself, between a driver and a real Postgres: it passes everything, and fails exactly as ordered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from chaos.wire import Conversation, Frames
from tests.faults.conftest import Proxied

pytestmark = pytest.mark.postgres

BROKEN = (OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError)


@pytest.fixture
async def conn(proxied: Proxied) -> AsyncIterator[Any]:
    found = await asyncpg.connect(proxied.url)
    await found.execute("create table t (n int primary key)")
    yield found
    found.terminate()


async def stored(proxied: Proxied) -> list[int]:
    past = await asyncpg.connect(proxied.direct)
    try:
        return [row[0] for row in await past.fetch("select n from t order by n")]
    finally:
        await past.close()


async def test_everything_passes(proxied: Proxied, conn: Any) -> None:
    big = "x" * 3_000_000
    assert await conn.fetchval("select $1::text", big) == big
    assert await conn.fetchval("select count(*) from generate_series(1, 100000) n") == 100_000
    with pytest.raises(asyncpg.DivisionByZeroError):
        await conn.fetchval("select 1 / 0")
    await conn.executemany("insert into t values ($1)", [(n,) for n in range(50)])
    assert await stored(proxied) == list(range(50))
    assert (proxied.proxy.accepted, proxied.proxy.lost) == (1, [])


async def test_delay_and_throttle(proxied: Proxied, conn: Any) -> None:
    proxied.proxy.delay = 0.1
    began = time.monotonic()
    await conn.fetchval("select 1")
    assert time.monotonic() - began >= 0.2  # there and back
    proxied.proxy.delay, proxied.proxy.throttle = 0, 1_000_000
    began = time.monotonic()
    await conn.fetchval("select repeat('x', 300000)")
    assert time.monotonic() - began >= 0.25
    proxied.proxy.heal()
    assert (proxied.proxy.delay, proxied.proxy.throttle) == (0, 0)


async def test_a_reset_ends_the_connection_and_the_next_one_works(proxied: Proxied, conn: Any) -> None:
    asking = asyncio.create_task(conn.fetchval("select pg_sleep(30)"))
    await until_asked(proxied, 1)
    assert proxied.proxy.reset() == 1
    with pytest.raises(BROKEN):
        await asking
    again = await asyncpg.connect(proxied.url)
    assert await again.fetchval("select 1") == 1
    again.terminate()


async def test_half_closed_the_client_waits_and_the_server_is_free(proxied: Proxied, conn: Any) -> None:
    backend = conn.get_server_pid()
    assert proxied.proxy.half_close() == 1
    with pytest.raises(TimeoutError):
        await conn.fetchval("select 1", timeout=0.3)
    past = await asyncpg.connect(proxied.direct)
    there = "select exists (select from pg_stat_activity where pid = $1)"
    async with asyncio.timeout(10):
        while await past.fetchval(there, backend):  # noqa: ASYNC110 - see below
            await asyncio.sleep(0.01)  # waits: a backend that ends tells nobody
    await past.close()


async def test_a_blackhole_accepts_and_answers_later(proxied: Proxied, conn: Any) -> None:
    proxied.proxy.blackhole()
    old = asyncio.create_task(conn.fetchval("select 1"))
    new = asyncio.create_task(asyncpg.connect(proxied.url))
    done, _ = await asyncio.wait({old, new}, timeout=0.3)
    assert not done
    proxied.proxy.resume()
    assert await old == 1
    (await new).terminate()


async def test_a_cut_after_so_many_bytes(proxied: Proxied, conn: Any) -> None:
    proxied.proxy.cut_after(1000)
    with pytest.raises(BROKEN):
        await conn.fetchval("select repeat('x', 100000)")
    assert proxied.proxy.resets == 1


async def test_an_answer_is_lost_when_it_has_been_committed(proxied: Proxied, conn: Any) -> None:
    order = proxied.proxy.lose_answer()
    assert await conn.fetchval("select 1") == 1  # a read is none
    with pytest.raises(asyncpg.DivisionByZeroError):
        await conn.execute("insert into t select 1 / 0")  # nor one that failed
    with pytest.raises(BROKEN):
        await conn.execute("insert into t values (7)")
    assert await order == "insert into t values (7)"
    assert await stored(proxied) == [7]
    again = await asyncpg.connect(proxied.url)  # it was ordered once
    await again.execute("insert into t values ($1)", 8)
    again.terminate()
    assert await stored(proxied) == [7, 8]


async def test_of_a_transaction_the_answer_to_its_commit(proxied: Proxied, conn: Any) -> None:
    proxied.proxy.lose_answer("commit")
    await conn.execute("begin")
    await conn.fetch("select 1")
    await conn.execute("commit")  # it has written nothing
    await conn.execute("begin")
    await conn.execute("insert into t values ($1)", 1)
    with pytest.raises(BROKEN):
        await conn.execute("commit")
    assert await stored(proxied) == [1]


async def test_of_a_prepared_write_that_matches(proxied: Proxied, conn: Any) -> None:
    insert = await conn.prepare("insert into t select generate_series($1::int, $2::int) returning n")
    order = proxied.proxy.lose_answer("returning", rows=2)
    assert len(await insert.fetch(1, 1)) == 1  # fewer rows than asked for
    with pytest.raises(BROKEN):
        await insert.fetch(2, 3)
    assert order.done()
    assert await stored(proxied) == [1, 2, 3]


async def test_a_write_that_is_cut_before_it_came_is_no_lost_answer(proxied: Proxied, conn: Any) -> None:
    proxied.proxy.lose_answer()
    proxied.proxy.heal()  # what was ordered is off
    await conn.execute("insert into t values (1)")
    assert (proxied.proxy.lost, await stored(proxied)) == ([], [1])


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_frames_come_out_whole_however_the_bytes_come_in(size: int) -> None:
    messages = [(b"Q", b"select 1\0"), (b"X", b""), (b"D", bytes(500))]
    stream = b"".join(kind + (len(body) + 4).to_bytes(4, "big") + body for kind, body in messages)
    frames = Frames(typed=True)
    found = [each for at in range(0, len(stream), size) for each in frames.feed(stream[at : at + size])]
    assert found == messages


def test_a_conversation_byte_by_byte() -> None:
    def message(kind: bytes, body: bytes) -> bytes:
        return kind + (len(body) + 4).to_bytes(4, "big") + body

    talk = Conversation()
    login = (8 + 4).to_bytes(4, "big") + (196608).to_bytes(4, "big") + b"u\0\0\0"
    asked = message(b"P", b"s1\0insert into t values (1)\0\0\0") + message(b"B", b"\0s1\0") + message(b"S", b"")
    said = [message(b"R", bytes(4)), message(b"Z", b"I")]
    answered = message(b"2", b"") + message(b"C", b"INSERT 0 1\0") + message(b"Z", b"I")
    for byte in (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big") + login:
        talk.client_says(bytes([byte]))
    assert not talk.server_says(b"N")  # the answer to the question about TLS has no frame
    assert not any(talk.server_says(bytes([byte])) for each in said for byte in each)
    for byte in asked:
        talk.client_says(bytes([byte]))
    assert talk.writing
    committed = [talk.server_says(bytes([byte])) for byte in answered]
    assert committed == [*[False] * (len(answered) - 1), True]
    assert (talk.last, talk.writing) == (["insert into t values (1)"], False)


async def until_asked(proxied: Proxied, count: int) -> None:
    async with asyncio.timeout(10):
        while sum(bool(pair.talk.asked) for pair in proxied.proxy.connections) < count:  # noqa: ASYNC110 - see below
            await asyncio.sleep(0.005)  # waits: nobody is told when bytes arrive somewhere
