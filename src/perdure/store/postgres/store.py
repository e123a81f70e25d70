"""The Postgres store: each method of the protocol, on one of three connections.

One connection writes batches, one claims and reads, one carries hints, and while somebody asks, one answers queries: a
long read never delays a commit, and a listener never blocks either. All time is the database's.
"""

from __future__ import annotations

import builtins  # `list` is a method here
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from perdure.config import masked
from perdure.errors import SchemaMismatch
from perdure.model.deployments import COUNTED, LATEST, SAMPLED, Deployment, Order, Ruling
from perdure.model.ids import Holding, RunKey
from perdure.model.orders import Answered, MoveOrder, SkipOrder
from perdure.model.problems import ProblemRow
from perdure.model.queues import Limits, QueueChange, QueueCount, QueueRow
from perdure.model.records import Claimed, DecisionRow, Ended, Incarnation, Message, Record, Request, WorkflowRow
from perdure.model.resets import ResetOrder
from perdure.model.schedules import Firing, Reschedule, Schedule, Which
from perdure.model.states import Reason
from perdure.model.streams import StreamAsk, StreamPage
from perdure.model.trials import Trial
from perdure.model.versions import Routing, Sample, Terms, Unfinished, Version
from perdure.model.writes import Pause, Receipt, Reopen, Rewind, Start, Unit, Verdict
from perdure.query.conditions import Query
from perdure.store.asks import ClaimRequest, Counted, Fates, Found, Health, Poll
from perdure.store.lines import Declared, Deduplicated, LineClaim, LineRequest
from perdure.store.postgres import (
    claim,
    commands,
    decisions,
    deployments,
    health,
    lifeline,
    migrate,
    problems,
    queues,
    reads,
    requests,
    schedules,
    strays,
    streams,
    versions,
    within,
)
from perdure.store.postgres import orders as by_order
from perdure.store.postgres.batches import PostgresBatches
from perdure.store.postgres.commit import Place
from perdure.store.postgres.connection import WRITING, Link, driver, refuse_garbled
from perdure.store.postgres.hints import Hints
from perdure.store.postgres.occasional import Occasional
from perdure.store.postgres.search import Searching
from perdure.store.postgres.text import statements
from perdure.store.postgres.upkeep import PostgresUpkeep
from perdure.store.postgres.writer import Writer
from perdure.store.rollcall import RollCall
from perdure.store.within import Within


