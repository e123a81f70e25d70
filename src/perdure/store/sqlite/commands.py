"""Commands from outside: cancel and terminate. Both end what nobody holds here and now, and wake who waits for it."""

from __future__ import annotations

from perdure.model.records import WorkflowRow
from perdure.model.states import CODE, Status
from perdure.store.sql import queries
from perdure.store.sqlite import rows
from perdure.store.sqlite.commit import hears
from perdure.store.sqlite.driver import Connection

Q = queries("perdure.store.sqlite")


def cancel(conn: Connection, app: str, id: str, reason: str, nonce: bytes, now: int) -> WorkflowRow | None:
    row = _get(conn, app, id)
    if row is None or not row.status.open:
        return row
    if row.status in (Status.RUNNING, Status.WAITING):
        conn.execute(Q["wake_insert"], (app, id, nonce, reason))
        return row
    return _end(conn, app, row, (CODE[Status.CANCELLED], row.claim, reason, row.detail, now), nonce)


def terminate(conn: Connection, app: str, id: str, reason: str, nonce: bytes, now: int) -> WorkflowRow | None:
    row = _get(conn, app, id)
    if row is None or not row.status.open:
        return row
    return _end(conn, app, row, (CODE[Status.TERMINATED], nonce, row.cancel, reason, now), nonce)


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
