"""Deployments: what an operator sees of versions and orders of them, each in one transaction."""

from __future__ import annotations

from perdure.model.deployments import DeleteVersion, Deployment, OpenWork, Order, Ruling
from perdure.model.states import VERSIONINGS
from perdure.model.versions import Routing, Sample
from perdure.store import deployed
from perdure.store.postgres import rows
from perdure.store.postgres.commit import Place
from perdure.store.postgres.connection import Link, Transaction
from perdure.store.postgres.versions import put
from perdure.versions.deployments import Seen, rule


async def change(link: Link, place: Place, order: Order, now: int | None) -> Ruling:
    """Do what is ordered, unless something is in the way."""
    sql, app = place.sql, place.app
    async with link.transaction() as tx:
        at: int = now if now is not None else (await tx.fetchrow(sql["clock"]))[0]
        found = await tx.fetchrow(sql["routing_seen"], app)
        before = None if found is None else deployed.routing(found)
        if before is not None and await tx.fetchrow(
            sql["change_made"], app, before.revision - deployed.REPEATED, order.nonce
        ):  # by a first try
            return Ruling(before=None, after=before, changed=True)
        ruling, after, metadata = rule(order, await _seen(tx, place, order, before, at))
        if before is None or after is None:
            return ruling
        await put(tx, place, before, after, deployed.by_order(order, before, after, at), at, operator=True)
        name = deployed.named(order, before)
        if metadata is not None:
            await tx.fetch(sql["version_metadata"], app, name, metadata.decode())
        if isinstance(order.verb, DeleteVersion):
            await tx.fetch(sql["version_delete"], app, name, at)
        return ruling


async def _seen(tx: Transaction, place: Place, order: Order, before: Routing | None, at: int) -> Seen:
    sql, app, name = place.sql, place.app, deployed.named(order, before)
    found = await tx.fetchrow(sql["version_get"], app, name)
    who = await tx.fetch(sql["version_executors"], app, name, at, sorted(order.apart))
    work = await _open(tx, place, name, deployed.BOUND) if isinstance(order.verb, DeleteVersion) else []
    current = None if before is None else await tx.fetchrow(sql["version_get"], app, before.current)
    return deployed.seen(at, before, found, who, work, current)


async def deployment(link: Link, place: Place, bound: int, changes: int, now: int | None) -> Deployment:
    """All of it, as of one moment."""
    sql, app = place.sql, place.app
    async with link.transaction() as tx:
        await tx.execute("set transaction isolation level repeatable read, read only")
        at: int = now if now is not None else (await tx.fetchrow(sql["clock"]))[0]
        found = await tx.fetchrow(sql["routing_get"], app)
        return Deployment(
            now=at,
            routing=None if found is None else deployed.routing(found),
            versions=[deployed.version(row) for row in await tx.fetch(sql["version_list"], app)],
            executors=[rows.incarnation(row) for row in await tx.fetch(sql["incarnation_list"], app)],
            open=await _open(tx, place, None, bound),
            changes=[deployed.change(row) for row in await tx.fetch(sql["change_list"], app, changes)],
        )


async def _open(tx: Transaction, place: Place, version: str | None, bound: int) -> list[OpenWork]:
    found = await tx.fetch(place.sql["open_work"], place.app, version, bound)
    return [OpenWork(row[0], VERSIONINGS[int(row[1])], row[2]) for row in found]


async def sample(link: Link, place: Place, version: str, since: int, latest: int) -> Sample:
    """What became of the latest workflows of a version."""
    sql = place.sql["version_sample"]
    return Sample(*(await link.fetchrow(sql, place.app, version, since, latest)))
