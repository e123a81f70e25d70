"""The database of a chaos run: made empty, watched by triggers that the library knows nothing of, read at the end.

Both kinds answer ``query`` (rows as tuples) beside the run's own traffic, over connections of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import apsw

from tests.postgres import Cluster

T = TypeVar("T")
R = TypeVar("R")
SCHEMA = "perdure."

# Each record as it is written, by the time of the machine: the ledger is by the same clock.
POSTGRES_AUDIT = (
    "create schema chaos",
    "create table chaos.recorded (app text, id text, run int, path text, kind int, name text, at float8)",
    "create function chaos.record() returns trigger language plpgsql as $$ begin "
    "insert into chaos.recorded values (new.app, new.id, new.run, new.path, new.kind, new.name, "
    "extract(epoch from clock_timestamp())); return null; end $$",
    "create trigger chaos after insert on perdure.history for each row execute function chaos.record()",
)
SQLITE_AUDIT = (
    "create table recorded (app text, id text, run int, path text, kind int, name text, at real)",
    "create trigger chaos after insert on history begin insert into recorded values (new.app, new.id, new.run, "
    "new.path, new.kind, new.name, (julianday('now') - 2440587.5) * 86400.0); end",
)


class Background:
    """An event loop on a thread of its own, for what must go on while the main thread waits."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="chaos", daemon=True)
        self._thread.start()

    def do(self, work: Awaitable[T]) -> T:
        async def whole() -> T:
            return await work

        return asyncio.run_coroutine_threadsafe(whole(), self.loop).result()

    def call(self, function: Callable[..., R], *args: Any) -> R:
        """A plain function, called there."""

        async def there() -> R:
            return function(*args)

        return self.do(there())

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class PostgresDatabase:
    """A cluster of its own, to be stopped and killed."""

    restartable = True
    schema = SCHEMA
    recorded = "chaos.recorded"

    def __init__(self, background: Background) -> None:
        self.cluster = Cluster(settings={"max_connections": "300"}).start()
        self.name = self.cluster.create_database()
        self.url = self.cluster.url(self.name)
        self._background = background
        self._conn: Any = None

    def watch(self) -> None:
        """After the migration: put the triggers in place."""
        self.cluster.sql(*POSTGRES_AUDIT, db=self.name)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self._background.do(self._query(sql))]

    async def _query(self, sql: str) -> list[Any]:
        import asyncpg

        if self._conn is None or self._conn.is_closed():
            self._conn = await asyncpg.connect(self.url, timeout=5)
        answer: list[Any] = await self._conn.fetch(sql, timeout=120)
        return answer

    def terminate_backends(self) -> None:
        self.cluster.sql(
            f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{self.name}' "
            "and pid <> pg_backend_pid()"
        )

    def close(self) -> None:
        if self._conn is not None:
            with contextlib.suppress(Exception):
                self._background.do(self._conn.close(timeout=2))
        self.cluster.destroy()


class SqliteDatabase:
    """A file of its own."""

    restartable = False
    schema = ""
    recorded = "recorded"

    def __init__(self, folder: Path) -> None:
        self.path = folder / "chaos.db"
        self.url = f"sqlite:///{self.path}"

    def watch(self) -> None:
        with contextlib.closing(apsw.Connection(str(self.path))) as conn:
            conn.set_busy_timeout(10_000)
            for sql in SQLITE_AUDIT:
                conn.execute(sql)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READWRITE)) as conn:
            conn.set_busy_timeout(10_000)
            return list(conn.execute(sql))

    def close(self) -> None: ...


Database = PostgresDatabase | SqliteDatabase