class PostgresStore:
    """One app's view of one Postgres database (``schema``: where the tables live)."""

    def __init__(self, url: str, app: str, schema: str = "perdure") -> None:
        refuse_garbled(url)
        self.app = app
        self.schema = schema
        self.url = masked(url)
        self._place = Place(app, schema, statements(schema))
        self._writing = Link(url, WRITING)
        self._reading = Link(url)
        self._waiting = Occasional(url, WRITING)  # for what may wait for a lock: no claim and no look waits with it
        self._writer = Writer(self._writing, self._place)
        self._hints = Hints(url, schema, app)
        self._searching = Searching(url)
        self.upkeep = PostgresUpkeep(Link(url), self._reading, self._place)
        self.batches = PostgresBatches(url, self._place, self._searching)

    # -- opening

    async def open(self) -> None:
        driver()
        for link in (self._reading, self._writing, self.upkeep.link):
            link.open()
        self._searching.open()
        self._waiting.open()
        self.batches.open()
        try:
            await self._reading.check()
            have, known = await self.schema_version()
            if have > known:
                raise SchemaMismatch(
                    f"{self.url} has schema version {have}, this Perdure knows up to {known}. Upgrade Perdure here."
                )
        except BaseException:
            await self.close()
            raise
        self._hints.open()

    async def close(self) -> None:
        await self._hints.close()
        await self.upkeep.link.close()
        await self._searching.close()
        await self._waiting.close()
        await self.batches.close()
        await self._writing.close()
        await self._reading.close()

    # -- schema

    async def migrate(self) -> builtins.list[str]:
        return await self._writing.raw(lambda conn: migrate.migrate(conn, self.schema), writing=True, transacts=True)

    async def schema_version(self) -> tuple[int, int]:
        return await self._reading.raw(lambda conn: migrate.version(conn, self.schema)), migrate.known()

    # -- writing

    async def commit(self, batch: Sequence[Unit], *, now: int | None = None) -> Receipt:
        return await self._writer.commit(batch, now)

    def within(self, unit: Unit, before: int = 0, *, now: int | None = None) -> Within[Verdict]:
        return within.within(self._place, unit, before, now)

    def within_once(self, start: Start, how: Deduplicated, *, now: int | None = None) -> Within[WorkflowRow | None]:
        return within.once(self._place, start, how, now)

    async def wrote(self, key: RunKey, seq: int, nonce: bytes) -> bool:
        async with self._waiting.link() as link:
            return await within.wrote(link, self._place, key, seq, nonce)

    async def turn(self) -> Callable[[], None]:
        return _nothing  # writers wait for rows here, not for each other

    async def place(self) -> str:
        row = await self._reading.fetchrow(self._place.sql["place"])
        return f"postgres {row[0]} {row[1]}"

    async def claim(self, want: ClaimRequest, *, now: int | None = None) -> builtins.list[Claimed]:
        return await claim.claim(self._reading, self._place, want, now)

    async def adopt(
        self,
        gone: Collection[bytes],
        want: ClaimRequest,
        *,
        death: bool = True,
        suspects: bool = False,
        spared: Collection[bytes] = (),
        now: int | None = None,
    ) -> builtins.list[Claimed]:
        return await claim.adopt(
            self._reading, self._place, gone, want, now, death=death, suspects=suspects, spared=spared
        )

    async def with_suspects(self, gone: Collection[bytes], version: str) -> builtins.list[bytes]:
        sql = self._place.sql["with_suspects"]
        return [row[0] for row in await self._reading.fetch(sql, self.app, sorted(gone), version)]

    async def reclaim(
        self, keys: Sequence[RunKey], want: ClaimRequest, *, now: int | None = None
    ) -> builtins.list[Claimed]:
        return await claim.reclaim(self._reading, self._place, keys, want, now)

    async def replace(self, old: RunKey, next: Start, nonce: bytes, *, now: int | None = None) -> bool:
        async with self._waiting.link() as link:
            return await commands.replace(link, self._place, old, next, nonce, now)

    async def release_held(
        self, reasons: Collection[Reason], version: str, *, since: int | None = None, now: int | None = None
    ) -> int:
        return await commands.release_held(self._reading, self._place, reasons, version, since, now)

    async def note_schemes(self, version: str, schemes: Mapping[str, str]) -> None:
        await versions.note_schemes(self._reading, self._place, version, schemes)

    async def schemes(self) -> dict[str, dict[str, str]]:
        return await versions.schemes(self._reading, self._place)

    async def problems(self, ids: Collection[str]) -> builtins.list[ProblemRow]:
        return await problems.problems(self._reading, self._place, ids)

    async def note_turn(self, key: RunKey, claim: bytes, text: str, nonce: bytes, *, now: int | None = None) -> bool:
        return await problems.turn(self._reading, self._place, key, claim, text, nonce, now)

    async def held_due(self, reasons: Collection[Reason], version: str, since: int) -> int | None:
        return await problems.held_due(self._reading, self._place, reasons, version, since)

    async def held_elsewhere(
        self, reasons: Collection[Reason], version: str, limit: int, *, now: int | None = None
    ) -> builtins.list[WorkflowRow]:
        return await problems.held_elsewhere(self._reading, self._place, reasons, version, limit, now)

    async def rewind(self, seen: WorkflowRow, change: Rewind, *, now: int | None = None) -> bool:
        async with self._waiting.link() as link:
            return await commands.rewind(link, self._place, seen, change, now)

    async def pause(self, id: str, order: Pause | None, *, now: int | None = None) -> WorkflowRow | None:
        async with self._waiting.link() as link:
            return await commands.pause(link, self._place, id, order, now)

    async def reopen(self, seen: WorkflowRow, order: Reopen, *, now: int | None = None) -> bool:
        async with self._waiting.link() as link:
            return await commands.reopen(link, self._place, seen, order, now)

    async def move(self, orders: Sequence[MoveOrder], *, now: int | None = None) -> builtins.list[Answered]:
        async with self._waiting.link() as link:
            return await by_order.move(link, self._place, orders, now)

    async def reset(self, orders: Sequence[ResetOrder], *, now: int | None = None) -> builtins.list[Answered]:
        async with self._waiting.link() as link:
            return await by_order.reset(link, self._place, orders, now)

    async def skip(self, order: SkipOrder, *, now: int | None = None) -> Answered:
        async with self._waiting.link() as link:
            return await by_order.skip(link, self._place, order, now)

    async def fork(
        self, source: RunKey, start: Start, mark: Record, *, end: str | None = None, now: int | None = None
    ) -> WorkflowRow | None:
        async with self._waiting.link() as link:
            return await commands.fork(link, self._place, source, start, mark, end, now)

    async def cancel(
        self, id: str, reason: str, nonce: bytes, *, unserved: str | None = None, now: int | None = None
    ) -> WorkflowRow | None:
        async with self._waiting.link() as link:
            return await commands.cancel(link, self._place, id, reason, nonce, now, unserved)

    async def terminate(self, id: str, reason: str, nonce: bytes, *, now: int | None = None) -> WorkflowRow | None:
        async with self._waiting.link() as link:
            return await commands.terminate(link, self._place, id, reason, nonce, now)

    # -- reading

    async def histories(self, keys: Sequence[RunKey]) -> dict[RunKey, builtins.list[Record]]:
        return await reads.histories(self._reading, self._place, keys)

    async def inbox(self, ids: Collection[str]) -> builtins.list[Message]:
        return await reads.inbox(self._reading, self._place, ids)

    async def rows(self, ids: Collection[str]) -> dict[str, WorkflowRow]:
        return await reads.workflows(self._reading, self._place, ids)

    async def run(self, key: RunKey) -> WorkflowRow | None:
        return await reads.run(self._reading, self._place, key)

    async def inputs(self, keys: Collection[RunKey]) -> dict[RunKey, bytes]:
        return await reads.inputs(self._reading, self._place, keys)

    async def ended(self, ids: Collection[str]) -> dict[str, Ended]:
        return await reads.ended(self._reading, self._place, ids)

    async def fates(self, ids: Collection[str]) -> Fates:
        return await reads.fates(self._reading, self._place, ids)

    async def events(self, wanted: Collection[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
        return await reads.events(self._reading, self._place, wanted)

    async def streams(self, asks: Sequence[StreamAsk]) -> builtins.list[StreamPage | None]:
        return await streams.streams(self._reading, self._place, asks)

    async def records_after(self, key: RunKey, seq: int, limit: int) -> builtins.list[Record]:
        return await streams.records_after(self._reading, self._place, key, seq, limit)

    async def decisions(self, ids: Collection[str]) -> builtins.list[DecisionRow]:
        return await decisions.decisions(self._reading, self._place, ids)

    async def list(self, query: Query, *, limit: int = 100, cursor: str | None = None, now: int | None = None) -> Found:
        return await self._searching.page(self._place, query, limit, cursor, now)

    async def count(self, query: Query, *, now: int | None = None) -> builtins.list[Counted]:
        return await self._searching.count(self._place, query, now)

    async def poll(
        self,
        owner: bytes | None,
        held: Collection[Holding] | None,
        version: str = "",
        *,
        fresh: bool = True,
        after: str = "",
        now: int | None = None,
    ) -> Poll:
        return await claim.poll(self._reading, self._place, owner, held, version, now, fresh=fresh, after=after)

    # -- executors

    async def register(self, who: Incarnation, lease: int, *, now: int | None = None) -> None:
        await self._reading.fetch(
            self._place.sql["incarnation_insert"], self.app, who.id, who.executor, who.version, who.host, who.boot,
            who.space, who.pid, who.pid_started, who.state, lease, now, writing=True,
        )  # fmt: skip

    async def heartbeat(self, id: bytes, lease: int, *, lag: int = 0, now: int | None = None) -> int | None:
        sql = self._place.sql["incarnation_renew"]
        row = await self._reading.fetchrow(sql, self.app, id, lease, now, lag, writing=True)
        return None if row is None else row[0]

    async def incarnations(self) -> builtins.list[Incarnation]:
        return await reads.incarnations(self._reading, self._place)

    async def roll_call(self, *, now: int | None = None) -> RollCall:
        return await reads.roll_call(self._reading, self._place, now)

    def lifeline(self, id: bytes, lost: Callable[[], None]) -> None:
        self._reading.when_made(partial(lifeline.name, self._reading, id, lost))

    async def bury(
        self,
        ids: Collection[bytes],
        *,
        expired_only: bool = True,
        beats: Mapping[bytes, int] | None = None,
        now: int | None = None,
    ) -> builtins.list[bytes]:
        sql = self._place.sql["incarnation_bury"]
        renewed = (None, None) if beats is None else (list(beats), list(beats.values()))
        found = await self._reading.fetch(sql, self.app, sorted(set(ids)), expired_only, now, *renewed, writing=True)
        return [row[0] for row in found]

    async def new_series(self, id: bytes, series: int) -> None:
        await self._reading.fetch(self._place.sql["incarnation_series"], self.app, id, series, writing=True)

    async def drain(self, id: bytes) -> None:
        await self._reading.fetch(self._place.sql["incarnation_drain"], self.app, id, writing=True)

    async def hand_over(self, ids: Collection[bytes], heir: str | None) -> builtins.list[str]:
        sql = self._place.sql["incarnation_release"]
        over = [row[0] for row in await self._reading.fetch(sql, self.app, sorted(set(ids)), heir, writing=True)]
        return [row[0] for row in await self._reading.fetch(self._place.sql["held_by"], self.app, over)]

    async def leave(self, id: bytes) -> None:
        await self._reading.fetch(self._place.sql["incarnation_leave"], self.app, id, writing=True)
        await self.forget()

    async def forget(self) -> None:
        await self._reading.fetch(self._place.sql["incarnation_forget"], self.app, writing=True)

    # -- versions of the code

    async def launched(
        self,
        version: str,
        fingerprints: Mapping[str, str],
        apart: Collection[bytes],
        *,
        auto: bool,
        now: int | None = None,
    ) -> Routing:
        return await versions.launched(self._reading, self._place, version, fingerprints, apart, now, auto=auto)

    async def routing(self) -> Routing | None:
        return await versions.routing(self._reading, self._place)

    async def change_deployment(self, order: Order, *, now: int | None = None) -> Ruling:
        return await deployments.change(self._reading, self._place, order, now)

    async def deployment(self, *, bound: int = COUNTED, changes: int = LATEST, now: int | None = None) -> Deployment:
        return await deployments.deployment(self._reading, self._place, bound, changes, now)

    async def sample(self, version: str, since: int, latest: int = SAMPLED) -> Sample:
        return await deployments.sample(self._reading, self._place, version, since, latest)

    async def versions(self) -> builtins.list[Version]:
        return await versions.versions(self._reading, self._place)

    async def declare(self, terms: Collection[Terms], claim: bytes) -> int:
        return await versions.declare(self._reading, self._place, terms, claim)

    async def unfinished(self, limit: int = 10_000) -> builtins.list[Unfinished]:
        return await versions.unfinished(self._reading, self._place, limit)

    async def upgrade(
        self,
        version: str,
        names: Collection[str],
        limit: int,
        *,
        gone: Collection[bytes] = (),
        ramp: tuple[bytes, bool] | None = None,
        retry: Collection[Reason] = (),
        now: int | None = None,
    ) -> int:
        return await versions.upgrade(self._reading, self._place, version, names, limit, gone, ramp, retry, now)

    # -- queues

    async def queues(self) -> builtins.list[QueueRow]:
        return await queues.listing(self._reading, self._place)

    async def queue_counts(self, bound: int = 100_000) -> dict[str, QueueCount]:
        return await queues.counts(self._reading, self._place, bound)

    async def declare_queues(self, code: Mapping[str, Limits], *, over: bool = True, now: int | None = None) -> None:
        await queues.declare(self._reading, self._place, code, now, over=over)

    async def make_queues(self, names: Collection[str], *, now: int | None = None) -> None:
        await queues.make(self._reading, self._place, names, now)

    async def change_queue(self, name: str, change: QueueChange, *, now: int | None = None) -> QueueRow:
        return await queues.change(self._reading, self._place, name, change, now)

    async def claim_line(self, want: LineRequest, *, now: int | None = None) -> LineClaim:
        return await queues.claim(self._reading, self._place, want, now)

    async def line_up(self, versions: Collection[str], limit: int, *, now: int | None = None) -> builtins.list[str]:
        return await queues.line_up(self._reading, self._place, versions, limit, now)

    async def line_up_declared(
        self, found: Collection[Declared], claim: bytes, *, now: int | None = None
    ) -> builtins.list[str]:
        return await queues.line_up_declared(self._reading, self._place, found, claim, now)

    async def expire(self, limit: int, nonce: bytes, *, now: int | None = None) -> builtins.list[str]:
        async with self._waiting.link() as link:
            return await queues.expire(link, self._place, limit, nonce, now)

    async def start_once(self, start: Start, how: Deduplicated, *, now: int | None = None) -> WorkflowRow | None:
        async with self._waiting.link() as link:
            return await queues.start_once(link, self._place, start, how, now)

    # -- questions to executors

    async def ask(self, version: str, request: Request, patience: int, *, now: int | None = None) -> None:
        await requests.ask(self._reading, self._place, version, request, patience, now)

    async def asked(self, version: str, *, now: int | None = None) -> builtins.list[Request]:
        return await requests.asked(self._reading, self._place, version, now)

    async def answer(self, nonce: bytes, owner: bytes, text: bytes) -> None:
        await requests.answer(self._reading, self._place, nonce, owner, text)

    async def answered(self, nonce: bytes) -> bytes | None:
        return await requests.answered(self._reading, self._place, nonce)

    # -- work of versions that nobody runs any more

    async def strays(self, versions: Collection[str], untried: str | None, limit: int) -> builtins.list[WorkflowRow]:
        return await strays.strays(self._reading, self._place, versions, untried, limit)

    async def strays_told_to_cancel(self, versions: Collection[str]) -> builtins.list[tuple[str, str]]:
        return await strays.commanded(self._reading, self._place, versions)

    async def adopt_strays(
        self, seen: Sequence[WorkflowRow], version: str, *, now: int | None = None
    ) -> builtins.list[str]:
        return await strays.adopt(self._reading, self._place, seen, version, now)

    async def release_orphans(
        self, gone: Collection[bytes], served: Collection[str], limit: int, *, now: int | None = None
    ) -> builtins.list[str]:
        return await strays.release(self._reading, self._place, gone, served, limit, now)

    async def note_trials(self, trials: Sequence[Trial], *, now: int | None = None) -> None:
        await strays.note(self._reading, self._place, trials, now)

    async def trials(self, ids: Collection[str]) -> dict[str, Trial]:
        return await strays.trials(self._reading, self._place, ids)

    # -- schedules

    async def schedules(
        self, names: Collection[str] | None = None, *, due: int | None = None
    ) -> builtins.list[Schedule]:
        return await schedules.schedules(self._reading, self._place, names, due)

    async def firings(self, which: Which) -> builtins.list[Firing]:
        return await schedules.firings(self._reading, self._place, which)

    async def change_schedule(self, order: Reschedule, *, now: int | None = None) -> bool:
        return await schedules.change(self._reading, self._place, order, now)

    # -- hints

    def hint(self, queue: str = "") -> None:
        self._hints.send(queue)

    def on_hint(self, callback: Callable[[Collection[str]], None]) -> None:
        self._hints.listen(callback)

    async def health(self) -> Health:
        return await health.health(self._reading, self.schema)

    async def apps(self) -> builtins.list[str]:
        return await reads.apps(self._reading, self._place)


def _nothing() -> None:
    pass
