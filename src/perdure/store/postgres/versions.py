"""Versions of the code and where new work goes: launches and operators change both in one transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from perdure.model.states import VERSIONING, Reason
from perdure.model.versions import Routing, Terms, Unfinished, Version
from perdure.store import deployed
from perdure.store.postgres.commit import Place
from perdure.store.postgres.connection import Link, Transaction
from perdure.versions.deployments import marks
from perdure.versions.routing import FIRST_EVER, after_launch

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
        before = deployed.routing(found)
        known = await tx.fetchrow(sql["version_get"], app, version)
        await tx.fetch(sql["version_launched"], app, version, _json.encode(dict(fingerprints)).decode(), at)
        if found[7]:  # made just now, for this version
            await put(tx, place, None, before, deployed.by_launch(version, before), at, operator=False)
            return before
        first, withdrawn = known is None or not known[2], known is not None and known[4]
        served = (await tx.fetchrow(sql["version_served"], app, before.current, at, sorted(apart)))[0]
        after = after_launch(before, version, auto=auto, first=first, withdrawn=withdrawn, served=served, now=at)
        if after is None:
            return before
        await put(tx, place, before, after, deployed.by_launch(version, after), at, operator=False)
        return after


async def put(
    tx: Transaction, place: Place, before: Routing | None, after: Routing, noted: tuple[Any, ...], at: int, *,
    operator: bool,
) -> None:  # fmt: skip
    """Write where new work goes from now on, what that means for the versions, and that it was changed.

    ``before``: as it was seen under the lock; None if the row has just been made, and says so already.
    """
    sql, app = place.sql, place.app
    if before is not None:
        await tx.fetch(
            sql["routing_set"], app, after.current, after.ramping, after.percentage, after.revision, after.changed,
            after.because, deployed.watch_text(after),
        )  # fmt: skip
    for mark in marks(before, after):
        await tx.fetch(sql["version_mark"], app, mark.version, at, mark.gets, operator)
    await tx.fetch(sql["change_put"], app, *noted)


async def routing(link: Link, place: Place) -> Routing | None:
    found = await link.fetchrow(place.sql["routing_get"], place.app)
    return None if found is None else deployed.routing(found)


async def note_schemes(link: Link, place: Place, version: str, schemes: Mapping[str, str]) -> None:
    text = _json.encode(dict(schemes)).decode()
    await link.fetch(place.sql["version_note_schemes"], place.app, version, text, writing=True)


async def schemes(link: Link, place: Place) -> dict[str, dict[str, str]]:
    found = await link.fetch(place.sql["version_schemes"], place.app)
    return {name: msgspec.json.decode(text, type=dict[str, str]) for name, text in found}


async def versions(link: Link, place: Place) -> list[Version]:
    return [deployed.version(row) for row in await link.fetch(place.sql["version_list"], place.app)]


async def declare(link: Link, place: Place, terms: Collection[Terms], claim: bytes) -> int:
    each = sorted(terms, key=lambda one: one.id)  # the order of locks
    columns: tuple[list[Any], ...] = (
        [one.id for one in each], [VERSIONING[one.versioning] for one in each], [one.timeout for one in each],
    )  # fmt: skip
    return len(await link.fetch(place.sql["declare"], place.app, claim, *columns, writing=True))


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
    ramp: tuple[bytes, bool] | None,
    retry: Collection[Reason],
    now: int | None,
) -> int:
    share, ramped = (None, False) if ramp is None else ramp
    return len(
        await link.fetch(
            place.sql["upgrade"], place.app, version, limit, sorted(names), share, sorted(retry), now, sorted(gone),
            ramped, writing=True,
        )
    )  # fmt: skip
