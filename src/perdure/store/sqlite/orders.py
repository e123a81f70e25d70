"""An operator's orders about workflows as they stand: each decided by its row, in one transaction for all of them."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

import msgspec

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
from perdure.model.states import VERSIONING, Reason, Status
from perdure.store.sql import queries
from perdure.store.sqlite import decisions, problems, rows
from perdure.store.sqlite import next as onward
from perdure.store.sqlite.commands import get
from perdure.store.sqlite.driver import Connection

Q = queries("perdure.store.sqlite")


def move(conn: Connection, app: str, orders: Sequence[MoveOrder], now: int) -> list[Answered]:
    answers: list[Answered] = []
    for order in orders:
        row = get(conn, app, order.id)
        answered, after = rule_move(row, order)
        answers.append(answered)
        if row is None or after is None:
            continue
        if row.status is Status.RUNNING and after.version == row.version:
            label = (app, row.id, VERSIONING[after.versioning], _code(after))
            conn.execute(Q["workflow_labelled"], label)
            decisions.put(conn, app, row.key, order.nonce, decided(order), now)
        else:
            told = Record(row.last_seq + 1, "", Kind.DECISION, MOVE, order.at, shown=order.shown)
            _record(conn, app, row, told, after.version, order.nonce)
            go = after.version != row.version
            _ordered(conn, app, row, after, order.nonce, now, told.seq, LET_GO if go else None)
        if follows(after.versioning, after.override):
            conn.execute(Q["mark_put"], (app, FOLLOWS, ""))
    return answers


def skip(conn: Connection, app: str, order: SkipOrder, now: int) -> Answered:
    row = get(conn, app, order.id)
    history = [] if row is None else _history(conn, app, row)
    answered, records = rule_skip(row, history, order)
    if row is not None and records is not None:
        for record in records:
            _record(conn, app, row, record, row.version, order.nonce)
        _ordered(conn, app, row, standing(row), order.nonce, now, records[-1].seq, SKIP_LETS_GO)
        if row.problem is not None:
            problems.given(conn, app, row.key, records[-1].path, now)
    return answered


def reset(conn: Connection, app: str, orders: Sequence[ResetOrder], now: int) -> list[Answered]:
    found = {order.id: get(conn, app, order.id) for order in orders}
    there = {id: row for id, row in found.items() if row is not None}
    ruled = rule_resets(orders, there, {id: _history(conn, app, row) for id, row in there.items()})
    for _, resetting in ruled:
        if resetting is not None:
            _reset(conn, app, resetting, now)
    return [answered for answered, _ in ruled]


def _reset(conn: Connection, app: str, resetting: Resetting, now: int) -> None:
    row, change = resetting.row, resetting.change
    input = conn.execute(Q["payload_input"], (app, *row.key)).fetchone()
    assert input is not None, "its row was read in this transaction"
    following = msgspec.structs.replace(change.next, input=input[2])
    if resetting.exclude != "none":
        excluded = (app, row.id, row.run, following.run, change.keep, resetting.since)
        conn.execute(Q["message_exclude"], excluded)
    whole = msgspec.structs.replace(change, next=following)
    onward.rewind(conn, app, row.key, whole, now, now if row.closed is None else row.closed)
    if follows(following.versioning, following.override):
        conn.execute(Q["mark_put"], (app, FOLLOWS, ""))
    conn.execute(Q["workflow_pause_told"], (app, row.id, resetting.pause))
    if row.closed is not None or resetting.exclude == "all":
        conn.execute(Q["wake_clear"], (app, row.id))  # late commands were for the run before
    conn.execute(Q["watch_clear"], (app, row.id))
    conn.execute(Q["wake_watchers"], (app, row.id, change.wake))


def _history(conn: Connection, app: str, row: WorkflowRow) -> list[Record]:
    return [rows.record(r) for r in conn.execute(Q["history_of"], (app, *row.key))]


def _record(conn: Connection, app: str, row: WorkflowRow, r: Record, version: str, nonce: bytes) -> None:
    conn.execute(Q["history_insert"], (
        app, *row.key, r.seq, r.path, r.kind.value, r.name, r.at, r.fingerprint, r.outcome.value, r.data, r.attempt,
        r.shown, rows.pack_intents(r.intents), version, nonce,
    ))  # fmt: skip


def _ordered(
    conn: Connection, app: str, row: WorkflowRow, after: Standing, nonce: bytes, now: int, seq: int,
    lets_go: Collection[Reason] | None,
) -> None:  # fmt: skip
    conn.execute(Q["workflow_ordered"], (
        app, row.id, after.version, VERSIONING[after.versioning], _code(after), nonce, now, seq, lets_go is not None,
        json.dumps(sorted(lets_go or ())),
    ))  # fmt: skip


def _code(after: Standing) -> int | None:
    return None if after.override is None else after.override.code
