"""Commands from outside: cancel and terminate. Both end what nobody holds here and now, and wake who waits for it.

Each locks the row, then reads and writes by statements begun after the lock: watchers written before it are seen.
"""

from __future__ import annotations

from typing import Any

from perdure.model.records import WorkflowRow
from perdure.model.states import CODE, Status
from perdure.store.postgres import rows
from perdure.store.postgres.commit import Place
from perdure.store.postgres.connection import Link, Transaction


async def cancel(link: Link, place: Place, id: str, reason: str, nonce: bytes, now: int | None) -> WorkflowRow | None:
    async with link.transaction() as tx:
        row = await _locked(tx, place, id)
        if row is None or not row.status.open:
            return row
        if row.status in (Status.RUNNING, Status.WAITING):
            await tx.fetch(place.sql["wake_one"], place.app, id, nonce, reason)
            return row
        return await _end(tx, place, row, (CODE[Status.CANCELLED], row.claim, reason, row.detail), nonce, now)


async def terminate(
    link: Link, place: Place, id: str, reason: str, nonce: bytes, now: int | None
) -> WorkflowRow | None:
    async with link.transaction() as tx:
        row = await _locked(tx, place, id)
        if row is None or not row.status.open:
            return row
        return await _end(tx, place, row, (CODE[Status.TERMINATED], nonce, row.cancel, reason), nonce, now)


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
