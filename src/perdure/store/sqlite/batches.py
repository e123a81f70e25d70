"""Batches: frozen from a query, and carried out chunk by chunk: a chunk's acts, outcomes and audit are one transaction.

Each act goes through the very functions that a command by hand goes through.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Any, TypeVar

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
    ResetIt,
    RewindIt,
    Settled,
    SkipIt,
    TerminateIt,
)
from perdure.model.batches import FATE, TARGETS_MAX, Applied, Ask, AuditRow, BatchRow, Fate, NewBatch, TargetRow
from perdure.model.real import time
from perdure.model.records import WorkflowRow
from perdure.query.conditions import Query
from perdure.store import batched
from perdure.store.sql import queries
from perdure.store.sqlite import commands, orders
from perdure.store.sqlite.driver import Connection
from perdure.store.sqlite.owned import forget_workflow
from perdure.store.sqlite.search import SQLiteSearch

T = TypeVar("T")
Lane = Callable[[Callable[[Connection], Any]], Awaitable[Any]]

Q = queries("perdure.store.sqlite")
MOST = TARGETS_MAX + 1


class SQLiteBatches:
    """One app's batches; each call is one job of the thread that writes, or of the one that reads."""

    def __init__(self, app: str, write: Lane, read: Lane) -> None:
        self._app = app
        self._writes = write
        self._reads = read

    async def _write(self, job: Callable[[Connection], T]) -> T:
        value: T = await self._writes(job)
        return value

    async def _read(self, job: Callable[[Connection], T]) -> T:
        value: T = await self._reads(job)
        return value

    async def create(self, new: NewBatch, query: Query, *, now: int | None = None) -> tuple[BatchRow, bool]:
        at = _clock(now)
        search = SQLiteSearch(self._app, at)
        freeze = search.frozen(query, new.key, MOST)
        try:
            return await self._write(partial(_create, self._app, new, freeze, search, at))
        except batched.TooMany as many:
            raise ConfigError(str(many)) from None

    async def change(self, key: str, ask: Ask, *, now: int | None = None) -> BatchRow | None:
        return await self._write(lambda conn: _change(conn, self._app, key, ask, _clock(now)))

    async def apply(self, key: str, owner: bytes, acts: Sequence[Act], *, now: int | None = None) -> Applied:
        return await self._write(lambda conn: _apply(conn, self._app, key, owner, acts, _clock(now)))

    async def get(self, key: str) -> BatchRow | None:
        return await self._read(lambda conn: _get(conn, self._app, key))

    async def listing(self, limit: int) -> list[BatchRow]:
        def job(conn: Connection) -> list[BatchRow]:
            return [batched.batch(row) for row in conn.execute(Q["batch_list"], (self._app, limit)).fetchall()]

        return await self._read(job)

    async def targets(self, key: str, fate: Fate | None, after: str, limit: int) -> list[TargetRow]:
        def job(conn: Connection) -> list[TargetRow]:
            page = (self._app, key, after, limit)
            if fate is None:
                found = conn.execute(Q["target_list"], page).fetchall()
            else:
                found = conn.execute(Q["target_list_of"], (*page, FATE[fate])).fetchall()
            return [batched.target(row) for row in found]

        return await self._read(job)

    async def audits(self, key: str, ids: Collection[str]) -> list[AuditRow]:
        def job(conn: Connection) -> list[AuditRow]:
            found = (conn.execute(Q["audit_list"], (self._app, key, id)).fetchall() for id in sorted(ids))
            return [batched.audit(row) for rows in found for row in rows]

        return await self._read(job)


def _create(
    app: str, new: NewBatch, freeze: str, search: SQLiteSearch, now: int, conn: Connection
) -> tuple[BatchRow, bool]:
    taken = not conn.execute(Q["batch_insert"], (app, *batched.inserted(new, now))).fetchall()
    row = _get(conn, app, new.key)
    assert row is not None, "inserted now, or before"
    if taken:
        if row.nonce != new.nonce and new.same(row):
            said = batched.AGAIN.format(row.state)
            _audit(conn, app, batched.of_batch(row, f"batch {row.verb}", new.by, new.reason, new.nonce, now, said))
        return row, row.nonce == new.nonce
    conn.execute(freeze, tuple(search.arguments))
    row = batched.frozen(row, conn.execute(Q["target_count"], (app, new.key)).get)
    conn.execute(Q["batch_change"], (app, *batched.changed(row)))
    return row, True


def _get(conn: Connection, app: str, key: str) -> BatchRow | None:
    found = conn.execute(Q["batch_get"], (app, key)).fetchone()
    return None if found is None else batched.batch(found)


