"""The SQLite side of carrying an app to another database: rows by page, in and out, and the fence around what moved.

The fence is a pair of triggers for each table. They name the app, so that others in the file go on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from perdure.model.ids import RunKey
from perdure.model.records import Incarnation
from perdure.store.sql import queries
from perdure.store.sqlite import reads
from perdure.store.sqlite.driver import Connection
from perdure.store.sqlite.owned import columns_of
from perdure.store.tables import Table
from perdure.store.upkeep import Key, Rows

T = TypeVar("T")
Q = queries("perdure.store.sqlite")
Lane = Callable[[Callable[[Connection], Any]], Awaitable[Any]]


class Carry:
    """See the head of this file."""

    def __init__(self, app: str, path: Path, write: Lane, read: Lane) -> None:
        self.app = app
        self._path = path
        self._writes = write
        self._reads = read

    async def _write(self, job: Callable[[Connection], T]) -> T:
        value: T = await self._writes(job)
        return value

    async def _read(self, job: Callable[[Connection], T]) -> T:
        value: T = await self._reads(job)
        return value

    # -- rows

    async def columns(self, table: Table) -> list[str]:
        return await self._read(lambda conn: list(columns_of(conn, table.name)))

    async def page(self, table: Table, columns: Sequence[str], after: Key | None, limit: int) -> Rows:
        if after is not None and not table.key:
            return []
        sql = f"select {', '.join(columns)} from {table.name} where app = ?1"
        if after is not None:
            marks = ", ".join(f"?{n}" for n in range(2, 2 + len(table.key)))
            sql += f" and ({', '.join(table.key)}) > ({marks})"
        sql += f" order by {', '.join(('app', *table.key))} limit {int(limit)}"
        return await self._read(lambda conn: conn.execute(sql, (self.app, *(after or ()))).fetchall())

    async def put(self, table: Table, columns: Sequence[str], rows: Rows, chore: str, note: str) -> None:
        marks = ", ".join("?" for _ in range(len(columns) + 1))
        sql = f"insert into {table.name} (app, {', '.join(columns)}) values ({marks}) on conflict do nothing"

        def job(conn: Connection) -> None:
            kinds = columns_of(conn, table.name)
            wanted = [kinds[name] for name in columns]
            for _ in conn.executemany(sql, [(self.app, *map(_fitting, row, wanted)) for row in rows]):
                pass
            conn.execute(Q["mark_put"], (self.app, chore, note))

        await self._write(job)

    async def last_seqs(self, keys: Collection[RunKey]) -> Mapping[RunKey, int]:
        return await self._read(
            lambda conn: {key: conn.execute(Q["history_end"], (self.app, *key)).get for key in keys}
        )

    async def settle(self) -> None:
        """This dialect keeps nothing of its own in a row."""

    async def clear(self, table: Table, limit: int) -> int:
        def job(conn: Connection) -> int:
            keys = ", ".join(table.key) or "app"
            sql = f"delete from {table.name} where app = ?1 and ({keys}) in (select {keys} from {table.name}"
            sql += f" where app = ?1 limit {int(limit)}) returning 1"
            return len(conn.execute(sql, (self.app,)).fetchall())

        return await self._write(job)

    # -- the fence

    async def serving(self) -> list[Incarnation]:
        return await self._read(lambda conn: _serving(conn, self.app))

    async def fence(self, tables: Sequence[str], marks: Mapping[str, str], said: str) -> list[Incarnation]:
        def job(conn: Connection) -> list[Incarnation]:
            if found := _serving(conn, self.app):
                return found
            app, text = _quoted(self.app), _quoted(said)
            for table in tables:
                for event in ("insert", "update"):
                    conn.execute(
                        f"create trigger if not exists {_prefix(self.app)}{table}_{event} before {event} on {table} "
                        f"when new.app = {app} begin select raise(abort, {text}); end"
                    )
            _mark(conn, self.app, marks)
            return []

        return await self._write(job)

    async def unfence(self, marks: Mapping[str, str | None]) -> None:
        def job(conn: Connection) -> None:
            sql = "select name from sqlite_master where type = 'trigger' and substr(name, 1, ?2) = ?1"
            prefix = _prefix(self.app)
            for (name,) in conn.execute(sql, (prefix, len(prefix))).fetchall():
                conn.execute(f"drop trigger {name}")
            _mark(conn, self.app, marks)

        await self._write(job)

    async def marks(self) -> Mapping[str, str]:
        return await self._read(lambda conn: dict(conn.execute(Q["mark_list"], (self.app,)).fetchall()))


def _serving(conn: Connection, app: str) -> list[Incarnation]:
    return [who for who in reads.incarnations(conn, app) if who.serving]


def _mark(conn: Connection, app: str, marks: Mapping[str, str | None]) -> None:
    for name, note in marks.items():
        if note is None:
            conn.execute(Q["mark_forget"], (app, name))
        else:
            conn.execute(Q["mark_put"], (app, name, note))


def _fitting(value: Any, kind: str) -> Any:
    """A value of the other dialect as this column takes it."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and kind == "BLOB":
        return value.encode()
    return value


def _prefix(app: str) -> str:
    return f"moved_{hashlib.blake2b(app.encode(), digest_size=6).hexdigest()}_"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
