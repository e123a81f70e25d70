"""A batch of units in one statement, one transaction, one round trip; the rare ones by a longer way.

The statement locks the batch's own rows, compares all their tokens at once, and writes everything or nothing. If the
fence refuses, the rows that differ come back, their units are refused, and the rest is sent again. What one statement
cannot do soundly (see ``Columns.unsound``, and closing a run that others watch) goes through ``longer.py``.

Promises: those of ``Store.commit``. A deadlock or serialization failure is retried whole, a few times.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from perdure.model.records import WorkflowRow
from perdure.model.states import CODES
from perdure.model.writes import Receipt, Send, Unit, Verdict
from perdure.store.postgres import rows
from perdure.store.postgres.columns import Columns
from perdure.store.postgres.connection import Link
from perdure.store.postgres.shapes import choose, shape
from perdure.store.postgres.text import statements
from perdure.store.postgres.trouble import AGAIN, sqlstate

TRIES = 6
NOT_NULL = "23502"  # a record's nonce: another write has put a record there


class Ways(Protocol):
    """What can run a statement: the writer's connection, or a transaction on it."""

    async def fetch(self, sql: str, *args: Any) -> list[Any]: ...
    async def fetchrow(self, sql: str, *args: Any) -> Any: ...


class Place(NamedTuple):
    """Whose rows, and the SQL for them."""

    app: str
    schema: str
    sql: Mapping[str, str]


class Watched(Exception):  # noqa: N818 - no error: it sends the batch the longer way
    """A run that closes or sets an event is watched: its watchers must be read after its row is locked."""


class Written(NamedTuple):
    """What one statement answered for the units that were sent with it."""

    now: int
    refused: set[str]
    took: dict[str, bytes | None] | None  # starts that took; None: all did
    mail: int | None  # messages inserted, None if the shape has none


class Writer:
    """The store's way to write."""

    def __init__(self, link: Link, app: str, schema: str) -> None:
        self.link = link
        self.place = Place(app, schema, statements(schema))

    async def commit(self, batch: Sequence[Unit], now: int | None) -> Receipt:
        from perdure.store.postgres.longer import Longer  # noqa: PLC0415 - it builds on this module

        if not batch:
            row = await self.link.fetchrow(self.place.sql["clock"])
            return Receipt(now if now is not None else row[0], [])
        solo = False
        for tries in range(TRIES):
            try:
                columns = Columns(batch)
                if not (solo or columns.unsound):
                    try:
                        return await self._straight(batch, columns, now)
                    except Watched:
                        pass
                return await Longer(self, now).commit(batch, solo=solo)
            except Exception as e:
                cause = e.__cause__ or e
                if sqlstate(cause) in AGAIN and tries + 1 < TRIES:
                    await asyncio.sleep(random.uniform(0.001, 0.01) * (tries + 1))
                elif sqlstate(cause) == NOT_NULL and not solo:
                    solo = True
                else:
                    raise
        raise AssertionError("the last try returns or raises")

    async def _straight(self, batch: Sequence[Unit], columns: Columns, now: int | None) -> Receipt:
        """One statement; more only if a fence refused, a start did not take or a message did not arrive."""
        written = await write(_Direct(self.link), self.place, columns, now, watchers_seen=False)
        if not written.refused and written.took is None and written.mail is None:
            return Receipt(written.now, [Verdict(applied=True) for _ in batch])
        refused: set[str] = set(written.refused)
        while written.refused:
            left = [u for u in batch if not fenced_in(u, refused)]
            if not left:
                return Receipt(written.now, [Verdict(applied=False) for _ in batch])
            columns = Columns(left)
            written = await write(_Direct(self.link), self.place, columns, now, watchers_seen=False)
            refused |= written.refused
        verdicts = [Verdict(applied=not fenced_in(u, refused)) for u in batch]
        await finish(_Direct(self.link), self.place, zip(batch, verdicts, strict=True), written)
        return Receipt(written.now, verdicts)


class _Direct:
    """The writer's connection, each statement its own transaction."""

    __slots__ = ("link",)

    def __init__(self, link: Link) -> None:
        self.link = link

    async def fetch(self, sql: str, *args: Any) -> list[Any]:
        return await self.link.fetch(sql, *args, writing=True)

    async def fetchrow(self, sql: str, *args: Any) -> Any:
        return await self.link.fetchrow(sql, *args, writing=True)


def fenced_in(unit: Unit, ids: set[str]) -> bool:
    return bool(ids) and unit.start is None and unit.claim is not None and unit.key.id in ids


async def write(ways: Ways, place: Place, columns: Columns, now: int | None, *, watchers_seen: bool) -> Written:
    """Send the one statement. Raises ``Watched`` if only the longer way will do; then nothing was written."""
    form = shape(choose(columns), place.schema)
    row = await ways.fetchrow(form.sql, *form.arguments(columns, place.app, now, watchers_seen=watchers_seen))
    if not row[0]:
        found = {id: (claim, run) for id, claim, run in zip(row[2] or (), row[3] or (), row[4] or (), strict=True)}
        refused = {id for id, claim, run in columns.fences if found.get(id) != (claim, run)}
        if not refused:
            raise Watched
        return Written(row[1], refused, None, None)
    took: dict[str, bytes | None] | None = None
    if len(row) > 5 and not row[5]:
        took = dict(zip(row[6] or (), row[7] or (), strict=True))
    sent = columns.values.get("m_dest", ())
    return Written(row[1], set(), took, row[8] if len(row) > 8 and row[8] < len(sent) else None)


async def finish(ways: Ways, place: Place, judged: Iterable[tuple[Unit, Verdict]], written: Written) -> None:
    """Say of starts that did not take by whom their id is taken, and of messages why they did not arrive."""
    pairs = [(unit, verdict) for unit, verdict in judged if verdict.applied]
    if written.took is not None:
        lost: list[tuple[Verdict, str]] = []
        for unit, verdict in pairs:
            start = unit.start
            if start is not None and written.took.get(start.id, start) != start.claim:
                verdict.applied = False
                lost.append((verdict, start.id))
            elif unit.children:
                lost += [(verdict, child.id) for child in unit.children if child.id not in written.took]
        existing = await read_rows(ways, place, [id for _, id in lost])
        for verdict, id in lost:
            if id in existing:
                verdict.exists[id] = existing[id]
    if written.mail is not None:
        await _undelivered(ways, place, pairs)


async def read_rows(ways: Ways, place: Place, ids: list[str]) -> dict[str, WorkflowRow]:
    found = await ways.fetch(place.sql["rows"], place.app, sorted(set(ids))) if ids else []
    return {row[0]: rows.workflow(row) for row in found}


async def _undelivered(ways: Ways, place: Place, pairs: list[tuple[Unit, Verdict]]) -> None:
    doubtful: list[tuple[Verdict, Send]] = [
        (verdict, send) for unit, verdict in pairs if verdict.applied for send in unit.sends if not send.known
    ]
    if not doubtful:
        return
    dests, mids, keys = zip(*((s.dest, s.mid, s.key) for _, s in doubtful), strict=True)
    for n, arrived, status in await ways.fetch(place.sql["message_fate"], place.app, dests, mids, keys):
        if not arrived:
            verdict, send = doubtful[n - 1]
            verdict.undelivered[send.mid] = None if status is None else CODES[status]
