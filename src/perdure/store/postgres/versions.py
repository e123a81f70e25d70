"""Versions of the code and where new work goes: launches and operators change both in one transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from perdure.model.states import VERSIONING, Reason, Versioning
from perdure.model.versions import Routing, Unfinished, Version
from perdure.store.postgres.commit import Place
from perdure.store.postgres.connection import Link, Transaction
from perdure.versions.routing import FIRST_EVER, after_launch, gets, withdrawn_by

_fingerprints = msgspec.json.Decoder(dict[str, str])
_json = msgspec.json.Encoder(order="sorted")


async def launched(
    link: Link,
    place: Place,
    version: str,
    fingerprints: Mapping[str, str],
    apart: Collection[bytes],
    now: int | None,
    *,
    auto: bool,
) -> Routing:
    """Register a launch; where new work goes after it."""
    sql, app = place.sql, place.app
    async with link.transaction() as tx:
        at: int = now if now is not None else (await tx.fetchrow(sql["clock"]))[0]
        found = await tx.fetchrow(sql["routing_lock"], app, version, at, FIRST_EVER)
        before = _routing(found)
        written = _json.encode(dict(fingerprints)).decode()
        first, withdrawn = await tx.fetchrow(sql["version_launched"], app, version, written, at)
        if found[6]:  # made just now, for this version
            return before
        served = (await tx.fetchrow(sql["version_served"], app, before.current, at, sorted(apart)))[0]
        after = after_launch(before, version, auto=auto, first=first, withdrawn=withdrawn, served=served, now=at)
        if after is None:
            return before
        await _set(tx, place, after)
        return after


async def reroute(link: Link, place: Place, to: Routing, now: int | None) -> Routing | None:
    sql, app = place.sql, place.app
    async with link.transaction() as tx:
        at: int = now if now is not None else (await tx.fetchrow(sql["clock"]))[0]
        found = await tx.fetchrow(sql["routing_get"], app)
        if found is None or found[3] != to.revision:
            return None
        before, after = _routing(found), msgspec.structs.replace(to, revision=to.revision + 1, changed=at)
        if not await _set(tx, place, after):
            return None
        lose, get = sorted(withdrawn_by(before, after)), sorted(gets(after))
        await tx.fetch(sql["version_withdrawn"], app, lose, get)
        return after


async def routing(link: Link, place: Place) -> Routing | None:
    found = await link.fetchrow(place.sql["routing_get"], place.app)
    return None if found is None else _routing(found)


async def versions(link: Link, place: Place) -> list[Version]:
    return [
        Version(name=r[0], fingerprints=_fingerprints.decode(r[1]), first_launched=r[2], launched=r[3], withdrawn=r[4])
        for r in await link.fetch(place.sql["version_list"], place.app)
    ]


async def declare(link: Link, place: Place, ids: Collection[str], versioning: Versioning, claim: bytes) -> int:
    found = await link.fetch(
        place.sql["versioning_declared"], place.app, sorted(ids), claim, VERSIONING[versioning], writing=True
    )
    return len(found)


async def unfinished(link: Link, place: Place, limit: int) -> list[Unfinished]:
    found = await link.fetch(place.sql["unfinished"], place.app, limit)
    return [Unfinished(version=r[0], count=r[1], oldest=r[2]) for r in found]


async def upgrade(
    link: Link,
    place: Place,
    version: str,
    names: Collection[str],
    limit: int,
    gone: Collection[bytes],
    apart: Collection[str],
    retry: Collection[Reason],
    now: int | None,
) -> int:
    return len(
        await link.fetch(
            place.sql["upgrade"], place.app, version, limit, sorted(names), sorted(apart), sorted(retry), now,
            sorted(gone),
            writing=True,
        )
    )  # fmt: skip


async def _set(tx: Transaction, place: Place, to: Routing) -> bool:
    done = await tx.fetchrow(
        place.sql["routing_set"], place.app, to.current, to.ramping, to.percentage, to.revision, to.changed, to.because
    )
    return done is not None


def _routing(r: Any) -> Routing:
    return Routing(current=r[0], ramping=r[1], percentage=r[2], revision=r[3], changed=r[4], because=r[5])
