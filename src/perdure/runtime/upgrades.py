"""Following the routing: what goes with the current version is moved to it, and the current one is one that lives.

A loop over rows in the reaper's rhythm, like recovery: interrupted anywhere, it simply runs again. Moving a workflow is
one compare-and-set of a row that nobody holds; whether its history fits the other code is for the replay to say, which
holds it if not.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from perdure.definitions import Registry
from perdure.errors import DatabaseTrouble
from perdure.model.states import Versioning
from perdure.model.versions import Routing
from perdure.runtime.launch import Host as Launching
from perdure.runtime.launch import living_versions, register
from perdure.runtime.recovery import BY_CODE

log = logging.getLogger("perdure")

UPGRADE_BATCH = 500
UNSERVED_SECONDS = 60.0  # longer than a restart takes: whoever comes back finds its version still the current one


class Host(Launching, Protocol):
    """What following needs of an executor."""

    registry: Registry
    unserved_since: float | None  # by the loop's clock: since when nobody is seen to serve the current version

    def look(self) -> None: ...


async def follow(host: Host) -> int:
    """One round; how many workflows were moved to the version that runs here."""
    store, routes = host.line.store, host.line.routes
    try:
        routing = await store.routing()
        routes.saw(routing)
        if routing is None:
            return 0
        if routing.current != host.code.version:
            await _succeed(host, routing)
            return 0
        host.unserved_since = None
        return await _upgrade(host, routing)
    except DatabaseTrouble as trouble:
        log.info("the database is in trouble, routing is followed later: %s", trouble)
        return 0


async def _upgrade(host: Host, routing: Routing) -> int:
    names = [n for n, d in host.registry.workflows.items() if d.versioning is Versioning.AUTO_UPGRADE]
    apart = [] if routing.ramping is None else [routing.ramping]
    moved = 0
    while names:
        batch = await host.line.store.upgrade(
            host.code.version, names, UPGRADE_BATCH, apart=apart, retry=BY_CODE, now=host.line.clock.stamp()
        )
        moved += batch
        if batch < UPGRADE_BATCH:
            break
        await asyncio.sleep(0)
    if moved:
        log.info("%d workflow%s moved to version %s", moved, " was" if moved == 1 else "s were", host.code.version)
        host.look()
    return moved


async def _succeed(host: Host, routing: Routing) -> None:
    """Under ``auto``: an edit that was undone while its executors still lived is current once they have been gone.

    Not at once, for they may only be restarting.
    """
    now = host.line.loop.time()
    if host.line.routes.rollout != "auto" or routing.current in await living_versions(host):
        host.unserved_since = None
    elif host.unserved_since is None:
        host.unserved_since = now
    elif now - host.unserved_since >= UNSERVED_SECONDS:
        host.unserved_since = None
        await register(host)
