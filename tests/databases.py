"""Databases of a Postgres for tests, used again: making and dropping one costs more than most tests do.

Promise: whoever takes one finds no rows in it but those of the schema's version, nobody connected but who empties it,
and the schema as migrations leave it; or finds it bare. A database that a test has altered otherwise, or filled, is
dropped.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from tests.postgres import Server

T = TypeVar("T")

SIZE_MAX = 32 << 20  # bytes: beyond it, deleting rows leaves too much behind

# Everything that DDL may have changed, and the schema's version.
FINGERPRINT = """
with n as (select oid, nspname from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema')
select coalesce(md5(string_agg(x, ',' order by x)), '') from (
    select format('%s.%s %s', nspname, relname, relkind) from pg_class join n on n.oid = relnamespace
    union all
    select format('%s %s %s %s', attrelid::regclass, attname, atttypid, attnotnull)
    from pg_attribute join pg_class on pg_class.oid = attrelid join n on n.oid = relnamespace
    where attnum > 0 and relkind = 'r'
    union all select format('%s %s', tgrelid::regclass, tgname) from pg_trigger where not tgisinternal
    union all select format('%s.%s', nspname, proname) from pg_proc join n on n.oid = pronamespace
    union all select format('%s %s', conrelid::regclass, conname) from pg_constraint join n on n.oid = connamespace
    union all select setconfig::text from pg_db_role_setting
    union all select nspname from n
) found (x)"""
TERMINATE = """select pg_terminate_backend(pid) from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid()"""


class Databases:
    """See the head of this file."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._clean: list[str] = []
        self._made: set[str] = set()
        self._template = ""  # a database that was migrated, and nothing else: the others are copies of it
        self._migrated = ""  # its fingerprint
        self._hands: dict[str, Any] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="test-databases", daemon=True)
        self._thread.start()

    def take(self, *, bare: bool = False) -> str:
        """The name of a database for one test; ``bare``: without any schema of ours."""
        if not bare and self._clean:
            return self._clean.pop()
        name = self._server.create_database() if bare else self._server.create_database(self._migrated_one())
        self._made.add(name)
        return name

    def give_back(self, name: str) -> None:
        """The test is over."""
        self._migrated_one()
        if self._do(lambda: self._cleaned(name)):
            self._clean.append(name)
        else:
            self._drop(name)

    def close(self) -> None:
        """Drop them all."""
        for name in sorted(self._made):
            self._drop(name)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _drop(self, name: str) -> None:
        hand = self._hands.pop(name, None)
        if hand is not None:
            self._do(hand.close)
        self._made.discard(name)
        self._server.drop_database(name)

    def _do(self, make: Callable[[], Awaitable[T]]) -> T:
        async def run() -> T:
            return await make()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(60)

    async def _cleaned(self, name: str) -> bool:
        """Whether it could be made as new."""
        import asyncpg

        try:
            hand = await self._hand(name)
            await hand.execute(TERMINATE)
            tables = [t for (t,) in await hand.fetch("select tablename from pg_tables where schemaname = 'perdure'")]
            if "meta" not in tables or await hand.fetchval("select pg_database_size(current_database())") > SIZE_MAX:
                return False
            seen = f"{await hand.fetchval(FINGERPRINT)} {await hand.fetch('select * from perdure.meta order by name')}"
            if seen != self._migrated:
                return False
            await hand.execute(";".join(f"delete from perdure.{table}" for table in tables if table != "meta"))
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            self._hands.pop(name, None)
            return False
        return True

    async def _hand(self, name: str) -> Any:
        """Our own connection to it."""
        import asyncpg

        hand = self._hands.get(name)
        if hand is None or hand.is_closed():
            hand = self._hands[name] = await asyncpg.connect(self._server.url(name))
        return hand

    def _migrated_one(self) -> str:
        """The template, made when it is needed first: to copy it costs half of migrating a bare one."""
        if not self._template:
            name = self._server.create_database()
            self._made.add(name)
            self._migrated = self._do(lambda: self._migrate(name))
            self._template = name
        return self._template

    async def _migrate(self, name: str) -> str:
        """The fingerprint of what migrations leave. Nobody is connected afterwards, so that it can be copied."""
        from perdure.store.postgres import PostgresStore

        store = PostgresStore(self._server.url(name), "databases")
        await store.open()
        await store.migrate()
        await store.close()
        hand = await self._hand(name)
        meta = await hand.fetch("select * from perdure.meta order by name")
        fingerprint = f"{await hand.fetchval(FINGERPRINT)} {meta}"
        await self._hands.pop(name).close()
        return fingerprint
