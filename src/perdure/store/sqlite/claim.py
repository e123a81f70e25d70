"""Taking workflows: what is ready, what the dead left, what a lost answer hid.

Promise: whoever takes a workflow gets it in one transaction with its wakes: they are deleted, a cancel command among
them is kept in the row, and its watches are forgotten. Histories are read later, by statements of their own.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from perdure.model.ids import RunKey
from perdure.model.records import Claimed
from perdure.store.base import ClaimRequest
from perdure.store.sql import queries
from perdure.store.sqlite import rows
from perdure.store.sqlite.driver import Connection

Q = queries("perdure.store.sqlite")


def claim(conn: Connection, app: str, want: ClaimRequest, now: int) -> list[Claimed]:
    """Up to ``limit`` unclaimed workflows that are due or woken, oldest due first."""
    due: dict[str, int] = {}
    for query, bindings in (
        ("workflow_due", (app, now, want.limit, "")),
        ("workflow_due", (app, now, want.limit, want.version)),
        ("workflow_woken", (app, want.limit, want.version)),
    ):
        for at, id in conn.execute(Q[query], bindings):
            due[id] = min(at, due.get(id, at))
    first = sorted(due, key=lambda one: (due[one], one))[: want.limit]
    return _take(conn, app, first, want, now)


def adopt(
    conn: Connection, app: str, gone: Collection[bytes], want: ClaimRequest, now: int, *, death: bool
) -> list[Claimed]:
    """Up to ``limit`` running workflows of owners that are gone."""
    found: dict[str, bytes] = {
        id: owner
        for owner in sorted(gone)
        for (id,) in conn.execute(Q["workflow_orphans"], (app, owner, want.version, want.limit)).fetchall()
    }
    ids = sorted(found)[: want.limit]
    taken = _take(conn, app, ids, want, now, deaths=int(death))
    if death and ids:
        conn.executemany(Q["decision_default"], [(app, id, now, found[id]) for id in ids])
    return taken


def reclaim(conn: Connection, app: str, keys: Sequence[RunKey], want: ClaimRequest, now: int) -> list[Claimed]:
    """Those of ``keys`` that the asker itself owns, under a new token."""
    owned = set(conn.execute(Q["workflow_owned"], (app, want.owner)))
    return _take(conn, app, sorted(key.id for key in set(keys) if key in owned), want, now)


def _take(
    conn: Connection, app: str, ids: list[str], want: ClaimRequest, now: int, *, deaths: int = 0
) -> list[Claimed]:
    """Make ``want.owner`` the holder of each; what it gets, in the order of ``ids``."""
    if not ids:
        return []
    keys = [(app, id) for id in ids]
    conn.executemany(Q["workflow_take"], [(app, id, want.owner, want.token, deaths, want.version, now) for id in ids])
    conn.executemany(Q["wake_clear"], keys)
    conn.executemany(Q["watch_clear"], keys)
    return [rows.claimed(row) for row in conn.executemany(Q["workflow_claimed"], keys)]
