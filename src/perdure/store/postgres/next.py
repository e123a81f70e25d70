"""Runs that follow another, in its row or beside it: continued, rewound, forked.

To be called within a transaction that has locked the row and seen that it may become the next run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perdure.model.ids import RunKey
from perdure.model.records import Kind, Record
from perdure.model.states import CODE, VERSIONING, Status
from perdure.model.writes import Continue, Rest, Rewind, Start
from perdure.store.postgres import streams
from perdure.store.postgres.commit import Place
from perdure.store.postgres.connection import Transaction
from perdure.store.postgres.rows import pack_intents


async def put_away(tx: Transaction, place: Place, key: RunKey, status: Status, now: int) -> None:
    """Copy the latest run, which has ended, out of the hot row."""
    await tx.fetch(place.sql["past_run_insert"], place.app, key.id, key.run, CODE[status], now)


async def begin_next(
    tx: Transaction, place: Place, id: str, run: int, start: Start, now: int, rest: Rest | None = None
) -> None:
    """Make the row of ``id`` its next run; the one before it was copied to ``past_run``. ``rest``: how it stands."""
    await tx.fetch(place.sql["workflow_continue"], *_next(place, id, run, start, now, rest))
    await tx.fetch(place.sql["payload_insert"], place.app, id, run, start.input.decode())
    if start.expires is not None:
        await tx.fetch(place.sql["expiry_insert"], place.app, [id])


def _next(place: Place, id: str, run: int, start: Start, now: int, rest: Rest | None) -> tuple[Any, ...]:
    until, started, deadline = _times(start, now)
    return (
        place.app, id, run, start.lineage, start.name, start.version,
        CODE[start.status], start.claim, start.owner if start.claim is not None else None,
        0 if start.claim is None else 1, until, start.timeout, deadline, now, started, start.parent, start.parent_run,
        start.parent_path, start.on_parent_close, start.queue, start.priority, start.fingerprint,
        None if start.attributes is None else start.attributes.decode(), pack_intents(start.intents), start.nonce,
        VERSIONING[start.versioning], start.partition, start.lane, expires_at(start, until),
        None if start.override is None else start.override.code,
        None if rest is None or rest.reason is None else rest.reason.value,
    )  # fmt: skip


async def go_on(tx: Transaction, place: Place, continued: Sequence[tuple[RunKey, Continue]], now: int) -> None:
    """Put runs away that continue as their next, and begin those: one round trip for all of each sort."""
    app, sql = place.app, place.sql
    ended = [(app, *key, CODE[Status.CONTINUED], now) for key, _ in continued]
    begun = [_next(place, key.id, c.next.run, c.next, now, c.rest) for key, c in continued]
    inputs = [(app, key.id, c.next.run, c.next.input.decode()) for key, c in continued]
    bounded = [(app, key.id, now) for key, c in continued if c.asks_parent]
    rests = [
        (app, key.id, c.rest.until, c.rest.detail, c.rest.attempts, c.rest.problem and c.rest.problem.value)
        for key, c in continued
        if c.rest is not None
    ]
    mail = [
        (app, key.id, c.wake, c.rest.topic)
        for key, c in continued
        if c.rest is not None and c.next.status in (Status.WAITING, Status.HELD)
    ]
    told = [
        (
            app, key.id, c.next.run, str(c.rest.problem), "", c.next.version, "", c.rest.detail, None, 0, now, None,
            c.next.nonce, False,
        )
        for key, c in continued
        if c.rest is not None and c.rest.told
    ]  # fmt: skip
    for query, bindings in (
        ("past_run_insert", ended), ("workflow_continue", begun), ("workflow_bounded", bounded),
        ("payload_insert", inputs),
        ("stream_continue", [(app, *key) for key, _ in continued]), ("workflow_stand", rests), ("wake_of_mail", mail),
        ("problem_put", told),
    ):  # fmt: skip
        if bindings:
            await tx.fetch_many(sql[query], bindings)
    expiring = [key.id for key, c in continued if c.next.expires is not None]
    if expiring:
        await tx.fetch(sql["expiry_insert"], app, expiring)


def _times(start: Start, now: int) -> tuple[int | None, int | None, int | None]:
    """``until``, ``started`` and ``deadline`` of a run that begins now."""
    if start.claim is None:
        return (start.until if start.until is not None else now + (start.delay or 0)), None, start.deadline
    return None, now if start.began is None else start.began, bound(start, now)


def expires_at(start: Start, until: int | None) -> int | None:
    """When what is to stand in line from ``until`` on has stood there for too long."""
    return None if start.expires is None or until is None else until + start.expires


def bound(start: Start, now: int) -> int | None:
    """The deadline of what begins to run now."""
    bounds = [b for b in (start.deadline, None if start.timeout is None else now + start.timeout) if b is not None]
    return min(bounds, default=None)


async def rewind(tx: Transaction, place: Place, old: RunKey, change: Rewind, now: int) -> None:
    """Put the run away, and begin the next from the records that are kept."""
    following, sql = change.next, place.sql
    await put_away(tx, place, old, Status.SUPERSEDED, now)
    await begin_next(tx, place, old.id, following.run, following, now)
    await keep_records(tx, place, old, following, (change.mark, *change.then), now)
    await tx.fetch(sql["message_untake"], place.app, old.id, old.run, following.run, change.keep)
    await tx.fetch(sql["workflow_rewound"], place.app, old.id, old.run, change.attempts, change.uncancel)


async def keep_records(
    tx: Transaction, place: Place, source: RunKey, start: Start, more: tuple[Record, ...], now: int
) -> None:
    """Give a run that was just begun the records of ``source`` before ``more``, then those, and the events they set."""
    key, sql, app = RunKey(start.id, start.run), place.sql, place.app
    await tx.fetch(sql["history_copy"], app, *source, more[0].seq - 1, *key)
    for record in more:
        await write_record(tx, place, key, record, start.version, start.nonce)
    await streams.copy(tx, place, source, start, more[0].seq - 1)
    await tx.fetch(sql["event_copy"], app, *key, now, Kind.EVENT.value)
    deadline = None if start.began is None else bound(start, now)  # else its time begins with its first claim
    await tx.fetch(sql["workflow_kept"], app, start.id, more[-1].seq, start.began, deadline)


async def write_record(tx: Transaction, place: Place, key: RunKey, r: Record, version: str, nonce: bytes) -> None:
    """Write one record of a run whose row is locked."""
    await tx.fetch(
        place.sql["history_mark"], place.app, *key, r.seq, r.path, r.kind.value, r.name, r.at, r.fingerprint,
        r.outcome.value, None if r.data is None else r.data.decode(), r.attempt, r.shown, pack_intents(r.intents),
        version, nonce,
    )  # fmt: skip
