"""Group commit: gathers units of writes from all runs and callers of this process, one transaction at a time.

Promises:
- Idle, it flushes in the next turn of the loop, or a millisecond later at most, for one or two threads that were just
  let go (``company.py``); while a commit is under way it gathers.
- A source's writes reach the store in order, gapless, at most one unit of a source in flight.
- A source is told the verdict only after the commit is durable, from a plain callback of the loop.
- Trouble with the database is waited out with the same batch (same nonces), for ever or until ``close``; but for what
  a caller outside withdraws, which is not tried again.
- What one commit puts in line stands there in the order in which it was put here, children of a unit in theirs.
- Any other error is bisected down to the unit that causes it; that source alone is told ``broken``, as is one whose
  writes cannot be taken.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Protocol

import msgspec

from perdure.client.company import Company
from perdure.clock import Clock
from perdure.errors import DatabaseTrouble, LostAnswer
from perdure.model.ids import RunKey
from perdure.model.records import WorkflowRow
from perdure.model.states import Status
from perdure.model.writes import Receipt, Start, Unit, Verdict
from perdure.store.base import Store
from perdure.store.drive import Drive

log = logging.getLogger("perdure.journal")

UNITS_MAX = 1000  # of one batch; beyond it a statement costs more than it saves
BYTES_MAX = 4_000_000
SLOW_SECONDS = 0.25  # a commit slower than this halves the next batch; a fast one lets it grow again
RETRY_SECONDS_MAX = 1.0
NOTHING = Unit(key=RunKey("", 0))
WITHDRAWN = RuntimeError("withdrawn: nobody waits for it any more")
HALVES_FROM = 32  # a batch larger than this is handed over in two halves
HALF_TURNS = 3  # turns of the loop from a verdict to the write it leads to: step, outcome, flush


class Source(Protocol):
    """Somebody with writes: a run, or a caller outside."""

    queued: bool

    def take(self) -> Unit:
        """All that waits; called when a batch is put together."""
        ...

    def written(self, unit: Unit, verdict: Verdict) -> None:
        """The unit is durable, or was refused."""
        ...

    def broken(self, unit: Unit, error: Exception) -> None:
        """The store cannot write this unit, and never will."""
        ...


class Outside:
    """One unit of a caller that is no run; ``future`` holds the verdict."""

    __slots__ = ("future", "queued", "unit", "withdrawn")

    def __init__(self, unit: Unit, future: asyncio.Future[Verdict]) -> None:
        self.unit = unit
        self.future = future
        self.queued = False
        self.withdrawn = False

    def take(self) -> Unit:
        return NOTHING if self.withdrawn else self.unit

    def written(self, unit: Unit, verdict: Verdict) -> None:
        if not self.future.done():
            self.future.set_result(verdict)

    def broken(self, unit: Unit, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Journal:
    """See the head of this file. Lives on one event loop; no method may be called from another thread."""

    def __init__(self, store: Store, clock: Clock, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._clock = clock
        self._loop = loop
        self._waiting: deque[Source] = deque()
        self._scheduled = False
        self._flight: asyncio.Task[list[Verdict | Exception]] | Drive[Receipt] | None = None
        self._aboard = 0  # units of the commit that was sent last
        self._untold: dict[int, tuple[Source, Unit, Verdict | Exception]] = {}  # durable, not handed over yet
        self._began = 0.0
        self._asking = False  # a commit is with the store; False between two tries
        self._lost = False  # an earlier try of this flight may have been written
        self._withdrawn: set[int] = set()  # units of this flight that are not to be tried again
        self.silent_since: float | None = None  # when the commit was first sent that has no answer yet
        self._units_max = UNITS_MAX
        self._place = 0  # of the next in line, among those of one time
        self._stamp: int | None = None
        self._closed = False
        self._idle: list[asyncio.Future[None]] = []
        self.company = Company(loop)
        self.commits = 0  # counted for tests and metrics
        self.tried_again = 0  # commits that may have been written by a first try, before their sources were told
        self.trouble: DatabaseTrouble | None = None  # what the database said last, while it is in trouble

    def put(self, source: Source) -> None:
        """The source has writes; they are taken at the next flush."""
        if source.queued:
            return
        source.queued = True
        self._waiting.append(source)
        if not self._scheduled and self._flight is None:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    async def write(self, unit: Unit) -> Verdict:
        """Write for a caller outside; returns when durable. The write goes on if the caller is cancelled."""
        return await self.offer(unit).future

    def offer(self, unit: Unit) -> Outside:
        """The same, to be waited for."""
        source = Outside(unit, self._loop.create_future())
        self.put(source)
        return source

    def withdraw(self, source: Outside) -> bool:
        """Write this no more; whether it may have been written, or may be just now."""
        source.withdrawn = True
        if source.queued:  # still in the queue: ``take`` gives nothing
            return False
        self._withdrawn.add(id(source.unit))
        return self._asking or self._lost or self._flight is None or id(source) in self._untold

    def _flush(self) -> None:
        """Commit what waits, now or as soon as those are back who were just let go."""
        if not self.company.hold(self._flush_now):
            self._flush_now()

    def _flush_now(self) -> None:
        self._scheduled = False
        if self._flight is not None or self._closed:
            return
        sources: list[Source] = []
        units: list[Unit] = []
        size = 0
        stamp = self._clock.stamp()
        if stamp is None or stamp != self._stamp:  # a clock that stands still tells two commits apart by this alone
            self._place, self._stamp = 0, stamp
        waiting = self._waiting
        while waiting and len(units) < self._units_max and size < BYTES_MAX:
            source = waiting.popleft()
            if self._untold:
                self._tell_late(source)
            source.queued = False
            try:
                unit = source.take()
            except Exception as bug:  # of one source: it must not cost the others their writes
                log.exception("the writes of %r could not be taken", source)
                self._tell(source, Unit(key=RunKey("", 0)), bug)
                continue
            if unit.empty:
                continue
            sources.append(source)
            units.append(unit)
            if unit.children:
                self._line_up(unit)
            for record in unit.records:
                size += 200 if record.data is None else 200 + len(record.data)
            for append in unit.appends:
                size += 200 if append.data is None else 200 + len(append.data)
        if not units:
            self._settle_idle()
            return
        self.commits += 1
        self._send(sources, units)

    def _line_up(self, unit: Unit) -> None:
        """Give what stands in line of this commit times of its own, in order: the commit has one time for all.

        A microsecond for each: less than it takes to write it, so what is started after this commit comes behind it.
        """
        children: list[Start] = []
        for start in unit.children:
            if start.queue is not None and start.until is None and start.lane is not None:
                delay = (start.delay or 0) + self._place
                children.append(msgspec.structs.replace(start, delay=delay) if self._place else start)
                self._place += 1
            else:
                children.append(start)
        unit.children = children

    def _send(self, sources: list[Source], units: list[Unit]) -> None:
        """Begin the commit now, within this very turn of the loop: the database works while others get theirs."""
        self._began = monotonic()
        self._aboard = len(units)
        self._lost, self._withdrawn = False, set()
        self.silent_since = self._loop.time()

        def done(receipt: Receipt | None, error: BaseException | None) -> None:
            self._asking = False
            if receipt is not None:
                self._succeeded(receipt)
                self._landed(sources, units, receipt.verdicts)
            elif not self._closed:
                self._failed(error)
                self._patiently(sources, units)

        if self.trouble is not None:
            self._patiently(sources, units)
            return
        self._asking = True
        self._flight = flight = Drive(self._store.commit(units, now=self._clock.stamp()), done, self._loop)
        flight.begin()

    def _patiently(self, sources: list[Source], units: list[Unit]) -> None:
        """The longer way, in a task of its own: with back-off, and bisecting what cannot be written."""
        self.tried_again += 1
        task = asyncio.Task(self._commit(units), loop=self._loop)
        self._flight = task

        def done(task: asyncio.Task[list[Verdict | Exception]]) -> None:
            if not task.cancelled():
                self._landed(sources, units, task.result())

        task.add_done_callback(done)

    def _landed(
        self, sources: Sequence[Source], units: Sequence[Unit], verdicts: Sequence[Verdict | Exception]
    ) -> None:
        """Hand the verdicts over.

        Of a large batch first one half, so that the database has its writes to do while the other half is handed over:
        else client and server only ever work in turns.
        """
        self._flight = self.silent_since = None
        self._asking = False
        told = list(zip(sources, units, verdicts, strict=True))
        if len(told) > HALVES_FROM and not self._waiting:
            late = told[len(told) // 2 :]
            told = told[: len(told) // 2]
            self._untold = {id(source): (source, unit, verdict) for source, unit, verdict in late}
            self._in_turns(HALF_TURNS, self._tell_rest)
        for source, unit, verdict in told:
            self._tell(source, unit, verdict)
        if self._waiting and not self._scheduled and self._flight is None:
            self._scheduled = True
            self._loop.call_soon(self._flush)
        elif not self._waiting and not self._untold:
            self._settle_idle()

    def _in_turns(self, turns: int, callback: Callable[[], None]) -> None:
        if turns:
            self._loop.call_soon(self._in_turns, turns - 1, callback)
        else:
            callback()

    def _tell_late(self, source: Source) -> None:
        """A source that wants to write again is told its last verdict first: one unit of it at a time."""
        late = self._untold.pop(id(source), None)
        if late is not None:
            self._tell(*late)

    def _tell_rest(self) -> None:
        untold, self._untold = self._untold, {}
        if not self._closed:
            for late in untold.values():
                self._tell(*late)
            if not self._waiting and self._flight is None:
                self._settle_idle()

    def _tell(self, source: Source, unit: Unit, verdict: Verdict | Exception) -> None:
        try:
            if isinstance(verdict, Verdict):
                source.written(unit, verdict)
            else:
                source.broken(unit, verdict)
        except Exception:  # one source's bug must not keep the others from their verdicts
            log.exception("a verdict could not be handed over (workflow %s)", unit.key.id)

    def _succeeded(self, receipt: Receipt) -> None:
        self._clock.observe(receipt.now)
        self._adapt(monotonic() - self._began)

    def _failed(self, error: BaseException | None) -> None:
        """Note whether a try that failed may have been written."""
        self._lost |= isinstance(error, LostAnswer) or not isinstance(error, DatabaseTrouble)

    async def _commit(self, units: Sequence[Unit]) -> list[Verdict | Exception]:
        delay = 0.0  # the first retry at once: a broken connection is replaced by a new one
        while True:
            if self._withdrawn and any(id(unit) in self._withdrawn for unit in units):
                return await self._commit_rest(units)
            self._began = monotonic()
            self._asking = True
            try:
                receipt = await self._store.commit(units, now=self._clock.stamp())
            except DatabaseTrouble as trouble:
                self._asking = False
                self._failed(trouble)
                if self.trouble is None:
                    log.warning("the database is in trouble, writes wait: %s", trouble)
                self.trouble = trouble
                await asyncio.sleep(delay)
                delay = min(max(delay * 2, 0.01), RETRY_SECONDS_MAX)
            except Exception as error:
                if len(units) == 1:
                    log.exception("the store refused a write of workflow %s", units[0].key.id)
                    return [error]
                middle = len(units) // 2
                return [*await self._commit(units[:middle]), *await self._commit(units[middle:])]
            else:
                self._succeeded(receipt)
                if self.trouble is not None:
                    log.warning("the database answers again; writes go on")
                    self.trouble = None
                return list[Verdict | Exception](receipt.verdicts)

    async def _commit_rest(self, units: Sequence[Unit]) -> list[Verdict | Exception]:
        """What was withdrawn has its verdict."""
        rest = [unit for unit in units if id(unit) not in self._withdrawn]
        verdicts = iter(await self._commit(rest) if rest else ())
        return [WITHDRAWN if id(unit) in self._withdrawn else next(verdicts) for unit in units]

    def _adapt(self, seconds: float) -> None:
        if seconds > SLOW_SECONDS:
            self._units_max = max(50, self._units_max // 2)
        elif self._units_max < UNITS_MAX:
            self._units_max = min(UNITS_MAX, self._units_max * 2)

    def _settle_idle(self) -> None:
        idle, self._idle = self._idle, []
        for future in idle:
            if not future.done():
                future.set_result(None)

    @property
    def busy(self) -> bool:
        """Whether anything waits to be written, or is under way."""
        return bool(self._waiting) or self._flight is not None or self._scheduled

    @property
    def backlog(self) -> int:
        """How many units wait to be durable."""
        return len(self._waiting) + (0 if self._flight is None else self._aboard)

    async def drained(self) -> None:
        """Returns when nothing waits and nothing is under way."""
        while self.busy:
            future: asyncio.Future[None] = self._loop.create_future()
            self._idle.append(future)
            await future

    def abandon(self) -> None:
        """In a forked child: what waits is the parent's to write."""
        self._closed = True
        self._waiting.clear()
        self._untold.clear()

    def abort(self) -> None:
        """Drop everything, as a crash would: what is under way may have happened or not."""
        self._closed = True
        self._waiting.clear()
        self._untold.clear()
        if self._flight is not None:
            self._flight.cancel()
            self._flight = None
        self._settle_idle()


def stub_row(id: str, run: int, status: Status, name: str = "", version: str = "") -> WorkflowRow:
    """The little that is known of a workflow without reading it."""
    return WorkflowRow(id=id, run=run, lineage=b"", name=name, status=status, version=version, created=0, updated=0)
