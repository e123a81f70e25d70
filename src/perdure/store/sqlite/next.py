"""Runs that follow another, in its row or beside it: continued, rewound, forked.

To be called within a write transaction that has seen that the row may become the next run.
"""

from __future__ import annotations

import msgspec

from perdure.model.ids import RunKey
from perdure.model.records import Kind, Record
from perdure.model.states import CODE, VERSIONING, Status
from perdure.model.writes import Continue, Rest, Rewind, Start
from perdure.store.sql import queries
from perdure.store.sqlite import rows, streams
from perdure.store.sqlite.driver import Connection

Q = queries("perdure.store.sqlite")


def begin_next(conn: Connection, app: str, id: str, run: int, start: Start, now: int, rest: Rest | None = None) -> None:
    """Make the row of ``id`` its next run; the one before it was copied to ``past_run``. ``rest``: how it stands."""
    at = placed(start, now)
    conn.execute(Q["workflow_continue"], (
        app, id, run, start.lineage, start.name, start.version, CODE[start.status], start.claim, start.owner,
        at.epoch, 0, at.until, start.timeout, at.deadline, now, at.started, start.parent, start.parent_run,
        start.parent_path, start.on_parent_close, start.queue, start.priority, start.fingerprint,
        start.attributes, rows.pack_intents(start.intents), start.nonce, VERSIONING[start.versioning],
        start.partition, start.lane, at.expires, None if start.override is None else start.override.code,
        None if rest is None or rest.reason is None else rest.reason.value,
    ))  # fmt: skip
    conn.execute(Q["payload_insert"], (app, id, run, start.input))
    if at.expires is not None:
        conn.execute(Q["expiry_insert"], (app, at.expires, id))


def stand(conn: Connection, app: str, id: str, change: Continue, rest: Rest, now: int) -> None:
    """Let the run that was just begun stand as ``rest`` says; woken at once if mail is there that nobody has taken."""
    conn.execute(Q["workflow_stand"], (
        app, id, rest.until, rest.detail, rest.attempts, None if rest.problem is None else rest.problem.value,
    ))  # fmt: skip
    if rest.told:
        following = change.next
        conn.execute(Q["problem_put"], (
            app, id, following.run, rest.problem, "", following.version, "", rest.detail, None, 0, now, None,
            following.nonce, False,
        ))  # fmt: skip
    if change.next.status in (Status.WAITING, Status.HELD):
        conn.execute(Q["wake_of_mail"], (app, id, change.wake, rest.topic))


def rewind(conn: Connection, app: str, old: RunKey, change: Rewind, now: int, closed: int) -> None:
    """Put the run away, which ended at ``closed``, and begin the next from the records that are kept."""
    following = change.next
    conn.execute(Q["past_run_insert"], (app, old.id, old.run, CODE[Status.SUPERSEDED], now, closed))
    begin_next(conn, app, old.id, following.run, following, now)
    keep_records(conn, app, old, following, (change.mark, *change.then), now)
    conn.execute(Q["message_untake"], (app, old.id, old.run, following.run, change.keep))
    conn.execute(Q["workflow_rewound"], (app, old.id, old.run, change.attempts, change.uncancel))


def keep_records(conn: Connection, app: str, source: RunKey, start: Start, more: tuple[Record, ...], now: int) -> None:
    """Give a run that was just begun the records of ``source`` before ``more``, then those, and the events they set."""
    id, run, keep = start.id, start.run, more[0].seq - 1
    conn.execute(Q["history_copy"], (app, *source, keep, id, run))
    for r in more:
        conn.execute(Q["history_insert"], (
            app, id, run, r.seq, r.path, r.kind.value, r.name, r.at, r.fingerprint, r.outcome.value, r.data, r.attempt,
            r.shown, rows.pack_intents(r.intents), start.version, start.nonce,
        ))  # fmt: skip
    streams.copy(conn, app, source, start, keep)
    conn.execute(Q["event_copy"], (app, id, run, now, Kind.EVENT.value))
    deadline = None if start.began is None else bound(start, now)  # else its time begins with its first claim
    conn.execute(Q["workflow_kept"], (app, id, more[-1].seq, start.began, deadline))


class _Placed(msgspec.Struct, gc=False):
    """Where a start stands in time."""

    epoch: int
    until: int | None
    started: int | None
    deadline: int | None
    expires: int | None


def placed(start: Start, now: int) -> _Placed:
    if start.claim is not None:
        deadline = bound(start, now)
        return _Placed(1, None, now if start.began is None else start.began, deadline, None)
    until = now + (start.delay or 0) if start.until is None else start.until  # now: a queue is first in, first out
    return _Placed(0, until, None, start.deadline, None if start.expires is None else until + start.expires)


def bound(start: Start, now: int) -> int | None:
    """The deadline of what begins to run now."""
    if start.timeout is None:
        return start.deadline
    return now + start.timeout if start.deadline is None else min(start.deadline, now + start.timeout)
