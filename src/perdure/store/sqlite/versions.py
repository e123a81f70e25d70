"""Versions of the code and where new work goes: launches and operators change both in one transaction."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping

import msgspec

from perdure.model.states import VERSIONING, Reason, Versioning
from perdure.model.versions import Routing, Unfinished, Version
from perdure.store.sql import queries
from perdure.store.sqlite.driver import Connection
from perdure.versions.routing import after_launch, gets, withdrawn_by

Q = queries("perdure.store.sqlite")
_fingerprints = msgspec.json.Decoder(dict[str, str])
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
    first = conn.execute(Q["version_known"], (app, version)).fetchone() is None
    written = _json.encode(dict(fingerprints)).decode()
    [(withdrawn,)] = conn.execute(Q["version_launched"], (app, version, written, now)).fetchall()
    served = before is not None and any(
        id not in apart for (id,) in conn.execute(Q["version_served"], (app, before.current, now)).fetchall()
    )
    after = after_launch(before, version, auto=auto, first=first, withdrawn=bool(withdrawn), served=served, now=now)
    if after is not None:
        _put(conn, app, after)
        return after
    assert before is not None, "the first launch makes it"
    return before


def reroute(conn: Connection, app: str, to: Routing, now: int) -> Routing | None:
    before = routing(conn, app)
    if before is None or before.revision != to.revision:
        return None
    after = msgspec.structs.replace(to, revision=to.revision + 1, changed=now)
    _put(conn, app, after)
    for lose in withdrawn_by(before, after):
        conn.execute(Q["version_withdrawn"], (app, lose, 1))
    for get in gets(after):
        conn.execute(Q["version_withdrawn"], (app, get, 0))
    return after


def routing(conn: Connection, app: str) -> Routing | None:
    r = conn.execute(Q["routing_get"], (app,)).fetchone()
    if r is None:
        return None
    return Routing(current=r[0], ramping=r[1], percentage=r[2], revision=r[3], changed=r[4], because=r[5])


def versions(conn: Connection, app: str) -> list[Version]:
    return [
        Version(
            name=r[0], fingerprints=_fingerprints.decode(r[1]), first_launched=r[2], launched=r[3], withdrawn=bool(r[4])
        )
        for r in conn.execute(Q["version_list"], (app,))
    ]


def declare(conn: Connection, app: str, ids: Collection[str], versioning: Versioning, claim: bytes) -> int:
    code = VERSIONING[versioning]
    keys = [(app, id, claim, code) for id in sorted(ids)]
    return len(conn.executemany(Q["versioning_declared"], keys).fetchall())


def unfinished(conn: Connection, app: str, limit: int) -> list[Unfinished]:
    found: dict[str, Unfinished] = {}
    owners = [who for (who, *_) in conn.execute(Q["incarnation_list"], (app,)).fetchall()]
    for owner in (None, *owners):
        held = () if owner is None else (owner,)
        for version in _open_versions(conn, app, owner):
            query = Q["unfinished_free" if owner is None else "unfinished_held"]
            [(count, oldest)] = conn.execute(query, (app, version, limit, *held)).fetchall()
            before = found.get(version, Unfinished(version=version, count=0, oldest=oldest))
            found[version] = Unfinished(
                version=version, count=min(before.count + count, limit), oldest=min(before.oldest, oldest)
            )
    return sorted(found.values(), key=lambda one: (one.oldest, one.version))


def _open_versions(conn: Connection, app: str, owner: bytes | None) -> Iterator[str]:
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
    apart: Collection[str],
    retry: Collection[Reason],
    now: int,
) -> int:
    named, reasons, moved = json.dumps(sorted(names)), json.dumps(sorted(retry)), 0
    places: list[tuple[bytes | None, str]] = [
        (owner, other) for owner in (None, *sorted(gone)) for other in _open_versions(conn, app, owner)
    ]
    for owner, other in places:
        if other == version or other in apart:
            continue
        if owner is None:
            found = conn.execute(Q["upgradable"], (app, other, named, limit - moved)).fetchall()
        else:
            found = conn.execute(Q["upgradable_held"], (app, other, named, limit - moved, owner)).fetchall()
        conn.executemany(Q["upgrade"], [(app, id, version, reasons, now) for (id,) in found])
        moved += len(found)
    return moved


def _put(conn: Connection, app: str, to: Routing) -> None:
    conn.execute(Q["routing_put"], (app, to.current, to.ramping, to.percentage, to.revision, to.changed, to.because))
