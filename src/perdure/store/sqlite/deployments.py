"""Deployments: what an operator sees of versions and orders of them, each in one transaction."""

from __future__ import annotations

from perdure.model.deployments import DeleteVersion, Deployment, OpenWork, Order, Ruling
from perdure.model.states import VERSIONINGS
from perdure.model.versions import Routing, Sample
from perdure.store import deployed
from perdure.store.sql import queries
from perdure.store.sqlite import claim, reads
from perdure.store.sqlite.driver import Connection
from perdure.store.sqlite.versions import open_versions, put, routing, versions
from perdure.versions.deployments import Seen, rule

Q = queries("perdure.store.sqlite")


def change(conn: Connection, app: str, order: Order, now: int) -> Ruling:
    """Do what is ordered, unless something is in the way."""
    before = routing(conn, app)
    if (
        before is not None
        and conn.execute(Q["change_made"], (app, before.revision - deployed.REPEATED, order.nonce)).get
    ):
        return Ruling(before=None, after=before, changed=True)  # by a first try
    ruling, after, metadata = rule(order, _seen(conn, app, order, before, now))
    if before is None or after is None:
        return ruling
    put(conn, app, before, after, deployed.by_order(order, before, after, now), now, operator=True)
    name = deployed.named(order, before)
    if metadata is not None:
        conn.execute(Q["version_metadata"], (app, name, metadata.decode()))
    if isinstance(order.verb, DeleteVersion):
        conn.execute(Q["version_delete"], (app, name, now))
    return ruling


def _seen(conn: Connection, app: str, order: Order, before: Routing | None, now: int) -> Seen:
    name = deployed.named(order, before)
    found = conn.execute(Q["version_get"], (app, name)).fetchone()
    who = [
        (label, state)
        for label, state, id in conn.execute(Q["version_executors"], (app, name, now)).fetchall()
        if id not in order.apart
    ]
    work = _open(conn, app, name, deployed.BOUND) if isinstance(order.verb, DeleteVersion) else []
    current = None if before is None else conn.execute(Q["version_get"], (app, before.current)).fetchone()
    return deployed.seen(now, before, found, who, work, current)


def deployment(conn: Connection, app: str, bound: int, changes: int, now: int) -> Deployment:
    """All of it, as of one moment."""
    return Deployment(
        now=now,
        routing=routing(conn, app),
        versions=versions(conn, app),
        executors=reads.incarnations(conn, app),
        open=_open(conn, app, None, bound),
        changes=[deployed.change(row) for row in conn.execute(Q["change_list"], (app, changes)).fetchall()],
    )


def _open(conn: Connection, app: str, version: str | None, bound: int) -> list[OpenWork]:
    found: dict[tuple[str, int], int] = {}
    for owner in (None, *claim.owners(conn, app)):
        held = () if owner is None else (owner,)
        query = Q["open_work_free" if owner is None else "open_work_held"]
        for name in open_versions(conn, app, owner) if version is None else (version,):
            for code in range(len(VERSIONINGS)):
                count: int = conn.execute(query, (app, name, code, bound, *held)).get
                if count:
                    found[name, code] = found.get((name, code), 0) + count
    return [OpenWork(name, VERSIONINGS[code], count) for (name, code), count in sorted(found.items())]


def sample(conn: Connection, app: str, version: str, since: int, latest: int) -> Sample:
    """What became of the latest workflows of a version."""
    [found] = conn.execute(Q["version_sample"], (app, version, since, latest)).fetchall()
    return Sample(*found)
