"""Following the routing: what goes with it is moved to where it says, and the current version is one that lives.

A loop over rows in the reaper's rhythm, like recovery: interrupted anywhere, it simply runs again. Moving a workflow is
one compare-and-set of a row that nobody holds, or whose holder is gone (the reaper then takes it over); whether its
history fits the other code is for the replay to say, which holds it if not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from perdure.client.verbs import patiently
from perdure.definitions import Registry
from perdure.errors import DatabaseTrouble
from perdure.model.orders import BY_CODE, FOLLOWS
from perdure.model.records import Incarnation
from perdure.model.states import Versioning
from perdure.model.versions import Routing, Version
from perdure.runtime.held import Later
from perdure.runtime.launch import Host as Launching
from perdure.runtime.launch import launch, register
from perdure.runtime.leases import lives, provably_gone
from perdure.runtime.schedules import Declared
from perdure.runtime.watching import Host as Watching
from perdure.runtime.watching import watch
from perdure.store.rollcall import RollCall
from perdure.versions.routing import gets, share

log = logging.getLogger("perdure")

UPGRADE_BATCH = 500
QUIET_ROUNDS = 12  # not looked at in each, while nobody is there who could put down work of another version
LONG_SECONDS = 0.25  # a look in vain that takes longer (a ramp parts much that waits) is followed by a rest ...
RESTS = 20  # ... of so many times that
UNSERVED_SECONDS = 60.0  # longer than a restart takes: whoever comes back finds its version still the current one


class Following:
    """What one executor remembers from round to round."""

    def __init__(self) -> None:
        self.unserved_since: float | None = None  # by the loop's clock: nobody is seen to serve the current version
        self.done: Any = None  # all was moved while routing and the gone were as this says
        self.every = False  # by an order, also what does not declare it goes with the routing
        self.quiet = 0
        self.rests_until = 0.0  # by the loop's clock
        self.revision = 0  # of the routing that the next is of
        self.served: frozenset[str] = frozenset()  # versions that others, or this one, are seen to run
        self.withdrawn = False  # an operator took traffic from the version that runs here
        self.fresh = True  # what has no version yet is taken, not left to executors of the current one, who are there
        self.schedules = Declared()
        self.later = Later()


class Host(Launching, Watching, Protocol):
    """What following needs of an executor."""

    registry: Registry
    following: Following

    def look(self) -> None: ...


async def follow(host: Host, roll: RollCall | None = None) -> int:
    """One round; how many workflows were moved to the version that runs here. ``roll``: if it was called just now."""
    store, routes = host.line.store, host.line.routes
    try:
        routing = await store.routing()
        routes.saw(routing)
        if routing is None:
            return 0
        others = (roll or await store.roll_call(now=host.line.clock.stamp())).known
        host.following.served = _served(host, others)
        routing = await watch(host, routing, host.following.served)
        routes.saw(routing)
        await host.following.schedules.see(host, routing)
        await _see_what_is_ours(host, routing)
        if routing.current == host.code.version:
            host.following.unserved_since = None
        else:
            await _succeed(host, routing, others)
        return await _upgrade(host, routing, others) if host.code.version in gets(routing) else 0
    except DatabaseTrouble as trouble:
        log.info("the database is in trouble, routing is followed later: %s", trouble)
        return 0


async def declare_anew(host: Host, declare_queues: Callable[[], Awaitable[None]]) -> None:
    """What a launch declares, by one declared dead: the database may have been made anew, or restored, meanwhile.

    A version that is known is not launched again: a rebirth says nothing of where new work should go.
    """
    line, following = host.line, host.following
    if not _is_launched(host.code.version, await patiently(line, line.store.versions)):
        await launch(host)
    following.revision, following.done, following.schedules = 0, None, Declared()
    await patiently(line, declare_queues)


def _is_launched(version: str, known: Sequence[Version]) -> bool:
    return any(one.name == version and one.deleted is None and one.first_launched for one in known)


async def _see_what_is_ours(host: Host, routing: Routing) -> None:
    """Whoever claims what has no version gives it its own: not one that an operator has taken traffic from.

    Nor one that was given a share, which it gets by the ids, or under ``manual`` no traffic at all. Unless nobody of
    the current version is there to take it: late work is better than none.
    """
    following, version = host.following, host.code.version
    if following.revision != routing.revision:
        known = await host.line.store.versions()
        # A failover has lost this launch, or the version was deleted while this executor was taken for dead.
        if not _is_launched(version, known):
            await register(host)
        following.withdrawn = any(one.withdrawn for one in known if one.name == version)
        following.revision = routing.revision
    served = routing.current in following.served
    host.line.routes.left = following.withdrawn and served
    fresh = version == routing.current or not (served and (following.withdrawn or host.line.routes.leads))
    if fresh != following.fresh:
        following.fresh = fresh
        log.info("%s", _what_of_new_work(following, routing, version))
        if fresh:
            host.look()


def _what_of_new_work(following: Following, routing: Routing, version: str) -> str:
    if version == routing.current:
        return f"version {version}, which runs here, gets all that no ramp takes"
    if version in gets(routing):
        taken = f"version {version}, which runs here, gets {routing.percentage:g} % of new work: other is"
    else:
        no = "traffic was taken from" if following.withdrawn else "no traffic was given to"
        taken = f"{no} version {version}, which runs here: new work is"
    if following.fresh:
        return f"{taken} taken all the same while no executor of version {routing.current} is alive"
    return f"{taken} left to executors of version {routing.current}"


def _served(host: Host, others: Sequence[Incarnation]) -> frozenset[str]:
    clock = host.line.clock.now()
    living = (who.version for who in others if who.state == "alive" and lives(who, clock))
    return frozenset((host.code.version, *living))


async def _upgrade(host: Host, routing: Routing, others: Sequence[Incarnation]) -> int:
    version, following = host.code.version, host.following
    foreign = [who for who in others if who.version != version]
    gone = [who.id for who in foreign if not who.serving or provably_gone(who)]
    state = (routing.revision, gone)
    following.quiet = following.quiet + 1 if following.done == state and len(gone) == len(foreign) else 0
    rests = following.done == state and host.line.loop.time() < following.rests_until
    if following.done != state:  # what was ordered before the routing changed went where it said then
        following.every = FOLLOWS in await host.line.store.upkeep.marks()
    known = host.registry.workflows.items()
    names = [name for name, of in known if following.every or of.versioning is Versioning.AUTO_UPGRADE]
    if not names:
        following.done = state
    if not names or following.quiet % QUIET_ROUNDS or rests:
        return 0
    began = host.line.loop.time()
    ramps = routing.ramping in gets(routing)
    ramp = (share(routing.percentage), version == routing.ramping) if ramps else None
    moved, batch = 0, UPGRADE_BATCH
    while batch == UPGRADE_BATCH:
        batch = await host.line.store.upgrade(
            version, names, UPGRADE_BATCH, gone=gone, ramp=ramp, retry=BY_CODE, now=host.line.clock.stamp()
        )
        moved += batch
        await asyncio.sleep(0)
    following.done = state
    ended = host.line.loop.time()
    following.rests_until = ended + RESTS * (ended - began) if not moved and ended - began > LONG_SECONDS else 0.0
    if moved:
        log.info("%d workflow%s moved to version %s", moved, " was" if moved == 1 else "s were", version)
        host.look()
    return moved


async def _succeed(host: Host, routing: Routing, others: Sequence[Incarnation]) -> None:
    """Under ``auto``: an edit that was undone while its executors still lived is current once they have been gone.

    Not at once, for they may only be restarting.
    """
    following, now = host.following, host.line.loop.time()
    clock = host.line.clock.now()
    served = any(who.version == routing.current and lives(who, clock) for who in others)
    if host.line.routes.rollout != "auto" or served:
        following.unserved_since = None
    elif following.unserved_since is None:
        following.unserved_since = now
    elif now - following.unserved_since >= UNSERVED_SECONDS:
        following.unserved_since = None
        await register(host)
