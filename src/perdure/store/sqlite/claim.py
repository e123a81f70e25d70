"""Taking workflows: what is ready, what the dead left, what a lost answer hid.

Promise: who claims a workflow takes its wakes in the same transaction: they are deleted, a cancel command among them
is kept in the row, and its watches are forgotten. The wakes of a run that was adopted stay for its new holder's poll.
Histories are read later, by statements of their own.
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
        ("workflow_due", (app, now, want.limit)),
        ("workflow_woken", (app, want.limit)),
    ):
        for at, id in conn.execute(Q[query], bindings):
            due[id] = min(at, due.get(id, at))
    first = sorted(due, key=lambda one: (due[one], one))[: want.limit]
    _take(conn, app, first, want, now, woken=True)
    keys = [(app, id) for id in first]
    conn.executemany(Q["wake_clear"], keys)
    conn.executemany(Q["watch_clear"], keys)
    return _claimed(conn, app, first)


def adopt(
    conn: Connection, app: str, gone: Collection[bytes], want: ClaimRequest, now: int, *, death: bool
) -> list[Claimed]:
    """Up to ``limit`` running workflows of owners that are gone."""
    found: list[str] = [
        id
        for owner in sorted(gone)
        for id, _ in conn.execute(Q["workflow_owned"] + " order by id limit ?3", (app, owner, want.limit)).fetchall()
    ]
    first = sorted(found)[: want.limit]
    _take(conn, app, first, want, now, deaths=int(death))
    return _claimed(conn, app, first)


def reclaim(conn: Connection, app: str, keys: Sequence[RunKey], want: ClaimRequest, now: int) -> list[Claimed]:
    """Those of ``keys`` that the asker itself owns, under a new token."""
    owned = set(conn.execute(Q["workflow_owned"], (app, want.owner)))
    first = sorted(key.id for key in set(keys) if key in owned)
    _take(conn, app, first, want, now)
    return _claimed(conn, app, first)


def _take(
    conn: Connection, app: str, ids: list[str], want: ClaimRequest, now: int, *, deaths: int = 0, woken: bool = False
) -> None:
    """Make ``want.owner`` the holder of each."""
    conn.executemany(
        Q["workflow_take"], [(app, id, want.owner, want.token, deaths, want.version, now, woken) for id in ids]
    )


def _claimed(conn: Connection, app: str, ids: list[str]) -> list[Claimed]:
    """What the holder gets, in the order of ``ids``."""
    return [rows.claimed(row) for row in conn.executemany(Q["workflow_claimed"], [(app, id) for id in ids])]
