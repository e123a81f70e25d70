"""Reads: each function is one snapshot. There is no round trip to save here, so a batch is a loop over its keys."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from perdure.model.ids import Holding, RunKey
from perdure.model.records import Ended, Incarnation, Message, Record, Wake, WorkflowRow
from perdure.store import asks
from perdure.store.asks import Fates, Poll
from perdure.store.lines import lines_of, versions_of
from perdure.store.sql import queries
from perdure.store.sqlite import queues, rows, schedules
from perdure.store.sqlite.driver import Connection, Row

Q = queries("perdure.store.sqlite")


def histories(conn: Connection, app: str, keys: Sequence[RunKey]) -> dict[RunKey, list[Record]]:
    return {key: [rows.record(r) for r in conn.execute(Q["history_of"], (app, *key))] for key in keys}


def inbox(conn: Connection, app: str, ids: Collection[str]) -> list[Message]:
    return [rows.message(r) for r in _many(conn, "message_inbox", ((app, id) for id in sorted(set(ids))))]


def workflows(conn: Connection, app: str, ids: Collection[str]) -> dict[str, WorkflowRow]:
    return {r[0]: rows.workflow(r) for r in _many(conn, "workflow_get", ((app, id) for id in ids))}


def told(conn: Connection, app: str, ids: Collection[str]) -> dict[str, WorkflowRow]:
    """The same with commands to cancel that are on their way."""
    return {r[0]: rows.told(r) for r in _many(conn, "workflow_get", ((app, id) for id in ids))}


def run(conn: Connection, app: str, key: RunKey) -> WorkflowRow | None:
    row = conn.execute(Q["workflow_get"], (app, key.id)).fetchone()
    if row is None or row[1] != key.run:
        row = conn.execute(Q["past_run_get"], (app, *key)).fetchone()
    return None if row is None else rows.workflow(row)


def inputs(conn: Connection, app: str, keys: Collection[RunKey]) -> dict[RunKey, bytes]:
    return {RunKey(id, run): data for id, run, data in _many(conn, "payload_input", ((app, *key) for key in keys))}


def ended(conn: Connection, app: str, ids: Collection[str]) -> dict[str, Ended]:
    return {r[0]: rows.ended(r) for r in _many(conn, "workflow_ended", ((app, id) for id in ids))}


def fates(conn: Connection, app: str, ids: Collection[str]) -> Fates:
    found = ended(conn, app, ids)
    others = sorted(set(ids) - found.keys())
    there = {r[0] for r in _many(conn, "workflow_head", ((app, id) for id in others))}
    return Fates(found, [id for id in others if id not in there])


def events(conn: Connection, app: str, wanted: Collection[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
    return {(id, name): data for id, name, data in _many(conn, "event_get", ((app, *pair) for pair in wanted))}


def poll(
    conn: Connection,
    app: str,
    owner: bytes | None,
    held: Collection[Holding] | None,
    version: str,
    now: int,
    *,
    fresh: bool,
    after: str,
) -> Poll:
    window = (after, asks.WAKES)
    seen, last = conn.execute(Q["wake_window"], (app, *window)).get
    beyond = last if seen == asks.WAKES else ""
    wakes: list[Wake] = []
    lost: list[Holding] = []
    if owner is not None:
        wakes = [Wake(*r) for r in conn.execute(Q["wake_held"], (app, owner, *window))]
        if held is not None:
            known = set(held)
            lost = [Holding(*r) for r in conn.execute(Q["workflow_owned"], (app, owner)) if r not in known]
            lost.sort()
    claimable: int | None = None
    for woken, *due in conn.execute(Q["workflow_claimable"], (app, version, "" if fresh else version, *window)):
        times = [now] if woken else [max(until, now) for until in due if until is not None]
        claimable = min(times, default=None)
    fires = schedules.next_due(conn, app, now)
    if owner is None:
        return Poll(now=now, wakes=wakes, claimable=claimable, lost=lost, schedule=fires, after=beyond)
    versions = versions_of(version, fresh=fresh)
    return Poll(
        now=now, wakes=wakes, claimable=claimable, lost=lost, lines=lines_of(queues.lines(conn, app, versions)),
        due=queues.due(conn, app, versions),
        told=[(id, reason) for id, reason in conn.execute(Q["line_told"], (app, *window))],
        revision=conn.execute(Q["queue_revisions"], (app,)).get, schedule=fires, after=beyond,
    )  # fmt: skip


def incarnations(conn: Connection, app: str) -> list[Incarnation]:
    return [rows.incarnation(r) for r in conn.execute(Q["incarnation_list"], (app,))]


def apps(conn: Connection) -> list[str]:
    found = {r[0] for r in conn.execute(Q["incarnation_apps"])}
    name: str | None = ""
    while (name := conn.execute(Q["app_next"], (name,)).get) is not None:
        found.add(name)
    return sorted(found or {r[0] for r in conn.execute(Q["version_apps"])})


def _many(conn: Connection, query: str, bindings: Iterable[tuple[Any, ...]]) -> Iterable[Row]:
    return conn.executemany(Q[query], bindings)
