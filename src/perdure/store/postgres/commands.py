"""Commands from outside: cancel, terminate, replace, rewind, reopen, fork. Whoever waits for what they end is woken.

Each locks the row, then reads and writes by statements begun after the lock: watchers written before it are seen.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from perdure.model.ids import RunKey
from perdure.model.records import PAUSE, Kind, Record, WorkflowRow, unheard
from perdure.model.states import CODE, FIRST_CLOSED, Reason, Status
from perdure.model.writes import Pause, Reopen, Rewind, Start, Unit
from perdure.store.postgres import keys, rows
from perdure.store.postgres import next as onward
from perdure.store.postgres.columns import Columns
from perdure.store.postgres.commit import Place, write
from perdure.store.postgres.connection import Link, Transaction
from perdure.store.postgres.next import begin_next, put_away


async def cancel(
    link: Link, place: Place, id: str, reason: str, nonce: bytes, now: int | None, unserved: str | None = None
) -> WorkflowRow | None:
    async with link.transaction() as tx:
        row = await _locked(tx, place, id)
        if row is None or not row.status.open:
            return row
        if row.status is Status.RUNNING or (row.parked and row.version != unserved):
            await tx.fetch(place.sql["wake_one"], place.app, id, nonce, reason)
            return row
        if row.held_with_code and row.version != unserved:  # it is told, and queued to hear it, outside its line
            how = (await _time(tx, place, now), None, True, row.last_seq, False)
            await tx.fetch(place.sql["workflow_reopen"], place.app, id, nonce, *how)
            await tx.fetch(place.sql["wake_one"], place.app, id, nonce, reason)
            return await get(tx, place, id)
        ending = (CODE[Status.CANCELLED], row.claim, reason, unheard(row, unserved))
        return await end(tx, place, row, ending, nonce, now)


async def terminate(
    link: Link, place: Place, id: str, reason: str, nonce: bytes, now: int | None
) -> WorkflowRow | None:
    async with link.transaction() as tx:
        return await _terminate(tx, place, await _locked(tx, place, id), reason, nonce, now)


async def _terminate(
    tx: Transaction, place: Place, row: WorkflowRow | None, reason: str, nonce: bytes, now: int | None
) -> WorkflowRow | None:
    if row is None or not row.status.open:
        return row
    return await end(tx, place, row, (CODE[Status.TERMINATED], nonce, row.cancel, reason), nonce, now)


async def rewind(link: Link, place: Place, seen: WorkflowRow, change: Rewind, now: int | None) -> bool:
    """Begin the next run of what is still as it was seen; True if that is done, now or before."""
    following, sql, app = change.next, place.sql, place.app
    async with link.transaction() as tx:
        row = await _locked(tx, place, seen.id)
        if row is None:
            return False
        if row.run >= following.run:
            return await _begun(tx, place, row, following.run) == following.nonce
        if not _as_seen(row, seen):
            return False
        await onward.rewind(tx, place, seen.key, change, await _time(tx, place, now))
        if row.closed is not None:
            await tx.fetch(sql["wake_clear"], app, seen.id)  # a late command was for the run that closed
        await tx.fetch(sql["watch_clear"], app, seen.id)
        await tx.fetch(sql["wake_watchers"], app, [seen.id], [change.wake])
        return True


async def reopen(link: Link, place: Place, seen: WorkflowRow, order: Reopen, now: int | None) -> bool:
    """Queue what is still as it was seen; True if that is done, now or before."""
    sql, app = place.sql, place.app
    async with link.transaction() as tx:
        row = await _locked(tx, place, seen.id)
        if row is None:
            return False
        if await tx.fetch(sql["history_has"], app, *seen.key, seen.last_seq, order.nonce):
            return True
        if not _as_seen(row, seen) or not row.status.open:
            return False
        seq = await _decision(
            tx, place, row, order, order.verb, row.version if order.version is None else order.version
        )
        at = await _time(tx, place, now)
        how = (order.version, order.at_once, seq, order.back)
        await tx.fetch(sql["workflow_reopen"], app, seen.id, order.nonce, at, *how)
        return True


async def pause(link: Link, place: Place, id: str, order: Pause | None, now: int | None) -> WorkflowRow | None:
    sql, app = place.sql, place.app
    async with link.transaction() as tx:
        row = await _locked(tx, place, id)
        if row is None or not row.status.open or row.reason is Reason.PAUSED:
            return row
        if order is None or row.status is Status.RUNNING:
            await tx.fetch(sql["workflow_pause_told"], app, id, None if order is None else order.shown)
            if order is not None:
                await tx.fetch(sql["wake_one"], app, id, order.nonce, None)
            return await get(tx, place, id)
        seq = await _decision(tx, place, row, order, PAUSE, row.version)
        await tx.fetch(sql["workflow_pause"], app, id, order.nonce, await _time(tx, place, now), order.shown, seq)
        return await get(tx, place, id)


async def _decision(
    tx: Transaction, place: Place, row: WorkflowRow, order: Pause | Reopen, verb: str, version: str
) -> int:
    """A person's order, in the history; its number."""
    record = Record(row.last_seq + 1, "", Kind.DECISION, verb, order.at, shown=order.shown)
    await onward.write_record(tx, place, row.key, record, version, order.nonce)
    return record.seq


