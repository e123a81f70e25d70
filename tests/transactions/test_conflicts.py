"""Conflicts run the body again on a new snapshot; who lost the run commits nothing; the app's own file is apsw's."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Generator
from typing import Any

import psycopg
import pytest

from perdure import App
from perdure.errors import Misuse, WorkflowTerminated
from perdure.model.records import Kind
from perdure.runtime import sweep, transactions
from tests.runtime.support import executor, history, row, until
from tests.transactions.banks import ACCOUNTS, CENTS, Bank, read
from tests.transactions.conftest import AWAY, HOME, Where, places

pytestmark = pytest.mark.sampled(8)

Flow = Generator[str, Any, Any]
SOME_HOME = [where for where in HOME if where.kind in ("apsw", "asyncpg", "psycopg", "sqlalchemy_async")]
SOME_AWAY = [where for where in AWAY if where.kind in ("sqlite3", "asyncpg", "psycopg") and where.app == "sqlite"]


@places(*[where for where in (*HOME, *AWAY) if where.kind in ("asyncpg", "psycopg", "sqlalchemy")])
@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
async def test_serialization_failures(app: App, money: Bank, level: str, said: pytest.LogCaptureFixture) -> None:
    bodies: list[int] = []

    def add(_db: Any, n: int) -> Flow:
        bodies.append(n)
        yield f"set transaction isolation level {level}" if money.kind != "sqlalchemy" else "select 1"
        ((cents,),) = yield "select cents from account where name = 'a0'"
        yield "select pg_sleep(0.05)"
        yield f"update account set cents = {cents + 1} where name = 'a0'"
        return int(cents)

    if money.kind == "sqlalchemy":  # which has its own way of saying so
        money.source.configure(bind=money.source.kw["bind"].execution_options(isolation_level=level.upper()))  # type: ignore[attr-defined]
    move = app.transaction(money.source)(money.do(add))

    @app.workflow
    async def pay(n: int) -> int:
        return await move(n)

    async with app:
        handles = [await pay.options(id=f"w{n}").start(n) for n in range(4)]
        seen = sorted([await handle.result() for handle in handles])
    assert seen == [CENTS + n for n in range(4)], "one was lost"
    assert await money.read("select cents from account where name = 'a0'") == [(CENTS + 4,)]
    assert len(bodies) > 4
    assert "is run again, on a new snapshot" in said.text


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="perdure")
    return caplog


@places(HOME[0], *[where for where in AWAY if where.kind == "psycopg" and where.app == "sqlite"])
async def test_so_many_times_and_no_more(app: App, money: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "DELAY_SECONDS_MAX", 0.001)
    bodies: list[int] = []

    def never(_db: Any) -> Flow:
        bodies.append(1)
        yield "insert into transfer values ('never', null)"
        raise psycopg.errors.SerializationFailure("again and again")

    move = app.transaction(money.source)(money.do(never))

    @app.workflow
    async def pay() -> str:
        try:
            await move()
        except Exception as error:
            return type(error).__name__
        return "?"

    async with app:
        assert await pay() == "SerializationFailure"
        assert len(bodies) == transactions.CONFLICTS_MAX + 1
        with pytest.raises(psycopg.errors.SerializationFailure):
            await move()
    assert await money.read("select id from transfer") == []


@places(Where("sqlite3", False, "sqlite"), Where("apsw", False, "sqlite"))
async def test_a_locked_file_is_waited_for(app: App, money: Bank) -> None:
    """SQLITE_BUSY is a conflict."""
    path = money.url.removeprefix("sqlite:///")
    source = (lambda: sqlite3.connect(path, timeout=0)) if money.kind == "sqlite3" else money.source
    bodies: list[int] = []

    def put(_db: Any) -> Flow:
        bodies.append(1)
        yield "insert into transfer values ('put', null)"

    move = app.transaction(source)(money.do(put))

    @app.workflow
    async def pay() -> None:
        await move()

    holder = sqlite3.connect(path, isolation_level=None) if money.kind == "sqlite3" else money.source()
    async with app:
        await pay()
        holder.execute("begin immediate")
        handle = await pay.start()
        await asyncio.sleep(0.2)  # waits: while the file is locked
        holder.execute("commit")
        holder.close()
        await handle.result()
    assert await money.read("select count(*) from transfer") == [(2,)]
    assert len(bodies) == 2


def gated(money: Bank, bodies: list[str], gate: threading.Event) -> Any:
    """A body that has written, and waits."""

    def put(_db: Any, id: str) -> Flow:
        yield f"insert into transfer values ('{id}', null)"
        bodies.append(id)
        gate.wait(10)
        return id

    async def aput(db: Any, id: str) -> str:
        await money.aexecute(db, f"insert into transfer values ('{id}', null)")
        bodies.append(id)
        while not gate.is_set():  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # waits: for the test, which has no loop's event to set in a thread
        return id

    return aput if money.awaited else money.do(put)


@places(*[where for where in (*SOME_HOME, *SOME_AWAY) if where.kind != "apsw"])
async def test_a_terminated_run_commits_nothing(app: App, money: Bank) -> None:
    bodies: list[str] = []
    gate = threading.Event()
    move = app.transaction(money.source)(gated(money, bodies, gate))

    @app.workflow
    async def pay() -> str:
        return await move("t")

    async with app:
        handle = await pay.options(id="w").start()
        await until(lambda: bodies)
        store = app._home.engine().line.store  # pyright: ignore[reportPrivateUsage]
        await store.terminate("w", "enough", b"z" * 16)
        gate.set()
        with pytest.raises(WorkflowTerminated):
            await handle.result()
        await until(lambda: not executor(app).executions)
        assert not any(record.name == "put" for record in await history(app, "w"))
    assert await money.read("select id from transfer") == []


@places(*SOME_AWAY)
async def test_a_fence_in_the_other_database_keeps_a_zombie_off(app: App, money: Bank) -> None:
    """Who has taken the run over has set it; the body of whoever held it before is rolled back, and runs there."""
    bodies: list[str] = []
    gate = threading.Event()
    move = app.transaction(money.source)(gated(money, bodies, gate))

    @app.workflow
    async def pay() -> str:
        return await move("t")

    async with app:
        handle = await pay.options(id="w").start()
        await until(lambda: bodies)
        if not money.url.startswith("sqlite"):  # there the zombie's own transaction keeps others off
            await money.read("update perdure_transaction set nonce = '\\x00' where run = 0")
        gate.set()
        assert await handle.result() == "t"
        before = await row(app, "w")
    assert await money.read("select id from transfer") == [("t",)]
    assert len(bodies) == (1 if money.url.startswith("sqlite") else 2)
    assert before.status == "completed"


@places(*[where for where in AWAY if where.kind in ("sqlite3", "asyncpg", "psycopg")])
async def test_what_another_database_has_is_not_done_again(
    app: App, money: Bank, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if a crash had come between the two commits: the other's table is asked first."""
    monkeypatch.setattr("perdure.runtime.transactions.count_for_sweep", lambda *_: None)  # the record is to be lost
    bodies: list[str] = []
    gate = threading.Event()
    gate.set()
    move = app.transaction(money.source, name="put")(gated(money, bodies, gate))

    @app.workflow(name="pay")
    async def pay() -> str:
        return await move("t")

    async with app:
        assert await (await pay.options(id="w").start()).result() == "t"
    schema = "perdure." if database.startswith("postgres") else ""
    await read(database, f"delete from {schema}history where id = 'w'")
    await read(
        database,
        f"update {schema}workflow set status = 1, closed = null, until = 0, last_seq = 0, claim = null where id = 'w'",
    )
    async with app:
        assert await pay.handle("w").result() == "t"
        assert [record.name for record in await history(app, "w") if record.kind is Kind.STEP] == ["put"]
    assert bodies == ["t"]
    assert await money.read("select id from transfer") == [("t",)]


