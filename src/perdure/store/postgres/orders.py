"""An operator's orders about workflows as they stand: locked in id order, each decided by its row, written together.

A few statements and one commit for all of them, however many they are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from perdure.model.orders import (
    FOLLOWS,
    LET_GO,
    SKIP_LETS_GO,
    Answered,
    MoveOrder,
    SkipOrder,
    Standing,
    decided,
    follows,
    rule_move,
    rule_skip,
    standing,
)
from perdure.model.records import MOVE, Kind, Record, WorkflowRow
from perdure.model.resets import ResetOrder, Resetting, rule_resets
from perdure.model.states import CODE, VERSIONING, Reason, Status
from perdure.store.postgres import decisions, rows, streams
from perdure.store.postgres.commit import Place
from perdure.store.postgres.connection import Link, Transaction
from perdure.store.postgres.next import bound

Written = tuple[WorkflowRow, Record, str, bytes]  # a record, the version it is written under, the order's nonce


async def move(link: Link, place: Place, orders: Sequence[MoveOrder], now: int | None) -> list[Answered]:
    async with link.transaction() as tx:
        there, at = await _locked(tx, place, [order.id for order in orders], now)
        return await move_locked(tx, place, orders, there, at)


async def move_locked(
    tx: Transaction, place: Place, orders: Sequence[MoveOrder], there: Mapping[str, WorkflowRow], at: int
) -> list[Answered]:
    """The same of rows that this transaction has locked."""
    ruled = [(order, there.get(order.id), *rule_move(there.get(order.id), order)) for order in orders]
    labels: list[tuple[MoveOrder, WorkflowRow, Standing]] = []
    going: list[tuple[MoveOrder, WorkflowRow, Standing]] = []
    for order, row, _, after in ruled:
        if row is not None and after is not None:
            stays = row.status is Status.RUNNING and after.version == row.version
            (labels if stays else going).append((order, row, after))
    for order, row, _ in labels:
        await decisions.put(tx, place, row.key, order.nonce, decided(order), at)
    if labels:
        columns = [(r.id, VERSIONING[a.versioning], _code(a)) for _, r, a in labels]
        await tx.fetch(place.sql["workflow_labelled"], place.app, *_columns(columns))
    told = [(row, _told(row, order), after.version, order.nonce) for order, row, after in going]
    await _write(tx, place, told)
    moves = [(row, after, order.nonce, row.last_seq + 1) for order, row, after in going]
    await _ordered(tx, place, moves, at, LET_GO)
    if any(follows(after.versioning, after.override) for _, _, after in [*labels, *going]):
        await tx.fetch(place.sql["mark_put"], place.app, FOLLOWS, "")
    return [answered for _, _, answered, _ in ruled]


def _told(row: WorkflowRow, order: MoveOrder) -> Record:
    return Record(row.last_seq + 1, "", Kind.DECISION, MOVE, order.at, shown=order.shown)


async def skip(link: Link, place: Place, order: SkipOrder, now: int | None) -> Answered:
    async with link.transaction() as tx:
        there, at = await _locked(tx, place, [order.id], now)
        row = there.get(order.id)
        history = [] if row is None else (await _histories(tx, place, [row]))[0]
        answered, records = rule_skip(row, history, order)
        if row is not None and records is not None:
            await _write(tx, place, [(row, record, row.version, order.nonce) for record in records])
            moves = [(row, standing(row), order.nonce, records[-1].seq)]
            await _ordered(tx, place, moves, at, SKIP_LETS_GO, always=True)
            if row.problem is not None:
                await tx.fetch(place.sql["problem_given"], place.app, *row.key, records[-1].path, at)
                await tx.fetch(place.sql["problem_left"], place.app, *row.key)
    return answered


async def reset(link: Link, place: Place, orders: Sequence[ResetOrder], now: int | None) -> list[Answered]:
    async with link.transaction() as tx:
        there, at = await _locked(tx, place, [order.id for order in orders], now)
        return await reset_locked(tx, place, orders, there, at)


async def reset_locked(
    tx: Transaction, place: Place, orders: Sequence[ResetOrder], there: Mapping[str, WorkflowRow], at: int
) -> list[Answered]:
    """The same of rows that this transaction has locked."""
    found = list(there.values())
    histories = dict(zip(there, await _histories(tx, place, found), strict=True))
    ruled = rule_resets(orders, there, histories)
    if resets := [resetting for _, resetting in ruled if resetting is not None]:
        await _reset(tx, place, resets, at)
    return [answered for answered, _ in ruled]


async def _reset(tx: Transaction, place: Place, resets: list[Resetting], at: int) -> None:
    sql, app = place.sql, place.app
    ids, runs = [r.row.id for r in resets], [r.row.run for r in resets]
    keeps, following = [r.change.keep for r in resets], [r.row.run + 1 for r in resets]
    await tx.fetch(sql["reset_past"], app, ids, runs, CODE[Status.SUPERSEDED], at)
    begun = _columns([_begun(r, at) for r in resets])
    await tx.fetch(sql["reset_begin"], app, ids, following, at, *begun)
    await tx.fetch(sql["reset_input"], app, ids, runs)
    await tx.fetch(sql["reset_history"], app, ids, runs, keeps)
    marks = [(r.row, r.change.mark, r.change.next.version, r.change.next.nonce) for r in resets]
    await _write(tx, place, marks, later=1)
    with_streams = {row[0] for row in await tx.fetch(sql["reset_streams"], app, ids, runs)}
    for r in resets:
        if r.row.id in with_streams:
            await streams.copy(tx, place, r.row.key, r.change.next, r.change.keep)
    await tx.fetch(sql["reset_events"], app, ids, following, at, Kind.EVENT.value)
    dropped, since = [r.exclude != "none" for r in resets], [r.since for r in resets]
    await tx.fetch(sql["reset_mail"], app, ids, runs, keeps, dropped, since)
    if any(follows(r.change.next.versioning, r.change.next.override) for r in resets):
        await tx.fetch(sql["mark_put"], app, FOLLOWS, "")
    over = [r.row.id for r in resets if r.row.closed is not None or r.exclude == "all"]
    await tx.fetch(sql["reset_wakes"], app, over)  # late commands were for the runs before
    await tx.fetch(sql["reset_watches"], app, ids)
    await tx.fetch(sql["wake_watchers"], app, ids, [r.change.wake for r in resets])


def _begun(r: Resetting, at: int) -> tuple[Any, ...]:
    """The columns of a next run, as ``reset_begin`` takes them."""
    start = r.change.next
    deadline = start.deadline if start.began is None else bound(start, at)  # else its time begins with its first claim
    return (
        start.version, VERSIONING[start.versioning], None if start.override is None else start.override.code,
        start.nonce, start.began, deadline, r.change.mark.seq, r.pause, r.change.uncancel,
    )  # fmt: skip


async def _locked(
    tx: Transaction, place: Place, ids: Collection[str], now: int | None
) -> tuple[dict[str, WorkflowRow], int]:
    """The rows, locked in id order, and the time."""
    ordered = sorted(set(ids))
    await tx.fetch(place.sql["lock"], place.app, ordered)
    found = {row[0]: rows.workflow(row) for row in await tx.fetch(place.sql["rows"], place.app, ordered)}
    return found, now if now is not None else (await tx.fetchrow(place.sql["clock"]))[0]


async def _histories(tx: Transaction, place: Place, found: Sequence[WorkflowRow]) -> list[list[Record]]:
    lists: list[list[Record]] = [[] for _ in found]
    ids, runs = [row.id for row in found], [row.run for row in found]
    for row in await tx.fetch(place.sql["histories"], place.app, ids, runs):
        nth: int = row[0]
        lists[nth - 1].append(rows.record(row))
    return lists


async def _write(tx: Transaction, place: Place, written: Sequence[Written], later: int = 0) -> None:
    """Write records; ``later``: of so many runs after those in the rows."""
    if written:
        columns = [
            (
                row.id, row.run + later, r.seq, r.path, r.kind.value, r.name, r.at, r.fingerprint, r.outcome.value,
                None if r.data is None else r.data.decode(), r.attempt, r.shown, rows.pack_intents(r.intents), version,
                nonce,
            )
            for row, r, version, nonce in written
        ]  # fmt: skip
        await tx.fetch(place.sql["history_put"], place.app, *_columns(columns))


async def _ordered(
    tx: Transaction,
    place: Place,
    moves: Sequence[tuple[WorkflowRow, Standing, bytes, int]],
    at: int,
    lets_go: Collection[Reason],
    *,
    always: bool = False,
) -> None:
    if moves:
        columns = [
            (r.id, a.version, VERSIONING[a.versioning], _code(a), nonce, seq, always or a.version != r.version)
            for r, a, nonce, seq in moves
        ]
        await tx.fetch(place.sql["workflow_ordered"], place.app, *_columns(columns), at, sorted(lets_go))


def _columns(found: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*found, strict=True)]


def _code(after: Standing) -> int | None:
    return None if after.override is None else after.override.code
