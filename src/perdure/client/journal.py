"""Group commit: gathers units of writes from all runs and callers of this process, one transaction at a time.

Promises:
- Idle, it flushes in the next turn of the loop, or a millisecond later at most, for one or two threads that were just
  let go (``company.py``); while a commit is under way it gathers.
- A source's writes reach the store in order, gapless, at most one unit of a source in flight.
- A source is told the verdict only after the commit is durable, from a plain callback of the loop.
- Trouble with the database is waited out with the same units (same nonces), for ever or until ``close``; but for what
  a caller outside withdraws, which is not tried again. First the whole batch some times, then in ever smaller parts;
  a unit that fails while others are written is set aside, and tried again between the others' batches.
- What one commit puts in line stands there in the order in which it was put here, children of a unit in theirs.
- Any other error is bisected down to the unit that causes it; that source alone is told ``broken``, as is one whose
  writes cannot be taken, or are more than any database takes at once.
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
from perdure.model.writes import Receipt, Start, Unit, Verdict, size_of
from perdure.store.base import Store
from perdure.store.drive import Drive

log = logging.getLogger("perdure.journal")

UNITS_MAX = 1000  # of one batch; beyond it a statement costs more than it saves
BYTES_MAX = 4_000_000  # a batch takes no more units from here on: it is at most this and the largest unit
MESSAGE_BYTES_MAX = 1_000_000_000  # Postgres takes no message of 1 GiB; a unit of more than this has no other way
SLOW_SECONDS = 0.25  # a commit slower than this halves the next batch; a fast one lets it grow again
RETRY_SECONDS_MAX = 1.0
TRIES_WHOLE = 8  # of a batch in trouble, over a second or so: what is no outage may be of one part
ASIDE_SECONDS, ASIDE_SECONDS_MAX = 0.1, 30.0  # between two tries of what was set aside
ASIDE_SHARE = 4  # ... and so many times what a try takes: the others have most of the time
NOTHING = Unit(key=RunKey("", 0))
WITHDRAWN = RuntimeError("withdrawn: nobody waits for it any more")
SET_ASIDE = RuntimeError("set aside: it will be tried again, and told then")
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


class _Mark:
    """A place in the queue: ``future`` is settled once all that stood before it has been told."""

    __slots__ = ("future", "queued")

    def __init__(self, future: asyncio.Future[None]) -> None:
        self.future = future
        self.queued = False

    def take(self) -> Unit:
        return NOTHING

    def written(self, unit: Unit, verdict: Verdict) -> None:
        """It has no unit."""

    def broken(self, unit: Unit, error: Exception) -> None:
        """It has no unit."""


class _Aside:
    """A unit that failed while others were written."""

    __slots__ = ("again", "delay", "due", "source", "told", "unit", "withdrawn")

    def __init__(self, source: Source, unit: Unit, told: asyncio.Future[None], due: float) -> None:
        self.source = source
        self.unit = unit
        self.told = told
        self.due = due
        self.delay = ASIDE_SECONDS
        self.again = False  # its source has more to write
        self.withdrawn = False


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
        # Of the batch that is being handed over; if there is none, of the one that is gathered or under way.
        self._marks: list[asyncio.Future[None]] = []
        self._aside: dict[int, _Aside] = {}  # by source
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
        if (aside := self._aside.get(id(source))) is not None:
            aside.withdrawn, aside.due = True, 0.0
            self._wake()
            return True
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
        if self._aside and self._try_aside():
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
            if self._aside and (aside := self._aside.get(id(source))) is not None:
                aside.again = True
                continue
            try:
                unit = source.take()
            except Exception as bug:  # of one source: it must not cost the others their writes
                log.exception("the writes of %r could not be taken", source)
                self._tell(source, Unit(key=RunKey("", 0)), bug)
                continue
            if unit.empty:
                if isinstance(source, _Mark):
                    self._tell_rest()  # of the batch before: from here on the marks are this one's
                    self._marks.append(source.future)
                continue
            sources.append(source)
            units.append(unit)
            if unit.children:
                self._line_up(unit)
            size += size_of(unit)
        if not units:
            if not self._untold:
                self._settle(self._take_marks())
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
        if self.silent_since is None:
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
                self._landed(*self._set_aside(sources, units, task.result()))

        task.add_done_callback(done)

    def _landed(
        self, sources: Sequence[Source], units: Sequence[Unit], verdicts: Sequence[Verdict | Exception]
    ) -> None:
        """Hand the verdicts over.

        Of a large batch first one half, so that the database has its writes to do while the other half is handed over:
        else client and server only ever work in turns.
        """
        self._flight = None
        self._asking = False
        if self.trouble is None:
            self.silent_since = None
        self._tell_rest()  # of the batch before, if the database was quicker than the loop
        told = list(zip(sources, units, verdicts, strict=True))
        if len(told) > HALVES_FROM and not self._waiting:
            late = told[len(told) // 2 :]
            told = told[: len(told) // 2]
            self._untold = {id(source): (source, unit, verdict) for source, unit, verdict in late}
            self._in_turns(HALF_TURNS, self._tell_rest)
        for source, unit, verdict in told:
            self._tell(source, unit, verdict)
        if not self._untold:
            self._settle(self._take_marks())
        self._go_on()

    def _go_on(self) -> None:
        """After a batch: the next one, or rest."""
        if self._waiting or self._aside:
            self._wake()
        elif not self._untold:
            self._settle_idle()

    def _wake(self) -> None:
        if not self._scheduled and self._flight is None:
            self._scheduled = True
            self._loop.call_soon(self._flush)

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
        self._adapt(monotonic() - self._began)

    def _failed(self, error: BaseException | None) -> None:
        """Note whether a try that failed may have been written."""
        self._lost |= isinstance(error, LostAnswer) or not isinstance(error, DatabaseTrouble)

    async def _commit(self, units: Sequence[Unit]) -> list[Verdict | Exception]:
        """Whole; after some tries in ever smaller parts, in turn, so that none keeps the others waiting."""
        verdicts: dict[int, Verdict | Exception] = {}
        parts = deque([units])
        delay = 0.0  # the first retry at once: a broken connection is replaced by a new one
        failures, wrote = 0, False
        while parts:
            part = self._wanted(parts.popleft(), verdicts)
            if not part:
                continue
            self._began = monotonic()
            self._asking = True
            try:
                receipt = await self._store.commit(part, now=self._clock.stamp())
            except DatabaseTrouble as trouble:
                self._asking = False
                self._in_trouble(trouble)
                failures += 1
                if (overlong := _overlong(part, trouble)) is not None:
                    verdicts[id(part[0])] = overlong
                elif failures < TRIES_WHOLE:
                    parts.appendleft(part)
                elif len(part) > 1:
                    parts.extend(_halves(part))
                elif wrote or (self._waiting and len(units) == 1):
                    verdicts[id(part[0])] = SET_ASIDE
                    self._log_aside(part[0], trouble, wrote)
                else:  # nothing tells it from an outage
                    parts.append(part)
                await asyncio.sleep(delay)
                delay = min(max(delay * 2, 0.01), RETRY_SECONDS_MAX)
            except Exception as error:
                if len(part) == 1:
                    log.exception("the store refused a write of workflow %s", part[0].key.id)
                    verdicts[id(part[0])] = error
                else:
                    parts.extendleft(reversed(_halves(part)))
            else:
                self._succeeded(receipt)
                self._out_of_trouble()
                delay, wrote = 0.0, True
                verdicts.update(zip(map(id, part), receipt.verdicts, strict=True))
        return [verdicts[id(unit)] for unit in units]

    def _wanted(self, part: Sequence[Unit], verdicts: dict[int, Verdict | Exception]) -> Sequence[Unit]:
        """Without what was withdrawn, which has its verdict."""
        if self._withdrawn.isdisjoint(map(id, part)):
            return part
        verdicts.update((id(unit), WITHDRAWN) for unit in part if id(unit) in self._withdrawn)
        return [unit for unit in part if id(unit) not in self._withdrawn]

    def _in_trouble(self, trouble: DatabaseTrouble) -> None:
        self._failed(trouble)
        if self.trouble is None:
            log.warning("the database is in trouble, writes wait: %s", trouble)
        self.trouble = trouble

    def _out_of_trouble(self) -> None:
        if self.trouble is not None:
            log.warning("the database answers again; writes go on")
            self.trouble = None

    # -- what was set aside: a unit that fails, as often as it is tried, while others are written

    def _log_aside(self, unit: Unit, trouble: DatabaseTrouble, wrote: bool) -> None:
        if wrote:  # so the trouble is not the database's
            self.trouble = None
            log.warning(
                "a write of workflow %r (%d bytes) fails while others are written; it is tried again from time to "
                "time: %s", unit.key.id, size_of(unit), trouble,
            )  # fmt: skip

    def _set_aside(
        self, sources: Sequence[Source], units: Sequence[Unit], verdicts: Sequence[Verdict | Exception]
    ) -> tuple[list[Source], list[Unit], list[Verdict | Exception]]:
        """What of a batch can be told; the rest is set aside."""
        for source, unit, verdict in zip(sources, units, verdicts, strict=True):
            if verdict is SET_ASIDE:
                due = self._loop.time() + ASIDE_SECONDS
                aside = self._aside[id(source)] = _Aside(source, unit, self._loop.create_future(), due)
                aside.withdrawn = id(unit) in self._withdrawn
                self._loop.call_at(due, self._come_due, aside)
        told = [nth for nth, verdict in enumerate(verdicts) if verdict is not SET_ASIDE]
        return [sources[nth] for nth in told], [units[nth] for nth in told], [verdicts[nth] for nth in told]

    def _come_due(self, aside: _Aside) -> None:
        aside.due = 0.0  # not left to a look at the clock: a timer may ring a moment before its time
        self._wake()

    def _try_aside(self) -> bool:
        """Whether one of them is due, and is tried now."""
        aside = min(self._aside.values(), key=lambda aside: aside.due)
        if aside.due > self._loop.time():
            return False
        self.commits += 1
        self.tried_again += 1
        self._aboard = 1
        began = self._loop.time()
        self._flight = task = asyncio.Task(self._once_more(aside), loop=self._loop)

        def done(task: asyncio.Task[list[Verdict | Exception]]) -> None:
            if task.cancelled() or self._closed:
                return
            self._flight = None
            [verdict] = task.result()
            if verdict is SET_ASIDE:
                now = self._loop.time()
                aside.due = 0.0 if aside.withdrawn else now + max(aside.delay, ASIDE_SHARE * (now - began))
                aside.delay = min(2 * aside.delay, ASIDE_SECONDS_MAX)
                self._loop.call_at(aside.due, self._come_due, aside)
            else:
                del self._aside[id(aside.source)]
                self._tell(aside.source, aside.unit, verdict)
                self._settle([aside.told])
                if aside.again:
                    self.put(aside.source)
            self._go_on()

        task.add_done_callback(done)
        return True

    async def _once_more(self, aside: _Aside) -> list[Verdict | Exception]:
        if aside.withdrawn:
            return [WITHDRAWN]
        try:
            receipt = await self._store.commit([aside.unit], now=self._clock.stamp())
        except DatabaseTrouble as trouble:
            log.debug("what was set aside fails again: %s", trouble)
            return [_overlong([aside.unit], trouble) or SET_ASIDE]
        except Exception as error:
            log.exception("the store refused a write of workflow %s", aside.unit.key.id)
            return [error]
        self._clock.observe(receipt.now)
        return list[Verdict | Exception](receipt.verdicts)

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
        return bool(self._waiting or self._untold or self._aside) or self._flight is not None or self._scheduled

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

        But for what is set aside: for that it waits only if it is of ``source``.
        """
        if self.busy and not self._closed:
            mark = _Mark(self._loop.create_future())
            self.put(mark)
            await mark.future
        while source is not None and (aside := self._aside.get(id(source))) is not None:
            await asyncio.shield(aside.told)

    def abandon(self) -> None:
        """In a forked child: what waits is the parent's to write."""
        self._closed = True
        self._waiting.clear()
        self._untold.clear()
        self._aside.clear()

    def abort(self) -> None:
        """Drop everything, as a crash would: what is under way may have happened or not."""
        self._closed = True
        self._settle([source.future for source in self._waiting if isinstance(source, _Mark)])
        self._settle([*self._take_marks(), *(aside.told for aside in self._aside.values())])
        self._waiting.clear()
        self._untold.clear()
        self._aside.clear()
        if self._flight is not None:
            self._flight.cancel()
            self._flight = None
        self._settle_idle()


def _halves(part: Sequence[Unit]) -> tuple[Sequence[Unit], Sequence[Unit]]:
    middle = len(part) // 2
    return part[:middle], part[middle:]


def _overlong(part: Sequence[Unit], trouble: DatabaseTrouble) -> Exception | None:
    """The error for a unit that is more than a database takes at once: it would break every connection, for ever."""
    if len(part) > 1 or not isinstance(trouble, LostAnswer) or (size := size_of(part[0])) <= MESSAGE_BYTES_MAX:
        return None
    return ValueError(
        f"a single write of {size / 1e6:,.0f} MB is more than the database takes at once (about "
        f"{MESSAGE_BYTES_MAX / 1e6:,.0f} MB): let fewer large values be written together. It said: {trouble}"
    )


def stub_row(id: str, run: int, status: Status, name: str = "", version: str = "") -> WorkflowRow:
    """The little that is known of a workflow without reading it."""
    return WorkflowRow(id=id, run=run, lineage=b"", name=name, status=status, version=version, created=0, updated=0)
