"""Taking workflows: what is ready, what the dead left, what a lost answer hid.

Promise: whoever takes a workflow gets it in one transaction with its wakes: they are deleted, a cancel command among
them is kept in the row, and its watches are forgotten. Histories are read later, by statements of their own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec

from perdure.model.ids import RunKey
from perdure.model.records import Claimed
from perdure.store import asks
from perdure.store.asks import ClaimRequest
from perdure.store.sql import queries
from perdure.store.sqlite import problems, rows
from perdure.store.sqlite.driver import Connection

Q = queries("perdure.store.sqlite")
SUSPECT = 2  # deaths in a row, without getting anywhere between them


def claim(conn: Connection, app: str, want: ClaimRequest, now: int) -> list[Claimed]:
    """Up to ``limit`` unclaimed workflows that are due or woken, oldest due first."""
    if not still_counts(conn, want.owner, want.series):
        return []
    due: dict[str, int] = {}
    unversioned: set[str] = set()
    queues: dict[str, str | None] = {}
    suspects: set[str] = set()
    full = rows.pack([*want.full])
    other = "" if want.fresh else want.version
    for query, bindings in (
        ("workflow_due", (app, now, want.limit, other, want.suspect, full)),
        ("workflow_due", (app, now, want.limit, want.version, want.suspect, full)),
        ("workflow_woken", (app, want.limit, want.version, other, want.suspect, full, want.after, asks.WAKES)),
    ):
        for at, id, queue, suspect, versioned in conn.execute(Q[query], bindings):
            due[id] = min(at, due.get(id, at))
            queues[id] = queue
            if suspect:
                suspects.add(id)
            if not versioned:
                unversioned.add(id)
    spared = sorted(suspects, key=lambda one: (due[one], one))[1:]  # of these one at a time
    calm = sorted(due.keys() - spared, key=lambda one: (due[one], one))
    taken = take(conn, app, _let(want, calm, queues)[: want.limit], want, now)
    return [
        msgspec.structs.replace(one, since=due[one.row.id], versioned=one.row.id not in unversioned) for one in taken
    ]


def still_counts(conn: Connection, owner: bytes, series: int | None) -> bool:
    """Whether a claim that obeys an executor's own limits (else None) counts: no series was begun after its own."""
    if series is None:
        return True
    begun = conn.execute(Q["incarnation_counts"], (owner,)).get
    return begun is not None and begun <= series


def _let(want: ClaimRequest, ids: Sequence[str], queues: Mapping[str, str | None]) -> list[str]:
    """Those of ``ids``, in order, that their queues let the asker have."""
    if not want.some:
        return list(ids)
    left = dict(want.some)
    let: list[str] = []
    for id in ids:
        queue = queues[id]
        if queue is not None and queue in left:
            left[queue] -= 1
            if left[queue] < 0:
                continue
        let.append(id)
    return let


def adopt(
    conn: Connection,
    app: str,
    gone: Collection[bytes],
    want: ClaimRequest,
    now: int,
    *,
    death: bool,
    suspects: bool,
    spared: Collection[bytes],
) -> list[Claimed]:
    """Up to ``limit`` running workflows of owners that are gone: suspects or others.

    Nothing if the asker has been declared dead: two that do not know it yet would take from each other, again and
    again, and each time it is a death.
    """
    serves = conn.execute(Q["incarnation_serves"], (app, want.owner)).fetchone() is not None
    if not serves or not still_counts(conn, want.owner, want.series):
        return []
    limit = -1 if suspects else want.limit  # of suspects, which are few, the ones of the fewest deaths
    found: list[tuple[int, str, int, bytes]] = []
    queues: dict[str, str | None] = {}
    for owner in left_to(conn, app, gone, want.owner):
        counted = death and owner not in spared
        which = (app, owner, want.version, limit, int(suspects), SUSPECT - counted, rows.pack([*want.full]))
        for id, tries, queue in conn.execute(Q["workflow_orphans"], which):
            queues[id] = queue
            found.append((tries if suspects else 0, id, tries + int(counted or (death and tries >= SUSPECT)), owner))
    found.sort()
    let = set(_let(want, [id for _, id, _, _ in found], queues))
    taken = [one for one in found if one[1] in let][: want.limit]
    claimed = take(conn, app, [id for _, id, _, _ in taken], want, now, attempts=[n for *_, n, _ in taken], crash=death)
    if death and taken:
        conn.executemany(Q["decision_default"], [(app, id, now, owner) for _, id, _, owner in taken])
        for _, id, _, owner in taken:
            problems.died(conn, app, id, owner, now)
    return claimed


def left_to(conn: Connection, app: str, gone: Collection[bytes], me: bytes) -> list[bytes]:
    """Those of ``gone`` that nobody has given to another than the incarnation ``me``, sorted."""
    given = {row[0] for row in conn.execute(Q["incarnation_given"], (app, me))}
    return sorted(set(gone) - given)


def with_suspects(conn: Connection, app: str, gone: Collection[bytes], version: str) -> list[bytes]:
    """Those of ``gone`` that died with a suspect."""
    which = (version, 1, 1, SUSPECT, "[]")
    each = [(owner, conn.execute(Q["workflow_orphans"], (app, owner, *which))) for owner in sorted(gone)]
    return [owner for owner, found in each if found.fetchone() is not None]


def owners(conn: Connection, app: str) -> list[bytes]:
    """Who owns anything, found by hopping from owner to owner."""
    found: list[bytes] = []
    owner: bytes | None = b""
    while (owner := conn.execute(Q["workflow_next_owner"], (app, owner)).get) is not None:
        found.append(owner)
    return found


def reclaim(conn: Connection, app: str, keys: Sequence[RunKey], want: ClaimRequest, now: int) -> list[Claimed]:
    """Those of ``keys`` that the asker itself owns, under a new token; not what was moved to another version since."""
    if not still_counts(conn, want.owner, want.series):
        return []
    owned = {RunKey(id, run) for id, run in conn.execute(Q["workflow_held"], (app, want.owner, want.version))}
    return take(conn, app, sorted(key.id for key in set(keys) if key in owned), want, now)


def take(
    conn: Connection,
    app: str,
    ids: list[str],
    want: ClaimRequest,
    now: int,
    *,
    attempts: Sequence[int] | None = None,
    crash: bool = False,
) -> list[Claimed]:
    """Make ``want.owner`` the holder of each; what it gets, in the order of ``ids``."""
    if not ids:
        return []
    keys = [(app, id) for id in ids]
    deaths = [None] * len(ids) if attempts is None else attempts
    took = [
        (app, id, want.owner, want.token, n, want.version, now, int(crash)) for id, n in zip(ids, deaths, strict=True)
    ]
    conn.executemany(Q["workflow_take"], took)
    conn.executemany(Q["wake_clear"], keys)
    conn.executemany(Q["watch_clear"], keys)
    return [rows.claimed(row) for row in conn.executemany(Q["workflow_claimed"], keys)]
