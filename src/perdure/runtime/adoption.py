"""Adoption: unfinished work of versions that nobody runs any more goes on here, if its history replays on this code.

A loop over rows, as recovery is: it may be interrupted anywhere, and the next round does what is left. Each round, in
every executor, after the reaper's:

- what the gone were running, of versions that nobody runs, is queued (a death each);
- a version that nobody runs is left alone for a lease, unless no other executor lives: one may be about to start;
- then one executor of the version that new work goes to (the one that was launched first of those alive) tries each run
  in bounded batches. Safe ones are moved by compare-and-set; of the others a trial is noted, so that they are tried
  again only when their history or the code has changed;
- what cannot move and was told to cancel is ended without cleanup, so that ``cancel()`` answers.

That only one tries saves work and is no condition of safety: two at once move each run once.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from perdure.client.line import Line
from perdure.definitions import Registry
from perdure.errors import DatabaseTrouble
from perdure.model.info import to_datetime
from perdure.model.orders import BY_CODE
from perdure.model.records import Incarnation, WorkflowRow
from perdure.model.trials import Trial
from perdure.runtime.given import Given
from perdure.runtime.leases import provably_gone
from perdure.runtime.pasts import read_pasts
from perdure.runtime.recovery import Former, strays
from perdure.runtime.replay_check import Finding, Replayer
from perdure.store.rollcall import RollCall

log = logging.getLogger("perdure")

BATCH = 50  # runs tried between two writes
READ_MAX = 2000  # runs read at once: each read goes past all that was tried before, so it is twice the last one
LONG_SECONDS = 0.25  # a look in vain that takes longer (much is stranded) is followed by a rest ...
RESTS = 20  # ... of so many times that
ORPHANS = 200  # released in one call
KNOWN_MAX = 1000  # of those that are stranded already, told of at a launch

Target = Callable[[str], str]  # the version that new work of this id goes to


class Host(Former, Protocol):
    """What adoption needs of an executor."""

    line: Line
    registry: Registry
    me: Incarnation
    version: str
    executor_id: str
    adopt: str  # replay_safe | never
    alive: bool
    draining: bool

    async def target(self) -> Target: ...

    def look(self) -> None: ...


class Fleet(NamedTuple):
    """Who is there, as one executor sees it."""

    served: frozenset[str]  # versions that executors run, as far as is known
    alone: bool
    first: bool  # of the live executors of this version, the asker was launched first
    lease: int
    gone: list[bytes]  # owners that will not come back for what they ran


class Adopter:
    """The adopting part of one executor."""

    def __init__(self, host: Host) -> None:
        self._host = host
        host.line.check_replay = self.check
        self._unserved_since: dict[str, int] = {}
        self._under_way = False
        self._told = False  # of what earlier launches of this version have tried in vain
        self._rests_until: dict[tuple[bool, tuple[str, ...]], float] = {}  # by the loop's clock
        self._given = Given(host)

    async def check(self, row: WorkflowRow, version: str) -> str | None:
        """Why this run would not replay on the code that is here, of ``version``; None if it would."""
        host = self._host
        if version != host.version:
            return f"this executor runs version {host.version!r}, not {version!r}"
        replayer = Replayer(host.registry, version=host.version, executor_id=host.executor_id)
        try:
            verdicts = await replayer.check_all(await read_pasts(host.line.store, [row]))
        finally:
            replayer.close()
        return next((verdict.detail for verdict in verdicts if not verdict.safe), None)

    async def round(self, roll: RollCall | None = None) -> None:
        """One round; nothing if one is under way. Trouble with the database is left to the next.

        ``roll``: if it was called just now.
        """
        if self._under_way or not self._host.version:
            return
        self._under_way = True
        try:
            await self._round(roll)
        except DatabaseTrouble as trouble:
            log.info("the database is in trouble, work of other versions is looked at again later: %s", trouble)
        finally:
            self._under_way = False

    async def _round(self, roll: RollCall | None) -> None:
        host, store = self._host, self._host.line.store
        if roll is None:
            roll = await store.roll_call(now=host.line.clock.stamp())
        # A lease that has run out counts once more: after an outage all have, and most come back.
        now = host.line.clock.now()
        live = [
            who for who in roll.known if who.serving and who.lease_until + who.lease > now and not provably_gone(who)
        ]
        await self._given.look(roll.owners, roll.known, live)
        fleet = self._see(roll, live)
        if fleet is None or host.recovery == "manual":
            return
        if await self._release(fleet):
            self._rests_until.clear()
            roll = await store.roll_call(now=host.line.clock.stamp())
        if fleet.first and host.adopt != "never" and set(roll.strays) - {"", host.version}:
            await self._try_held()
        versions = self._unserved(roll.strays, fleet)
        if not versions or not fleet.first:
            return
        target = await host.target()
        if host.adopt != "never":
            # Whoever asks for a version that was never launched waits for its launch. But what has begun was launched,
            # whatever a failover has lost of that.
            launched = {version.name for version in await store.versions() if version.first_launched}
            await self._try_all([version for version in versions if version in launched], target)
            await self._try_all([version for version in versions if version not in launched], target, begun=True)
        await self._cancel(versions, target)

    def _live(self, roll: RollCall) -> list[Incarnation]:
        """A lease that has run out counts once more: after an outage all have, and most come back."""
        now = self._host.line.clock.now()
        serving = (who for who in roll.known if who.serving)
        return [who for who in serving if who.lease_until + who.lease > now and not provably_gone(who)]

    def _see(self, roll: RollCall, live: Sequence[Incarnation]) -> Fleet | None:
        """None if others take this executor for dead."""
        host, known = self._host, roll.known
        me = next((who for who in live if who.id == host.me.id), None)
        if me is None:
            return None
        peers = [who for who in live if who.version == me.version and who.state == "alive"]
        first = min(peers, key=lambda who: (who.started, who.id), default=None)
        gone = [who for who in known if not who.serving and who.heir is None]
        if host.recovery == "own":
            gone = [who for who in gone if who.executor == me.executor or who.state == "released"]
        served = frozenset(who.version for who in live)
        over = {who.id for who in gone} | set(strays(host, roll.owners, {who.id for who in known}))
        return Fleet(served, len(live) == 1, first is me, me.lease, [id for id in roll.owners if id in over])

    async def _release(self, fleet: Fleet) -> int:
        """What the gone were running, and no live executor could take over, is left by nobody: queued; how many."""
        store, stamp = self._host.line.store, self._host.line.clock.stamp
        count = 0
        while fleet.gone and (released := await store.release_orphans(fleet.gone, fleet.served, ORPHANS, now=stamp())):
            count += len(released)
        if count:
            log.info("%s of executors that are gone, of versions that nobody runs, queued", _many(count))
        return count

    def _unserved(self, versions: Collection[str], fleet: Fleet) -> list[str]:
        """The versions whose time has come."""
        now = self._host.line.clock.now()
        unserved = [version for version in versions if version not in fleet.served]
        self._unserved_since = {version: self._unserved_since.get(version, now) for version in unserved}
        return [v for v, since in self._unserved_since.items() if fleet.alone or now - since >= fleet.lease]

    # -- trying

    async def _try_all(self, versions: Sequence[str], target: Target, *, begun: bool = False) -> None:
        """All of these versions; with ``begun`` what somebody has run, as long as a batch has any of it."""
        host, what = self._host, (begun, tuple(versions))
        if not versions or host.line.loop.time() < self._rests_until.get(what, 0.0):
            return
        replayer = Replayer(host.registry, version=host.version, executor_id=host.executor_id)
        adopted: Counter[str] = Counter()
        stranded: list[Trial] = []
        began: dict[str, int] = {}
        seen: set[str] = set()
        left = 0  # so many of those seen come again: another version's business, or not as they were seen
        page, since = BATCH, host.line.loop.time()
        try:
            while host.alive and not host.draining:
                rows = await host.line.store.strays(versions, host.version, page + left)
                fresh = [row for row in rows if row.id not in seen]
                if not fresh:
                    break
                page = min(2 * page, READ_MAX)
                seen.update(row.id for row in fresh)
                mine = [row for row in fresh if target(row.id) == host.version and (row.epoch or not begun)]
                if begun:
                    mine = await self._unless_sent(mine)
                    if not mine:
                        break
                left += len(fresh)
                while mine and host.alive and not host.draining:
                    batch, mine = mine[:BATCH], mine[BATCH:]
                    moved, failed = await self._try(batch, replayer)
                    adopted.update(row.version for row in batch if row.id in moved)
                    stranded += failed
                    began.update((row.id, row.created) for row in batch if row.id not in moved)
                    left -= len(moved) + len(failed)
        finally:
            replayer.close()
        took = host.line.loop.time() - since
        if not adopted and not stranded and took > LONG_SECONDS:
            self._rests_until[what] = since + (RESTS + 1) * took
        if not self._told:
            (stranded, began), self._told = await self._known(versions), True
        self._say(adopted, sorted(stranded, key=lambda trial: began[trial.id]), began)

    async def _try_held(self) -> None:
        """What other versions hold because their code could not go on, and new work of that id would bring here."""
        host = self._host
        store, stamp = host.line.store, host.line.clock.stamp
        target = await host.target()
        replayer: Replayer | None = None
        adopted: Counter[str] = Counter()
        seen: set[str] = set()
        failed = 0
        try:
            while host.alive and not host.draining:
                # Those seen come again if they are for another version, or did not stand as they were seen.
                rows = await store.held_elsewhere(BY_CODE, host.version, BATCH + len(seen), now=stamp())
                fresh = [row for row in rows if row.id not in seen]
                if not fresh:
                    break
                seen.update(row.id for row in fresh)
                mine = await self._unless_sent([row for row in fresh if target(row.id) == host.version])
                if mine:
                    replayer = replayer or Replayer(host.registry, version=host.version, executor_id=host.executor_id)
                    moved, trials = await self._try(mine, replayer)
                    adopted.update(row.version for row in mine if row.id in moved)
                    failed += len(trials)
        finally:
            if replayer is not None:
                replayer.close()
        for old, count in sorted(adopted.items()):
            log.info("%s held by version %s replayed on version %s and goes on there", _many(count), old, host.version)
        if failed:
            log.info("%s held by other versions would break on version %s, too", _many(failed), host.version)

    async def _unless_sent(self, rows: Sequence[WorkflowRow]) -> list[WorkflowRow]:
        """Without those that a policy has sent to the version they are of: they have begun under another one."""
        sent: set[tuple[str, str]] = set()
        for decided in await self._host.line.store.decisions([row.id for row in rows]):
            evidence: dict[str, Any] = msgspec.json.decode(decided.evidence)
            sent.add((decided.id, str(evidence.get("target", "")).rpartition(" on ")[2]))
        return [row for row in rows if (row.id, row.version) not in sent]

    async def _known(self, versions: Sequence[str]) -> tuple[list[Trial], dict[str, int]]:
        """What is stranded, whoever tried it, and since when there is each; the first thousand."""
        store = self._host.line.store
        rows = {row.id: row for row in await store.strays(versions, None, KNOWN_MAX)}
        found = await store.trials(rows)
        stranded = [
            trial
            for id, trial in found.items()
            if (trial.run, trial.last_seq, trial.version) == (rows[id].run, rows[id].last_seq, self._host.version)
        ]
        return stranded, {id: row.created for id, row in rows.items()}

    async def _try(self, rows: Sequence[WorkflowRow], replayer: Replayer) -> tuple[frozenset[str], list[Trial]]:
        host = self._host
        store, stamp = host.line.store, host.line.clock.stamp
        safe: list[WorkflowRow] = []
        failed: list[Trial] = []
        pasts = await read_pasts(store, rows)
        for past, verdict in zip(pasts, await replayer.check_all(pasts), strict=True):
            row = past.row
            if verdict.safe or verdict.finding is Finding.NO_STATE:  # held there, where a policy may move it
                safe.append(row)
            else:
                failed.append(
                    Trial(
                        id=row.id, run=row.run, last_seq=row.last_seq, version=host.version,
                        reason=str(verdict.finding), detail=verdict.detail,
                    )
                )  # fmt: skip
        if failed:
            await store.note_trials(failed, now=stamp())
        moved = await store.adopt_strays(safe, host.version, now=stamp()) if safe else []
        if moved:
            host.look()
        return frozenset(moved), failed

    def _say(self, adopted: Counter[str], stranded: Sequence[Trial], began: Mapping[str, int]) -> None:
        """Tell what came of it; ``stranded`` has the oldest first, which is the example."""
        version = self._host.version
        for old, count in sorted(adopted.items()):
            log.info("adopted %s of version %s, which replayed on version %s", _many(count), old, version)
        if stranded:
            reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(Counter(t.reason for t in stranded).items()))
            log.warning(
                "%s of versions that nobody runs would break on version %s and stay where they are, stranded (%s); for "
                "example %s: %s. The oldest is of %s. See: perdure workflow list --stranded",
                _many(len(stranded)), version, reasons, stranded[0].id, stranded[0].detail,
                to_datetime(began[stranded[0].id]).isoformat(timespec="seconds"),
            )  # fmt: skip

    # -- cancelling

    async def _cancel(self, versions: Sequence[str], target: Target) -> None:
        """End what was told to cancel and can run nowhere: its cleanup is code that is not here."""
        host, line = self._host, self._host.line
        told = [one for one in await line.store.strays_told_to_cancel(versions) if target(one[0]) == host.version]
        if not told:
            return
        rows = await line.store.rows([id for id, _ in told])
        for id, reason in told:
            version = rows[id].version
            if version in versions:
                row = await line.store.cancel(id, reason, line.new_token(), unserved=version, now=line.clock.stamp())
                log.warning("workflow %s was %s", id, row.detail if row is not None else "deleted")
        line.watcher.look()
        line.store.hint()


def _many(count: int) -> str:
    return f"{count} unfinished workflow{'' if count == 1 else 's'}"
