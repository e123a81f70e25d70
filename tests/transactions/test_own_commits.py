"""A body that ends its own transaction is told so: its record would not be one commit with what it has written."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from perdure import App
from perdure.errors import Misuse
from tests.transactions.banks import OTHER_WAYS, Bank
from tests.transactions.conftest import AWAY, HOME, Where, places

pytestmark = pytest.mark.sampled(23)

EVERYWHERE = (*HOME, *AWAY, *[Where(kind, True, "postgres") for kind in OTHER_WAYS])
NOTE = "insert into transfer values ('{}', null)"
REFUSED = (
    r"Do not commit or roll back in a transaction's body|[Cc]an't operate on closed transaction|Explicit .* forbidden"
)


async def said(answer: Any) -> Any:
    return await answer if inspect.isawaitable(answer) else answer


class Teller:
    """What a body says to its session, whichever kind that is."""

    def __init__(self, money: Bank, db: Any) -> None:
        self.money = money
        self.db = db

    async def write(self, id: str) -> None:
        await (self.money.aexecute if self.money.awaited else _now(self.money.execute))(self.db, NOTE.format(id))

    async def sql(self, text: str) -> None:
        if self.money.awaited:
            await self.money.aexecute(self.db, text)
        else:
            self.money.execute(self.db, text)

    async def end(self, how: str) -> None:
        """As users do it: by the session's own method, where it has one."""
        method = getattr(self.db, how, None)
        if method is None:
            await self.sql(how)
        else:
            await said(method())


def _now(call: Callable[..., Any]) -> Callable[..., Any]:
    async def later(*given: Any) -> Any:
        return call(*given)

    return later


def a_body(money: Bank, talk: Callable[[Teller], Any]) -> Callable[..., Any]:
    """A transaction's function, in the colour of the kind."""
    if money.awaited:

        async def awaited(db: Any) -> str:
            await talk(Teller(money, db))
            return "returned"

        return awaited

    def blocking(db: Any) -> str:
        asyncio.run(talk(Teller(money, db)))
        return "returned"

    return blocking


def declared(app: App, money: Bank, talk: Callable[[Teller], Any]) -> Any:
    step = app.transaction(money.source)(a_body(money, talk))

    @app.workflow
    async def pay() -> str:
        return str(await step())

    return pay


async def written(money: Bank) -> list[str]:
    return [row[0] for row in await money.read("select id from transfer order by id")]


@pytest.mark.parametrize("how", ["commit", "rollback"])
@pytest.mark.parametrize("then", ["returns", "writes more"])
@places(*EVERYWHERE)
async def test_a_body_that_ends_its_transaction_is_told(app: App, money: Bank, how: str, then: str) -> None:
    async def talk(teller: Teller) -> None:
        await teller.write("before")
        await teller.end(how)
        if then == "writes more":
            await teller.write("after")

    pay = declared(app, money, talk)
    async with app:
        with pytest.raises(Exception, match=REFUSED):
            await pay()
    autocommitted = money.kind in ("asyncpg", "asyncpg_connect", "apsw", "sqlite3_autocommit")
    assert set(await written(money)) <= ({"before"} if how == "commit" else set()) | (
        {"after"} if autocommitted else set()
    )


# SQLAlchemy on Postgres does not see it, and begins again: said in docs/guide/transactions.md.
@places(*(where for where in EVERYWHERE if where.kind == "sqlalchemy_sqlite" or "sqlalchemy" not in where.kind))
async def test_a_body_that_sends_commit_as_text_is_told(app: App, money: Bank) -> None:
    async def talk(teller: Teller) -> None:
        await teller.write("before")
        await teller.sql("commit")

    pay = declared(app, money, talk)
    async with app:
        with pytest.raises(Misuse, match=REFUSED):
            await pay()


@places(Where("apsw", True, "sqlite"), Where("sqlite3", False, "sqlite"), Where("sqlalchemy_sqlite", False, "sqlite"))
async def test_on_sqlite_also_one_that_begins_again(app: App, money: Bank) -> None:
    async def talk(teller: Teller) -> None:
        await teller.write("before")
        await teller.sql("commit")
        await teller.sql("begin immediate")
        await teller.write("after")

    pay = declared(app, money, talk)
    async with app:
        with pytest.raises(Misuse, match=REFUSED):
            await pay()
    assert await written(money) == ["before"]


@places(*EVERYWHERE)
async def test_a_body_that_says_nothing_to_its_session_is_well(app: App, money: Bank) -> None:
    async def talk(_: Teller) -> None: ...

    pay = declared(app, money, talk)
    async with app:
        assert await pay() == "returned"


@places(*EVERYWHERE)
async def test_savepoints_are_the_body_s_own(app: App, money: Bank) -> None:
    async def talk(teller: Teller) -> None:
        await teller.write("kept")
        await teller.sql("savepoint mine")
        await teller.write("undone")
        await teller.sql("rollback to savepoint mine")
        await teller.sql("release savepoint mine")

    pay = declared(app, money, talk)
    async with app:
        assert await pay() == "returned"
    assert await written(money) == ["kept"]


def block_of(teller: Teller) -> Any:
    """How a kind writes a transaction within the transaction, as a context manager."""
    db = teller.db
    if "sqlalchemy" in teller.money.kind:
        return db.begin_nested()
    return db if teller.money.kind == "apsw" else db.transaction()


@places(*[where for where in EVERYWHERE if not where.kind.startswith("sqlite3")])
async def test_a_block_of_the_body_s_own_is_nested(app: App, money: Bank) -> None:
    """Also one that comes first, which on a connection of one's own would be the transaction itself."""

    async def talk(teller: Teller) -> None:
        block = block_of(teller)
        if money.awaited:
            async with block:
                await teller.write("first")
        else:
            with block:
                await teller.write("first")
        await teller.write("second")

    pay = declared(app, money, talk)
    async with app:
        assert await pay() == "returned"
    assert await written(money) == ["first", "second"]


@places(Where("psycopg", True, "postgres"), Where("psycopg_connect", True, "postgres"))
async def test_a_connection_that_the_body_closes(app: App, money: Bank) -> None:
    """No trouble with the database, which would be waited for without end."""

    async def talk(teller: Teller) -> None:
        await teller.write("never")
        await teller.end("close")

    pay = declared(app, money, talk)
    async with app:
        with pytest.raises(Misuse, match=REFUSED):
            await pay()
    assert await written(money) == []


@places(*[Where(kind, True, "postgres") for kind in ("sqlalchemy_connection", "sqlalchemy_async_connection")])
async def test_an_engine_that_commits_each_statement(app: App, money: Bank) -> None:
    connect = money.source
    engine: Any = getattr(connect, "__self__", None)
    money.source = engine.execution_options(isolation_level="AUTOCOMMIT").connect

    async def talk(teller: Teller) -> None:
        await teller.write("by itself")

    pay = declared(app, money, talk)
    async with app:
        with pytest.raises(Misuse, match="AUTOCOMMIT: each statement is committed by itself"):
            await pay()


@places(Where("apsw", True, "sqlite"), Where("psycopg", True, "postgres"), Where("asyncpg", True, "postgres"))
async def test_outside_a_workflow_it_is_told_as_well(app: App, money: Bank) -> None:
    async def talk(teller: Teller) -> None:
        await teller.write("before")
        await teller.sql("commit")

    step: Any = app.transaction(money.source)(a_body(money, talk))
    with pytest.raises(Misuse, match=REFUSED):
        await step()
