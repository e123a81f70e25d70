"""Accounts in a database of the user's, reached by every kind of session; the same words for each."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import apsw
import asyncpg
import psycopg
import psycopg_pool
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

ACCOUNTS = 4
CENTS = 1000
BLOCKING_POSTGRES = ("psycopg", "psycopg_autocommit", "sqlalchemy", "sqlalchemy_begin", "sqlalchemy_connection")
AWAITED_POSTGRES = ("asyncpg", "asyncpg_connect", "psycopg_async", "sqlalchemy_async", "sqlalchemy_async_begin")
OTHER_AWAITED = (
    "psycopg_async_connect", "sqlalchemy_async_connection", "sqlalchemy_async_maker_begin", "sqlalchemy_async_psycopg",
)  # fmt: skip
OTHER_WAYS = ("psycopg_connect", "sqlalchemy_maker_begin", *OTHER_AWAITED)  # to open a session of the same kinds
POSTGRES = (*BLOCKING_POSTGRES, *AWAITED_POSTGRES)
SQLITE_HOME = ("apsw",)  # the app's own file is for one copy of SQLite only
SQLITE = ("apsw", "sqlite3", "sqlite3_autocommit", "sqlalchemy_sqlite")

TABLES = (
    "create table account (name text primary key, cents bigint not null)",
    "create table transfer (id text not null, note text)",
    *(f"insert into account values ('a{n}', {CENTS})" for n in range(ACCOUNTS)),
)


class Bank:
    """A kind of session, and how its users speak to it."""

    def __init__(self, kind: str, source: Callable[[], Any], url: str) -> None:
        self.kind = kind
        self.source = source
        self.url = url
        self.awaited = kind in (*AWAITED_POSTGRES, *OTHER_AWAITED)

    def execute(self, session: Any, sql: str) -> Any:
        """Run SQL without parameters; rows as tuples."""
        if self.kind.startswith("sqlalchemy"):
            result = session.execute(sa.text(sql))
            return [tuple(row) for row in result] if result.returns_rows else []
        return session.execute(sql).fetchall() if _asks(sql) else session.execute(sql) and []

    async def aexecute(self, session: Any, sql: str) -> Any:
        if self.kind.startswith("sqlalchemy"):
            result = await session.execute(sa.text(sql))
            return [tuple(row) for row in result] if result.returns_rows else []
        if self.kind.startswith("psycopg_async"):
            cursor = await session.execute(sql)
            return await cursor.fetchall() if _asks(sql) else []
        if _asks(sql):
            return [tuple(row) for row in await session.fetch(sql)]
        await session.execute(sql)
        return []

    def do(self, body: Callable[..., Any]) -> Callable[..., Any]:
        """A transaction's function from a generator of SQL, in the colour of this kind."""
        if self.awaited:

            async def awaited(db: Any, *args: Any) -> Any:
                flow, rows = body(db, *args), None
                try:
                    while True:
                        rows = await self.aexecute(db, flow.send(rows))
                except StopIteration as end:
                    return end.value

            awaited.__qualname__ = awaited.__name__ = body.__name__
            return awaited

        def blocking(db: Any, *args: Any) -> Any:
            flow, rows = body(db, *args), None
            try:
                while True:
                    rows = self.execute(db, flow.send(rows))
            except StopIteration as end:
                return end.value

        blocking.__qualname__ = blocking.__name__ = body.__name__
        return blocking

    async def read(self, sql: str) -> list[tuple[Any, ...]]:
        """Look past everything, on a connection of one's own."""
        return await read(self.url, sql, stdlib="apsw" not in self.kind)

    async def total(self) -> int:
        ((total,),) = await self.read("select sum(cents) from account")
        return int(total)


def _asks(sql: str) -> bool:
    return sql.lstrip().lower().startswith("select")


async def read(url: str, sql: str, *, stdlib: bool = False) -> list[tuple[Any, ...]]:
    """``stdlib``: by the copy of SQLite that the sessions are of; two on one file do not see each other's locks."""
    if url.startswith("sqlite"):
        path = url.removeprefix("sqlite:///")
        lite: Any
        if stdlib:
            lite = sqlite3.connect(path, timeout=5, isolation_level=None)
        else:
            lite = apsw.Connection(path)
            lite.set_busy_timeout(5000)
        try:
            return [tuple(row) for row in lite.execute(sql).fetchall()]
        finally:
            lite.close()
    conn = await asyncpg.connect(url)
    try:
        if not _asks(sql):
            await conn.execute(sql)
            return []
        return [tuple(row) for row in await conn.fetch(sql)]
    finally:
        await conn.close()


