"""Recovery: taking over what the gone have left, and trying held work again.

A loop over rows, not an event: it may be interrupted anywhere and simply runs again. Liveness decides *when* a workflow
is taken over; whether the former holder may still write is decided by the claim token alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from perdure.client.line import Line
from perdure.errors import ConfigError, DatabaseTrouble
from perdure.model.records import Claimed, Incarnation
from perdure.model.states import Reason
from perdure.runtime.leases import provably_gone
from perdure.store.base import ClaimRequest

log = logging.getLogger("perdure")

CLAIM_BATCH = 200
BY_CODE = frozenset({Reason.NONDETERMINISM, Reason.NO_CODE, Reason.UNDECODABLE})  # what other code may release


class Host(Protocol):
    """What recovery needs of an executor."""

    line: Line
    me: Incarnation
    version: str
    recovered: int
    recovery: str  # fleet | own | single | manual
    taking: asyncio.Lock
    looks: int  # at 0, the next look also searches for rows of ours that nobody runs

    def request(self, limit: int) -> ClaimRequest: ...

    async def take_on(self, claimed: Sequence[Claimed]) -> None: ...


async def reap(host: Host) -> int:
    """Take over what the gone have left, in bounded batches; how many workflows that were."""
    if host.recovery == "manual":
        return 0
    taken = 0
    store, stamp = host.line.store, host.line.clock.stamp
    try:
        gone = await _bury_the_gone(host)
        while gone:
            async with host.taking:
                claimed = await store.adopt(gone, host.request(CLAIM_BATCH), now=stamp())
                if not claimed:
                    break
                taken += len(claimed)
                await host.take_on(claimed)
    except DatabaseTrouble as trouble:
        log.info("the database is in trouble, recovery looks again later: %s", trouble)
        host.looks = 0  # an adoption's answer may be lost
    if taken:
        host.recovered += taken
        log.info("recovered %d unfinished workflow%s of executors that are gone", taken, "" if taken == 1 else "s")
    return taken


async def _bury_the_gone(host: Host) -> list[bytes]:
    """Incarnations that own nothing rightfully any more: left, buried before, proven gone, or out of lease."""
    store, stamp = host.line.store, host.line.clock.stamp
    others = [who for who in await store.incarnations() if who.id != host.me.id]
    if host.recovery == "own":
        others = [who for who in others if who.executor == host.me.executor]
    seeming = [who for who in others if who.serving]
    proven = [who.id for who in seeming if provably_gone(who)]
    if proven:
        await store.bury(proven, expired_only=False, now=stamp())
    expired = [who.id for who in seeming if who.id not in proven]
    buried = await store.bury(expired, now=stamp()) if expired else []
    return [*proven, *buried, *(who.id for who in others if who.state in ("dead", "gone"))]


async def refuse_company(host: Host) -> None:
    """With ``recovery="single"``: raise ``ConfigError`` if another executor of this app seems to be alive."""
    now = host.line.clock.now()
    for who in await host.line.store.incarnations():
        alive = who.leased(now) and not provably_gone(who)
        if who.id != host.me.id and alive:
            raise ConfigError(
                f"recovery='single' was asked for, but executor {who.executor!r} (pid {who.pid} on {who.host}) is "
                "alive; stop it first, or use recovery='fleet'. See: perdure executor list"
            )


async def retry_held(host: Host) -> None:
    """At launch: what was held because the code did not match is replayed once against the code that is here now.

    A replay has no effects, so trying costs nothing: what still does not match is held again, with both sides shown.
    """
    try:
        tried = await host.line.store.release_held(BY_CODE, host.version, now=host.line.clock.stamp())
    except DatabaseTrouble as trouble:
        log.info("the database is in trouble, held work is tried again at the next launch: %s", trouble)
        return
    if tried:
        log.info("trying %d held workflow%s against the code that is here now", tried, "" if tried == 1 else "s")