def _change(conn: Connection, app: str, key: str, ask: Ask, now: int) -> BatchRow | None:
    row = _get(conn, app, key)
    if row is None or conn.execute(Q["audit_has"], (app, key, ask.nonce)).get:
        return row  # none, or by a first try
    after = batched.ruled(row, ask, now)
    if after is None:
        return row
    if ask.kind == "retry":
        conn.execute(Q["target_retry"], (app, key))
    line = batched.of_batch(row, f"batch {ask.kind}", ask.by, ask.reason, ask.nonce, now, str(after.state))
    _audit(conn, app, line)
    conn.execute(Q["batch_change"], (app, *batched.changed(after)))
    return after


def _apply(conn: Connection, app: str, key: str, owner: bytes, acts: Sequence[Act], now: int) -> Applied:
    row = _get(conn, app, key)
    if row is None or not batched.is_for(row, owner, now):
        return Applied(now, row, mine=False)
    if now < row.next:
        return Applied(now, row)
    ordered = sorted(acts, key=lambda act: act.id)
    todo = [act for act in ordered if conn.execute(Q["target_waiting"], (app, key, act.id)).get]
    before: dict[str, WorkflowRow] = {}
    came: dict[str, Settled] = {}
    resets: list[ResetIt] = []
    revision = 0
    if batched.rests_on_routing(todo) and (routed := conn.execute(Q["routing_get"], (app,)).fetchone()):
        revision = routed[3]
    for act in todo:
        seen = commands.get(conn, app, act.id)
        if seen is not None:
            before[act.id] = seen
        hindered = batched.hindrance(act, seen) if batched.is_routed(act, revision) else NOT_AS_SEEN
        if hindered is not None or seen is None:
            came[act.id] = hindered or NOT_AS_SEEN
        elif isinstance(act, ResetIt):
            resets.append(act)
        else:
            came[act.id] = _one(conn, app, act, seen, now)
    came |= _reset(conn, app, resets, now)
    settled = batched.results(came)
    for line in batched.lines(row, todo, before, came, now):
        _audit(conn, app, line)
    for id, one in settled.items():
        conn.execute(Q["target_settle"], (app, key, now, id, FATE[one.fate], one.detail, one.new))
    row = batched.after_chunk(row, owner, settled.values(), now)
    conn.execute(Q["batch_change"], (app, *batched.changed(row)))
    return Applied(now, row, frozenset(came.keys() - settled.keys()))


def _reset(conn: Connection, app: str, acts: Sequence[ResetIt], now: int) -> dict[str, Settled]:
    """All at once: they may be of one family. What has nothing to reset is moved, if it is to be."""
    asked = batched.reset_orders(acts)
    answers = {one.id: one for one in orders.reset(conn, app, asked, now)}
    answers |= {one.id: one for one in orders.move(conn, app, batched.unbegun(asked, answers), now)}
    return batched.of_resets(acts, answers)


def _one(conn: Connection, app: str, act: Act, row: WorkflowRow, now: int) -> Settled:
    done = True
    match act:
        case CancelIt(reason=reason):
            commands.cancel(conn, app, act.id, reason, act.nonce, now)
        case TerminateIt(reason=reason):
            commands.terminate(conn, app, act.id, reason, act.nonce, now)
        case PauseIt(order=order):
            commands.pause(conn, app, act.id, order, now)
        case ReopenIt(order=order):
            done = commands.reopen(conn, app, row, order, now)
        case RewindIt(seen=seen, change=change):
            done = commands.rewind(conn, app, seen, change, now)
        case MoveIt(order=order):
            return batched.answered(orders.move(conn, app, [order], now)[0])
        case SkipIt(order=order):
            return batched.answered(orders.skip(conn, app, order, now))
        case ForkIt(source=source, start=start, mark=mark, end=end):
            done = commands.fork(conn, app, source, start, mark, end, now) is None
        case DeleteIt():
            if not conn.execute(Q["purge_may"], (app, *row.key)).get:
                return Settled(Fate.FAILED, batched.NEEDED)
            forget_workflow(conn, app, row.id)
        case _:
            raise AssertionError(f"no act of this kind is carried out: {act!r}")
    return batched.done(act, row) if done else NOT_AS_SEEN


def _audit(conn: Connection, app: str, line: tuple[Any, ...]) -> None:
    conn.execute(Q["audit_put"], (app, *line))


def _clock(now: int | None) -> int:
    return time.time_ns() // 1000 if now is None else now
