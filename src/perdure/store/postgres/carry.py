"""The Postgres side of carrying an app to another database: rows by page, in and out, and the fence around what moved.

The fence is a check that no row of the app passes, added without looking at the rows that are there: they stay, and
none is inserted or changed any more, whoever tries, under whatever lease. Other apps' rows pass.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from perdure.errors import DatabaseTrouble
from perdure.model.ids import RunKey
from perdure.model.records import Incarnation
from perdure.store.postgres import rows as rows_of
from perdure.store.postgres.commit import Place, Ways
from perdure.store.postgres.connection import Link, Transaction
from perdure.store.postgres.text import placed, quoted
from perdure.store.postgres.trouble import FENCE, TRIES, rolled_back
from perdure.store.tables import Table
from perdure.store.upkeep import Key, Rows

T = TypeVar("T")


class Carry:
    """See the head of this file."""

    def __init__(self, link: Link, reading: Link, place: Place) -> None:
        self.link = link
        self.reading = reading  # for what every launch asks: that makes no connection more
        self.place = place

    # -- rows

    async def columns(self, table: Table) -> list[str]:
        return [name for name in await self._types(table) if name != "app"]

    async def _types(self, table: Table) -> dict[str, str]:
        sql = """select attname, atttypid::regtype::text from pg_attribute
            where attrelid = $1::text::regclass and attnum > 0 and not attisdropped order by attnum"""
        found = await self.link.fetch(sql, f"{quoted(self.place.schema)}.{table.name}")
        return {row[0]: row[1] for row in found}

    async def page(self, table: Table, columns: Sequence[str], after: Key | None, limit: int) -> Rows:
        if after is not None and not table.key:
            return []
        sql = f"select {', '.join(columns)} from perdure.{table.name} where app = $1"
        if after is not None:
            marks = ", ".join(f"${n}" for n in range(2, 2 + len(table.key)))
            sql += f" and ({', '.join(table.key)}) > ({marks})"
        sql += f" order by {', '.join(('app', *table.key))} limit {int(limit)}"
        found = await self.link.fetch(placed(sql, self.place.schema), self.place.app, *(after or ()))
        return [tuple(row) for row in found]

    async def put(self, table: Table, columns: Sequence[str], rows: Rows, chore: str, note: str) -> None:
        types = await self._types(table)
        named = ["app", *columns]
        marks = ", ".join(f"${n}" for n in range(1, len(named) + 1))
        sql = f"insert into perdure.{table.name} ({', '.join(named)}) values ({marks}) on conflict do nothing"
        wanted = [types[name] for name in named]
        fitting = [
            tuple(_fitting(v, kind) for v, kind in zip((self.place.app, *row), wanted, strict=True)) for row in rows
        ]
        async with self.link.transaction() as tx:
            await tx.fetch_many(placed(sql, self.place.schema), fitting)
            await tx.fetch(self.place.sql["mark_put"], self.place.app, chore, note)

    async def last_seqs(self, keys: Collection[RunKey]) -> Mapping[RunKey, int]:
        ids, runs = [key.id for key in keys], [key.run for key in keys]
        found = await self.link.fetch(self.place.sql["history_last"], self.place.app, ids, runs)
        return dict.fromkeys(keys, 0) | {RunKey(row[0], row[1]): row[2] for row in found}

    async def settle(self) -> None:
        """Mark the rows for whose end somebody waits."""
        await self.link.fetch(self.place.sql["watch_remark"], self.place.app, writing=True)

    async def clear(self, table: Table, limit: int) -> int:
        sql = f"""delete from perdure.{table.name} where ctid = any(array(
            select ctid from perdure.{table.name} where app = $1 limit {int(limit)})) returning 1"""
        return len(await self.link.fetch(placed(sql, self.place.schema), self.place.app, writing=True))

    # -- the fence

    async def serving(self) -> list[Incarnation]:
        return await _serving(self.link, self.place)

    async def fence(self, tables: Sequence[str], marks: Mapping[str, str], said: str) -> list[Incarnation]:
        return await _until_it_stands(lambda: self._fence(tables, marks))

    async def _fence(self, tables: Sequence[str], marks: Mapping[str, str]) -> list[Incarnation]:
        app = self.place.app.replace("'", "''")
        try:
            async with self.link.transaction() as tx:
                for table in tables:  # the locks first: who registers meanwhile is seen, or waits and is refused
                    await self._change(tx, table, f"drop constraint if exists {self._name}")
                    await self._change(tx, table, f"add constraint {self._name} check (app <> '{app}') not valid")
                if found := await _serving(tx, self.place):
                    raise _Served(found)
                await self._mark(tx, marks)
        except _Served as served:
            return served.found
        return []

    async def unfence(self, marks: Mapping[str, str | None]) -> None:
        await _until_it_stands(lambda: self._unfence(marks))

    async def _unfence(self, marks: Mapping[str, str | None]) -> None:
        sql = """select c.relname from pg_constraint k join pg_class c on c.oid = k.conrelid
            where k.conname = $1 and c.relnamespace = $2::text::regnamespace"""
        async with self.link.transaction() as tx:
            for row in await tx.fetch(sql, self._name, quoted(self.place.schema)):
                await self._change(tx, row[0], f"drop constraint if exists {self._name}")
            await self._mark(tx, marks)

    async def marks(self) -> Mapping[str, str]:
        return {row[0]: row[1] for row in await self.reading.fetch(self.place.sql["mark_list"], self.place.app)}

    @property
    def _name(self) -> str:
        return FENCE + hashlib.blake2b(self.place.app.encode(), digest_size=6).hexdigest()

    async def _change(self, tx: Transaction, table: str, what: str) -> None:
        await tx.execute(placed(f"alter table perdure.{table} {what}", self.place.schema))

    async def _mark(self, tx: Transaction, marks: Mapping[str, str | None]) -> None:
        for name, note in marks.items():
            if note is None:
                await tx.fetch(self.place.sql["mark_forget"], self.place.app, name)
            else:
                await tx.fetch(self.place.sql["mark_put"], self.place.app, name, note)


async def _until_it_stands(change: Callable[[], Awaitable[T]]) -> T:
    """Its locks of tables and those of a commit under way may wait for each other: then it is made again."""
    for tries in range(TRIES):
        try:
            return await change()
        except DatabaseTrouble as trouble:
            if not await rolled_back(trouble, tries):
                raise
    raise AssertionError("the last try returns or raises")


class _Served(ValueError):
    """Rolls the fence back."""

    def __init__(self, found: list[Incarnation]) -> None:
        super().__init__(f"{len(found)} executors serve")
        self.found = found


async def _serving(ways: Ways, place: Place) -> list[Incarnation]:
    found = [rows_of.incarnation(row) for row in await ways.fetch(place.sql["incarnation_list"], place.app)]
    return [who for who in found if who.serving]


def _fitting(value: Any, kind: str) -> Any:
    """A value of the other dialect as this column takes it."""
    if isinstance(value, bytes) and kind == "text":
        return value.decode()
    if isinstance(value, int) and kind == "boolean":
        return bool(value)
    return value
