"""All tables of the engine, row by row, so that it can be seen whether a command has changed any of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import apsw
import asyncpg

Row = tuple[tuple[str, Any], ...]
Tables = dict[str, set[Row]]

LOOK_SECONDS = 0.3  # between two looks
CLOSED = 5  # the smallest number of a status that is an end

# What changes by itself while nobody does anything, and so is not compared.
LEFT_OUT: dict[str, frozenset[str]] = {
    # An executor renews its lease and says how its event loop does.
    "incarnation": frozenset({"lease_until", "beats", "lag"}),
    # Which executor does a chore next, until when, and how far it has got.
    "upkeep": frozenset({"owner", "until", "note"}),
}


async def read(database: str) -> Tables:
    """Every table, in one transaction."""
    if database.startswith("sqlite:///"):
        return _read_file(Path(database.removeprefix("sqlite:///")))
    return await _read_server(database)


def _read_file(path: Path) -> Tables:
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        db.set_busy_timeout(30_000)
        with db:
            names = [name for (name,) in db.execute("select name from sqlite_schema where type = 'table'")]
            found = {name: _kept(name, _named(db, name)) for name in names if not name.startswith("sqlite_")}
    finally:
        db.close()
    return found


def _named(db: apsw.Connection, table: str) -> Iterable[dict[str, Any]]:
    columns = [column for _, column, *_ in db.execute("select * from pragma_table_info(?)", (table,))]
    for row in db.execute(f'select * from "{table}"'):
        yield dict(zip(columns, row, strict=True))


async def _read_server(database: str) -> Tables:
    db = await asyncpg.connect(database)
    try:
        async with db.transaction(isolation="repeatable_read", readonly=True):
            names = await db.fetch("select tablename from pg_tables where schemaname = 'perdure'")
            return {
                name: _kept(name, map(dict, await db.fetch(f'select * from perdure."{name}"'))) for (name,) in names
            }
    finally:
        await db.close()


def _kept(table: str, rows: Iterable[dict[str, Any]]) -> set[Row]:
    out = LEFT_OUT.get(table, frozenset())
    return {tuple((column, value) for column, value in row.items() if column not in out) for row in rows}


def changes(before: Tables, after: Tables) -> list[str]:
    """In words, a line for each row that is not as it was; lines of audit that were added are not told."""
    told: list[str] = []
    for table in sorted(before.keys() | after.keys()):
        gone, new = (
            before.get(table, set()) - after.get(table, set()),
            after.get(table, set()) - before.get(table, set()),
        )
        told += [f"{table}: no more {dict(row)}" for row in gone]
        told += [f"{table}: new {dict(row)}" for row in new if table != "audit_line"]
    return told


def audits(before: Tables, after: Tables) -> int:
    """How many lines of audit were added."""
    return len(after.get("audit_line", set()) - before.get("audit_line", set()))


async def quiet(database: str, patience: float = 60.0) -> Tables:
    """All tables, once executors have nothing to do: nothing is due, and nothing changes between two looks."""
    end = time.monotonic() + patience
    before = await read(database)
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        now = await read(database)
        if not _due(now) and not changes(before, now) and not audits(before, now):
            return now
        if time.monotonic() > end:
            raise TimeoutError(f"the tables are not quiet after {patience:g} s: {changes(before, now)[:3]}")
        before = now


def _due(found: Tables) -> bool:
    """Whether anything could be claimed, or is at work with nothing to wait for."""
    now = time.time_ns() // 1000
    return any(_busy(row, now) for row in map(dict, found["workflow"]) if row["status"] < CLOSED)


def _busy(row: dict[str, Any], now: int) -> bool:
    if row["owner"] is not None:
        return row["problem"] is None
    return row["until"] is not None and row["until"] <= now
