"""The database of a chaos run: made empty, stopped and killed, read at the end.

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
import psycopg

from tests.postgres import Cluster

T = TypeVar("T")
R = TypeVar("R")
SCHEMA = "perdure."


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

    def __init__(self, background: Background) -> None:
        # Who is cut off may commit seconds after its changes: what was seen when, the audit tells by the commit.
        self.cluster = Cluster(settings={"max_connections": "300", "track_commit_timestamp": "on"}).start()
        self.name = self.cluster.create_database()
        self.url = self.cluster.url(self.name)
        self._background = background
        self._conn: Any = None
        self._looks: psycopg.Connection[tuple[Any, ...]] | None = None

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self._background.do(self._query(sql))]

    async def _query(self, sql: str) -> list[Any]:
        import asyncpg

        if self._conn is None or self._conn.is_closed():
            self._conn = await asyncpg.connect(self.url, timeout=5)
        answer: list[Any] = await self._conn.fetch(sql, timeout=120)
        return answer

    def look(self, sql: str) -> list[tuple[Any, ...]]:
        """One snapshot, over a connection that nobody else has. Raises what the driver raises."""
        if self._looks is None or self._looks.closed:
            self._looks = psycopg.connect(self.url, connect_timeout=5, autocommit=True)
        return self._looks.execute(sql.encode()).fetchall()

    def terminate_backends(self) -> None:
        self.cluster.sql(
            f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{self.name}' "
            "and pid <> pg_backend_pid()"
        )

    def close(self) -> None:
        if self._looks is not None:
            self._looks.close()
        if self._conn is not None:
            with contextlib.suppress(Exception):
                self._background.do(self._conn.close(timeout=2))
        self.cluster.destroy()


class SqliteDatabase:
    """A file of its own."""

    restartable = False
    schema = ""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "chaos.db"
        self.url = f"sqlite:///{self.path}"

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READWRITE)) as conn:
            conn.set_busy_timeout(10_000)
            return list(conn.execute(sql))

    look = query  # each of its queries has a connection, and a snapshot, of its own

    def close(self) -> None: ...


Database = PostgresDatabase | SqliteDatabase
