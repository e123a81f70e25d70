"""Schedules: each write compares the row's revision, and starts in the transaction that moves it on."""

from __future__ import annotations

import json
from collections.abc import Collection

from perdure.model.ids import RunKey
from perdure.model.schedules import KEEP, Firing, Reschedule, Schedule, Which
from perdure.model.writes import Unit
from perdure.store import scheduled
from perdure.store.sql import queries
from perdure.store.sqlite.commit import commit
from perdure.store.sqlite.driver import Connection

Q = queries("perdure.store.sqlite")


def change(conn: Connection, app: str, order: Reschedule, now: int) -> bool:
    """Write it, if the schedule still has the revision that was seen."""
    revision: int | None = conn.execute(Q["schedule_revision"], (app, order.name)).get
    if (revision or 0) != order.before:
        return False
    if order.after is None:
        conn.execute(Q["firing_delete"], (app, order.name))
        conn.execute(Q["schedule_delete"], (app, order.name))
        return True
    conn.execute(Q["schedule_put"], (app, *scheduled.columns(order.after)))
    firings = list(order.firings)
    if order.starts:
        receipt = commit(conn, app, [Unit(key=RunKey("", 0), children=order.starts)], now)
        firings = scheduled.as_started(order, receipt.verdicts[0].exists)
    for one in firings:
        conn.execute(Q["firing_put"], (app, order.name, *scheduled.put_columns(one)))
    if order.forget is not None:
        conn.execute(Q["firing_forget"], (app, order.name, order.forget, KEEP))
    return True


def schedules(conn: Connection, app: str, names: Collection[str] | None, due: int | None) -> list[Schedule]:
    wanted = None if names is None else json.dumps(sorted(names))
    return [scheduled.schedule(row) for row in conn.execute(Q["schedule_list"], (app, wanted, due))]


def firings(conn: Connection, app: str, which: Which) -> list[Firing]:
    query = Q["firing_list_oldest" if which.oldest_first else "firing_list"]
    state = None if which.state is None else which.state.value
    bindings = (app, which.schedule, which.since, which.until, state, which.limit)
    return [scheduled.firing(row) for row in conn.execute(query, bindings)]


def next_due(conn: Connection, app: str, now: int) -> int | None:
    """When there is something to do; ``now`` if there is."""
    if conn.execute(Q["schedule_may_start"], (app,)).get is not None:
        return now
    at: int | None = conn.execute(Q["schedule_next_due"], (app,)).get
    return None if at is None else max(at, now)
