"""Queues: their rows, and what is let through their lines.

A queue that has limits of its own is claimed from in a transaction: its row is locked by the first statement, and
counted by later ones, whose snapshots hold all that was claimed before the lock was granted. One that has none takes a
single statement, which holds off whoever would give it limits meanwhile. Lock order: the queue, then workflows;
the single statement skips workflows that are locked, so it may lock the queue after them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from perdure.model import queues as model
from perdure.model.ids import RunKey
from perdure.model.queues import LIMITS, Limits, QueueChange, QueueCount, QueueRow
from perdure.model.records import Claimed, WorkflowRow
from perdure.model.states import FIRST_CLOSED, VERSIONING
from perdure.model.writes import Start, Unit
from perdure.store.lines import (
    HOPS,
    PRUNED,
    Dealer,
    Declared,
    Deduplicated,
    LineClaim,
    LineRequest,
    Used,
    prolongable,
)
from perdure.store.postgres import commands, keys, rows
from perdure.store.postgres.columns import Columns
from perdure.store.postgres.commit import Place, write
from perdure.store.postgres.connection import Link, Transaction

_json = msgspec.json.Encoder(order="sorted")
_limits = msgspec.json.Decoder(Limits)
_live = msgspec.json.Decoder(dict[str, Any])


# -- rows


async def listing(link: Link, place: Place) -> list[QueueRow]:
    return [_row(r) for r in await link.fetch(place.sql["queue_list"], place.app)]


async def declare(link: Link, place: Place, code: Mapping[str, Limits], now: int | None, *, over: bool) -> None:
    """Note what the code declares. Queues that it declares as before are not touched."""
    known = {row.name: row.declared for row in await listing(link, place)}
    for name, limits in sorted(code.items()):
        before = known.get(name)
        if before is None or (over and before != limits):
            async with link.transaction() as tx:
                row = await _alone(tx, place, name, now)
                if over or row.declared is None:  # else another was quicker
                    await _put(tx, place, row, model.declared(row, limits), now)


async def make(link: Link, place: Place, names: Collection[str], now: int | None) -> None:
    await link.fetch(place.sql["queue_make"], place.app, sorted(names), now, writing=True)


async def change(link: Link, place: Place, name: str, order: QueueChange, now: int | None) -> QueueRow:
    async with link.transaction() as tx:
        row = await _alone(tx, place, name, now)
        after = model.changed(row, order)
        await _put(tx, place, row, after, now)
        return after


async def _alone(tx: Transaction, place: Place, name: str, now: int | None) -> QueueRow:
    """The queue, made if need be, locked also against those who claim without counting."""
    await tx.fetch(place.sql["queue_make"], place.app, [name], now)
    return _row(await tx.fetchrow(place.sql["queue_lock_alone"], place.app, name))


async def _put(tx: Transaction, place: Place, before: QueueRow, after: QueueRow, now: int | None) -> None:
    if after == before:
        return
    declared = None if after.declared is None else _json.encode(after.declared).decode()
    limits = [getattr(after.limits, name) for name in LIMITS]
    await tx.fetch(
        place.sql["queue_put"], place.app, after.name, *limits, after.paused, declared,
        _json.encode(after.live).decode(), now,
    )  # fmt: skip
    if after.limits.counted and not before.limits.counted:
        await tx.fetch(place.sql["slot_fill"], place.app, after.name)


async def counts(link: Link, place: Place, bound: int) -> dict[str, QueueCount]:
    sql, app = place.sql, place.app
    found: dict[str, QueueCount] = {}
    for name, late, n, oldest in await link.fetch(sql["queue_waiting"], app, bound):
        count = found.get(name, QueueCount())
        found[name] = (
            msgspec.structs.replace(count, delayed=n)
            if late
            else msgspec.structs.replace(count, in_line=n, oldest=oldest)
        )
    for name, n in await link.fetch(sql["queue_progress"], app, bound):
        found[name] = msgspec.structs.replace(found.get(name, QueueCount()), in_progress=n)
    return found


# -- the line


async def claim(link: Link, place: Place, want: LineRequest, now: int | None) -> LineClaim:
    if not want.partitioned:
        found = await _straight(link, place, want, now)
        if found or not want.limited:
            return LineClaim(claimed=found, more=len(found) == want.limit)
    async with link.transaction() as tx:
        locked = await tx.fetchrow(place.sql["queue_lock"], place.app, want.queue)
        if locked is None or locked["paused"]:
            return LineClaim()
        row = _row(locked)
        if not (want.limited or row.limits == Limits()):
            return LineClaim()
        if not (want.partitioned or row.limits.counted or row.limits.paced):
            return LineClaim()  # nothing was there for the straight way, either
        dealer = Dealer(row.limits, await _used(tx, place, row, now), want.limit, want.mine)
        return await _deal(tx, place, want, row, dealer)


async def _straight(link: Link, place: Place, want: LineRequest, now: int | None) -> list[Claimed]:
    """Nothing, if the queue has limits of its own."""
    found = await link.fetch(
        place.sql["line_open"], place.app, now, want.limit, want.owner, want.token, want.version, want.mine,
        want.queue, *model.line(want.queue), want.versions, want.series, want.limited, writing=True,
    )  # fmt: skip
    return [rows.claimed(row) for row in found]


async def _used(tx: Transaction, place: Place, row: QueueRow, now: int | None) -> Used:
    live: dict[str, int] = {}
    starts: list[tuple[str, int, int]] = []
    at = 0
    limits = row.limits
    asked = (place.app, row.name, now, limits.window, limits.counted, limits.paced)
    for kind, partition, when, n in await tx.fetch(place.sql["line_used"], *asked):
        if kind == 0:
            live[partition] = n
        elif kind == 1:
            starts.append((partition, when, n))
        else:
            at = when
    return Used(at, live, starts)


async def _deal(tx: Transaction, place: Place, want: LineRequest, row: QueueRow, dealer: Dealer) -> LineClaim:
    if not dealer.room:
        return LineClaim(again=dealer.again)
    partitions = await _partitions(tx, place, want, row.cursor) if want.partitioned else [""]
    claimed: list[Claimed] = []
    left = partitions
    while left and (quotas := dealer.deal(left)):
        got = await _take(tx, place, want, row.limits, quotas, dealer.used.now)
        claimed += got
        each = Counter(one.row.partition for one in got)
        for partition, n in each.items():
            dealer.gave(partition, n)
        left = [partition for partition in left if each[partition] == quotas.get(partition, -1)]
    many = len(partitions) == HOPS
    if want.partitioned and partitions:
        cursor = partitions[-1] if not claimed else dealer.last
        if cursor != row.cursor:
            await tx.fetch(place.sql["queue_cursor"], place.app, row.name, cursor)
    return LineClaim(claimed=claimed, again=dealer.again, more=len(claimed) == want.limit or (many and not claimed))


async def _partitions(tx: Transaction, place: Place, want: LineRequest, cursor: str) -> list[str]:
    """Those that stand in line: first those after the one that was served last, then from the beginning."""
    sql, app = place.sql["line_hop"], place.app
    low, high = model.line(want.queue)
    beyond = model.part(want.queue, cursor)[1]
    found = await tx.fetch(sql, app, want.versions, beyond, high, HOPS)
    if len(found) < HOPS:
        found += await tx.fetch(sql, app, want.versions, low, beyond, HOPS - len(found))
    return [model.partition_of(row[0]) for row in found]


async def _take(
    tx: Transaction, place: Place, want: LineRequest, limits: Limits, quotas: Mapping[str, int], now: int
) -> list[Claimed]:
    bounds = [model.part(want.queue, partition) for partition in quotas]
    found = await tx.fetch(
        place.sql["line_take"], place.app, now, want.limit, want.owner, want.token, want.version,
        [low for low, _ in bounds], [high for _, high in bounds], list(quotas.values()), want.queue, limits.counted,
        limits.paced, want.versions, want.series,
    )  # fmt: skip
    return [rows.claimed(row) for row in found]


async def line_up(link: Link, place: Place, versions: Collection[str], limit: int, now: int | None) -> list[str]:
    found = await link.fetch(place.sql["line_up"], place.app, sorted(versions), now, limit, writing=True)
    return sorted({row[0] for row in found})


async def line_up_declared(
    link: Link, place: Place, found: Collection[Declared], claim: bytes, now: int | None
) -> list[str]:
    each = sorted(found, key=lambda one: one.id)  # the order of locks
    columns: tuple[list[Any], ...] = (
        [one.id for one in each], [one.queue for one in each], [VERSIONING[one.versioning] for one in each],
        [one.since for one in each], [one.versioned for one in each],
    )  # fmt: skip
    taken = await link.fetch(place.sql["line_up_declared"], place.app, now, claim, *columns, writing=True)
    return sorted(row[0] for row in taken)


async def expire(link: Link, place: Place, limit: int, nonce: bytes, now: int | None) -> list[str]:
    """Close those that have been in line for too long; their ids."""
    sql, app = place.sql, place.app
    ended: list[str] = []
    async with link.transaction() as tx:
        at = now if now is not None else (await tx.fetchrow(sql["clock"]))[0]
        due = await tx.fetch(sql["expiry_due"], app, at, limit)
        ids = sorted({row[1] for row in due})
        await tx.fetch(sql["lock"], app, ids)
        for found in await tx.fetch(sql["rows"], app, ids):
            row = rows.workflow(found)
            if row.lane is not None and row.expires is not None and row.expires <= at:
                await commands.end(tx, place, row, (rows.TIMED_OUT, row.claim, row.cancel, expired(row)), nonce, at)
                ended.append(row.id)
        await tx.fetch(sql["expiry_done"], app, [row[0] for row in due], [row[1] for row in due])
    return ended


def expired(row: WorkflowRow) -> str:
    """In words."""
    return f"it stood in line of queue {row.queue} for longer than it may, and was never begun"


# -- deduplication


async def start_once(link: Link, place: Place, start: Start, how: Deduplicated, now: int | None) -> WorkflowRow | None:
    """Begin a workflow unless its key is another's; None if that is done, now or before, else who has the key or id."""
    sql, app = place.sql, place.app
    assert start.queue is not None, "a deduplication key is a queue's"
    async with link.transaction() as tx:
        holder, made = await keys.lock(tx, place, start, how)
        plain = how.debounce is None and how.over is None
        if holder != start.id and plain and await commands.get(tx, place, start.id) is None:
            # Read, not locked: a claim passes over who is locked, and lets in those behind.
            has = await commands.get(tx, place, holder)
            if has is not None and has.status.open and has.queue == start.queue:
                return has
        locked = await commands.lock_with_parent(tx, place, {holder, start.id}, start)
        head = locked.get(start.id)
        over = how.over if head is not None and _may_follow(head, how.over) else None
        if head is not None and over is None:  # by a first try, or another's
            if made:
                await tx.fetch(sql["dedup_drop"], app, start.queue, how.key)
            if head["nonce"] == start.nonce:
                return None
            if how.over is not None and await commands.follow(tx, place, how.over, head, start, start.nonce, now):
                return None
            if made or holder != start.id or how.over is not None:
                return await commands.get(tx, place, start.id)
        row = await commands.get(tx, place, holder) if holder in locked else None
        if row is not None and row.status.open and row.queue == start.queue:
            if how.debounce is None or row.name != start.name:  # open again
                return row
            if prolongable(row, start.name):
                return await _debounce(tx, place, start, how, row, now)
        if head is not None and over is None:
            return row
        if holder != start.id:
            await tx.fetch(sql["dedup_set"], app, start.queue, how.key, start.id)
        if over is not None:
            key = (start.queue, how.key)
            await commands.follow(tx, place, over, head, start, start.nonce, now, key)
        elif not await _begin(tx, place, start, now):  # the id went to another just now
            await tx.fetch(sql["dedup_drop"], app, start.queue, how.key)
            return await commands.get(tx, place, start.id)
        await commands.tell_if_late(tx, place, start, locked)
        old = await tx.fetch(sql["dedup_next"], app, start.queue, how.key, PRUNED)
        if old:
            await tx.fetch(sql["dedup_prune"], app, start.queue, [row[0] for row in old])
        return None


