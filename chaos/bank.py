"""Accounts in the app's own database, between which transaction steps move money.

On Postgres by asyncpg where bodies are awaited, from a pool as an app would have it, and by psycopg where they block,
each on a connection of its own; on SQLite's file by apsw. What was moved is a row of the same commit, and has no key:
what is applied twice is there twice.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import apsw
import asyncpg
import psycopg

from chaos.plan import ACCOUNTS, CENTS

BUSY_MS = 2000
TABLES = (
    "create table chaos_account (name text primary key, cents bigint not null)",
    "create table chaos_moved (name text not null, source text not null, target text not null, cents bigint not null)",
    *(f"insert into chaos_account values ('{name}', {CENTS})" for name in ACCOUNTS),
)

POOLED = 4  # connections at most

_urls: list[str] = []
_pools: list[asyncpg.Pool] = []


def open_at(url: str) -> None:
    """Where the accounts are, for this process."""
    _urls[:] = [url]


def is_file() -> bool:
    """Whether they are in a file."""
    return _urls[0].startswith("sqlite")


def awaited() -> Any:
    if not _pools:
        _pools.append(asyncpg.create_pool(_urls[0], min_size=0, max_size=POOLED))  # it opens itself, once
    return _pooled(_pools[0])


@asynccontextmanager
async def _pooled(pool: asyncpg.Pool) -> AsyncIterator[Any]:
    await pool
    async with pool.acquire() as connection:
        yield connection


def blocking() -> psycopg.Connection[Any]:
    return psycopg.connect(_urls[0])


def file() -> apsw.Connection:
    conn = apsw.Connection(_urls[0].removeprefix("sqlite:///"))
    conn.set_busy_timeout(BUSY_MS)
    return conn


def _changes(source: str, target: str, cents: int) -> list[tuple[int, str]]:
    """Of each account, always in one order: two that go the other way about it would only wait for a deadlock's end."""
    return sorted([(-cents, source), (cents, target)], key=lambda change: change[1])


async def move_awaited(db: asyncpg.Connection, name: str, source: str, target: str, cents: int) -> str:
    await db.execute("insert into chaos_moved values ($1, $2, $3, $4)", name, source, target, cents)
    for by, account in _changes(source, target, cents):
        await db.execute("update chaos_account set cents = cents + $1 where name = $2", by, account)
    return name


def move_blocking(db: psycopg.Connection[Any], name: str, source: str, target: str, cents: int) -> str:
    db.execute("insert into chaos_moved values (%s, %s, %s, %s)", (name, source, target, cents))
    for by, account in _changes(source, target, cents):
        db.execute("update chaos_account set cents = cents + %s where name = %s", (by, account))
    return name


def move_in_file(db: apsw.Connection, name: str, source: str, target: str, cents: int) -> str:
    db.execute("insert into chaos_moved values (?, ?, ?, ?)", (name, source, target, cents))
    for by, account in _changes(source, target, cents):
        db.execute("update chaos_account set cents = cents + ? where name = ?", (by, account))
    return name
