"""One statement that writes a batch, and what its answer means.

The statement locks the batch's own rows, compares all their tokens at once, and writes everything or nothing. If the
fence refuses, the rows that differ come back. Whoever sends it (``writer.py``, ``longer.py``) drops the units of those
and sends the rest again; starts that did not take and messages that did not arrive are explained by reads that run
only then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from perdure.model.records import WorkflowRow
from perdure.model.states import CODES
from perdure.model.writes import Send, Start, Unit, Verdict
from perdure.store.postgres import rows
from perdure.store.postgres.columns import Columns
from perdure.store.postgres.shapes import choose, shape


class Ways(Protocol):
    """What can run a statement: the writer's connection, or a transaction on it."""

    async def fetch(self, sql: str, *args: Any) -> list[Any]: ...
    async def fetchrow(self, sql: str, *args: Any) -> Any: ...


class Place(NamedTuple):
    """Whose rows, and the SQL for them."""

    app: str
    schema: str
    sql: Mapping[str, str]


class Watched(Exception):
    """A run that closes or sets an event is watched: its watchers must be read after its row is locked."""


class Written(NamedTuple):
    """What one statement answered for the units that were sent with it."""

    now: int
    refused: set[str]
    took: dict[str, bytes | None] | None  # starts that took; None: all did
    mail: int | None  # messages inserted, None if the shape has none


def fenced_in(unit: Unit, ids: set[str]) -> bool:
    return bool(ids) and unit.start is None and unit.claim is not None and unit.key.id in ids


async def write(ways: Ways, place: Place, columns: Columns, now: int | None, *, watchers_seen: bool) -> Written:
    """Send the one statement. Raises ``Watched`` if only the longer way will do; then nothing was written."""
    form = shape(choose(columns), place.schema)
    row = await ways.fetchrow(form.sql, *form.arguments(columns, place.app, now, watchers_seen=watchers_seen))
    if not row[0]:
        ids: list[str] = row[2] or []
        found = dict(zip(ids, zip(row[3] or (), row[4] or (), strict=True), strict=True))
        refused = {id for id, claim, run in columns.fences if found.get(id) != (claim, run)}
        if not refused:
            raise Watched
        return Written(row[1], refused, None, None)
    took: dict[str, bytes | None] | None = None
    if len(row) > 5 and not row[5]:
        took = dict(zip(row[6] or (), row[7] or (), strict=True))
    sent = len(columns.values["m_dest"]) if "m_dest" in columns.values else 0
    return Written(row[1], set(), took, row[8] if len(row) > 8 and row[8] < sent else None)


async def finish(ways: Ways, place: Place, judged: Iterable[tuple[Unit, Verdict]], written: Written) -> None:
    """Say of starts that did not take by whom their id is taken, and of messages why they did not arrive."""
    pairs = [(unit, verdict) for unit, verdict in judged if verdict.applied]
    if written.took is not None:
        lost: list[tuple[Verdict, Start, bool]] = []
        for unit, verdict in pairs:
            start = unit.start
            if start is not None and not _is_mine(start, written.took):
                lost.append((verdict, start, True))
            lost += [(verdict, child, False) for child in unit.children if child.id not in written.took]
        await _not_taken(ways, place, lost)
    if written.mail is not None:
        await _undelivered(ways, place, pairs)


def _is_mine(start: Start, took: Mapping[str, bytes | None]) -> bool:
    """Whether a run's own start took, and nobody else holds it by now. One that asked for no claim minds no holder."""
    return start.id in took and start.claim in (None, took[start.id])


async def _not_taken(ways: Ways, place: Place, lost: list[tuple[Verdict, Start, bool]]) -> None:
    """Name whose the ids are. A start of mine that has continued as another run since is no conflict."""
    if not lost:
        return
    existing = await read_rows(ways, place, [start.id for _, start, _ in lost])
    ids, runs = [start.id for _, start, _ in lost], [start.run for _, start, _ in lost]
    before = {n - 1: nonce for n, nonce in await ways.fetch(place.sql["past_run_nonces"], place.app, ids, runs)}
    for n, (verdict, start, own) in enumerate(lost):
        mine = before.get(n) == start.nonce
        row = existing.get(start.id)
        if own:
            verdict.applied = mine and start.claim is None
        if row is not None and not (mine and (verdict.applied or not own)):
            verdict.exists[start.id] = row


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
    for row in await ways.fetch(place.sql["message_fate"], place.app, dests, mids, keys):
        nth: int = row[0]
        if not row[1]:
            verdict, send = doubtful[nth - 1]
            status: int | None = row[2]
            verdict.undelivered[send.mid] = None if status is None else CODES[status]
