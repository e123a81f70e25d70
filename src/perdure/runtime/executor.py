"""The executor: hosts the executions of this process, claims what is ready, recovers what the gone have left.

Several loops that are one: ``look`` runs when a hint arrives, when something was committed here, when a timer says that
something is due, and by an adaptive poll. Each look takes wakes for what runs here, re-adopts rows of ours that nobody
runs, fires schedules, claims what is ready, and lets in what stands in the lines of queues. Recovery, adoption,
requests and retention run at launch or in the rounds of the reaper (``_round``); each has a file of its own.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any

import msgspec

from perdure.client import verbs
from perdure.client.line import Line
from perdure.client.questions import StartOrder
from perdure.client.verbs import start_of
from perdure.core.run import Run
from perdure.definitions import Registry, StepDef, WorkflowDef
from perdure.errors import DatabaseTrouble, Unserializable
from perdure.model.ids import Holding
from perdure.model.records import Claimed, Ended, Incarnation, WorkflowRow
from perdure.model.states import Reason
from perdure.model.writes import Close, GiveUp, Park, Start, Unit, Verdict
from perdure.runtime.adoption import Adopter, Target
from perdure.runtime.asking import LIMIT_SECONDS
from perdure.runtime.bell import Bell
from perdure.runtime.births import Newcomer, born
from perdure.runtime.bodies import Bodies
from perdure.runtime.claims import hold_broken, holding, stop_at_another, take_on
from perdure.runtime.decide import warn_idle
from perdure.runtime.durable import all_durable
from perdure.runtime.ends import child_start, routed_child
from perdure.runtime.eviction import evict_if_idle, evict_longest
from perdure.runtime.execution import Execution
from perdure.runtime.fakes import body_of
from perdure.runtime.gates import Gates
from perdure.runtime.guards import Guards
from perdure.runtime.launch import Code, launch, say_unfinished
from perdure.runtime.leases import Lease
from perdure.runtime.machine import elapsed
from perdure.runtime.outage import Outage
from perdure.runtime.parting import written
from perdure.runtime.permission import Permission
from perdure.runtime.pool import ThreadPool
from perdure.runtime.post import Post, Taking
from perdure.runtime.queues import Queues
from perdure.runtime.reaper import Reaper
from perdure.runtime.recovery import CLAIM_BATCH, is_known, meet, refuse_company
from perdure.runtime.rounds import first_round, whole_round
from perdure.runtime.schedules import Scheduler
from perdure.runtime.suspects import Suspects, among, request_of
from perdure.runtime.sweeper import Sweeper
from perdure.runtime.told import disown
from perdure.runtime.unread import in_words
from perdure.runtime.upgrades import Following, declare_anew
from perdure.runtime.wakes import Window, take_wakes
from perdure.store.asks import ClaimRequest
from perdure.versions.routing import target

log = logging.getLogger("perdure")

LIVE_MAX = 10_000  # runs kept in memory; beyond it the longest waiting are evicted
GRACE_SECONDS = 5.0  # a wait longer than this is evicted
BEGIN_BATCH = 256  # bodies begun in one turn of the loop
POLL_SECONDS_MIN = 0.02
POLL_SECONDS_MAX = 1.0
ANSWER_SECONDS = 5.0  # that a drain waits for claims that are on their way
LOST_EVERY = 20  # each so many looks also searches for rows of ours that nobody runs


class Executor:
    """See the head of this file. Everything runs on the line's event loop, in plain callbacks or its own tasks."""

    def __init__(  # long: every part of an executor is named here, once
        self,
        line: Line,
        registry: Registry,
        *,
        executor_id: str,
        code: Code,
        me: Incarnation,
        lease: Lease | None = None,
        recovery: str = "fleet",
        adopt: str = "replay_safe",
        threads: int = 128,
        bodies: Bodies | None = None,
        grace: float = GRACE_SECONDS,
        live_max: int = LIVE_MAX,
        polling: bool = True,
        fakes: dict[str, Callable[..., Any]] | None = None,
        lease_seconds: float = 15.0,
        guards: Guards | None = None,
        listen: Collection[str] | None = None,
    ) -> None:
        self.line, self.registry = line, registry
        self.executor_id = executor_id
        self.code = code
        self.following = Following()
        self.version = code.version
        self.lease = lease
        self._permission = Permission(self)
        self.may_begin, self.when_allowed = self._permission.given, self._permission.when_given
        self.recovery, self.adopt = recovery, adopt
        self.adopter = Adopter(self)
        self.queues = Queues(self, listen)
        self.sweeper = Sweeper(self)
        self.me = me
        self.context = contextvars.copy_context()
        self.thread = threading.current_thread()  # the line's loop runs here
        self.bell = Bell(line.loop, line.journal.all_said)
        self.step_pool = ThreadPool("step", threads, line.loop, self.bell)
        self.bodies = bodies or Bodies()
        self.body_pool = ThreadPool("workflow", threads, line.loop, self.bell)
        self.gates = Gates(line.loop, line.journal.company)
        self.threads_waiting: dict[str, Execution] = {}  # sync bodies that only wait, and hold a thread; oldest first
        self.executions: dict[str, Execution] = {}
        self.suspects = Suspects()
        self.post = Post(self)
        self.scheduler = Scheduler(self)
        self.deciding: dict[str, asyncio.Task[None]] = {}  # claimed here, and a policy is asked what becomes of it
        self.policy_limit = LIMIT_SECONDS
        self.fakes = fakes if fakes is not None else {}
        self.polling = polling
        self._grace = grace
        self._live_max = live_max
        self.newcomers: set[Newcomer] = set()  # begun by blocking callers, and not told to the loop yet
        self.to_begin: deque[Execution] = deque()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._again = self._closed = False
        self.looks = 0
        self.window = Window()
        self.taking = Taking(self.post.all_here)  # one at a time, or a look takes what the reaper adopts for lost rows
        self._interval = POLL_SECONDS_MIN
        self._poll: asyncio.TimerHandle | None = None
        said = ("the database is in trouble, looking again later", "the database answers again; looks go on")
        self._outage = Outage(*said, logging.INFO, elapsed)
        self._due: Any = None
        self.draining, self.alive = False, True  # alive: as far as others have said
        self._hint_after = 0.0
        self.recovered = 0  # runs of executors that are gone; told by the log, counted for tests
        self.refused = 0  # writes of runs whose claim another has by now
        self.former: list[bytes] = []  # what this process was before it was declared dead
        self.handed_back = True  # False once a drain had to leave something to the lease
        self.hurried = False  # a drain is to wait for no step any more
        own_seconds = elapsed if lease is not None else lambda: line.clock.now() / 1e6  # a test's clock is its own
        self.answering = False  # somebody's question, which may take its time
        self.reaper = Reaper(line.loop, self._round, lambda: meet(self), lease_seconds, own_seconds, guards)
        self.on_change: Callable[[], None] = lambda: None  # the test harness watches for quiet
        self._opened = False  # before that, hints are for others: it may not be allowed to start at all

    # -- life

    async def open(self) -> None:
        """Recover what the gone have left, then work. The incarnation is registered already."""
        self.line.work = self
        self.line.watcher.is_local = self.has
        if self.recovery == "single":
            await refuse_company(self)
        warn_idle(self.registry)
        await launch(self)
        await verbs.patiently(self.line, self.queues.declare)
        await first_round(self)
        await say_unfinished(self)
        self._opened = True
        self.look()
        self.keep(asyncio.Task(self.adopter.round(), loop=self.line.loop))
        if self.polling:
            self.reaper.start()
            self.line.loop.call_later(self._grace, self._evict_idle)

    async def drain(self, grace: float) -> None:
        """No new claims; let steps end within ``grace`` seconds; hand the rest back in one commit."""
        self.draining = True
        deadline = self.line.loop.time() + grace
        self._stop_polling()
        if asking := self._asking():  # cut off, what they claim would be left behind, and look like a death
            await asyncio.wait(asking, timeout=min(grace, ANSWER_SECONDS))
        at_work = self._release(all_of_them=False)
        while at_work and not self.hurried and self.line.loop.time() < deadline:
            await asyncio.sleep(0.01)
            at_work = self._release(all_of_them=False)
        self._release(all_of_them=True)
        self.handed_back = await written(self, deadline)

    def _release(self, *, all_of_them: bool) -> bool:
        """Hand runs back: those of which nothing is under way, or every one. Whether anything still is."""
        for execution in list(self.executions.values()):
            if not execution.gone and (all_of_them or not execution.unfinished):
                execution.release()
        return bool(self.deciding) or any(e.unfinished for e in self.executions.values())

    def stop(self) -> None:
        """Everything of this process stops at once; what is not durable never happened."""
        self._closed = True
        self._stop_polling()
        for execution in list(self.executions.values()):
            execution.drop()
        self.gates.open_now()  # the loop may not turn again
        for task in [*self._tasks, *self._asking()]:
            task.cancel()
        self.step_pool.close()
        self.body_pool.close()
        self.bell.close()
        if not self.handed_back:  # after what waits for its writes was cancelled: none of it may take them for durable
            self.line.journal.abort()

    @property
    def over(self) -> bool:
        """Whether it has stopped."""
        return self._closed

    def _stop_polling(self) -> None:
        self.reaper.stop()
        if self._poll is not None:
            self._poll.cancel()
        if self._due is not None:
            self._due.cancel()

    def _asking(self) -> list[asyncio.Task[Any]]:
        """Looks and rounds that are under way."""
        return [*self.reaper.under_way, *([] if self._looking is None else [self._looking])]

    def keep(self, task: asyncio.Task[Any]) -> None:
        """Hold a task of ours until it is done."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- starts from this process

    def can_run(self, order: StartOrder) -> bool:
        options = order.options
        return (
            self.alive
            and not self.draining
            and not self._closed
            and (known := self.registry.workflows.get(order.name)) is not None
            and (options.queue or known.queue) is None
            and options.delay is None
            and options.until is None
            and (options.version == self.version or (options.version is None and not self.line.routes.leads))
            and (options.id is None or options.id not in self.executions)
        )

    def start(self, order: StartOrder, id: str) -> Execution:
        return self._born(order, id, start_of(self.line, order, id))

    def start_child(self, parent: Execution, order: StartOrder, id: str, path: str) -> None:
        """Start a child in its parent's next unit; run it here if it may."""
        order = routed_child(parent, order, id)
        start = child_start(parent, order, id, path)
        if self.can_run(order) and id not in self.executions:
            child = self._born(order, id, start, newborn=True)
            parent.newborns = [*parent.newborns, child]
        else:
            parent.run.add_child(start)

    def _born(self, order: StartOrder, id: str, start: Start, newborn: bool = False) -> Execution:
        """It runs from the first moment."""
        execution = born(self, order, id, start)
        execution.newborn = newborn
        self._begin_soon(execution)
        return execution

    def host(self, definition: WorkflowDef, run: Run, row: WorkflowRow, input: bytes) -> Execution:
        execution = self.bodies.of(definition)(self, definition, run, row, input)
        self.suspects.saw(execution)
        self._begin_soon(execution)
        return execution

    def _begin_soon(self, execution: Execution) -> None:
        self.executions[execution.id] = execution
        if not self.to_begin:
            self.line.loop.call_soon(self._begin_some)
        self.to_begin.append(execution)

    def _begin_some(self) -> None:
        """So many bodies in one turn of the loop that the journal's turn comes while thousands begin."""
        for _ in range(min(len(self.to_begin), BEGIN_BATCH)):
            self.begin(self.to_begin.popleft())
        if self.to_begin:
            self.line.loop.call_soon(self._begin_some)

    def begin(self, execution: Execution) -> None:
        """A plain callback of the host loop: the body's first burst (replaying what history holds)."""
        if execution.gone:
            return
        try:
            execution.begin_body()
        except Exception as error:
            self.not_begun(execution, error)
        if execution.unwritten:  # the start, and the intents of the first burst with it
            execution.first_burst_written()

    def not_begun(self, execution: Execution, error: Exception) -> None:
        """The input cannot be taken by the code that is here."""
        if not isinstance(error, Unserializable):
            log.error("workflow %s could not be begun", execution.id, exc_info=error)
        execution.hold(Reason.UNDECODABLE, in_words("its input", error, self.registry.codec))

    # -- claims

    def look(self, queues: Collection[str] = ()) -> None:
        """Look at the database now (or again, right after the look that is under way), or only at some lines."""
        if self._closed or self.draining or not self.alive or not self._opened:
            return
        if self._looking is not None:
            self._again = True
            return
        self._looking = asyncio.Task(self._look_once(queues), loop=self.line.loop)
        self._looking.add_done_callback(self._looked)

    def go_on(self) -> None:
        """The next run of something that ran here has begun: queued, or ours already (found by the next look)."""
        self.looks = 0
        self.look()

    def hinted(self, queues: Collection[str] = ()) -> None:
        self.look(queues)
        self.reaper.hinted()

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._looking = None
        if self._closed or self.draining or task.cancelled():
            return
        if task.exception() is not None:
            log.error("a look at the database failed", exc_info=task.exception())
        if self._again:
            self._again = False
            self.look()
        elif self.polling:
            if self._poll is not None:
                self._poll.cancel()
            self._poll = self.line.loop.call_later(self._interval, self.look)
            self._interval = min(self._interval * 1.3, POLL_SECONDS_MAX)

    async def _look_once(self, queues: Collection[str] = ()) -> None:
        async with self.taking:
            await self._look_and_take(queues)

    async def _look_and_take(self, queues: Collection[str]) -> None:
        try:
            if queues and await self.queues.take_named(queues):
                return
            self.looks += 1
            held = None
            if self.looks % LOST_EVERY == 1:
                await self.queues.be_sure()
                held = [holding(e) for e in self.executions.values()]
            poll = await self.line.store.poll(
                self.me.id, held, self.version, fresh=self.following.fresh, after=self.window.after,
                now=self.line.clock.stamp(),
            )  # fmt: skip
            self.line.clock.observe(poll.now)
            if self.recovery == "single" and not await is_known(self):
                return  # its next renewal finds that out; until then it takes nothing beside who came since
            if poll.wakes:
                self._interval = POLL_SECONDS_MIN
                await take_wakes(self, poll.wakes)
            self.post.again()
            if poll.lost:
                await self._readopt(poll.lost)
            self.queues.unsure = self.queues.unsure and held is None
            await self.queues.know(poll)
            await self.scheduler.after(poll)
            more = poll.claimable is not None and poll.claimable <= poll.now and await self._claim()
            if poll.claimable is not None and poll.claimable > poll.now:
                self.look_at(poll.claimable)
            self._again = self.window.moved(poll, stays=more) or self._again
            self._again = await self.queues.take(poll) or self._again
            self._outage.passed()
        except DatabaseTrouble as trouble:
            self._outage.met(trouble)
            self.answer_lost()
            self._interval = min(max(self._interval, 0.1) * 2, POLL_SECONDS_MAX)

    def answer_lost(self) -> None:
        """To a claim or an adoption, maybe: the next look also searches for rows of ours that nobody runs."""
        self.looks = 0
        self.queues.unsure = True

    def look_at(self, when: int) -> None:
        if self._due is not None:
            if self._due.callback is not None and self._due.when <= when:
                return
            self._due.cancel()
        self._due = self.line.timers.at(when, self.look)

    async def _claim(self) -> bool:
        """Whether there may be more."""
        limit = min(CLAIM_BATCH, self.space) if self.may_begin() else 0
        if not limit:
            return False  # it could not be run here
        claimed = await self.line.store.claim(self.request(limit), now=self.line.clock.stamp())
        if claimed:
            await self.take_on(claimed)
        return len(claimed) == limit or among(claimed)

    @property
    def space(self) -> int:
        """How many more runs there is memory for; who has waited longest makes room."""
        free = self._live_max - len(self.executions)
        if free <= 0:
            return int(evict_longest(self.executions.values(), self._live_max // 10, self.line.loop.time()))
        return free

    def request(self, limit: int) -> ClaimRequest:
        return request_of(self, limit)

    async def _readopt(self, held: Sequence[Holding]) -> None:
        """What is ours and not here (be it that an earlier run is, or claim): the answer to a claim was lost."""
        away = (one for one in held if (e := self.executions.get(one.id)) is None or holding(e) != one)
        if missing := [one.key for one in away if one.id not in self.deciding]:
            await self.take_on(
                await self.line.store.reclaim(missing, self.request(len(missing)), now=self.line.clock.stamp())
            )

    async def take_on(self, claimed: Sequence[Claimed]) -> None:
        self._interval = POLL_SECONDS_MIN
        with self.queues.coming(claimed):
            await take_on(self, claimed)

    def hold_broken(self, execution: Execution, unit: Unit, error: Exception) -> None:
        """A write of this run can never be written (a bug of ours): held, or it would be claimed and break for ever."""
        hold_broken(self, execution, unit, error)

    # -- recovery

    def room(self) -> int:
        """How many more runs may be taken over: some room is kept for new work, which would starve beside a crash."""
        if self._closed or self.draining or not self.alive:
            return 0
        return max(0, self._live_max * 4 // 5 - len(self.executions))

    def has_suspect(self) -> bool:
        """Whether a run is here that was in flight at two deaths in a row, has got nowhere since, and is at work."""
        return self.suspects.at_work()

    async def _round(self) -> None:
        if self.alive:
            await whole_round(self)

    async def target(self) -> Target:
        """Where new work goes, by workflow id."""
        routing, app = await self.line.store.routing(), self.line.store.app
        return lambda new: self.version if routing is None else target(routing, app, new)

    # -- eviction

    def _evict_idle(self) -> None:
        if self._closed or self.draining:
            return
        threshold = self.line.loop.time() - self._grace
        for execution in list(self.executions.values()):
            evict_if_idle(execution, threshold)
        self.line.loop.call_later(self._grace / 2, self._evict_idle)

    def make_room_for_threads(self) -> None:
        """A sync body waits for a thread: evict the longest waiting one, so that parents never starve children."""
        now = self.line.loop.time()
        for execution in list(self.threads_waiting.values()):
            evict_if_idle(execution, now)
            if execution.gone:
                return

    # -- told by executions

    def has(self, id: str) -> bool:
        return id in self.executions

    def runs(self, id: str) -> bool:
        """Whether it runs here and is not about to end: its end is still to come then, with a wake of its own."""
        execution = self.executions.get(id)
        return execution is not None and not execution.gone

    def body_of(self, definition: StepDef) -> tuple[Callable[..., Any], bool]:
        """The function to run for a step, and whether it is a coroutine function (tests replace some)."""
        return body_of(definition, self.fakes)

    def after_commit(self, execution: Execution, unit: Unit, verdict: Verdict) -> None:
        """A unit of a run of ours is durable: tell those in this process, hint the others."""
        if unit.change is None and not (unit.events or unit.children or unit.sends or unit.appends):
            return
        for event in unit.events:
            self.line.watcher.tell_event(execution.id, event.name, event.data)
        abroad = False
        for child in execution.born:
            if child.id in verdict.exists:
                child.drop()
                stop_at_another(execution, child.row, verdict.exists[child.id])
            else:
                child.start_durable()
        execution.born = ()
        for start in unit.children:
            if start.claim is None and start.id not in verdict.exists:
                abroad = True
        local = [send.dest for send in unit.sends if send.known and send.dest in self.executions]
        if local:
            self.post.announce(local)
        abroad = abroad or len(local) < len(unit.sends)
        if abroad:
            self.look()
        if abroad or unit.events or unit.appends or isinstance(unit.change, Close):
            self._hint()

    def _hint(self) -> None:
        """Tell other processes, at most every 25 ms for what happens all the time."""
        now = self.line.loop.time()
        if now >= self._hint_after:
            self._hint_after = now + 0.025
            self.line.store.hint()
        elif self._hint_after - now <= 0.025:
            self.line.loop.call_at(self._hint_after, self.line.store.hint)
            self._hint_after += 0.026

    def cancel(self, id: str, reason: str, nonce: bytes) -> None:
        execution = self.executions.get(id)
        if execution is not None and not execution.gone and nonce not in execution.woken:
            execution.own("woken")[nonce] = None
            execution.run.add_woken(nonce)  # goes with the next unit, which keeps the reason
            execution.cancel(reason)

    def cancel_elsewhere(self, parent: Execution, told: GiveUp) -> None:
        """Cancel a child without waiting for it, once its parent's unit has told it."""
        parent.dirty()

        async def command() -> None:
            await all_durable(parent)
            if not parent.lost:  # else what led here is, too
                await verbs.patiently(self.line, self.line.store.cancel, told.child, told.reason, told.wake)
                self.cancel(told.child, told.reason, told.wake)
                self.look()

        self.keep(asyncio.Task(command(), loop=self.line.loop))

    def closed(self, execution: Execution, close: Close) -> None:
        """An execution's end is durable."""
        row = msgspec.structs.replace(execution.row, status=close.status, last_seq=execution.run.seq)
        if execution.cancelling is not None:
            row = msgspec.structs.replace(row, cancel=execution.cancelling[1])
        ended = Ended(row, close.outcome, close.data, close.wake)
        execution.tell_ended(ended)
        self.line.watcher.tell_end(ended)

    def parked(self, park: Park) -> None:
        """An execution was evicted: look when it is due, and for what woke it before its park was durable."""
        if park.until is not None:
            self.look_at(park.until)
        self.look()

    def stale_write(self, execution: Execution) -> None:
        """The database took no more writes of a run: another holds it, or (after a failover) lost what it wrote."""
        self.refused += 1
        if not execution.gone:
            log.warning(
                "workflow %s was taken over by another executor, or lost in a failover; it stops here", execution.id
            )
            self.answer_lost()  # it may still be ours by its row
            self.line.loop.call_soon(self.look)

    def forget(self, execution: Execution) -> None:
        if self.executions.get(execution.id) is execution:
            del self.executions[execution.id]
            self.post.forget(execution.id)
            self.queues.let_go(execution)
            if execution.ended is not None and not isinstance(execution.closing, Close):
                self.line.loop.call_soon(execution.tell_ended, None)
            if self.line.watcher.awaited(execution.id):
                self.line.watcher.look()
        self.on_change()

    def drop_all(self) -> None:
        """Declared dead: what runs here belongs to others now, and stops. Nothing more of it is written."""
        for execution in list(self.executions.values()):
            disown(execution)
        for task in list(self.deciding.values()):
            task.cancel()

    async def reborn(self, me: Incarnation, lease: Lease) -> None:
        """Work again, under a new identity; what the old one left is taken over like anybody's."""
        self.former.append(self.me.id)
        # At once: a look that is under way may claim as the new one from here on, and must then take that on.
        self.me, self.lease, self.alive = me, lease, True
        self.look()
        self.reaper.now()
        try:
            await declare_anew(self, self.queues.declare)
        except Exception:  # it can work all the same
            log.exception("what the code declares (its version, queues, schedules) could not be declared again")
