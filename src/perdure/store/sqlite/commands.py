"""Commands from outside.

Cancel and terminate end here and now what nobody holds (terminate: whoever holds it), and wake who waits for it.
"""

from __future__ import annotations

import json
from collections.abc import Collection

from perdure.model.ids import RunKey
from perdure.model.records import PAUSE, Kind, Outcome, Record, WorkflowRow, unheard
from perdure.model.states import CODE, FIRST_CLOSED, Reason, Status
from perdure.model.writes import Pause, Reopen, Rewind, Start, Unit
from perdure.store.sql import queries
from perdure.store.sqlite import next as onward
from perdure.store.sqlite import rows
from perdure.store.sqlite.commit import commit, hears, past_nonce
from perdure.store.sqlite.driver import Connection, Row
from perdure.store.sqlite.next import begin_next

Q = queries("perdure.store.sqlite")


def release_held(
    conn: Connection, app: str, reasons: Collection[Reason], version: str, since: int | None, now: int
) -> int:
    given = (app, json.dumps(sorted(reasons)), now, version, now if since is None else since)
    return len(conn.execute(Q["workflow_release_held"], given).fetchall())


def cancel(
    conn: Connection, app: str, id: str, reason: str, nonce: bytes, now: int, unserved: str | None = None
) -> WorkflowRow | None:
    row = get(conn, app, id)
    if row is None or not row.status.open:
        return row
    if row.status is Status.RUNNING or (row.parked and row.version != unserved):
        conn.execute(Q["wake_insert"], (app, id, nonce, reason))
        return row
    if row.held_with_code and row.version != unserved:  # it is told, and queued to hear it, outside its line
        conn.execute(Q["workflow_reopen"], (app, id, nonce, now, None, True, False))
        conn.execute(Q["wake_insert"], (app, id, nonce, reason))
        return get(conn, app, id)
    return end(conn, app, row, (CODE[Status.CANCELLED], row.claim, reason, unheard(row, unserved), now), nonce)


def terminate(conn: Connection, app: str, id: str, reason: str, nonce: bytes, now: int) -> WorkflowRow | None:
    row = get(conn, app, id)
    if row is None or not row.status.open:
        return row
    return end(conn, app, row, (CODE[Status.TERMINATED], nonce, row.cancel, reason, now), nonce)


def replace(conn: Connection, app: str, old: RunKey, start: Start, nonce: bytes, now: int) -> bool:
    """Begin the run after ``old``, which is closed and the latest; True if that is done, now or before.

    It has no deduplication key, whatever the one before had.
    """
    seen = conn.execute(Q["workflow_head"], (app, old.id)).fetchone()
    if seen is None or seen[1] < old.run:
        return False
    _, run, status, *_ = seen
    following = old.run + 1
    if run >= following:
        return followed(conn, app, old, start, seen)
    if status < FIRST_CLOSED:
        return False
    conn.execute(Q["dedup_forget"], (app, old.id))
    closed = conn.execute(Q["workflow_closed"], (app, old.id)).get
    conn.execute(Q["past_run_insert"], (app, old.id, old.run, CODE[Status.SUPERSEDED], now, closed))
    begin_next(conn, app, old.id, following, start, now)
    conn.execute(Q["wake_clear"], (app, old.id))  # a late command was for the run before
    conn.execute(Q["wake_watchers"], (app, old.id, nonce))
    tell_if_late(conn, app, start)
    return True


def tell_if_late(conn: Connection, app: str, start: Start) -> None:
    """Cancel a child whose parent has ended just before it was begun: who ended that could not see it.

    For children that do not travel with a unit of their parent's, which would have been refused.
    """
    if start.parent is None or start.on_parent_close != "cancel":
        return
    parent = conn.execute(Q["workflow_head"], (app, start.parent)).fetchone()
    if parent is None or parent[2] >= FIRST_CLOSED:
        conn.execute(Q["wake_insert"], (app, start.id, start.nonce, ""))


def followed(conn: Connection, app: str, old: RunKey, start: Start, head: Row) -> bool:
    """Whether the run after ``old`` is this start's, by a first try; ``head``: of the latest."""
    _, run, _, _, inserted, *_ = head
    following = old.run + 1
    if run < following:
        return False
    return bool(start.nonce == (inserted if run == following else past_nonce(conn, app, old.id, following)))