async def furnish(url: str) -> None:
    """Make the tables."""
    if url.startswith("sqlite"):
        path = Path(url.removeprefix("sqlite:///"))
        conn = apsw.Connection(str(path))
        conn.set_busy_timeout(5000)
        try:
            for sql in TABLES:
                conn.execute(sql)
        finally:
            conn.close()
    else:
        conn = await asyncpg.connect(url)
        try:
            for sql in TABLES:
                await conn.execute(sql)
        finally:
            await conn.close()


def _apsw(path: str) -> Callable[[], Any]:
    def connect() -> Any:
        conn = apsw.Connection(path)
        conn.set_busy_timeout(2000)
        return conn

    return connect


@asynccontextmanager
async def bank(kind: str, url: str) -> AsyncIterator[Bank]:
    """A kind of session to a furnished database."""
    path = url.removeprefix("sqlite:///")
    tail = url.partition("://")[2]
    async with AsyncExitStack() as stack:
        source: Callable[[], Any]
        match kind:
            case "psycopg" | "psycopg_autocommit":
                pool = psycopg_pool.ConnectionPool(
                    url, min_size=1, max_size=4, open=False, kwargs={"autocommit": kind == "psycopg_autocommit"}
                )
                pool.open()
                stack.callback(pool.close)
                source = pool.connection
            case "psycopg_async":
                apool = psycopg_pool.AsyncConnectionPool(url, min_size=1, max_size=4, open=False)
                await apool.open()
                stack.push_async_callback(apool.close)
                source = apool.connection
            case "asyncpg":
                gpool = await asyncpg.create_pool(url, min_size=1, max_size=4)
                stack.push_async_callback(gpool.close)
                source = gpool.acquire
            case "asyncpg_connect":
                source = lambda: asyncpg.connect(url)  # noqa: E731
            case "sqlalchemy" | "sqlalchemy_begin" | "sqlalchemy_connection":
                engine = sa.create_engine(f"postgresql+psycopg://{tail}")
                stack.callback(engine.dispose)
                source = {
                    "sqlalchemy": sessionmaker(engine),
                    "sqlalchemy_begin": engine.begin,
                    "sqlalchemy_connection": engine.connect,
                }[kind]
            case "sqlalchemy_async" | "sqlalchemy_async_begin":
                aengine = create_async_engine(f"postgresql+asyncpg://{tail}")
                stack.push_async_callback(aengine.dispose)
                source = async_sessionmaker(aengine) if kind == "sqlalchemy_async" else aengine.begin
            case "sqlalchemy_maker_begin":
                engine = sa.create_engine(f"postgresql+psycopg://{tail}")
                stack.callback(engine.dispose)
                source = sessionmaker(engine).begin
            case "sqlalchemy_async_maker_begin" | "sqlalchemy_async_psycopg" | "sqlalchemy_async_connection":
                driver = "psycopg" if kind == "sqlalchemy_async_psycopg" else "asyncpg"
                aengine = create_async_engine(f"postgresql+{driver}://{tail}")
                stack.push_async_callback(aengine.dispose)
                source = {
                    "sqlalchemy_async_maker_begin": async_sessionmaker(aengine).begin,
                    "sqlalchemy_async_psycopg": async_sessionmaker(aengine),
                    "sqlalchemy_async_connection": aengine.connect,
                }[kind]
            case "psycopg_connect":
                source = lambda: psycopg.connect(url)  # noqa: E731
            case "psycopg_async_connect":
                source = lambda: psycopg.AsyncConnection.connect(url)  # noqa: E731
            case "sqlalchemy_sqlite":
                engine = sa.create_engine(f"sqlite:///{path}")
                stack.callback(engine.dispose)
                source = sessionmaker(engine)
            case "sqlite3":
                source = lambda: sqlite3.connect(path)  # noqa: E731
            case "sqlite3_autocommit":
                source = lambda: sqlite3.connect(path, isolation_level=None)  # noqa: E731
            case _:
                source = _apsw(path)
        yield Bank(kind, source, url)


__all__ = [
    "ACCOUNTS",
    "CENTS",
    "OTHER_WAYS",
    "POSTGRES",
    "SQLITE",
    "SQLITE_HOME",
    "Bank",
    "bank",
    "furnish",
    "psycopg",
    "read",
]
