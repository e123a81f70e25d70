"""The SQLite store: each method of the protocol is one function sent to the thread that writes or the one that reads.

The clock is this host's: all processes of a SQLite database share it. A job reads it once, inside its transaction.
"""

from __future__ import annotations

import asyncio
import builtins  # `list` is a method here
import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from perdure.config import file_url
from perdure.errors import ConfigError, NotOpen
from perdure.model.deployments import COUNTED, LATEST, SAMPLED, Deployment, Order, Ruling
from perdure.model.ids import Holding, RunKey
from perdure.model.orders import Answered, MoveOrder, SkipOrder
from perdure.model.problems import ProblemRow
from perdure.model.queues import Limits, QueueChange, QueueCount, QueueRow
from perdure.model.real import time
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
from perdure.store.rollcall import RollCall
from perdure.store.search import counted
from perdure.store.sqlite import (
    claim,
    commands,
    decisions,
    deployments,
    executors,
    file,
    health,
    migrate,
    problems,
    queues,
    reads,
    requests,
    schedules,
    search,
    strays,
    streams,
    versions,
    within,
)
from perdure.store.sqlite import orders as by_order
from perdure.store.sqlite.batches import SQLiteBatches
from perdure.store.sqlite.commit import commit
from perdure.store.sqlite.connection import Answers, Lane, Reader, Writer
from perdure.store.sqlite.driver import Connection
from perdure.store.sqlite.upkeep import SQLiteUpkeep
from perdure.store.within import Within

T = TypeVar("T")