async def fork(
    link: Link, place: Place, source: RunKey, start: Start, mark: Record, end: str | None, now: int | None
) -> WorkflowRow | None:
    """Begin another workflow from the records of a run; None if that is done, now or before; else who has the id."""
    async with link.transaction() as tx:
        await tx.fetch(place.sql["lock"], place.app, sorted({source.id, start.id}))
        at = await _time(tx, place, now)
        before = await get(tx, place, start.id)
        if before is None:
            # A repeat has waited for the source's row. Another start may begin the id just now, and is waited for.
            unit = Unit(key=RunKey("", 0), children=[start])
            if (await write(tx, place, Columns([unit]), at, watchers_seen=True)).took is None:
                await onward.keep_records(tx, place, source, start, (mark,), at)
            else:
                before = await get(tx, place, start.id)
        if before is not None and await _begun(tx, place, before, 1) != start.nonce:
            return before
        if end is not None:
            await _terminate(tx, place, await get(tx, place, source.id), end, start.nonce, at)
        return None


async def _begun(tx: Transaction, place: Place, row: WorkflowRow, run: int) -> bytes | None:
    """Who inserted a run of a workflow whose row is locked."""
    if row.run == run:
        nonce: bytes = (await tx.fetch(place.sql["lock"], place.app, [row.id]))[0]["nonce"]
        return nonce
    found = await tx.fetch(place.sql["past_run_nonces"], place.app, [row.id], [run])
    return found[0][1] if found else None


def _as_seen(row: WorkflowRow, seen: WorkflowRow) -> bool:
    """Whether nobody has done anything with a row since: each claim has another token, each end another status."""
    return (row.run, row.claim, row.status) == (seen.run, seen.claim, seen.status)


async def _time(tx: Transaction, place: Place, now: int | None) -> int:
    at: int = now if now is not None else (await tx.fetchrow(place.sql["clock"]))[0]
    return at


async def replace(link: Link, place: Place, old: RunKey, start: Start, nonce: bytes, now: int | None) -> bool:
    """Begin the run after ``old``, which is closed and the latest; True if that is done, now or before.

    It has no deduplication key, whatever the one before had.
    """
    async with link.transaction() as tx:
        await keys.lock_of(tx, place, old.id)
        locked = await lock_with_parent(tx, place, {old.id}, start)
        if old.id not in locked or not await follow(tx, place, old, locked[old.id], start, nonce, now):
            return False
        await tell_if_late(tx, place, start, locked)
        return True


async def lock_with_parent(tx: Transaction, place: Place, ids: set[str], start: Start) -> dict[str, Any]:
    """Lock the rows, and that of a start's parent: who ends it meanwhile comes before, or waits and sees the child."""
    asked = ids if start.parent is None else ids | {start.parent}
    return {row["id"]: row for row in await tx.fetch(place.sql["lock"], place.app, sorted(asked))}


async def tell_if_late(tx: Transaction, place: Place, start: Start, locked: Mapping[str, Any]) -> None:
    """Cancel a child whose parent has ended just before it was begun: who ended that could not see it.

    For children that do not travel with a unit of their parent's, which would have been refused.
    """
    if start.parent is None or start.on_parent_close != "cancel":
        return
    parent = locked.get(start.parent)
    if parent is None or parent["status"] >= FIRST_CLOSED:
        await tx.fetch(place.sql["wake_one"], place.app, start.id, start.nonce, "")


async def follow(
    tx: Transaction, place: Place, old: RunKey, head: Any, start: Start, nonce: bytes, now: int | None,
    key: tuple[str, str] = ("", ""),
) -> bool:  # fmt: skip
    """The same where the keys of ``old`` are locked, then its row, of which ``head`` is known; it keeps ``key``."""
    following = old.run + 1
    if head["run"] < old.run:
        return False
    if head["run"] == following:
        return bool(head["nonce"] == start.nonce)
    if head["run"] > following:
        before = await tx.fetch(place.sql["past_run_nonces"], place.app, [old.id], [following])
        return bool(before) and before[0][1] == start.nonce
    if head["status"] < FIRST_CLOSED:
        return False
    at = now if now is not None else (await tx.fetchrow(place.sql["clock"]))[0]
    await tx.fetch(place.sql["dedup_forget"], place.app, old.id, *key)
    await put_away(tx, place, old, Status.SUPERSEDED, at)
    await begin_next(tx, place, old.id, following, start, at)
    # Commands that came while the close waited for the row were for the run that closed, which could not see them.
    await tx.fetch(place.sql["wake_clear"], place.app, old.id)
    await tx.fetch(place.sql["wake_watchers"], place.app, [old.id], [nonce])
    return True


async def release_held(
    link: Link, place: Place, reasons: Collection[Reason], version: str, since: int | None, now: int | None
) -> int:
    given = (place.app, sorted(reasons), now, version, since)
    return len(await link.fetch(place.sql["release_held"], *given, writing=True))


async def end(
    tx: Transaction, place: Place, row: WorkflowRow, ending: tuple[Any, ...], nonce: bytes, now: int | None
) -> WorkflowRow | None:
    """Close the row by (status, claim, cancel, detail); cancel its open children, wake its parent and its watchers."""
    sql, app, id = place.sql, place.app, row.id
    at = now if now is not None else (await tx.fetchrow(sql["clock"]))[0]
    await tx.fetch(sql["workflow_end"], app, id, *ending, at)
    await tx.fetch(sql["wake_clear"], app, id)
    await tx.fetch(sql["watch_clear"], app, id)
    await tx.fetch(sql["wake_children"], app, [id], [nonce])
    await tx.fetch(sql["wake_watchers"], app, [id], [nonce])
    if row.parent is not None:
        await tx.fetch(sql["wake_one"], app, row.parent, nonce, None)
    return await get(tx, place, id)


async def _locked(tx: Transaction, place: Place, id: str) -> WorkflowRow | None:
    if not await tx.fetch(place.sql["lock"], place.app, [id]):
        return None
    return await get(tx, place, id)


async def get(tx: Transaction, place: Place, id: str) -> WorkflowRow | None:
    row = await tx.fetchrow(place.sql["rows"], place.app, [id])
    return None if row is None else rows.workflow(row)
