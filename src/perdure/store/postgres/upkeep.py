"""Retention, sizes and chores of one app in Postgres, on a connection of their own: no claim waits for a purge.

Promise: a whole workflow goes in one transaction, or nothing of it does; its row is locked first, and what others have
locked is left to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perdure.model.ids import RunKey
from perdure.model.states import CODES, FIRST_CLOSED
from perdure.store.postgres.carry import Carry
from perdure.store.postgres.owned import (
    forget,
    forget_run_sql,
    left_page_sql,
    left_sql,
    weigh_run_sql,
    weigh_sql,
)
from perdure.store.postgres.text import placed, quoted
from perdure.store.tables import OF_RUNS, OWNED, Table
from perdure.store.upkeep import Candidate, Kindred, Sizes, TableSize, Turn, Weight

NO_STATUS = 99  # beyond all statuses


class PostgresUpkeep(Carry):
    """See the head of this file."""

    async def rest(self) -> None:
        await self.link.close()
        self.link.open()

    async def clock(self, *, now: int | None = None) -> int:
        if now is not None:
            return now
        row = await self.link.fetchrow(self.place.sql["clock"])
        at: int = row[0]
        return at

    # -- chores

    async def take(self, chore: str, owner: bytes, lease: int, *, now: int | None = None) -> Turn | int:
        sql, app = self.place.sql, self.place.app
        got = await self.reading.fetchrow(sql["chore_take"], app, chore, owner, lease, now, writing=True)
        if got is not None:
            return Turn(got[0], got[1])
        due = await self.reading.fetchrow(sql["chore_due"], app, chore)
        at: int = 0 if due is None else due[0]
        return at

    async def note(
        self, chore: str, owner: bytes, note: str, until: int, *, done: bool = False, now: int | None = None
    ) -> bool:
        sql = self.place.sql["chore_note"]
        found = await self.link.fetchrow(sql, self.place.app, chore, owner, note, until, done, now, writing=True)
        return found is not None

    # -- retention

    async def ended(self, after: tuple[int, str], before: int, limit: int) -> list[Candidate]:
        found = await self.link.fetch(self.place.sql["purge_ended"], self.place.app, *after, before, limit)
        return [_candidate(r) for r in found]

    async def past(self, after: tuple[str, int], limit: int) -> list[Candidate]:
        found = await self.link.fetch(self.place.sql["purge_past"], self.place.app, *after, limit)
        return [_candidate(r) for r in found]

    async def purge(self, keys: Sequence[RunKey]) -> list[str]:
        app, ids, runs = self.place.app, *_columns(keys)
        async with self.link.transaction() as tx:
            gone = [row[0] for row in await tx.fetch(self.place.sql["purge_lock"], app, ids, runs)]
            if gone:
                await forget(tx, self.place, gone)
        return gone

    async def purge_past(self, keys: Sequence[RunKey]) -> list[RunKey]:
        app, ids, runs = self.place.app, *_columns(keys)
        async with self.link.transaction() as tx:
            gone = [RunKey(*row) for row in await tx.fetch(self.place.sql["purge_lock_past"], app, ids, runs)]
            if gone:
                for table in OF_RUNS:
                    await tx.fetch(self._sql(forget_run_sql(table)), app, *_columns(gone))
        return gone

    async def sweep(self, table: Table, after: str, limit: int, before: int) -> tuple[int, str | None]:
        app = self.place.app
        found = await self.link.fetch(self._sql(left_page_sql(table)), app, after, limit)
        ids = list(dict.fromkeys(row[0] for row in found))
        if not ids:
            return 0, None
        least = FIRST_CLOSED if table.left == "closed" else NO_STATUS
        swept = await self.link.fetch(self._sql(left_sql(table)), app, ids, least, before, writing=True)
        return len({row[0] for row in swept}), ids[-1]

    async def sweep_requests(self, before: int) -> int:
        return len(await self.link.fetch(self.place.sql["purge_requests"], self.place.app, before, writing=True))

    async def sweep_batches(self, before: int, limit: int) -> int:
        sql, app = self.place.sql, self.place.app
        found = await self.link.fetchrow(sql["batch_old"], app, before)
        if found is None:
            return 0
        for table in ("batch_forget_targets", "batch_forget_audit"):
            if gone := await self.link.fetch(sql[table], app, found[0], limit, writing=True):
                return len(gone)
        return len(await self.link.fetch(sql["batch_forget"], app, found[0], writing=True))

    # -- sizes

    async def weigh(self, ids: Sequence[str]) -> Mapping[str, Weight]:
        found = dict.fromkeys(ids, Weight())
        for table, owner in OWNED:
            for id, rows, size in await self.link.fetch(
                self._sql(weigh_sql(table, owner)), self.place.app, list(found)
            ):
                found[id] = found[id].plus(Weight(rows, size))
        return found

    async def weigh_past(self, keys: Sequence[RunKey]) -> Mapping[RunKey, Weight]:
        found = dict.fromkeys(keys, Weight())
        for table in OF_RUNS:
            for id, run, rows, size in await self.link.fetch(
                self._sql(weigh_run_sql(table)), self.place.app, *_columns(list(found))
            ):
                found[RunKey(id, run)] = found[RunKey(id, run)].plus(Weight(rows, size))
        return found

    async def sizes(self, *, now: int | None = None) -> Sizes:
        sql, app = self.place.sql, self.place.app
        known = await self.link.fetch(sql["size_tables"], quoted(self.place.schema))
        tables = [TableSize(name=r[0], rows=max(0, r[1]), bytes=r[2], dead=r[3]) for r in known]
        kinds = [
            Kindred(name=r[0], status=CODES[int(r[1])], count=r[2], oldest=r[3])
            for r in await self.link.fetch(sql["size_kinds"], app)
        ]
        past = await self.link.fetchrow(sql["size_past"], app)
        return Sizes(
            now=await self.clock(now=now), bytes=sum(t.bytes for t in tables), free=0, exact=False, kinds=kinds,
            tables=sorted(tables, key=lambda t: t.name), past_runs=past[0],
        )  # fmt: skip

    async def vacuum(self) -> int:
        """Nothing to do: autovacuum makes the room of deleted rows free for new ones."""
        return 0

    def _sql(self, text: str) -> str:
        return placed(text, self.place.schema)


def _columns(keys: Sequence[RunKey]) -> tuple[list[str], list[int]]:
    """By id: the order of locks."""
    ordered = sorted(keys)
    return [key.id for key in ordered], [key.run for key in ordered]


def _candidate(r: Any) -> Candidate:
    return Candidate(r[0], r[1], r[2], CODES[int(r[3])], r[4], r[5], r[6], *tuple(r)[7:])
