"""Connections that break around a commit: the body never runs again after it has committed, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator
from typing import Any

import pytest

from perdure import App
from perdure.model.ids import RunKey
from perdure.model.records import Kind, Outcome, Record
from perdure.model.states import Status
from perdure.model.writes import Start, Unit
from perdure.sessions.base import arun
from perdure.sessions.find import aopened
from perdure.store.base import Store
from perdure.store.open import open_store
from tests.faults.conftest import Proxied, proxied_url
from tests.runtime.support import history
from tests.transactions.banks import ACCOUNTS, CENTS, POSTGRES, Bank, bank, furnish
from tests.transactions.conftest import Where, places

pytestmark = [pytest.mark.postgres, pytest.mark.sampled(3)]

Flow = Generator[str, Any, Any]
KINDS = [Where(kind, True, "postgres") for kind in POSTGRES] + [Where(kind, False, "sqlite") for kind in POSTGRES]


@pytest.fixture
async def proxied(where: Where, postgres_url: str) -> AsyncIterator[Proxied]:
    found = await proxied_url(postgres_url)
    yield found
    await found.proxy.close()


@pytest.fixture
async def money(where: Where, proxied: Proxied, database: str) -> AsyncIterator[Bank]:
    """The bank, reached through the proxy; the app goes past it, to the same database or to its own."""
    async with App("first", database=database):
        pass
    await furnish(proxied.direct)
    async with bank(where.kind, proxied.url) as found:
        yield Bank(found.kind, found.source, found.url)


def declare(app: App, money: Bank, bodies: list[str], before_commit: Any = None) -> Any:
    def transfer(_db: Any, id: str, cents: int) -> Flow:
        bodies.append(id)
        yield f"update account set cents = cents - {cents} where name = 'a0'"
        yield f"update account set cents = cents + {cents} where name = 'a1'"
        yield f"insert into transfer values ('{id}', null)"
        if before_commit is not None:
            before_commit(id)
        return cents

    move = app.transaction(money.source)(money.do(transfer))

    @app.step
    async def after(cents: int) -> int:
        return cents

    @app.workflow
    async def pay(id: str) -> int:
        first = await move(id, 10)
        return first + await after(1) + await move(f"{id}b", 5)

    return pay


async def check(app: App, money: Bank, proxied: Proxied, ids: list[str]) -> None:
    past = Bank(money.kind, money.source, proxied.direct)
    assert await past.total() == ACCOUNTS * CENTS
    rows = await past.read("select id from transfer order by id")
    assert rows == sorted((each,) for id in ids for each in (id, f"{id}b"))
    for id in ids:
        records = await history(app, id)
        assert [record.seq for record in records] == list(range(1, len(records) + 1))
        assert [r.name for r in records if r.kind is Kind.STEP] == ["transfer", "declare.after", "transfer"]


@places(*KINDS)
async def test_the_answer_to_a_commit_is_lost(app: App, money: Bank, proxied: Proxied, where: Where) -> None:
    bodies: list[str] = []
    pay = declare(app, money, bodies)
    async with app:
        await pay.options(id="warm").start("warm")
        await pay.handle("warm").result()
        order = proxied.proxy.lose_answer("^commit")
        handle = await pay.options(id="t").start("t")
        assert await handle.result() == 16
        assert order.done(), "no commit was lost"
        await check(app, money, proxied, ["t", "warm"])
    assert bodies == ["warm", "warmb", "t", "tb"]


@places(*[where for where in KINDS if where.kind in ("asyncpg", "psycopg", "sqlalchemy", "sqlalchemy_async")])
async def test_the_connection_breaks_before_the_commit_arrives(app: App, money: Bank, proxied: Proxied) -> None:
    """Then it is rolled back, and the body runs again."""
    bodies: list[str] = []
    loop = asyncio.get_running_loop()

    def cut(id: str) -> None:
        if bodies.count(id) <= 2 and id.startswith("t"):
            if money.awaited:
                proxied.proxy.reset()
            else:
                asyncio.run_coroutine_threadsafe(reset(), loop).result()

    async def reset() -> None:
        proxied.proxy.reset()

    pay = declare(app, money, bodies, cut)
    async with app:
        handle = await pay.options(id="t").start("t")
        assert await handle.result() == 16
        await check(app, money, proxied, ["t"])
    assert bodies.count("t") == bodies.count("tb") == 3


TOKEN = b"t" * 16


def unit(seq: int, nonce: bytes, claim: bytes = TOKEN) -> Unit:
    record = Record(seq, str(seq), Kind.STEP, "move", 5, b"", Outcome.VALUE, b"1")
    return Unit(key=RunKey("w", 1), claim=claim, nonce=nonce, version="v", after=seq - 1, records=[record])


async def started(store: Store) -> None:
    start = Start(
        id="w", lineage=b"l" * 16, name="pay", version="v", input=b"[]", fingerprint=b"f", nonce=b"n" * 16,
        status=Status.RUNNING, claim=TOKEN, owner=b"o" * 16, began=1,
    )  # fmt: skip
    await store.commit([Unit(key=RunKey("w", 1), start=start, nonce=b"0" * 16)])


async def test_who_asks_waits_for_a_commit_under_way(postgres_url: str) -> None:
    """Else a body could run again whose first commit the server is still about to make."""
    import asyncpg

    store = open_store(postgres_url, "shop")
    await store.open()
    await store.migrate()
    await started(store)
    async with aopened(lambda: asyncpg.connect(postgres_url)) as session:
        await session.begin()
        verdict = await arun(session, store.within(unit(1, b"1" * 16)))
        assert verdict.applied
        asked = asyncio.create_task(store.wrote(RunKey("w", 1), 1, b"1" * 16))
        done, _ = await asyncio.wait({asked}, timeout=0.3)
        assert not done
        await session.commit()
        assert await asked is True
    assert await store.wrote(RunKey("w", 1), 1, b"2" * 16) is False
    assert await store.wrote(RunKey("w", 1), 2, b"1" * 16) is False
    await store.close()


async def test_the_fence_of_a_record_within_a_session(postgres_url: str) -> None:
    """Another's token, a gap, another run: nothing is written. What was lost of the session's is made good."""
    import asyncpg

    store = open_store(postgres_url, "shop")
    await store.open()
    await store.migrate()
    await started(store)
    async with aopened(lambda: asyncpg.connect(postgres_url)) as session:
        await session.execute("set synchronous_commit = off", ())
        for level in ("read committed", "repeatable read", "serializable"):
            for refused in (unit(1, b"1" * 16, b"x" * 16), unit(3, b"1" * 16)):
                await session.begin()
                await session.execute(f"set transaction isolation level {level}", ())
                verdict = await arun(session, store.within(refused, refused.after))
                assert not verdict.applied
                assert await session.execute("show synchronous_commit", ()) == [("on",)]
                await session.rollback()
    assert await store.histories([RunKey("w", 1)]) == {RunKey("w", 1): []}
    await store.close()
