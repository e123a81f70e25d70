"""Recovery: taking over what the gone have left.

A loop over rows, not an event: it may be interrupted anywhere and simply runs again. Liveness decides *when* a workflow
is taken over; whether the former holder may still write is decided by the claim token alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence, Sized
from typing import Protocol

from perdure.client.line import Line
from perdure.errors import ConfigError, DatabaseTrouble
from perdure.model.records import Claimed, Incarnation
from perdure.runtime.leases import provably_gone
from perdure.runtime.pool import ThreadPool
from perdure.runtime.post import Taking
from perdure.runtime.reaper import Reaper
from perdure.store.asks import ClaimRequest
from perdure.store.rollcall import RollCall

log = logging.getLogger("perdure")

CLAIM_BATCH = 200
BATCHES_MAX = 10  # of one round: then the dead are looked at anew, since there may be more of them
AHEAD = 400  # runs and writes that wait for their turn here; with so many of them nothing more is taken over
UNDECIDED = 1000  # that a policy is asked about at a time
FULL_SECONDS = 0.5  # until the next round where there was more than fits into memory
SUSPECT_SECONDS = 0.25  # … where suspects wait for their turn
QUIET_SECONDS = 0.005  # between two looks whether a suspect has calmed down, or the backlog is gone


class Former(Protocol):
    """What an executor is, and was."""

    recovery: str  # fleet | own | single | manual
    former: list[bytes]  # what this process was before it was declared dead


class Limits(Protocol):
    """What queues let an executor have."""

    async def know_first(self) -> None: ...


class Host(Former, Protocol):
    """What recovery needs of an executor."""

    line: Line
    me: Incarnation
    version: str
    recovered: int
    executor_id: str
    reaper: Reaper
    taking: Taking
    step_pool: ThreadPool
    body_pool: ThreadPool
    deciding: dict[str, asyncio.Task[None]]

    @property
    def to_begin(self) -> Sized:
        """Runs that are here and have not begun."""
        ...

    @property
    def queues(self) -> Limits: ...

    def request(self, limit: int) -> ClaimRequest: ...
    def answer_lost(self) -> None: ...

    def room(self) -> int:
        """How many more runs may be taken over now."""
        ...

    def may_begin(self) -> bool:
        """Whether the lease is good: who may not begin a step takes nothing over."""
        ...

    def has_suspect(self) -> bool:
        """Whether a suspect runs here that has not got anywhere yet."""
        ...

    async def take_on(self, claimed: Sequence[Claimed]) -> None: ...


async def call_the_roll(host: Host) -> RollCall:
    """Who is there, for all that a round does; the guards learn what time the database has."""
    asked = host.reaper.elapsed()
    roll = await host.line.store.roll_call(now=host.line.clock.stamp())
    host.reaper.guards.saw(roll.now, asked, host.reaper.elapsed())
    return roll


async def reap(host: Host, roll: RollCall | None = None, batches: int = BATCHES_MAX) -> int:
    """Take over what the gone have left, so many batches at most; how many workflows that were.

    ``roll``: if it was called just now. What is left then is for the next round, which comes at once.
    """
    host.reaper.soon, host.reaper.buried = None, False
    if not host.may_begin():
        return 0
    taken = 0
    try:
        gone = await _bury_the_gone(host, roll or await call_the_roll(host))
        if gone:
            taken = await _take_over(host, gone, batches)
        if host.reaper.may_forget():
            await host.line.store.forget()
    except DatabaseTrouble as trouble:
        log.info("the database is in trouble, recovery looks again later: %s", trouble)
        host.answer_lost()
    if taken:
        host.recovered += taken
        log.info("recovered %d unfinished workflow%s of executors that are gone", taken, "" if taken == 1 else "s")
    return taken


async def _take_over(host: Host, gone: list[bytes], batches: int) -> int:
    """First what is calm, in batches; then one suspect, if none runs here.

    Whoever died with a suspect in flight was most likely killed by it: the others are not counted. A suspect is taken
    when nothing calm is left of its owner, so that until then everybody sees what that owner died with.
    """
    store, stamp = host.line.store, host.line.clock.stamp
    await host.queues.know_first()
    spared = await store.with_suspects(gone, host.version)
    taken = 0
    if host.request(1).full:
        host.reaper.soon = FULL_SECONDS  # what their queues keep from this executor may come when something ends here
    while room := _room(host):
        if not batches:
            host.reaper.soon = 0.0
            return taken
        batches -= 1
        await _caught_up(host)
        async with host.taking:
            claimed = await store.adopt(gone, host.request(min(CLAIM_BATCH, room)), spared=spared, now=stamp())
            if not claimed:
                break
            await host.take_on(claimed)
        taken += len(claimed)
    else:
        host.reaper.soon = FULL_SECONDS
        return taken
    return taken + await _take_suspects(host, gone, spared)


def _room(host: Host) -> int:
    """For runs, and for what policies are asked about: those may take their time, and the rest can wait in its rows."""
    return max(0, min(host.room(), UNDECIDED - len(host.deciding)))


async def _caught_up(host: Host) -> None:
    """Until little that was taken over waits for its turn: new work waits behind it, and memory holds it all.

    The next batch is asked for while there is still something to do, so that neither the database nor this loop idles.
    """
    while backlog(host) > AHEAD and host.room():  # noqa: ASYNC110  a backlog is many things, none an event
        await asyncio.sleep(QUIET_SECONDS)


def backlog(host: Host) -> int:
    """What waits here: runs for their first turn, writes for their commit, blocking calls for a thread."""
    return len(host.to_begin) + host.line.journal.backlog + host.step_pool.backlog + host.body_pool.backlog


async def _take_suspects(host: Host, gone: list[bytes], spared: list[bytes]) -> int:
    """One at a time: the next when the one before has got somewhere, or has nothing left to do but wait."""
    taken = 0
    loop = host.line.loop
    end = loop.time() + SUSPECT_SECONDS
    while not host.has_suspect():
        async with host.taking:
            claimed = await host.line.store.adopt(
                gone, host.request(1), suspects=True, spared=spared, now=host.line.clock.stamp()
            )
            if not claimed:
                return taken
            await host.take_on(claimed)
        taken += 1
        while host.has_suspect() and loop.time() < end:  # noqa: ASYNC110  calm is many things, none an event
            await asyncio.sleep(QUIET_SECONDS)
    host.reaper.soon = SUSPECT_SECONDS
    return taken


async def _bury_the_gone(host: Host, roll: RollCall) -> list[bytes]:
    """Owners whose work may be taken: left, dead, given to us by an operator, or known by their work alone."""
    store, stamp, reaper = host.line.store, host.line.clock.stamp, host.reaper
    owners = roll.owners
    others = [who for who in roll.known if who.id != host.me.id]
    given = [who.id for who in others if who.state == "released" and who.heir in (None, host.executor_id)]
    known = {who.id for who in others} | {host.me.id}
    if host.recovery == "manual":  # what this process was itself, and is forgotten, no person could give to anybody
        return [*given, *(id for id in host.former if id in owners and id not in known)]
    if host.recovery == "own":
        others = [who for who in others if who.executor == host.me.executor]
    now, at = roll.now, reaper.elapsed()
    seeming = [who for who in others if who.serving]
    proven = [who.id for who in seeming if provably_gone(who)]
    if proven:
        await store.bury(proven, expired_only=False, now=stamp())
    serving = [who for who in seeming if who.id not in proven]
    verdict = reaper.guards.judge(serving, now, at, reaper.lifelines.look(serving, roll, at))
    buried = await store.bury(verdict.expired, now=stamp()) if verdict.expired else []
    if verdict.silent:
        buried += await store.bury(list(verdict.silent), expired_only=False, beats=verdict.silent, now=stamp())
    reaper.buried = bool(proven or buried)
    reaper.know(serving)
    soon = (reaper.guards.next_expiry(serving, now), reaper.lifelines.next_due)
    reaper.next_expiry = min((wait for wait in soon if wait is not None), default=None)
    over = [who.id for who in others if who.state in ("dead", "gone")]
    return [id for id in dict.fromkeys([*proven, *buried, *over, *given, *strays(host, owners, known)]) if id in owners]


def strays(host: Former, owners: Sequence[bytes], known: Collection[bytes]) -> list[bytes]:
    """Owners that no row tells of, as far as they concern this executor: with ``own``, what this process was itself.

    ``known``: of the same roll call, so that nobody is missing there who has just registered.
    """
    return [id for id in owners if id not in known and (host.recovery != "own" or id in host.former)]


async def meet(host: Host) -> None:
    """Learn who serves by now, between two rounds: a process that has just been launched may be killed at once, too."""
    if host.recovery == "manual":
        return
    try:
        known = await host.line.store.incarnations()
    except DatabaseTrouble:
        return
    others = [who for who in known if who.id != host.me.id and who.serving]
    host.reaper.know([who for who in others if host.recovery != "own" or who.executor == host.me.executor])


async def refuse_company(host: Host) -> None:
    """With ``recovery="single"``: raise ``ConfigError`` if another executor of this app seems to be alive."""
    store, stamp = host.line.store, host.line.clock.stamp
    others = [who for who in await store.incarnations() if who.id != host.me.id and who.serving]
    maybe = [who for who in others if not provably_gone(who)]
    buried = await store.bury([who.id for who in maybe], now=stamp()) if maybe else []
    for who in maybe:
        if who.id not in buried:
            raise ConfigError(
                f"recovery='single' was asked for, but executor {who.executor!r} (pid {who.pid} on {who.host}) is "
                f"{who.state}; stop it first, or use recovery='fleet'. See: perdure executor list"
            )


async def until_alone(host: Host) -> None:
    """With ``recovery="single"``, and declared dead: return when no other executor serves any more, however late.

    Whoever serves has become the single one meanwhile. Its death is judged as by any reaper, guards included.
    """
    told = False
    while True:
        try:
            await _bury_the_gone(host, await call_the_roll(host))
            other = await company(host, host.me.id)
        except DatabaseTrouble as trouble:
            log.info("the database is in trouble, whether another executor serves is looked at later: %s", trouble)
        else:
            if other is None:
                return
            if not told:
                told = True
                log.error(
                    "recovery='single': executor %r (pid %d on %s) is %s since this one was declared dead; this one "
                    "runs nothing until that is gone. Stop one of the two. See: perdure executor list",
                    other.executor, other.pid, other.host, other.state,
                )  # fmt: skip
        await asyncio.sleep(host.reaper.rhythm())


async def is_known(host: Host) -> bool:
    """Whether the database still knows this executor for one that serves: a failover may have lost that."""
    return any(who.id == host.me.id and who.serving for who in await host.line.store.incarnations())


async def company(host: Host, me: bytes) -> Incarnation | None:
    """Another incarnation than ``me`` that serves or drains, as far as its row tells; None if there is none."""
    known = await host.line.store.incarnations()
    return next((who for who in known if who.id != me and who.serving), None)
