"""Batches: frozen from a query, and carried out chunk by chunk: a chunk's acts, outcomes and audit are one transaction.

Ending and queueing are written for all acts of a chunk together, since there may be very many; the others by the very
functions that a command by hand goes through, within the same transaction.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, cast

from perdure.errors import ConfigError
from perdure.model.acts import (
    NOT_AS_SEEN,
    Act,
    CancelIt,
    DeleteIt,
    ForkIt,
    MoveIt,
    PauseIt,
    ReopenIt,
    RewindIt,
    Settled,
    SkipIt,
    TerminateIt,
)
from perdure.model.batches import FATE, TARGETS_MAX, Applied, Ask, AuditRow, BatchRow, Fate, NewBatch, TargetRow
from perdure.model.records import Kind, Record, WorkflowRow, unheard
from perdure.model.states import CODE, Status
from perdure.query.conditions import Query
from perdure.store import batched
from perdure.store.postgres import commands, orders, rows
from perdure.store.postgres.commit import Place
from perdure.store.postgres.connection import Link, Transaction
from perdure.store.postgres.occasional import Occasional
from perdure.store.postgres.owned import forget
from perdure.store.postgres.search import PostgresSearch, Searching


class Doing(NamedTuple):
    """An act that is to be carried out, and its workflow as it is."""

    act: Act
    row: WorkflowRow


Rows = Mapping[str, WorkflowRow]

FREEZE_SECONDS = 600  # a million targets took fifteen


class PostgresBatches:
    """The batches of one app, on a connection of their own: no claim waits for a chunk."""

    def __init__(self, url: str, place: Place, searching: Searching) -> None:
        self._own = Occasional(url)
        self._place = place
        self._searching = searching

    def open(self) -> None:
        self._own.open()

    async def close(self) -> None:
        await self._own.close()

    # -- ordering

    async def create(self, new: NewBatch, query: Query, *, now: int | None = None) -> tuple[BatchRow, bool]:
        """Freeze what a query names; or the batch that has the key, and whether it is this one."""
        try:
            return await self._create(new, query, now)
        except batched.TooMany as many:
            raise ConfigError(str(many)) from None

    async def _create(self, new: NewBatch, query: Query, now: int | None) -> tuple[BatchRow, bool]:
        place = self._place
        sql, app = place.sql, place.app
        async with self._searching.transaction() as tx:
            at = await _time(tx, place, now)
            if not await tx.fetch(sql["batch_insert"], app, *batched.inserted(new, at)):
                row = batched.batch(await tx.fetchrow(sql["batch_get"], app, new.key))
                if row.nonce != new.nonce and new.same(row):
                    said = batched.AGAIN.format(row.state)
                    line = batched.of_batch(row, f"batch {row.verb}", new.by, new.reason, new.nonce, at, said)
                    await _audit(tx, place, [line])
                return row, row.nonce == new.nonce
            search = PostgresSearch(app, at, place.schema)
            freeze = search.frozen(query, new.key, TARGETS_MAX + 1)
            [found] = await tx.ask(freeze, *search.arguments, seconds=FREEZE_SECONDS)
            row = batched.frozen(batched.batch(await tx.fetchrow(sql["batch_get"], app, new.key)), found[0])
            await tx.fetch(sql["batch_change"], app, *batched.changed(row))
            return row, True

    async def change(self, key: str, ask: Ask, *, now: int | None = None) -> BatchRow | None:
        """Carry out an order about a batch; the batch afterwards."""
        place = self._place
        sql, app = place.sql, place.app
        async with self._own.link() as link, link.transaction() as tx:
            found = await tx.fetchrow(sql["batch_lock"], app, key)
            if found is None:
                return None
            row = batched.batch(found)
            if await tx.fetchrow(sql["audit_has"], app, key, ask.nonce):
                return row  # by a first try
            at = await _time(tx, place, now)
            after = batched.ruled(row, ask, at)
            if after is None:
                return row
            if ask.kind == "retry":
                await tx.fetch(sql["target_retry"], app, key)
            line = batched.of_batch(row, f"batch {ask.kind}", ask.by, ask.reason, ask.nonce, at, str(after.state))
            await _audit(tx, place, [line])
            await tx.fetch(sql["batch_change"], app, *batched.changed(after))
            return after

    # -- reading

    async def get(self, key: str) -> BatchRow | None:
        async with self._own.link() as link:
            found = await link.fetchrow(self._place.sql["batch_get"], self._place.app, key)
        return None if found is None else batched.batch(found)

    async def listing(self, limit: int) -> list[BatchRow]:
        async with self._own.link() as link:
            found = await link.fetch(self._place.sql["batch_list"], self._place.app, limit)
        return [batched.batch(row) for row in found]

    async def targets(self, key: str, fate: Fate | None, after: str, limit: int) -> list[TargetRow]:
        sql, app = self._place.sql, self._place.app
        async with self._own.link() as link:
            if fate is None:
                found = await link.fetch(sql["target_list"], app, key, after, limit)
            else:
                found = await link.fetch(sql["target_list_of"], app, key, after, limit, FATE[fate])
        return [batched.target(row) for row in found]

    async def audits(self, key: str, ids: Collection[str]) -> list[AuditRow]:
        async with self._own.link() as link:
            found = await link.fetch(self._place.sql["audit_list"], self._place.app, key, sorted(ids))
        return [batched.audit(row) for row in found]

    # -- carrying out

    async def apply(self, key: str, owner: bytes, acts: Sequence[Act], *, now: int | None = None) -> Applied:
        """One chunk."""
        place = self._place
        sql, app = place.sql, place.app
        async with self._own.link() as link, link.transaction() as tx:
            found = await tx.fetchrow(sql["batch_lock"], app, key)
            at = await _time(tx, place, now)
            if found is None:
                return Applied(at, None, mine=False)
            row = batched.batch(found)
            if not batched.is_for(row, owner, at):
                return Applied(at, row, mine=False)
            if at < row.next:
                return Applied(at, row)
            ids = sorted(act.id for act in acts)
            waiting = {r[0] for r in await tx.fetch(sql["target_waiting"], app, key, ids)}
            todo = sorted((act for act in acts if act.id in waiting), key=lambda act: act.id)
            before, came = await _carry_out(tx, place, todo, at)
            settled = batched.results(came)
            await _audit(tx, place, batched.lines(row, todo, before, came, at))
            await tx.fetch(
                sql["target_settle"], app, key, at, list(settled), [FATE[one.fate] for one in settled.values()],
                [one.detail for one in settled.values()], [one.new for one in settled.values()],
            )  # fmt: skip
            row = batched.after_chunk(row, owner, settled.values(), at)
            await tx.fetch(sql["batch_change"], app, *batched.changed(row))
            return Applied(at, row, frozenset(came.keys() - settled.keys()))


async def _audit(tx: Transaction, place: Place, lines: Sequence[tuple[Any, ...]]) -> None:
    if lines:
        await tx.fetch(place.sql["audit_put"], place.app, *map(list, zip(*lines, strict=True)))


async def _carry_out(
    tx: Transaction, place: Place, acts: Sequence[Act], now: int
) -> tuple[dict[str, WorkflowRow], dict[str, Settled]]:
    """The rows as they were, and what came of each act."""
    ids = batched.concerned(acts)
    await tx.fetch(place.sql["lock"], place.app, ids)
    before = {r[0]: rows.workflow(r) for r in await tx.fetch(place.sql["rows"], place.app, ids)}
    came: dict[str, Settled] = {}
    doing: list[Doing] = []
    revision = 0
    if batched.rests_on_routing(acts):  # one that is being changed is not waited for: it is looked at again
        seen = await tx.fetchrow(place.sql["routing_hold"], place.app)
        revision = 0 if seen is None else seen[0]
    for act in acts:
        row = before.get(act.id)
        hindered = batched.hindrance(act, row) if batched.is_routed(act, revision) else NOT_AS_SEEN
        if hindered is not None or row is None:
            came[act.id] = hindered or NOT_AS_SEEN
        else:
            doing.append(Doing(act, row))
    for together in TOGETHER:
        came |= await together(tx, place, doing, before, now)
    for act, row in doing:
        if act.id not in came:
            came[act.id] = await _one(tx, place, act, row, now)
    return before, came


async def _end(tx: Transaction, place: Place, doing: Sequence[Doing], before: Rows, now: int) -> dict[str, Settled]:
    """Cancel and terminate, as ``commands.end`` does for one; tell those who hold theirs."""
    sql, app = place.sql, place.app
    told: list[tuple[Any, ...]] = []
    queued: list[tuple[Any, ...]] = []
    ends: list[tuple[Any, ...]] = []
    ended: list[Doing] = []
    came: dict[str, Settled] = {}
    for one in doing:
        act, row = one
        match act:
            case CancelIt() if batched.hears(row):
                told.append((app, act.id, act.nonce, act.reason))
                if row.held_with_code:
                    queued.append((app, act.id, act.nonce, now, None, True, row.last_seq, False))
            case CancelIt():
                ended.append(one)
                ends.append((app, act.id, CODE[Status.CANCELLED], row.claim, act.reason, unheard(row), now))
            case TerminateIt():
                ended.append(one)
                ends.append((app, act.id, CODE[Status.TERMINATED], act.nonce, row.cancel, act.reason, now))
            case _:
                continue
        came[act.id] = batched.done(act, row)
    if queued:
        await tx.fetch_many(sql["workflow_reopen"], queued)
    if told:
        await tx.fetch_many(sql["wake_one"], told)
    if ended:
        ids = [act.id for act, _ in ended]
        await tx.fetch_many(sql["workflow_end"], ends)
        await tx.fetch_many(sql["wake_clear"], [(app, id) for id in ids])
        await tx.fetch_many(sql["watch_clear"], [(app, id) for id in ids])
        nonces = [act.nonce for act, _ in ended]
        await tx.fetch(sql["wake_children"], app, ids, nonces)
        await tx.fetch(sql["wake_watchers"], app, ids, nonces)
        if parents := [(app, row.parent, act.nonce, None) for act, row in ended if row.parent is not None]:
            await tx.fetch_many(sql["wake_one"], parents)
    return came


async def _reopen(tx: Transaction, place: Place, doing: Sequence[Doing], before: Rows, now: int) -> dict[str, Settled]:
    """Queue, as ``commands.reopen`` does for one."""
    sql, app = place.sql, place.app
    records: list[tuple[Any, ...]] = []
    queued: list[tuple[Any, ...]] = []
    came: dict[str, Settled] = {}
    for act, row in doing:
        if not isinstance(act, ReopenIt):
            continue
        order, seq = act.order, row.last_seq + 1
        version = row.version if order.version is None else order.version
        record = Record(seq, "", Kind.DECISION, order.verb, order.at, shown=order.shown)
        records.append((
            app, *row.key, seq, record.path, record.kind.value, record.name, record.at, record.fingerprint,
            record.outcome.value, None, record.attempt, record.shown, None, version, order.nonce,
        ))  # fmt: skip
        queued.append((app, act.id, order.nonce, now, order.version, order.at_once, seq, order.back))
        came[act.id] = batched.done(act, row)
    if came:
        await tx.fetch_many(sql["history_mark"], records)
        await tx.fetch_many(sql["workflow_reopen"], queued)
    return came


async def _delete(tx: Transaction, place: Place, doing: Sequence[Doing], before: Rows, now: int) -> dict[str, Settled]:
    """Those of which nobody may still ask for the outcome are gone, as by a purge."""
    sql, app = place.sql, place.app
    asked = [(act, row) for act, row in doing if isinstance(act, DeleteIt)]
    if not asked:
        return {}
    ids, runs = [row.id for _, row in asked], [row.run for _, row in asked]
    gone = [r[0] for r in await tx.fetch(sql["purge_lock"], app, ids, runs)]
    if gone:
        await forget(tx, place, gone)
    kept = Settled(Fate.FAILED, batched.NEEDED)
    return {act.id: batched.done(act, row) if act.id in gone else kept for act, row in asked}


async def _move(tx: Transaction, place: Place, doing: Sequence[Doing], before: Rows, now: int) -> dict[str, Settled]:
    """By the very statements of an order about many."""
    moves = [act.order for act, _ in doing if isinstance(act, MoveIt)]
    answers = await orders.move_locked(tx, place, moves, before, now) if moves else []
    return {one.id: batched.answered(one) for one in answers}


async def _reset(tx: Transaction, place: Place, doing: Sequence[Doing], before: Rows, now: int) -> dict[str, Settled]:
    """The same, families included. What has nothing to reset is moved, if it is to be."""
    resets = batched.reset_orders(act for act, _ in doing)
    if not resets:
        return {}
    there = {order.id: before[order.id] for order in resets if order.id in before}
    answers = {one.id: one for one in await orders.reset_locked(tx, place, resets, there, now)}
    if moves := batched.unbegun(resets, answers):
        answers |= {one.id: one for one in await orders.move_locked(tx, place, moves, before, now)}
    return batched.of_resets((act for act, _ in doing), answers)


TOGETHER = (_end, _reopen, _delete, _move, _reset)
"""What is done for all acts of a kind at once: each takes those of its kind, and says what came of them."""


async def _one(tx: Transaction, place: Place, act: Act, row: WorkflowRow, now: int) -> Settled:
    """What is done for one at a time, by what does it for a command."""
    link = cast("Link", Inside(tx))
    done = True
    match act:
        case PauseIt(order=order):
            await commands.pause(link, place, act.id, order, now)
        case RewindIt(seen=seen, change=change):
            done = await commands.rewind(link, place, seen, change, now)
        case SkipIt(order=order):
            return batched.answered(await orders.skip(link, place, order, now))
        case ForkIt(source=source, start=start, mark=mark, end=end):
            done = await commands.fork(link, place, source, start, mark, end, now) is None
        case _:
            raise AssertionError(f"no act of this kind is carried out: {act!r}")
    return batched.done(act, row) if done else NOT_AS_SEEN


class Inside:
    """A link for commands that are to go on in a transaction which has begun."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Transaction]:
        """That transaction, which is not ended here."""
        yield self._tx


async def _time(tx: Transaction, place: Place, now: int | None) -> int:
    at: int = now if now is not None else (await tx.fetchrow(place.sql["clock"]))[0]
    return at
