"""The audit trail: each change of each row of the engine's tables, noted by triggers in the commit that makes it.

For tests only: it makes every write dearer. Promises: what was rolled back left no trace; the changes of one workflow's
rows stand in the order of their commits (``n``), since each is made under the lock of its row; both dialects give the
same lines.

A line: ``{"n": 17, "tx": 5, "at": 1900000000000000, "committed": null, "table": "event", "op": "insert", "row": {…}}``

- ``tx``: equal for the changes of one commit; 0 where that is not known (a SQLite file has no name for a transaction);
- ``at``: microseconds by the database's clock, when the change was made (SQLite: in whole milliseconds);
- ``committed``: when others could see it, of a Postgres with ``track_commit_timestamp``; else null;
- ``row``: the row after the change, or the one that was deleted. Identities are hexadecimal, values are their text.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import msgspec

from perdure.errors import ConfigError
from perdure.store.open import open_store, sqlite_path
from perdure.store.sqlite import driver

Line = dict[str, Any]

IDENTITIES = frozenset({"claim", "owner", "lineage", "nonce", "fingerprint", "mid"})
UNTOLD = ("meta", "audit", "audit_now")  # tables that are not audited
OPS = ("insert", "update", "delete")

SQLITE_TABLES = """
create table if not exists audit (n integer primary key, tx integer not null, at integer not null, tbl text not null,
    op text not null, row text not null) strict;
-- A simulator names its transactions, and its time, here.
create table if not exists audit_now (tx integer not null, at integer) strict;
insert into audit_now select 0, null where not exists (select 1 from audit_now);
"""

POSTGRES_TABLES = """
create table if not exists {schema}.audit (n bigint generated always as identity primary key, tx bigint not null,
    at bigint not null, tbl text not null, op text not null, "row" jsonb not null);
create or replace function {schema}.audit_note() returns trigger language plpgsql as $$
begin
    insert into {schema}.audit (tx, at, tbl, op, "row") values (
        pg_current_xact_id()::text::bigint, (extract(epoch from clock_timestamp()) * 1000000)::bigint, tg_table_name,
        lower(tg_op), case tg_op when 'DELETE' then to_jsonb(old) else to_jsonb(new) end);
    return null;
end $$;
"""


async def install_audit(database: str, *, schema: str = "perdure") -> None:
    """Migrate a database (``postgresql://…`` or ``sqlite:///…``) and audit its engine's tables from now on.

    Doing it again changes nothing. Raises ``ConfigError`` for a URL of no database known here.
    """
    store = open_store(database, "audit", schema)
    await store.open()
    try:
        await store.migrate()
    finally:
        await store.close()
    path = sqlite_path(database)
    if path is None:
        await _install_postgres(database, schema)
    else:
        conn = _sqlite(path)
        try:
            conn.execute("begin immediate")
            install_sqlite(conn)
            conn.execute("commit")
        finally:
            conn.close()


async def read_audit(database: str, *, schema: str = "perdure", after: int = 0) -> list[Line]:
    """The audit's lines beyond ``n = after``, in order."""
    path = sqlite_path(database)
    if path is None:
        connection = await _postgres(database)
        try:
            rows = await connection.fetch(POSTGRES_READ.format(schema=schema), after)
        finally:
            await connection.close()
        return lines([tuple(row) for row in rows])
    conn = _sqlite(path)
    try:
        return lines(conn.execute(SQLITE_READ, (after,)).fetchall())
    finally:
        conn.close()


SQLITE_READ = "select n, tx, at, tbl, op, row, null from audit where n > ?1 order by n"
# xid, whose commits are remembered, has the lower half of the number of a transaction.
POSTGRES_READ = """
select n, tx, at, tbl, op, "row"::text, case current_setting('track_commit_timestamp') when 'on' then
    (extract(epoch from pg_xact_commit_timestamp((tx & 4294967295)::text::xid)) * 1000000)::bigint end
from {schema}.audit where n > $1 order by n
"""


def lines(rows: Sequence[tuple[Any, ...]]) -> list[Line]:
    """Lines of the rows of an audit table."""
    names = ("n", "tx", "at", "table", "op", "row", "committed")
    return [
        dict(zip(names, (*others, _plain(msgspec.json.decode(row)), committed), strict=True))
        for *others, row, committed in rows
    ]


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    for key, value in row.items():
        if isinstance(value, str) and value.startswith("\\x"):  # how Postgres shows bytes
            row[key] = value[2:]
    return row


# -- SQLite


def _sqlite(path: str) -> driver.Connection:
    from pathlib import Path  # noqa: PLC0415 - nothing else here needs it

    conn = driver.connect(Path(path))
    conn.set_busy_timeout(10_000)
    return conn


def install_sqlite(conn: driver.Connection) -> None:
    """The triggers, on an open and migrated database; within a transaction of the caller's."""
    conn.execute(SQLITE_TABLES)
    tables = conn.execute("select name from sqlite_schema where type = 'table' and name not like 'sqlite_%'")
    for table in sorted(name for (name,) in tables.fetchall() if name not in UNTOLD):
        columns = [(row[1], row[2].lower()) for row in conn.execute(f"pragma table_info({table})").fetchall()]
        for op in OPS:
            state = "old" if op == "delete" else "new"
            pairs = ", ".join(f"'{name}', {_sqlite_value(table, state, name, kind)}" for name, kind in columns)
            conn.execute(
                f"create trigger if not exists audit_{table}_{op} after {op} on {table} begin "  # noqa: S608 - our own names
                "insert into audit (tx, at, tbl, op, row) values ((select tx from audit_now), coalesce((select at from "
                f"audit_now), cast(unixepoch('subsec') * 1000000 as integer)), '{table}', '{op}', "
                f"json_object({pairs})); end"
            )


def _sqlite_value(table: str, state: str, name: str, kind: str) -> str:
    column = f"{state}.{name}"
    if name in IDENTITIES or (table, name) == ("incarnation", "id"):
        return f"iif({column} is null, null, lower(hex({column})))"
    return f"cast({column} as text)" if kind == "blob" else column


# -- Postgres


async def _postgres(url: str) -> Any:
    try:
        asyncpg: Any = import_module("asyncpg")  # an extra
    except ImportError as missing:
        raise ConfigError("a Postgres database needs the extra: pip install 'perdure[postgres]'") from missing
    return await asyncpg.connect(url)


async def _install_postgres(url: str, schema: str) -> None:
    connection = await _postgres(url)
    try:
        async with connection.transaction():
            await connection.execute(POSTGRES_TABLES.format(schema=schema))
            tables = await connection.fetch("select tablename from pg_tables where schemaname = $1", schema)
            for table in sorted(row["tablename"] for row in tables if row["tablename"] not in UNTOLD):
                await connection.execute(
                    f"create or replace trigger audit_note after insert or update or delete on {schema}.{table} "
                    f"for each row execute function {schema}.audit_note()"
                )
    finally:
        await connection.close()
