"""Group commit: gathers units of writes from all runs and callers of this process, one transaction at a time.

Promises:
- Idle, it flushes in the next turn of the loop (in this one, once ``all_said``), or a millisecond later at most, for
  one or two threads that were just let go (``company.py``); while a commit is under way it gathers.
- A source's writes reach the store in order, gapless, at most one unit of a source in flight.
- A source is told the verdict only after the commit is durable, from a plain callback of the loop.
- Trouble with the database is waited out with the same units (same nonces), for ever or until it is closed; but for
  what a caller outside withdraws, which is not tried again. First the whole batch some times, then in ever smaller
  parts (``parts.py``); a unit that fails while others are written is set aside, and tried again between the others'
  batches (``aside.py``).
- What one commit puts in line stands there in the order in which it was put here, children of a unit in theirs.
- Any other error is bisected down to the unit that causes it; that source alone is told ``broken``, as is one whose
  writes cannot be taken, or are more than any database takes at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from perdure.client.aside import Aside, Unwritten
from perdure.client.company import Company
from perdure.client.parts import WITHDRAWN, Parts, overlong
from perdure.client.sources import NOTHING, Mark, Outside, Source
from perdure.clock import Clock
from perdure.errors import DatabaseTrouble, LostAnswer
from perdure.model.real import time
from perdure.model.writes import Receipt, Start, Unit, Verdict, size_of
from perdure.store.base import Store
from perdure.store.drive import Drive

log = logging.getLogger("perdure.journal")

UNITS_MAX = 1000  # of one batch; beyond it a statement costs more than it saves
BYTES_MAX = 4_000_000  # a batch takes no more units from here on: it is at most this and the largest unit
SLOW_SECONDS = 0.25  # a commit slower than this halves the next batch; a fast one lets it grow again
HALVES_FROM = 32  # a batch larger than this is handed over in two halves
HALF_TURNS = 3  # turns of the loop from a verdict to the write it leads to: step, outcome, flush


Verdicts = dict[int, Verdict | Exception]  # by unit
Told = tuple[Source, Unit, Verdict | Exception]


class Journal:
    """See the head of this file. Lives on one event loop; no method may be called from another thread."""

    def __init__(self, store: Store, clock: Clock, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._clock = clock
        self._loop = loop
        self._waiting: deque[Source] = deque()
        self._scheduled = False
        self._soon: asyncio.Handle | None = None  # the flush, in the next turn of the loop
        self._flight: asyncio.Task[Any] | Drive[Receipt] | None = None  # what is with the store
        self._aboard = 0  # units of the commit that was sent last
        self._untold: dict[int, Told] = {}  # durable, not handed over yet
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
        # Of the batch that is being handed over; if there is none, of the one that is gathered or under way.
        self._marks: list[asyncio.Future[None]] = []
        self._aside = Aside(loop, self._wake)
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
        if not self._scheduled and self._flight is None:  # as ``_wake`` does; a call less for each write
            self._scheduled = True
            self._soon = self._loop.call_soon(self._flush)

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
        if self._aside.withdraw(source):
            return True
        self._withdrawn.add(id(source.unit))
        return self._asking or self._lost or self._flight is None or id(source) in self._untold

    def all_said(self) -> None:
        """Nothing more comes in this turn of the loop: flush in it, not in the next."""
        if self._soon is not None:
            self._soon.cancel()
            self._flush()
        self.company.all_said()

    def _flush(self) -> None:
        """Commit what waits, now or as soon as those are back who were just let go."""
        self._soon = None
        if not self.company.hold(self._flush_now):
            self._flush_now()

    def _flush_now(self) -> None:
        self._scheduled = False
        if self._flight is not None or self._closed:
            return
        if self._aside.ready:
            self._try_aside(self._aside.pop_due())
            return
        sources, units = self._gather()
        if units:
            self.commits += 1
            self._send(sources, units)
            return
        if not self._untold:
            self._settle(self._take_marks())
        self._settle_idle()

    def _gather(self) -> tuple[list[Source], list[Unit]]:
        """The next batch: what waits, in order, as much as one commit takes."""
        sources: list[Source] = []
        units: list[Unit] = []
        size = 0
        stamp = self._clock.stamp()
        if stamp is None or stamp != self._stamp:  # a clock that stands still tells two commits apart by this alone
            self._place, self._stamp = 0, stamp
        waiting, aside = self._waiting, self._aside.units
        while waiting and len(units) < self._units_max and size < BYTES_MAX:
            source = waiting.popleft()
            if self._untold:
                self._tell_late(source)
            source.queued = False
            if aside and self._aside.holds_up(source):
                continue
            try:
                unit = source.take()
            except Exception as bug:  # of one source: it must not cost the others their writes
                log.exception("the writes of %r could not be taken", source)
                self._tell(source, NOTHING, bug)
                continue
            if unit.empty:
                if isinstance(source, Mark):
                    self._tell_rest()  # of the batch before: from here on the marks are this one's
                    self._marks.append(source.future)
                continue
            sources.append(source)
            units.append(unit)
            if unit.children:
                self._line_up(unit)
            size += size_of(unit)
        return sources, units

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
        self._began = time.monotonic()
        self._aboard = len(units)
        self._lost = False
        if self._withdrawn:
            self._withdrawn = set()
        if self.silent_since is None:
            self.silent_since = self._loop.time()

        def done(receipt: Receipt | None, error: BaseException | None) -> None:
            self._asking = False
            if receipt is not None:
                self._succeeded(receipt)
                self._landed(list(zip(sources, units, receipt.verdicts, strict=True)))
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
        self._flight = task = asyncio.Task(self._commit(Parts(units, self._withdrawn)), loop=self._loop)

        def done(task: asyncio.Task[Verdicts]) -> None:
            if task.cancelled():
                return
            verdicts = task.result()
            told: list[Told] = []
            for source, unit in zip(sources, units, strict=True):
                if (verdict := verdicts.get(id(unit))) is not None:
                    told.append((source, unit, verdict))
                else:
                    self._aside.add(source, unit, withdrawn=id(unit) in self._withdrawn)
            self._landed(told)

        task.add_done_callback(done)

    def _landed(self, told: Sequence[Told]) -> None:
        """Hand the verdicts over.

        Of a large batch first one half, so that the database has its writes to do while the other half is handed over:
        else client and server only ever work in turns.
        """
        self._flight = None
        self._asking = False
        if self.trouble is None:
            self.silent_since = None
        if self._untold:  # the database was quicker than the loop
            self._tell_rest()
        if len(told) > HALVES_FROM and not self._waiting:
            middle = len(told) // 2
            self._untold = {id(late[0]): late for late in told[middle:]}
            self._in_turns(HALF_TURNS, self._tell_rest)
            told = told[:middle]
        for source, unit, verdict in told:
            self._tell(source, unit, verdict)
        if self._marks and not self._untold:
            self._settle(self._take_marks())
        self._go_on()

    def _go_on(self) -> None:
        """After a batch: the next one, or rest."""
        if self._waiting or self._aside.units:
            self._wake()
        elif not self._untold:
            self._settle_idle()

    def _wake(self) -> None:
        if not self._scheduled and self._flight is None:
            self._scheduled = True
            self._soon = self._loop.call_soon(self._flush)

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
            if not self._untold:
                self._settle(self._take_marks())

    def _tell_rest(self) -> None:
        if not self._untold:
            return
        untold, self._untold = self._untold, {}
        for late in untold.values():
            self._tell(*late)
        self._settle(self._take_marks())
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
        self._adapt(time.monotonic() - self._began)

    def _failed(self, error: BaseException | None) -> None:
        """Note whether a try that failed may have been written."""
        self._lost |= isinstance(error, LostAnswer) or not isinstance(error, DatabaseTrouble)

    async def _commit(self, parts: Parts) -> Verdicts:
        """One part after another, until each unit has its verdict or is to be set aside."""
        while part := parts.pop():
            self._began = time.monotonic()
            self._asking = True
            try:
                receipt = await self._store.commit(part, now=self._clock.stamp())
            except DatabaseTrouble as trouble:
                self._asking = False
                self._in_trouble(trouble)
                if parts.failed(part, trouble, others_wait=bool(self._waiting)):
                    self._no_outage(part[0], trouble)
                elif self._waiting and parts.stuck and await self._answers():
                    parts.leave()
                await asyncio.sleep(parts.pause())
            except Exception as error:
                if parts.refused(part, error):
                    log.exception("the store refused a write of workflow %s", part[0].key.id)
            else:
                self._succeeded(receipt)
                self._out_of_trouble()
                parts.written(part, receipt.verdicts)
        return parts.verdicts

    async def _answers(self) -> bool:
        """Whether the database answers who writes nothing."""
        try:
            await self._store.commit([], now=self._clock.stamp())
        except Exception:  # the units are tried on: what this was about they meet, too
            return False
        return True

    def _in_trouble(self, trouble: DatabaseTrouble) -> None:
        self._failed(trouble)
        if self.trouble is None:
            log.warning("the database is in trouble, writes wait: %s", trouble)
        self.trouble = trouble

    def _out_of_trouble(self) -> None:
        if self.trouble is not None:
            log.warning("the database answers again; writes go on")
            self.trouble = None

    def _no_outage(self, unit: Unit, trouble: DatabaseTrouble) -> None:
        self.trouble = None
        log.warning(
            "a write of workflow %r (%d bytes) fails while others are written; it is tried again from time to time: %s",
            unit.key.id, size_of(unit), trouble,
        )  # fmt: skip

    def _try_aside(self, one: Unwritten) -> None:
        self.commits += 1
        self.tried_again += 1
        self._aboard = 1
        began = self._loop.time()
        self._flight = task = asyncio.Task(self._once_more(one), loop=self._loop)

        def done(task: asyncio.Task[Verdict | Exception | None]) -> None:
            if task.cancelled() or self._closed:
                return
            self._flight = None
            if (verdict := task.result()) is None:
                self._aside.put_off(one, self._loop.time() - began)
            else:
                self._aside.drop(one)
                self._tell(one.source, one.unit, verdict)
                self._settle([one.told])
                if one.has_more:
                    self.put(one.source)
            self._go_on()

        task.add_done_callback(done)

    async def _once_more(self, one: Unwritten) -> Verdict | Exception | None:
        """What it comes to; None if it has failed again."""
        if one.withdrawn:
            return WITHDRAWN
        try:
            receipt = await self._store.commit([one.unit], now=self._clock.stamp())
        except DatabaseTrouble as trouble:
            log.debug("what was set aside fails again: %s", trouble)
            return overlong([one.unit], trouble)
        except Exception as error:
            log.exception("the store refused a write of workflow %s", one.unit.key.id)
            return error
        self._clock.observe(receipt.now)
        [verdict] = receipt.verdicts
        return verdict

    def _adapt(self, seconds: float) -> None:
        if seconds > SLOW_SECONDS:
            self._units_max = max(50, self._units_max // 2)
        elif self._units_max < UNITS_MAX:
            self._units_max = min(UNITS_MAX, self._units_max * 2)

    def _settle_idle(self) -> None:
        idle, self._idle = self._idle, []
        self._settle(idle)

    def _take_marks(self) -> list[asyncio.Future[None]]:
        marks, self._marks = self._marks, []
        return marks

    def _settle(self, futures: Sequence[asyncio.Future[None]]) -> None:
        for future in futures:
            if not future.done():
                future.set_result(None)

    @property
    def busy(self) -> bool:
        """Whether anything waits to be written, or is under way."""
        return bool(self._waiting or self._untold or self._aside.units) or self._flight is not None or self._scheduled

    @property
    def closed(self) -> bool:
        """Whether nothing is written any more."""
        return self._closed

    @property
    def backlog(self) -> int:
        """How many units wait to be durable."""
        return len(self._waiting) + (0 if self._flight is None else self._aboard)

    async def drained(self) -> None:
        """Returns when nothing waits and nothing is under way: for who ends. Under load that may never be."""
        while self.busy and not self._closed:
            future: asyncio.Future[None] = self._loop.create_future()
            self._idle.append(future)
            await future

    async def caught_up(self, source: Source | None = None) -> None:
        """Returns when all that was put before this call has been told, whatever is put after it.

        But for what is set aside, and what waits for that: of this all that is of ``source``, and nothing else.
        """
        await self._passed()
        while source is not None and (one := self._aside.of(source)) is not None:
            await asyncio.shield(one.told)
            await self._passed()  # what the source had put since is written after it

    async def _passed(self) -> None:
        """Returns when what stands in the queue has been taken, and told or set aside."""
        if self.busy and not self._closed:
            mark = Mark(self._loop.create_future())
            self.put(mark)
            await mark.future

    def abandon(self) -> None:
        """In a forked child: what waits is the parent's to write."""
        self._closed = True
        self._waiting.clear()
        self._untold.clear()
        self._aside = Aside(self._loop, self._wake)  # who waits for what was there is the parent's, too

    def abort(self) -> None:
        """Drop everything, as a crash would: what is under way may have happened or not."""
        self._closed = True
        self._settle([source.future for source in self._waiting if isinstance(source, Mark)])
        self._settle(self._take_marks())
        self._aside.abort()
        self._waiting.clear()
        self._untold.clear()
        if self._flight is not None:
            self._flight.cancel()
            self._flight = None
        self._settle_idle()
