"""Commands from outside.

Cancel and terminate end here and now what nobody holds (terminate: whoever holds it), and wake who waits for it.
"""

from __future__ import annotations

import json
from collections.abc import Collection

from perdure.model.ids import RunKey
from perdure.model.records import WorkflowRow
from perdure.model.states import CODE, FIRST_CLOSED, Reason, Status
from perdure.model.writes import Start
from perdure.store.base import without_cleanup
from perdure.store.sql import queries
from perdure.store.sqlite import rows
from perdure.store.sqlite.commit import begin_next, hears, past_nonce
from perdure.store.sqlite.driver import Connection

Q = queries("perdure.store.sqlite")


def release_held(conn: Connection, app: str, reasons: Collection[Reason], version: str, now: int) -> int:
    return len(conn.execute(Q["workflow_release_held"], (app, json.dumps(sorted(reasons)), now, version)).fetchall())


def cancel(
    conn: Connection, app: str, id: str, reason: str, nonce: bytes, now: int, unserved: str | None = None
) -> WorkflowRow | None:
    row = _get(conn, app, id)
    if row is None or not row.status.open:
        return row
    stray = row.status is Status.WAITING and row.version == unserved
    if row.status in (Status.RUNNING, Status.WAITING) and not stray:
        conn.execute(Q["wake_insert"], (app, id, nonce, reason))
        return row
    detail = row.detail if row.version != unserved else without_cleanup(row.version)
    return _end(conn, app, row, (CODE[Status.CANCELLED], row.claim, reason, detail, now), nonce)


def terminate(conn: Connection, app: str, id: str, reason: str, nonce: bytes, now: int) -> WorkflowRow | None:
    row = _get(conn, app, id)
    if row is None or not row.status.open:
        return row
    return _end(conn, app, row, (CODE[Status.TERMINATED], nonce, row.cancel, reason, now), nonce)


def replace(conn: Connection, app: str, old: RunKey, start: Start, nonce: bytes, now: int) -> bool:
    """Begin the run after ``old``, which is closed and the latest; True if that is done, now or before."""
    seen = conn.execute(Q["workflow_head"], (app, old.id)).fetchone()
    if seen is None or seen[1] < old.run:
        return False
    _, run, status, _, inserted, _ = seen
    following = old.run + 1
    if run >= following:
        return start.nonce == (inserted if run == following else past_nonce(conn, app, old.id, following))
    if status < FIRST_CLOSED:
        return False
    closed = conn.execute(Q["workflow_closed"], (app, old.id)).get
    conn.execute(Q["past_run_insert"], (app, old.id, old.run, CODE[Status.SUPERSEDED], now, closed))
    begin_next(conn, app, old.id, following, start, now)
    conn.execute(Q["wake_clear"], (app, old.id))  # a late command was for the run before
    conn.execute(Q["wake_watchers"], (app, old.id, nonce))
    return True


def _end(
    conn: Connection,
    app: str,
    row: WorkflowRow,
    ending: tuple[int, bytes | None, str | None, str, int],
    nonce: bytes,
) -> WorkflowRow | None:
    """Close the row by (status, claim, cancel, detail, time); wake its parent and its watchers."""
    conn.execute(Q["workflow_end"], (app, row.id, *ending))
    conn.execute(Q["wake_clear"], (app, row.id))
    conn.execute(Q["watch_clear"], (app, row.id))
    conn.execute(Q["wake_watchers"], (app, row.id, nonce))
    if row.parent is not None:
        parent = _get(conn, app, row.parent)
        if parent is not None and hears(CODE[parent.status]):
            conn.execute(Q["wake_insert"], (app, row.parent, nonce, None))
    return _get(conn, app, row.id)


def _get(conn: Connection, app: str, id: str) -> WorkflowRow | None:
    row = conn.execute(Q["workflow_get"], (app, id)).fetchone()
    return None if row is None else rows.workflow(row)
