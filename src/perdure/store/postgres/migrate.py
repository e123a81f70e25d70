"""The schema: numbered files, applied in order, all that is missing in one transaction under one lock.

Promises: two processes that migrate at once apply each file once (the second waits, then finds nothing to do); a crash
in the middle leaves the database as it was before. The lock is Postgres's own and ends with the transaction.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from perdure.errors import DatabaseUnusable, RightsMissing
from perdure.store.postgres.connection import Connection, role_of
from perdure.store.postgres.pooler import BEGIN, settings_of
from perdure.store.postgres.text import placed, quoted
from perdure.store.postgres.trouble import sqlstate

FORBIDDEN = "42501"  # insufficient_privilege
_LOCK = 0x7065726475726500  # "perdure\0": one lock for all schemas; migrations are rare


@cache
def migrations() -> tuple[tuple[int, str, str], ...]:
    """(number, name, text) of each, in order."""
    folder = files("perdure.store.postgres") / "migrations"
    found = [f for f in folder.iterdir() if f.name.endswith(".sql")]
    return tuple(
        (int(f.name[:4]), f.name.removesuffix(".sql"), f.read_text(encoding="utf-8"))
        for f in sorted(found, key=lambda f: f.name)
    )


def known() -> int:
    return migrations()[-1][0]


async def version(conn: Connection, schema: str) -> int:
    """The number of the last migration applied, 0 for none."""
    if await conn.fetchval("select to_regclass($1) is null", f"{quoted(schema)}.meta"):
        return 0
    number = await conn.fetchval(placed("select value::int from perdure.meta where name = 'schema'", schema))
    return number or 0


async def migrate(conn: Connection, schema: str) -> list[str]:
    """Apply what is missing; the names applied."""
    applied: list[str] = []
    have = 0
    await conn.execute(BEGIN)
    try:
        unbound = {"lock_timeout": "0", "statement_timeout": "0", **settings_of(conn.get_server_version().major)}
        await conn.execute("; ".join(f"set local {name} = {value}" for name, value in unbound.items()))
        await conn.execute(f"select pg_advisory_xact_lock({_LOCK})")
        have = await version(conn, schema)
        if not have:
            _refuse_encoding(str(conn.get_settings().server_encoding))
        if not have and await conn.fetchval("select to_regnamespace($1) is null", quoted(schema)):
            # Not `if not exists`: that wants create on the database also where an administrator has made the schema.
            await conn.execute(f"create schema {quoted(schema)}")
        for number, name, text in migrations():
            if number > have:
                await conn.execute(placed(text, schema))
                await conn.execute(
                    placed(
                        "insert into perdure.meta values ('schema', $1) on conflict (name) do update set value = $1",
                        schema,
                    ),
                    str(number),
                )
                applied.append(name)
        await conn.execute("commit")
    except Exception as error:
        if not conn.is_closed():
            await conn.execute("rollback")
        if have and sqlstate(error) == FORBIDDEN:
            raise RightsMissing(
                f"the schema {schema} has version {have}, this Perdure wants {known()}, and the role {role_of(conn)} "
                f"may not change it ({error}). Let the role that owns its tables run perdure db migrate, and grant "
                "this one select, insert, update, delete on the tables that are new."
            ) from error
        raise
    return applied


def _refuse_encoding(encoding: str) -> None:
    """Make no schema where a name or a value may be one character too rich to be stored."""
    if encoding not in ("UTF8", "SQL_ASCII"):  # the latter takes all, as it is
        raise DatabaseUnusable(
            f"the database has the encoding {encoding}, which cannot hold all text. Make one for Perdure: "
            "createdb --encoding UTF8 --template template0 NAME."
        )