def rewind(conn: Connection, app: str, seen: WorkflowRow, change: Rewind, now: int) -> bool:
    """Begin the next run of what is still as it was seen; True if that is done, now or before."""
    row = get(conn, app, seen.id)
    following = change.next
    if row is None:
        return False
    if row.run >= following.run:
        head = conn.execute(Q["workflow_head"], (app, seen.id)).fetchone()
        assert head is not None, "its row was read in this transaction"
        nonce = head[4] if row.run == following.run else past_nonce(conn, app, seen.id, following.run)
        return bool(nonce == following.nonce)
    if not _as_seen(row, seen):
        return False
    onward.rewind(conn, app, seen.key, change, now, now if row.closed is None else row.closed)
    if row.closed is not None:
        conn.execute(Q["wake_clear"], (app, seen.id))  # a late command was for the run that closed
    conn.execute(Q["watch_clear"], (app, seen.id))
    conn.execute(Q["wake_watchers"], (app, seen.id, change.wake))
    return True


def pause(conn: Connection, app: str, id: str, order: Pause | None, now: int) -> WorkflowRow | None:
    row = get(conn, app, id)
    if row is None or not row.status.open or row.reason is Reason.PAUSED:
        return row
    if order is None or row.status is Status.RUNNING:
        conn.execute(Q["workflow_pause_told"], (app, id, None if order is None else order.shown))
        if order is not None:
            conn.execute(Q["wake_insert"], (app, id, order.nonce, None))
        return get(conn, app, id)
    seq = row.last_seq + 1
    _decision(conn, app, row, order, PAUSE, row.version)
    conn.execute(Q["workflow_pause"], (app, id, order.nonce, now, order.shown, seq))
    return get(conn, app, id)


def _decision(conn: Connection, app: str, row: WorkflowRow, order: Pause | Reopen, verb: str, version: str) -> None:
    """A person's order, in the history."""
    conn.execute(Q["history_insert"], (
        app, *row.key, row.last_seq + 1, "", Kind.DECISION.value, verb, order.at, b"", Outcome.NONE.value, None,
        1, order.shown, None, version, order.nonce,
    ))  # fmt: skip


def reopen(conn: Connection, app: str, seen: WorkflowRow, order: Reopen, now: int) -> bool:
    """Queue what is still as it was seen; True if that is done, now or before."""
    row = get(conn, app, seen.id)
    if row is None:
        return False
    if conn.execute(Q["history_has"], (app, *seen.key, seen.last_seq, order.nonce)).get is not None:
        return True
    if not _as_seen(row, seen) or not row.status.open:
        return False
    _decision(conn, app, row, order, order.verb, row.version if order.version is None else order.version)
    conn.execute(Q["workflow_reopen"], (app, seen.id, order.nonce, now, order.version, order.at_once, order.back))
    return True


def fork(
    conn: Connection, app: str, source: RunKey, start: Start, mark: Record, end: str | None, now: int
) -> WorkflowRow | None:
    """Begin another workflow from the records of a run; None if that is done, now or before; else who has the id."""
    head = conn.execute(Q["workflow_head"], (app, start.id)).fetchone()
    if head is None:
        commit(conn, app, [Unit(key=RunKey("", 0), children=[start])], now)
        onward.keep_records(conn, app, source, start, (mark,), now)
    elif start.nonce != (head[4] if head[1] == 1 else past_nonce(conn, app, start.id, 1)):
        return get(conn, app, start.id)
    if end is not None:
        terminate(conn, app, source.id, end, start.nonce, now)
    return None


def _as_seen(row: WorkflowRow, seen: WorkflowRow) -> bool:
    """Whether nobody has done anything with a row since: each claim has another token, each end another status."""
    return (row.run, row.claim, row.status) == (seen.run, seen.claim, seen.status)


def end(
    conn: Connection,
    app: str,
    row: WorkflowRow,
    ending: tuple[int, bytes | None, str | None, str, int],
    nonce: bytes,
) -> WorkflowRow | None:
    """Close the row by (status, claim, cancel, detail, time); cancel open children, wake parent and watchers."""
    conn.execute(Q["workflow_end"], (app, row.id, *ending))
    conn.execute(Q["wake_clear"], (app, row.id))
    conn.execute(Q["watch_clear"], (app, row.id))
    conn.execute(Q["wake_children"], (app, row.id, nonce))
    conn.execute(Q["wake_watchers"], (app, row.id, nonce))
    if row.parent is not None:
        parent = get(conn, app, row.parent)
        if parent is not None and hears(CODE[parent.status]):
            conn.execute(Q["wake_insert"], (app, row.parent, nonce, None))
    return get(conn, app, row.id)


def get(conn: Connection, app: str, id: str) -> WorkflowRow | None:
    row = conn.execute(Q["workflow_get"], (app, id)).fetchone()
    return None if row is None else rows.workflow(row)
