"""Retention, sizes and chores of one app in a SQLite file. Each call is one bounded job of the thread that writes.

Promise: a whole workflow goes in one transaction, or nothing of it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from perdure.model.ids import RunKey
from perdure.model.real import time
from perdure.model.states import CODES, FIRST_CLOSED
from perdure.store.sql import queries
from perdure.store.sqlite import driver
from perdure.store.sqlite.carry import Carry
from perdure.store.sqlite.driver import Connection, Row
from perdure.store.sqlite.owned import FORGET_RUN, columns_of, forget_workflow
from perdure.store.tables import OF_RUNS, OWNED, TABLES, Table
from perdure.store.upkeep import Candidate, Kindred, Sizes, TableSize, Turn, Weight

T = TypeVar("T")

Q = queries("perdure.store.sqlite")
INTEGER_BYTES = 4  # of a number as it is stored, about


class SQLiteUpkeep(Carry):
    """See the head of this file."""

    async def rest(self) -> None:
        """Nothing is held."""

    async def clock(self, *, now: int | None = None) -> int:
        return _clock(now)

    # -- chores

    async def take(self, chore: str, owner: bytes, lease: int, *, now: int | None = None) -> Turn | int:
        def job(conn: Connection) -> Turn | int:
            at = _clock(now)
            got = conn.execute(Q["chore_take"], (self.app, chore, owner, at, at + lease)).fetchone()
            if got is not None:
                return Turn(at, got[0])
            due: int = conn.execute(Q["chore_due"], (self.app, chore)).get
            return due

        return await self._write(job)

    async def note(
        self, chore: str, owner: bytes, note: str, until: int, *, done: bool = False, now: int | None = None
    ) -> bool:
        def job(conn: Connection) -> bool:
            bindings = (self.app, chore, owner, note, _clock(now) + until, done)
            return conn.execute(Q["chore_note"], bindings).get is not None

        return await self._write(job)

    # -- retention

    async def ended(self, after: tuple[int, str], before: int, limit: int) -> list[Candidate]:
        def job(conn: Connection) -> list[Candidate]:
            return [_candidate(r) for r in conn.execute(Q["purge_ended"], (self.app, *after, before, limit))]

        return await self._read(job)

    async def past(self, after: tuple[str, int], limit: int) -> list[Candidate]:
        def job(conn: Connection) -> list[Candidate]:
            return [_candidate(r) for r in conn.execute(Q["purge_past"], (self.app, *after, limit))]

        return await self._read(job)

    async def purge(self, keys: Sequence[RunKey]) -> list[str]:
        def job(conn: Connection) -> list[str]:
            gone: list[str] = []
            for key in keys:
                if conn.execute(Q["purge_may"], (self.app, *key)).get:
                    forget_workflow(conn, self.app, key.id)
                    gone.append(key.id)
            return gone

        return await self._write(job)

    async def purge_past(self, keys: Sequence[RunKey]) -> list[RunKey]:
        def job(conn: Connection) -> list[RunKey]:
            gone = [key for key in keys if conn.execute(Q["purge_may_past"], (self.app, *key)).get]
            for sql in FORGET_RUN:
                for _ in conn.executemany(sql, [(self.app, *key) for key in gone]):
                    pass
            return gone

        return await self._write(job)

    async def sweep(self, table: Table, after: str, limit: int, before: int) -> tuple[int, str | None]:
        column = table.owners[-1]
        page = f"select {column} from {table.name} where app = ?1 and {column} > ?2 order by {column} limit ?3"
        delete = f"delete from {table.name} where app = ?1 and {column} = ?2"
        delete += f" and {table.aged} <= {int(before)}" if table.aged else ""

        def job(conn: Connection) -> tuple[int, str | None]:
            ids = list(dict.fromkeys(r[0] for r in conn.execute(page, (self.app, after, limit))))
            swept = 0
            for id in ids:
                status = conn.execute("select status from workflow where app = ?1 and id = ?2", (self.app, id)).get
                if status is None or (table.left == "closed" and status >= FIRST_CLOSED):
                    swept += bool(conn.execute(f"{delete} returning 1", (self.app, id)).fetchall())
            return swept, ids[-1] if ids else None

        return await self._write(job)

    async def sweep_requests(self, before: int) -> int:
        return await self._write(lambda conn: len(conn.execute(Q["purge_requests"], (self.app, before)).fetchall()))

    async def sweep_batches(self, before: int, limit: int) -> int:
        def job(conn: Connection) -> int:
            key = conn.execute(Q["batch_old"], (self.app, before)).get
            if key is None:
                return 0
            for table in ("batch_forget_targets", "batch_forget_audit"):
                if gone := conn.execute(Q[table], (self.app, key, limit)).fetchall():
                    return len(gone)
            return len(conn.execute(Q["batch_forget"], (self.app, key)).fetchall())

        return await self._write(job)

    # -- sizes

    async def weigh(self, ids: Sequence[str]) -> Mapping[str, Weight]:
        def job(conn: Connection) -> Mapping[str, Weight]:
            found = dict.fromkeys(ids, Weight())
            for table, owner in OWNED:
                where = f"app = ?1 and {owner} = ?2"
                sql = f"select count(*), coalesce(sum({_bytes(conn, table)}), 0) from {table.name} where {where}"
                for id in found:
                    for row in conn.execute(sql, (self.app, id)):
                        found[id] = found[id].plus(Weight(*row))
            return found

        return await self._read(job)

    async def weigh_past(self, keys: Sequence[RunKey]) -> Mapping[RunKey, Weight]:
        def job(conn: Connection) -> Mapping[RunKey, Weight]:
            found = dict.fromkeys(keys, Weight())
            for table in OF_RUNS:
                where = f"app = ?1 and {table.owners[0]} = ?2 and {table.run} = ?3"
                sql = f"select count(*), coalesce(sum({_bytes(conn, table)}), 0) from {table.name} where {where}"
                for key in found:
                    for row in conn.execute(sql, (self.app, *key)):
                        found[key] = found[key].plus(Weight(*row))
            return found

        return await self._read(job)

    async def sizes(self, *, now: int | None = None) -> Sizes:
        def job(conn: Connection) -> Sizes:
            page = conn.pragma("page_size")
            room: dict[str, int] = dict(conn.execute(
                "select m.tbl_name, sum(d.pgsize) from dbstat d join sqlite_master m on m.name = d.name "
                "where d.aggregate = true group by m.tbl_name"
            ))  # fmt: skip
            kinds = [
                Kindred(name=name, status=CODES[int(status)], count=count, oldest=oldest)
                for name, status, count, oldest in conn.execute(Q["size_kinds"], (self.app,))
            ]
            tables = [
                TableSize(
                    name=t.name, rows=conn.execute(f"select count(*) from {t.name}").get, bytes=room.get(t.name, 0),
                    dead=0,
                )
                for t in TABLES
            ]  # fmt: skip
            return Sizes(
                now=_clock(now), bytes=conn.pragma("page_count") * page + _length(self._path, "-wal"),
                free=conn.pragma("freelist_count") * page, exact=True, kinds=kinds, tables=tables,
                past_runs=conn.execute(Q["size_past"], (self.app,)).get,
            )  # fmt: skip

        return await self._read(job)

    async def vacuum(self) -> int:
        """Rewrite the file without its free pages. Nobody can write meanwhile."""

        def rewrite() -> int:
            before = _length(self._path)
            conn = driver.connect(self._path)
            try:
                conn.set_busy_timeout(30_000)
                conn.execute("vacuum")
                conn.execute("pragma wal_checkpoint(truncate)").fetchall()
            finally:
                conn.close()
            return max(0, before - _length(self._path))

        return await asyncio.to_thread(rewrite)


def _candidate(r: Row) -> Candidate:
    return Candidate(r[0], r[1], r[2], CODES[int(r[3])], r[4], r[5], r[6], *map(bool, r[7:]))


def _bytes(conn: Connection, table: Table) -> str:
    """An expression for what a row takes, about."""
    parts = [
        str(INTEGER_BYTES) if kind in ("INTEGER", "REAL") else f"coalesce(octet_length({name}), 0)"
        for name, kind in columns_of(conn, table.name).items()
    ]
    return " + ".join(parts)


def _length(path: Path, suffix: str = "") -> int:
    with contextlib.suppress(OSError):
        return os.stat(f"{path}{suffix}").st_size
    return 0


def _clock(now: int | None) -> int:
    return time.time_ns() // 1000 if now is None else now
