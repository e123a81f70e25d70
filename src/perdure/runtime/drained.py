"""Whether an executor may end by itself: its version is drained, and nothing is left here that it runs.

Promises: never while its version is current or ramping, or was never given traffic; nor while no other executor serves
the current version, for then this one takes new work rather than nobody; nor while a workflow is in its memory. What is
seen once may be undone by a start that was routed just before: it is done when it was seen twice, a round apart.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Protocol

from perdure.client.line import Line
from perdure.errors import DatabaseTrouble
from perdure.model.deployments import State
from perdure.model.records import Incarnation
from perdure.runtime.leases import provably_gone
from perdure.runtime.reaper import Reaper
from perdure.versions.deployments import state_of

log = logging.getLogger("perdure")


class Host(Protocol):
    """What this needs of an executor."""

    line: Line
    me: Incarnation
    version: str
    executions: dict[str, Any]
    reaper: Reaper

    @property
    def deciding(self) -> Mapping[str, Any]: ...


class Engine(Protocol):
    """Where the executor is; it may have another by and by."""

    @property
    def executor(self) -> Host | None: ...


async def until_drained(engine: Engine) -> None:
    """Return when its executor may end."""
    seen = False
    while (host := engine.executor) is not None:
        try:
            done = await is_done(host)
        except DatabaseTrouble as trouble:
            log.info(
                "the database is in trouble, whether version %s is drained is asked later: %s", host.version, trouble
            )
            done = False
        if done and seen:
            log.info("version %s is drained, and nothing is left for it here: this executor ends", host.version)
            return
        seen = done
        await asyncio.sleep(host.reaper.rhythm())


async def is_done(host: Host) -> bool:
    """Whether nothing is left for it as things are now."""
    if host.executions or host.deciding:
        return False
    found = await host.line.store.deployment(bound=1, changes=0, now=host.line.clock.stamp())
    routing = found.routing
    mine = next((one for one in found.versions if one.name == host.version), None)
    if routing is None or mine is None or state_of(routing, mine, found.open) is not State.DRAINED:
        return False
    served = any(
        who.version == routing.current and who.state == "alive" and who.leased(found.now) and not provably_gone(who)
        for who in found.executors
    )
    return served and not (host.executions or host.deciding)