@pytest.mark.parametrize(
    "where", [Where("sqlite3", True, "sqlite"), Where("sqlalchemy_sqlite", True, "sqlite")], indirect=True
)
async def test_two_copies_of_sqlite_never_share_the_apps_file(app: App, money: Bank) -> None:
    @app.transaction(money.source)
    def put(db: Any) -> None:
        raise AssertionError("never reached")

    @app.workflow
    async def pay() -> None:
        await put()

    async with app:
        with pytest.raises(Misuse, match="another copy of SQLite"):
            await pay()


@places(*AWAY)
async def test_sum_under_many_at_once(app: App, money: Bank) -> None:
    """Transfers to and fro: each once, and no snapshot shows another sum."""

    def transfer(_db: Any, id: str, source: str, target: str) -> Flow:
        for name, cents in sorted([(source, -1), (target, 1)]):
            yield f"update account set cents = cents + {cents} where name = '{name}'"
        yield f"insert into transfer values ('{id}', null)"

    move = app.transaction(money.source)(money.do(transfer))

    @app.workflow
    async def pay(n: int) -> None:
        await move(f"t{n}", f"a{n % ACCOUNTS}", f"a{(n + 1) % ACCOUNTS}")

    async with app:
        handles = [await pay.options(id=f"w{n}").start(n) for n in range(20)]
        for handle in handles:
            assert await money.total() == ACCOUNTS * CENTS
            await handle.result()
    assert len(await money.read("select id from transfer")) == 20


@places(*SOME_AWAY)
async def test_rows_go_when_their_record_is_durable(app: App, money: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    """And those of an id that is used again are another's."""

    def put(_db: Any, id: str) -> Flow:
        yield f"insert into transfer values ('{id}', null)"

    move = app.transaction(money.source)(money.do(put))

    @app.workflow
    async def pay(id: str) -> None:
        await move(id)
        await move(id)

    rows = "select count(*) from perdure_transaction where run {}"
    async with app:
        first = await pay.options(id="w").start("t")
        await first.result()
        monkeypatch.setattr(sweep, "EVERY", 2)
        for n in range(4):
            await pay(f"u{n}")
        await pay.options(id="w", on_conflict="replace").start("v")
        await pay.handle("w").result()
        assert await sweep.sweep(executor(app), move.definition) > 0
        while await sweep.sweep(executor(app), move.definition):  # fences go after the rows
            pass
        assert await money.read(rows.format("> 0")) == [(0,)]
        assert await money.read(rows.format("= 0")) == [(0,)]
    assert await money.read("select count(*) from transfer where id in ('t', 'v')") == [(4,)]