def _may_follow(head: Any, over: RunKey | None) -> bool:
    return over is not None and head["run"] == over.run and head["status"] >= FIRST_CLOSED


async def _begin(tx: Transaction, place: Place, start: Start, now: int | None) -> bool:
    """Whether the id was free."""
    at = now if now is not None else (await tx.fetchrow(place.sql["clock"]))[0]
    unit = Unit(key=RunKey("", 0), children=[start])
    if (await write(tx, place, Columns([unit]), at, watchers_seen=True)).took is not None:
        return False
    if start.expires is not None:
        await tx.fetch(place.sql["expiry_insert"], place.app, [start.id])
    return True


async def _debounce(
    tx: Transaction, place: Place, start: Start, how: Deduplicated, row: WorkflowRow, now: int | None
) -> WorkflowRow:
    """Let the one that has the key, and was not begun, wait from now on, with the new input."""
    sql, app = place.sql, place.app
    at = now if now is not None else (await tx.fetchrow(sql["clock"]))[0]
    until = how.until(at, row.created)
    await tx.fetch(sql["debounce"], app, row.id, until, start.fingerprint, at, start.nonce)
    await tx.fetch(sql["debounce_input"], app, row.id, row.run, start.input.decode())
    if row.expires is not None:
        await tx.fetch(sql["expiry_insert"], app, [row.id])
    found = await commands.get(tx, place, row.id)
    assert found is not None, "its row is locked"
    return found


def _row(r: Any) -> QueueRow:
    return QueueRow(
        name=r[0], limits=Limits(**dict(zip(LIMITS, r[1:8], strict=True))), paused=r[8], cursor=r[9],
        declared=None if r[10] is None else _limits.decode(r[10]), live=_live.decode(r[11]), changed=r[12],
        revision=r[13],
    )  # fmt: skip
