"""Commands from outside: cancel, terminate, replace. Whoever waits for what they end is woken.

Each locks the row, then reads and writes by statements begun after the lock: watchers written before it are seen.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from perdure.model.ids import RunKey
from perdure.model.records import WorkflowRow
from perdure.model.states import CODE, FIRST_CLOSED, Reason, Status
from perdure.model.writes import Start
from perdure.store.base import without_cleanup
from perdure.store.postgres import rows
from perdure.store.postgres.commit import Place
from perdure.store.postgres.connection import Link, Transaction
from perdure.store.postgres.longer import begin_next, put_away


async def cancel(
    link: Link, place: Place, id: str, reason: str, nonce: bytes, now: int | None, unserved: str | None = None
) -> WorkflowRow | None:
    async with link.transaction() as tx:
        row = await _locked(tx, place, id)
        if row is None or not row.status.open:
            return row
        stray = row.status is Status.WAITING and row.version == unserved
        if row.status in (Status.RUNNING, Status.WAITING) and not stray:
            await tx.fetch(place.sql["wake_one"], place.app, id, nonce, reason)
            return row
        detail = row.detail if row.version != unserved else without_cleanup(row.version)
        return await _end(tx, place, row, (CODE[Status.CANCELLED], row.claim, reason, detail), nonce, now)


async def terminate(
    link: Link, place: Place, id: str, reason: str, nonce: bytes, now: int | None
) -> WorkflowRow | None:
    async with link.transaction() as tx:
        row = await _locked(tx, place, id)
        if row is None or not row.status.open:
            return row
        return await _end(tx, place, row, (CODE[Status.TERMINATED], nonce, row.cancel, reason), nonce, now)


async def replace(link: Link, place: Place, old: RunKey, start: Start, nonce: bytes, now: int | None) -> bool:
    """Begin the run after ``old``, which is closed and the latest; True if that is done, now or before."""
    following = old.run + 1
    async with link.transaction() as tx:
        locked = await tx.fetch(place.sql["lock"], place.app, [old.id])
        if not locked or locked[0]["run"] < old.run:
            return False
        row = locked[0]
        if row["run"] == following:
            return bool(row["nonce"] == start.nonce)
        if row["run"] > following:
            before = await tx.fetch(place.sql["past_run_nonces"], place.app, [old.id], [following])
            return bool(before) and before[0][1] == start.nonce
        if row["status"] < FIRST_CLOSED:
            return False
        at = now if now is not None else (await tx.fetchrow(place.sql["clock"]))[0]
        await put_away(tx, place, old, Status.SUPERSEDED, at)
        await begin_next(tx, place, old.id, following, start, at)
        # Commands that came while the close waited for the row were for the run that closed, which could not see them.
        await tx.fetch(place.sql["wake_clear"], place.app, old.id)
        await tx.fetch(place.sql["wake_watchers"], place.app, [old.id], [nonce])
        return True


async def release_held(link: Link, place: Place, reasons: Collection[Reason], version: str, now: int | None) -> int:
    return len(await link.fetch(place.sql["release_held"], place.app, sorted(reasons), now, version, writing=True))


async def _end(
    tx: Transaction, place: Place, row: WorkflowRow, ending: tuple[Any, ...], nonce: bytes, now: int | None
) -> WorkflowRow | None:
    """Close the row by (status, claim, cancel, detail); wake its parent and its watchers."""
    sql, app, id = place.sql, place.app, row.id
    at = now if now is not None else (await tx.fetchrow(sql["clock"]))[0]
    await tx.fetch(sql["workflow_end"], app, id, *ending, at)
    await tx.fetch(sql["wake_clear"], app, id)
    await tx.fetch(sql["watch_clear"], app, id)
    await tx.fetch(sql["wake_watchers"], app, [id], [nonce])
    if row.parent is not None:
        await tx.fetch(sql["wake_one"], app, row.parent, nonce, None)
    return await _get(tx, place, id)


async def _locked(tx: Transaction, place: Place, id: str) -> WorkflowRow | None:
    if not await tx.fetch(place.sql["lock"], place.app, [id]):
        return None
    return await _get(tx, place, id)


async def _get(tx: Transaction, place: Place, id: str) -> WorkflowRow | None:
    row = await tx.fetchrow(place.sql["rows"], place.app, [id])
    return None if row is None else rows.workflow(row)
