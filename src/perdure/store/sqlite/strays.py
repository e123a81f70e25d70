"""Unfinished work of versions that nobody runs any more: found, moved to another version, or noted as tried in vain.

Promise: each call is one transaction, and moves only what stands as it was seen.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from perdure.model.records import WorkflowRow
from perdure.model.states import Reason
from perdure.model.trials import Trial
from perdure.store.sql import queries
from perdure.store.sqlite import problems, reads
from perdure.store.sqlite.claim import left_to
from perdure.store.sqlite.driver import Connection

Q = queries("perdure.store.sqlite")


def versions(conn: Connection, app: str) -> list[str]:
    found: list[str] = []
    at: str | None = ""
    while (at := conn.execute(Q["stray_version"], (app, at)).get) is not None:
        found.append(at)
    return found


def strays(conn: Connection, app: str, versions: Collection[str], untried: str | None, limit: int) -> list[WorkflowRow]:
    ids = [
        id
        for version in sorted(versions)
        for (id,) in conn.execute(Q["stray_list"], (app, version, untried, limit)).fetchall()
    ][:limit]
    found = reads.workflows(conn, app, ids)
    return [found[id] for id in ids]


def commanded(conn: Connection, app: str, versions: Collection[str]) -> list[tuple[str, str]]:
    asked = set(versions)
    found = conn.execute(Q["stray_commanded"], (app,)).fetchall()
    return [(id, reason) for id, reason, version in found if version in asked]


def adopt(conn: Connection, app: str, seen: Sequence[WorkflowRow], version: str, now: int) -> list[str]:
    moved: list[str] = []
    for row in seen:
        bindings = (app, row.id, row.run, row.version, row.claim, row.last_seq, version, now)
        if conn.execute(Q["stray_adopt"], bindings).fetchone() is not None:
            conn.execute(Q["trial_forget"], (app, row.id))
            moved.append(row.id)
    return sorted(moved)


def release(
    conn: Connection, app: str, gone: Collection[bytes], served: Collection[str], limit: int, now: int
) -> list[str]:
    known = json.dumps(sorted(served))
    found = [
        (id, owner)
        for owner in left_to(conn, app, gone, b"")
        for (id,) in conn.execute(Q["stray_orphans"], (app, owner, known, limit)).fetchall()
    ][:limit]
    for id, owner in found:
        conn.execute(Q["stray_release"], (app, id, now))
        problems.died(conn, app, id, owner, now)
    return sorted(id for id, _ in found)


def note(conn: Connection, app: str, trials: Sequence[Trial], now: int) -> None:
    for t in trials:
        conn.execute(Q["trial_put"], (app, t.id, t.run, t.last_seq, t.version, t.reason, t.detail, now))


def trials(conn: Connection, app: str, ids: Collection[str]) -> dict[str, Trial]:
    found: dict[str, Trial] = {}
    for id in sorted(set(ids)):
        for r in conn.execute(Q["trial_get"], (app, id)):
            found[id] = Trial(id=id, run=r[1], last_seq=r[2], version=r[3], reason=r[4], detail=r[5], at=r[6])
    return found


def held_elsewhere(
    conn: Connection, app: str, reasons: Collection[Reason], version: str, limit: int, now: int
) -> list[WorkflowRow]:
    given = (app, version, json.dumps(sorted(reasons)), limit, now)
    ids = [id for (id,) in conn.execute(Q["held_elsewhere"], given).fetchall()]
    found = reads.workflows(conn, app, ids)
    return [found[id] for id in ids]
