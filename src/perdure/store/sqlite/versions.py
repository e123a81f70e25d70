"""Versions of the code and where new work goes: launches and operators change both in one transaction."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import msgspec

from perdure.model.states import VERSIONING, Reason
from perdure.model.versions import Routing, Terms, Unfinished, Version
from perdure.store import deployed
from perdure.store.sql import queries
from perdure.store.sqlite.driver import Connection
from perdure.versions.deployments import marks
from perdure.versions.routing import after_launch

Q = queries("perdure.store.sqlite")
_json = msgspec.json.Encoder(order="sorted")


def launched(
    conn: Connection,
    app: str,
    version: str,
    fingerprints: Mapping[str, str],
    apart: Collection[bytes],
    now: int,
    *,
    auto: bool,
) -> Routing:
    """Register a launch; where new work goes after it."""
    before = routing(conn, app)
    known = conn.execute(Q["version_get"], (app, version)).fetchone()
    conn.execute(Q["version_launched"], (app, version, _json.encode(dict(fingerprints)).decode(), now))
    first, withdrawn = known is None or not known[2], known is not None and bool(known[4])
    served = before is not None and any(
        id not in apart for (id,) in conn.execute(Q["version_served"], (app, before.current, now)).fetchall()
    )
    after = after_launch(before, version, auto=auto, first=first, withdrawn=withdrawn, served=served, now=now)
    if after is not None:
        put(conn, app, before, after, deployed.by_launch(version, after), now, operator=False)
        return after
    assert before is not None, "the first launch makes it"
    return before


def put(
    conn: Connection, app: str, before: Routing | None, after: Routing, noted: tuple[Any, ...], now: int, *,
    operator: bool,
) -> None:  # fmt: skip
    """Write where new work goes from now on, what that means for the versions, and that it was changed.

    ``before``: as it was seen in this transaction, None if there was nothing.
    """
    conn.execute(
        Q["routing_put"],
        (
            app, after.current, after.ramping, after.percentage, after.revision, after.changed, after.because,
            deployed.watch_text(after),
        ),
    )  # fmt: skip
    for mark in marks(before, after):
        conn.execute(Q["version_mark"], (app, mark.version, now, int(mark.gets), int(operator)))
    conn.execute(Q["change_put"], (app, *noted))


def routing(conn: Connection, app: str) -> Routing | None:
    r = conn.execute(Q["routing_get"], (app,)).fetchone()
    if r is None:
        return None
    return deployed.routing(r)


def note_schemes(conn: Connection, app: str, version: str, schemes: Mapping[str, str]) -> None:
    conn.execute(Q["version_note_schemes"], (app, version, _json.encode(dict(schemes)).decode()))


def schemes(conn: Connection, app: str) -> dict[str, dict[str, str]]:
    return {name: json.loads(text) for name, text in conn.execute(Q["version_schemes"], (app,))}


def versions(conn: Connection, app: str) -> list[Version]:
    return [deployed.version(row) for row in conn.execute(Q["version_list"], (app,))]


def declare(conn: Connection, app: str, terms: Collection[Terms], claim: bytes) -> int:
    bindings = [(app, one.id, claim, VERSIONING[one.versioning], one.timeout) for one in terms]
    return len(conn.executemany(Q["declare"], bindings).fetchall())


def unfinished(conn: Connection, app: str, limit: int) -> list[Unfinished]:
    found: dict[str, Unfinished] = {}
    owners = [who for (who, *_) in conn.execute(Q["incarnation_list"], (app,)).fetchall()]
    for owner in (None, *owners):
        held = () if owner is None else (owner,)
        for version in open_versions(conn, app, owner):
            query = Q["unfinished_free" if owner is None else "unfinished_held"]
            [(count, oldest)] = conn.execute(query, (app, version, limit, *held)).fetchall()
            before = found.get(version, Unfinished(version=version, count=0, oldest=oldest))
            found[version] = Unfinished(
                version=version, count=min(before.count + count, limit), oldest=min(before.oldest, oldest)
            )
    return sorted(found.values(), key=lambda one: (one.oldest, one.version))


def open_versions(conn: Connection, app: str, owner: bytes | None) -> Iterator[str]:
    """The versions of open work that ``owner`` holds (None: that nobody does), by hops along the index."""
    query = Q["version_next_free" if owner is None else "version_next_held"]
    held = () if owner is None else (owner,)
    version: str | None = ""
    while (version := conn.execute(query, (app, version, *held)).get) is not None:
        yield version


def upgrade(
    conn: Connection,
    app: str,
    version: str,
    names: Collection[str],
    limit: int,
    gone: Collection[bytes],
    ramp: tuple[bytes, bool] | None,
    retry: Collection[Reason],
    now: int,
) -> int:
    named, reasons, moved = json.dumps(sorted(names)), json.dumps(sorted(retry)), 0
    share, ramped = (None, False) if ramp is None else ramp
    places: list[tuple[bytes | None, str]] = [
        (owner, other) for owner in (None, *sorted(gone)) for other in open_versions(conn, app, owner)
    ]
    for owner, other in places:
        if other == version:
            continue
        wanted = (app, other, named, limit - moved, share, int(ramped))
        if owner is None:
            found = conn.execute(Q["upgradable"], wanted).fetchall()
        else:
            found = conn.execute(Q["upgradable_held"], (*wanted, owner)).fetchall()
        conn.executemany(Q["upgrade"], [(app, id, version, reasons, now) for (id,) in found])
        moved += len(found)
    return moved