class SQLiteStore:
    """One app's view of one SQLite file."""

    def __init__(self, path: str | os.PathLike[str], app: str) -> None:
        given = os.fspath(path)
        if not given or given.startswith(":memory:"):
            raise ConfigError(f"a durable database needs a file, got {given!r}. Give a path such as perdure.db.")
        self.app = app
        self.path = Path(os.path.realpath(given))  # one name for the lock file, whatever link led here
        self.url = file_url(self.path)
        self._writer: Writer | None = None
        self._reader: Reader | None = None
        self._unheard = False

    # -- opening

    async def open(self) -> None:
        if self._writer is not None:
            return
        answers = Answers(asyncio.get_running_loop())
        await answers.loop.run_in_executor(None, file.prepare, self.path)
        self._writer, self._reader = Writer(self.path, answers, unheard=self._unheard), Reader(self.path, answers)
        try:
            await self._write(lambda conn: migrate.check(conn, self.path))
            await self._read(lambda _: None)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        reader, writer, self._reader, self._writer = self._reader, self._writer, None, None
        try:
            await _end(reader)
        finally:  # cancelled, too: nobody else would end it
            await _end(writer)

    async def _write(self, job: Callable[[Connection], T]) -> T:
        return await self._send(self._writer, job)

    async def _read(self, job: Callable[[Connection], T]) -> T:
        return await self._send(self._reader, job)

    async def _send(self, lane: Lane | None, job: Callable[[Connection], T]) -> T:
        if lane is None:
            raise NotOpen(f"the store of {self.path} is not open; await its open() first")
        value: T = await lane.submit(job)
        return value

    # -- schema

    async def migrate(self) -> list[str]:
        return await self._write(migrate.migrate)

    async def schema_version(self) -> tuple[int, int]:
        return await self._read(migrate.version), migrate.known()

    # -- writing

    async def commit(self, batch: Sequence[Unit], *, now: int | None = None) -> Receipt:
        def job(conn: Connection) -> Receipt:
            return commit(conn, self.app, batch, _clock(now))

        if len(batch) == 1 and self._writer is not None and (receipt := self._writer.at_once(job)) is not None:
            return receipt
        return await self._write(job)

    def within(self, unit: Unit, before: int = 0, *, now: int | None = None) -> Within[Verdict]:
        return within.within(self.app, unit, _clock(now))

    def within_once(self, start: Start, how: Deduplicated, *, now: int | None = None) -> Within[WorkflowRow | None]:
        return within.once(self.app, start, how, _clock(now))

    async def wrote(self, key: RunKey, seq: int, nonce: bytes) -> bool:
        return await self._write(lambda conn: within.wrote(conn, self.app, key, seq, nonce))

    async def turn(self) -> Callable[[], None]:
        return await asyncio.get_running_loop().run_in_executor(None, within.turn, self.path)

    async def place(self) -> str:
        found = os.stat(self.path)
        return f"sqlite {found.st_dev}:{found.st_ino}"

    async def claim(self, want: ClaimRequest, *, now: int | None = None) -> list[Claimed]:
        return await self._write(lambda conn: claim.claim(conn, self.app, want, _clock(now)))

    async def adopt(
        self,
        gone: Collection[bytes],
        want: ClaimRequest,
        *,
        death: bool = True,
        suspects: bool = False,
        spared: Collection[bytes] = (),
        now: int | None = None,
    ) -> list[Claimed]:
        return await self._write(
            lambda conn: claim.adopt(
                conn, self.app, gone, want, _clock(now), death=death, suspects=suspects, spared=spared
            )
        )

    async def with_suspects(self, gone: Collection[bytes], version: str) -> list[bytes]:
        return await self._read(lambda conn: claim.with_suspects(conn, self.app, gone, version))

    async def reclaim(self, keys: Sequence[RunKey], want: ClaimRequest, *, now: int | None = None) -> list[Claimed]:
        return await self._write(lambda conn: claim.reclaim(conn, self.app, keys, want, _clock(now)))

    async def replace(self, old: RunKey, next: Start, nonce: bytes, *, now: int | None = None) -> bool:
        return await self._write(lambda conn: commands.replace(conn, self.app, old, next, nonce, _clock(now)))

    async def release_held(
        self, reasons: Collection[Reason], version: str, *, since: int | None = None, now: int | None = None
    ) -> int:
        return await self._write(
            lambda conn: commands.release_held(conn, self.app, reasons, version, since, _clock(now))
        )

    async def note_schemes(self, version: str, schemes: Mapping[str, str]) -> None:
        await self._write(lambda conn: versions.note_schemes(conn, self.app, version, schemes))

    async def schemes(self) -> dict[str, dict[str, str]]:
        return await self._read(lambda conn: versions.schemes(conn, self.app))

    async def problems(self, ids: Collection[str]) -> builtins.list[ProblemRow]:
        return await self._read(lambda conn: problems.problems(conn, self.app, ids))

    async def note_turn(self, key: RunKey, claim: bytes, text: str, nonce: bytes, *, now: int | None = None) -> bool:
        return await self._write(lambda conn: problems.turn(conn, self.app, key, claim, text, nonce, _clock(now)))

    async def held_due(self, reasons: Collection[Reason], version: str, since: int) -> int | None:
        return await self._read(lambda conn: problems.held_due(conn, self.app, reasons, version, since))

    async def held_elsewhere(
        self, reasons: Collection[Reason], version: str, limit: int, *, now: int | None = None
    ) -> builtins.list[WorkflowRow]:
        return await self._read(
            lambda conn: strays.held_elsewhere(conn, self.app, reasons, version, limit, _clock(now))
        )

    async def rewind(self, seen: WorkflowRow, change: Rewind, *, now: int | None = None) -> bool:
        return await self._write(lambda conn: commands.rewind(conn, self.app, seen, change, _clock(now)))

    async def pause(self, id: str, order: Pause | None, *, now: int | None = None) -> WorkflowRow | None:
        return await self._write(lambda conn: commands.pause(conn, self.app, id, order, _clock(now)))

    async def reopen(self, seen: WorkflowRow, order: Reopen, *, now: int | None = None) -> bool:
        return await self._write(lambda conn: commands.reopen(conn, self.app, seen, order, _clock(now)))

    async def move(self, orders: Sequence[MoveOrder], *, now: int | None = None) -> builtins.list[Answered]:
        return await self._write(lambda conn: by_order.move(conn, self.app, orders, _clock(now)))

    async def reset(self, orders: Sequence[ResetOrder], *, now: int | None = None) -> builtins.list[Answered]:
        return await self._write(lambda conn: by_order.reset(conn, self.app, orders, _clock(now)))

    async def skip(self, order: SkipOrder, *, now: int | None = None) -> Answered:
        return await self._write(lambda conn: by_order.skip(conn, self.app, order, _clock(now)))

    async def fork(
        self, source: RunKey, start: Start, mark: Record, *, end: str | None = None, now: int | None = None
    ) -> WorkflowRow | None:
        return await self._write(lambda conn: commands.fork(conn, self.app, source, start, mark, end, _clock(now)))

    async def cancel(
        self, id: str, reason: str, nonce: bytes, *, unserved: str | None = None, now: int | None = None
    ) -> WorkflowRow | None:
        return await self._write(lambda conn: commands.cancel(conn, self.app, id, reason, nonce, _clock(now), unserved))

    async def terminate(self, id: str, reason: str, nonce: bytes, *, now: int | None = None) -> WorkflowRow | None:
        return await self._write(lambda conn: commands.terminate(conn, self.app, id, reason, nonce, _clock(now)))

    # -- reading

    async def histories(self, keys: Sequence[RunKey]) -> dict[RunKey, list[Record]]:
        return await self._read(lambda conn: reads.histories(conn, self.app, keys))

    async def inbox(self, ids: Collection[str]) -> list[Message]:
        return await self._read(lambda conn: reads.inbox(conn, self.app, ids))

    async def rows(self, ids: Collection[str]) -> dict[str, WorkflowRow]:
        return await self._read(lambda conn: reads.told(conn, self.app, ids))

    async def run(self, key: RunKey) -> WorkflowRow | None:
        return await self._read(lambda conn: reads.run(conn, self.app, key))

    async def inputs(self, keys: Collection[RunKey]) -> dict[RunKey, bytes]:
        return await self._read(lambda conn: reads.inputs(conn, self.app, keys))

    async def ended(self, ids: Collection[str]) -> dict[str, Ended]:
        return await self._read(lambda conn: reads.ended(conn, self.app, ids))

    async def fates(self, ids: Collection[str]) -> Fates:
        return await self._read(lambda conn: reads.fates(conn, self.app, ids))

    async def events(self, wanted: Collection[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
        return await self._read(lambda conn: reads.events(conn, self.app, wanted))

    async def streams(self, asks: Sequence[StreamAsk]) -> builtins.list[StreamPage | None]:
        return await self._read(lambda conn: streams.streams(conn, self.app, asks))

    async def records_after(self, key: RunKey, seq: int, limit: int) -> builtins.list[Record]:
        return await self._read(lambda conn: streams.records_after(conn, self.app, key, seq, limit))

    async def decisions(self, ids: Collection[str]) -> builtins.list[DecisionRow]:
        return await self._read(lambda conn: decisions.decisions(conn, self.app, ids))

    async def list(self, query: Query, *, limit: int = 100, cursor: str | None = None, now: int | None = None) -> Found:
        return await self._read(search.page(self.app, query, limit, cursor, _clock(now)))

    async def count(self, query: Query, *, now: int | None = None) -> builtins.list[Counted]:
        return counted(await self._read(search.count(self.app, query, _clock(now))), query, json.loads)

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
        return await self._read(
            lambda conn: reads.poll(conn, self.app, owner, held, version, _clock(now), fresh=fresh, after=after)
        )

    # -- executors

    async def register(self, who: Incarnation, lease: int, *, now: int | None = None) -> None:
        await self._write(lambda conn: executors.register(conn, self.app, who, lease, _clock(now)))

    async def heartbeat(self, id: bytes, lease: int, *, lag: int = 0, now: int | None = None) -> int | None:
        return await self._write(lambda conn: executors.heartbeat(conn, self.app, id, lease, lag, _clock(now)))

    async def incarnations(self) -> builtins.list[Incarnation]:
        return await self._read(lambda conn: reads.incarnations(conn, self.app))

    async def roll_call(self, *, now: int | None = None) -> RollCall:
        return await self._read(lambda conn: executors.roll_call(conn, self.app, _clock(now)))

    def lifeline(self, id: bytes, lost: Callable[[], None]) -> None:
        """Who dies beside a file is known by its pid; but nobody of this process need look for each renewal."""
        self._unheard = True

    async def bury(
        self,
        ids: Collection[bytes],
        *,
        expired_only: bool = True,
        beats: Mapping[bytes, int] | None = None,
        now: int | None = None,
    ) -> builtins.list[bytes]:
        return await self._write(
            lambda conn: executors.bury(conn, self.app, ids, _clock(now), expired_only=expired_only, beats=beats)
        )

    async def new_series(self, id: bytes, series: int) -> None:
        await self._write(lambda conn: executors.new_series(conn, self.app, id, series))

    async def drain(self, id: bytes) -> None:
        await self._write(lambda conn: executors.drain(conn, self.app, id))

    async def hand_over(self, ids: Collection[bytes], heir: str | None) -> builtins.list[str]:
        return await self._write(lambda conn: executors.hand_over(conn, self.app, ids, heir))

    async def leave(self, id: bytes) -> None:
        await self._write(lambda conn: executors.leave(conn, self.app, id))

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
        return await self._write(
            lambda conn: versions.launched(conn, self.app, version, fingerprints, apart, _clock(now), auto=auto)
        )

    async def routing(self) -> Routing | None:
        return await self._read(lambda conn: versions.routing(conn, self.app))

    async def change_deployment(self, order: Order, *, now: int | None = None) -> Ruling:
        return await self._write(lambda conn: deployments.change(conn, self.app, order, _clock(now)))

    async def deployment(self, *, bound: int = COUNTED, changes: int = LATEST, now: int | None = None) -> Deployment:
        return await self._read(lambda conn: deployments.deployment(conn, self.app, bound, changes, _clock(now)))

    async def sample(self, version: str, since: int, latest: int = SAMPLED) -> Sample:
        return await self._read(lambda conn: deployments.sample(conn, self.app, version, since, latest))

    async def versions(self) -> builtins.list[Version]:
        return await self._read(lambda conn: versions.versions(conn, self.app))

    async def declare(self, terms: Collection[Terms], claim: bytes) -> int:
        return await self._write(lambda conn: versions.declare(conn, self.app, terms, claim))

    async def unfinished(self, limit: int = 10_000) -> builtins.list[Unfinished]:
        return await self._read(lambda conn: versions.unfinished(conn, self.app, limit))

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
        return await self._write(
            lambda conn: versions.upgrade(conn, self.app, version, names, limit, gone, ramp, retry, _clock(now))
        )

    # -- queues

    async def queues(self) -> builtins.list[QueueRow]:
        return await self._read(lambda conn: queues.listing(conn, self.app))

    async def queue_counts(self, bound: int = 100_000) -> dict[str, QueueCount]:
        return await self._read(lambda conn: queues.counts(conn, self.app, bound))

    async def declare_queues(self, code: Mapping[str, Limits], *, over: bool = True, now: int | None = None) -> None:
        await self._write(lambda conn: queues.declare(conn, self.app, code, _clock(now), over=over))

    async def make_queues(self, names: Collection[str], *, now: int | None = None) -> None:
        await self._write(lambda conn: queues.make(conn, self.app, names, _clock(now)))

    async def change_queue(self, name: str, change: QueueChange, *, now: int | None = None) -> QueueRow:
        return await self._write(lambda conn: queues.change(conn, self.app, name, change, _clock(now)))

    async def claim_line(self, want: LineRequest, *, now: int | None = None) -> LineClaim:
        return await self._write(lambda conn: queues.claim(conn, self.app, want, _clock(now)))

    async def line_up(self, versions: Collection[str], limit: int, *, now: int | None = None) -> builtins.list[str]:
        return await self._write(lambda conn: queues.line_up(conn, self.app, versions, limit, _clock(now)))

    async def line_up_declared(
        self, found: Collection[Declared], claim: bytes, *, now: int | None = None
    ) -> builtins.list[str]:
        return await self._write(lambda conn: queues.line_up_declared(conn, self.app, found, claim, _clock(now)))

    async def expire(self, limit: int, nonce: bytes, *, now: int | None = None) -> builtins.list[str]:
        return await self._write(lambda conn: queues.expire(conn, self.app, limit, nonce, _clock(now)))

    async def start_once(self, start: Start, how: Deduplicated, *, now: int | None = None) -> WorkflowRow | None:
        return await self._write(lambda conn: queues.start_once(conn, self.app, start, how, _clock(now)))

    # -- questions to executors

    async def ask(self, version: str, request: Request, patience: int, *, now: int | None = None) -> None:
        await self._write(lambda conn: requests.ask(conn, self.app, version, request, patience, _clock(now)))

    async def asked(self, version: str, *, now: int | None = None) -> builtins.list[Request]:
        return await self._read(lambda conn: requests.asked(conn, self.app, version, _clock(now)))

    async def answer(self, nonce: bytes, owner: bytes, text: bytes) -> None:
        await self._write(lambda conn: requests.answer(conn, self.app, nonce, owner, text))

    async def answered(self, nonce: bytes) -> bytes | None:
        return await self._write(lambda conn: requests.answered(conn, self.app, nonce))

    # -- work of versions that nobody runs any more

    async def strays(self, versions: Collection[str], untried: str | None, limit: int) -> builtins.list[WorkflowRow]:
        return await self._read(lambda conn: strays.strays(conn, self.app, versions, untried, limit))

    async def strays_told_to_cancel(self, versions: Collection[str]) -> builtins.list[tuple[str, str]]:
        return await self._read(lambda conn: strays.commanded(conn, self.app, versions))

    async def adopt_strays(
        self, seen: Sequence[WorkflowRow], version: str, *, now: int | None = None
    ) -> builtins.list[str]:
        return await self._write(lambda conn: strays.adopt(conn, self.app, seen, version, _clock(now)))

    async def release_orphans(
        self, gone: Collection[bytes], served: Collection[str], limit: int, *, now: int | None = None
    ) -> builtins.list[str]:
        return await self._write(lambda conn: strays.release(conn, self.app, gone, served, limit, _clock(now)))

    async def note_trials(self, trials: Sequence[Trial], *, now: int | None = None) -> None:
        await self._write(lambda conn: strays.note(conn, self.app, trials, _clock(now)))

    async def trials(self, ids: Collection[str]) -> dict[str, Trial]:
        return await self._read(lambda conn: strays.trials(conn, self.app, ids))

    async def forget(self) -> None:
        await self._write(lambda conn: executors.forget(conn, self.app))

    # -- schedules

    async def schedules(
        self, names: Collection[str] | None = None, *, due: int | None = None
    ) -> builtins.list[Schedule]:
        return await self._read(lambda conn: schedules.schedules(conn, self.app, names, due))

    async def firings(self, which: Which) -> builtins.list[Firing]:
        return await self._read(lambda conn: schedules.firings(conn, self.app, which))

    async def change_schedule(self, order: Reschedule, *, now: int | None = None) -> bool:
        return await self._write(lambda conn: schedules.change(conn, self.app, order, _clock(now)))

    # -- hints

    def hint(self, queue: str = "") -> None:
        """Nothing to do: the file is the hint."""

    def on_hint(self, callback: Callable[[Collection[str]], None]) -> None:
        if self._writer is None:
            raise NotOpen(f"the store of {self.path} is not open; await its open() first")
        self._writer.watch(lambda: callback(()))

    async def health(self) -> Health:
        return await self._read(lambda conn: health.health(conn, self.path))

    async def apps(self) -> builtins.list[str]:
        return await self._read(reads.apps)

    @property
    def upkeep(self) -> SQLiteUpkeep:
        return SQLiteUpkeep(self.app, getattr(self, "path", Path()), self._write, self._read)

    @property
    def batches(self) -> SQLiteBatches:
        return SQLiteBatches(self.app, self._write, self._read)


def _clock(now: int | None) -> int:
    """The database's time, or the one that was given."""
    return time.time_ns() // 1000 if now is None else now


async def _end(lane: Lane | None) -> None:
    if lane is not None and not lane.closed:
        await lane.submit(None)
