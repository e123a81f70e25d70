"""One run that lives in this process: the pure core, its writes, its waits and its steps. Both faces extend it.

States: replaying -> live (bursts of the body between outcomes) -> closing (Close written) | parking | holding -> gone.
Everything here runs in plain callbacks of the host loop, except where ``thread_body`` says otherwise.

Promises:
- no effect of the body begins before all that it rests on is durable, and none after the claim is lost;
- what is refused by the fence is dropped whole, and the body is put away without a trace;
- a cancel is delivered once, when no step is under way, and is itself a record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from perdure.client.line import Listener
from perdure.client.questions import ResultOf, StartOrder, outcome_of
from perdure.client.timers import Timer
from perdure.client.watcher import Watch
from perdure.core.chance import Chance
from perdure.core.growing import also
from perdure.core.run import Op, Run
from perdure.definitions import WorkflowDef
from perdure.errors import Evicted
from perdure.model.ids import RunKey, child_id, end_token
from perdure.model.records import Ended, Kind, Message, Outcome, Record, WorkflowRow
from perdure.model.states import Reason, Status
from perdure.model.writes import Change, Close, Continue, Hold, Park, Release, Rewind, SetEvent, Start, Unit, Verdict
from perdure.runtime.context import Current
from perdure.runtime.ends import conclude, going_on
from perdure.runtime.inbox import Inbox, hand_out
from perdure.runtime.steps import CRASHES, StepCall, crashed
from perdure.runtime.told import is_there, not_started, taken_and_gone, tell, unborn
from perdure.runtime.unawaited import Unawaited
from perdure.runtime.waits import ContinueAsNew, RecvWait
from perdure.serde.values import Shape

EMPTY: Mapping[Any, Any] = MappingProxyType({})
OUT_OF_TIME: Final = "its time ran out"


class Execution:
    """See the head of this file. ``host`` is the executor; ``row`` what was claimed (or is being started).

    Thousands live at once: each container below is made when first needed (``own``), which halves what a run costs.
    """

    inbox: Inbox | None = None
    unawaited: Unawaited | None = None
    waits: Mapping[str, list[Timer | Watch]] = EMPTY  # by path: what must be cancelled when the wait ends
    waiting: Mapping[str, Op] = EMPTY  # by path: begun, and neither a step nor in the database's hands
    receiving: Mapping[str, Op] = EMPTY  # of these, those that wait for a message: others may be thousands
    children: Mapping[str, str] = EMPTY  # id -> on_parent_close, of children started here
    inherited: Mapping[str, str] = EMPTY  # of these, those that earlier bursts of a process have started
    seen_ends: Mapping[str, None] = EMPTY  # children whose end the body has seen
    woken: Mapping[bytes, None] = EMPTY  # wakes that were acted on
    heard: Mapping[bytes, None] = EMPTY  # those that a look is yet to see, of ends that were told here
    asked_there: Mapping[str, Op] = EMPTY  # by path: verdicts awaited of the next unit
    asked_in_flight: Mapping[str, Op] = EMPTY  # … of the unit that is in flight
    newborns: Sequence[Execution] = ()  # children to go with the next unit
    born: Sequence[Execution] = ()  # children in the unit that is in flight
    change_later: Change | None = None
    last_attributes: bytes | None = None  # what the row can be searched by once it has ended; None: as now
    cancel_wake: bytes | None = None  # the wake row of the cancel command
    final: tuple[Any, BaseException | None] | None = None  # what the body gave, once it has ended
    lost = False  # put away by others' doing: what is not durable never happened
    starting = False  # its own start is in flight
    started: Listener | None = None
    ended: Listener | None = None
    _deadline: Timer | None = None
    _chance: Chance | None = None

    def __init__(self, host: Any, definition: WorkflowDef, run: Run, row: WorkflowRow, input: bytes) -> None:
        self.host = host
        self.line = host.line
        self.definition = definition
        self.run = run
        self.row = row
        self.input = input
        self.claim = row.claim
        self.queued = False  # in the journal's line
        self.in_flight = False
        self.gone = False  # put away, or ending: nothing more is executed
        self.closing: Change | None = None
        self.running = 0  # steps whose body is under way
        self.cancelling: tuple[Status, str] | None = None  # asked to stop; set until delivered and after
        self.cancel_delivered = False
        self._steps: dict[str, StepCall] = {}  # by path: bodies under way
        self._blocked: list[Op] | None = None  # steps that wait for the barrier
        self._flying: list[Op] | None = None  # … whose barrier is in flight
        self.newborn = False  # the start travels in the parent's unit and is not durable yet
        self.idle_since = 0.0

    def own(self, name: str) -> Any:
        """A container of this run's own, made now if it is still the shared empty one."""
        found: Any = getattr(self, name)
        if found is EMPTY:
            found = {}
            setattr(self, name, found)
        return found

    # -- the face's part

    def begin_body(self) -> None:
        """Decode the input and start the body (a plain callback of the host loop)."""
        raise NotImplementedError

    def pump(self) -> None:
        """Let the body run until it is quiet; then begin what it asked for, or end."""
        raise NotImplementedError

    def put_away(self) -> None:
        """Unwind the body without effect or record."""
        raise NotImplementedError

    def begin_question(self, op: Op) -> None:
        """The body asks something of another workflow."""
        raise NotImplementedError

    def settle_verdicts(self, asked: Mapping[str, Op], verdict: Verdict) -> None:
        """What the database said of the starts and messages of a unit."""
        raise NotImplementedError

    # -- writing

    @property
    def id(self) -> str:
        return self.run.key.id

    def dirty(self) -> None:
        """There are writes: the journal takes them at its next flush."""
        if not self.newborn:
            self.line.journal.put(self)

    def first_burst_written(self) -> None:
        """The body has begun, and there are writes: its start among them."""
        self.dirty()

    @property
    def unwritten(self) -> bool:
        return self.run.unwritten or bool(self.newborns)

    def take(self) -> Unit:
        """For the journal: all that waits, as one unit."""
        if not self.unwritten:  # an earlier flush took it before this one was asked for (by a sync body's thread)
            blocked, self._blocked = self._blocked, None
            for op in blocked or ():
                self.line.loop.call_soon(self._run_step, op)
            return Unit(key=self.run.key)
        if self.newborns:
            self.born, self.newborns = self.newborns, ()
            for child in self.born:
                self.run.add_child(child.take_start())
        unit = self.run.take()
        if unit.start is None:
            unit.claim = self.claim
        else:
            self.starting = True
        unit.nonce = self.line.new_token()
        self.in_flight = True
        self._launch_blocked()
        if self.asked_there:
            self.asked_in_flight, self.asked_there = self.asked_there, EMPTY
        return unit

    def _launch_blocked(self) -> None:
        if self._blocked:
            self._flying, self._blocked = (self._flying or []) + self._blocked, None

    def take_start(self) -> Start:
        """For the parent: this child's start, with the intents of its first burst."""
        if not self.run.observed:  # else they go, as their intents do, with this child's own unit
            self._launch_blocked()
        return self.run.take_start()

    def start_durable(self) -> None:
        """The parent's unit is durable, and this child's start with it."""
        self.newborn = False
        flying, self._flying = self._flying, None
        for op in flying or ():
            self._run_step(op)
        if self.unwritten:
            self.dirty()

    def written(self, unit: Unit, verdict: Verdict) -> None:
        """From the journal: the unit is durable, or refused."""
        self.in_flight = False
        if not verdict.applied:
            self._refused(unit, verdict)
            return
        if unit.start is not None:
            is_there(self)
        self.host.after_commit(self, unit, verdict)
        if unit.change is not None:
            self._ended(unit)
            return
        if self.change_later is not None:
            self.run.change, self.change_later = self.change_later, None
            self.dirty()
        if self.gone:
            return
        flying, self._flying = self._flying, None
        asked, self.asked_in_flight = self.asked_in_flight, EMPTY
        for op in flying or ():
            self._run_step(op)
        if asked:
            self.settle_verdicts(asked, verdict)
        if self.unwritten:
            self.dirty()

    def broken(self, unit: Unit, error: Exception) -> None:
        """From the journal: this unit can never be written. The workflow is held, nothing more of it is executed."""
        self.in_flight = False
        unborn = unit.start is not None or self.run.start is not None  # … or it could not be taken
        self.drop()
        if unborn:
            self.tell_started(not_started(self.id, error))
        else:
            self.host.hold_broken(self, unit, error)

    def tell_started(self, exists: WorkflowRow | Exception | None) -> None:
        tell(self.started, exists)
        if exists is not None:
            tell(self.ended, exists)

    def tell_ended(self, how: Ended | None) -> None:
        """Who waits here for the end is told it, or (None) must ask the database: not before it is there."""
        if how is not None or self.host.over or not unborn(self):
            tell(self.ended, how)

    def _refused(self, unit: Unit, verdict: Verdict) -> None:
        """Another holds the workflow now (or has its id): stop at once, adopt nothing."""
        exists = verdict.exists.get(self.id)
        if unit.start is None:
            self.host.stale_write(self)
        elif exists is None or exists.lineage != self.run.lineage:
            self.tell_started(exists or taken_and_gone(self.id))
        else:  # written by a first try, and another's by now
            self.host.stale_write(self)
            self.lost = True
            is_there(self)
        self.drop()

    def drop(self) -> None:
        """Put the body away and forget the run: what is not durable never happened."""
        self.lost = True
        if not self.gone:
            self.gone = True
            self._stop_all()
            self.put_away()
        for child in (*self.born, *self.newborns):
            child.drop()
        self.host.forget(self)

    def _stop_all(self) -> None:
        self.run.gone = True
        for call in list(self._steps.values()):
            call.stop()
        self._steps.clear()
        for path in list(self.waits):
            self.end_wait(path)
        self.waiting = self.receiving = EMPTY
        self._blocked = self._flying = None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _ended(self, unit: Unit) -> None:
        """The last unit of this run (here) is durable."""
        self.host.forget(self)
        match unit.change:
            case Close() as close:
                self.host.closed(self, close)
            case Continue() | Rewind():
                self.host.go_on()
            case Hold() as hold:
                self.line.watcher.warn_held(self.id, self.row.name, str(hold.reason), hold.detail)
            case Park() as park:
                self.host.parked(park)
            case _:
                pass

    # -- asking

    def settle(self, op: Op, outcome: Outcome, data: bytes | None, name: str | None = None) -> Record | None:
        """An outcome arrived: record it, hand it to the body, let the body run."""
        if self.gone or not op.is_open:
            return None
        self.end_wait(op.path)
        record = self.run.settle(op, self.line.clock.now(), outcome, data, name)
        self.dirty()
        self.hand_over(op, record)
        self.pump()
        return record

    def hand_over(self, op: Op, record: Record) -> None:
        """Give the body an outcome that is recorded."""
        raise NotImplementedError

    def abandon(self, op: Op) -> None:
        """The body was cancelled at this call and no longer waits for it."""
        if not op.is_open:
            return
        self.run.abandon(op)
        self.end_wait(op.path)
        call = self._steps.pop(op.path, None)
        if call is not None:
            call.stop()

    def end_wait(self, path: str) -> None:
        """Forget the timers and watches of a wait."""
        if self.waits:
            self.own("waiting").pop(path, None)
            if self.receiving:
                self.own("receiving").pop(path, None)
            for part in self.own("waits").pop(path, ()):
                part.cancel()

    def begin_wait(self, op: Op, *parts: Timer | Watch) -> None:
        """The body waits here for something that a row can hold; ``parts`` are cancelled when the wait ends."""
        self.own("waiting")[op.path] = op
        self.own("waits")[op.path] = list(parts)

    def begin(self, op: Op) -> None:
        """A call that history does not answer: do what it takes to get its outcome."""
        match op.what:
            case StepCall():
                self._begin_step(op)
            case RecvWait() as wait:
                self._begin_recv(op, wait)
            case int() as deadline:
                self.begin_wait(op, self.line.timers.at(deadline, lambda: self.settle(op, Outcome.NONE, None)))
            case _:
                self.begin_question(op)

    # -- steps

    def _begin_step(self, op: Op) -> None:
        call: StepCall = op.what
        if op.attempt > 1:
            if call.recall(op.path, self.run.history):
                op.failed_at = 0  # the delay was for the code that it has been moved from
            self._retry_later(op)
        elif call.definition.pure:
            self._run_step(op)
        elif call.definition.at_most_once and self.run.was_intended(op.path):
            self.line.loop.call_soon(self.settle, op, Outcome.ERROR, call.unknown())
        else:
            self._barrier(op, self.run.intend(op, once=call.definition.at_most_once))

    def _barrier(self, op: Op, has_news: bool) -> None:
        """Run the step as soon as all that it rests on is durable."""
        if has_news or self.unwritten:
            self._blocked = also(self._blocked, op)
            self.dirty()
        elif self.in_flight:
            self._flying = also(self._flying, op)
        else:
            self._run_step(op)

    def _run_step(self, op: Op) -> None:
        if self.gone or not op.is_open or self.host.draining:
            return  # draining: it is handed back, and the step begins elsewhere
        if op.attempt > 1 and op.path not in self.waiting and op.failed_at:
            self._retry_later(op)
            return
        if not self.host.may_begin():
            self.host.when_allowed(lambda: self._run_step(op))
            return
        self.running += 1
        self._steps[op.path] = op.what
        op.what.start(self, op)

    def _retry_later(self, op: Op) -> None:
        """The next attempt begins after the policy's delay, counted from the failure that history recorded."""

        def go() -> None:
            self.end_wait(op.path)
            op.failed_at = 0
            self._run_step(op)

        self.begin_wait(op, self.line.timers.at(self.retry_time(op), go))

    def retry_time(self, op: Op) -> int:
        return op.failed_at + int(op.what.wait(op.attempt - 1))

    def step_done(self, op: Op, outcome: Outcome, data: bytes | None, error: Exception | None) -> None:
        """A step's body ended (called by its StepCall, once)."""
        self.running -= 1
        self._steps.pop(op.path, None)
        self.host.on_change()
        if self.gone or not op.is_open:
            return
        if error is not None and op.what.wants_retry(error, op.attempt):
            self.attempt_failed(op, data, error)
        else:
            self.settle(op, outcome, data)

    def attempt_failed(self, op: Op, data: bytes | None, error: Exception) -> None:
        """An attempt of a step has failed, and another is to follow: record it."""
        call: StepCall = op.what
        call.remember(op.attempt, error)
        self.run.fail_attempt(op, self.line.clock.now(), data or b"", call.wait(op.attempt))
        self.dirty()
        if self.cancelling is None:
            self._blocked = also(self._blocked, op)
        else:
            self.pump()  # the cancel was waiting for this step

    # -- messages

    def _begin_recv(self, op: Op, wait: RecvWait) -> None:
        self.own("receiving")[op.path] = op
        self.begin_wait(op, *wait.timers(self.line, lambda: self._out_of_time(op)))
        if self.has_mail(wait.topic):
            self.line.loop.call_soon(self.match_mail)

    def _out_of_time(self, op: Op, *, read: bool = False) -> None:
        self.match_mail()  # what is there comes first, however late it is
        if read or not self.host.post.first(self.id, lambda: self._out_of_time(op, read=True)):
            self.settle(op, Outcome.NONE, None)

    def has_mail(self, topic: str) -> bool:
        """Whether a message on this topic waits to be received, or may."""
        return self.host.post.owes(self.id) or (self.inbox is not None and self.inbox.first(topic) is not None)

    def mail(self, messages: list[Message], wake: bytes | None = None) -> None:
        """Messages of this workflow; repeats are recognised. ``wake``: the nonce of the wake row of the one given."""
        self.inbox = self.inbox or Inbox()
        if self.inbox.put(messages, wake) and not self.run.replaying:
            self.match_mail()

    def match_mail(self) -> None:
        """Hand messages to those who wait for them, as far as this is a time to."""
        hand_out(self)

    # -- notes: what needs no verdict

    def note_event(self, path: str, name: str, data: bytes) -> None:
        """Publish an event; travels with the next barrier."""
        # With its value: a run that is cut behind this record finds it here.
        if self.run.note(path, Kind.EVENT, name, b"", data, self.line.clock.now())[1]:
            self.run.add_event(SetEvent(name, data))
            self.dirty()

    def note_child(self, path: str, order: StartOrder, fingerprint: bytes) -> str:
        """Start a child under its derived id."""
        id = child_id(RunKey(self.id, self.run.origin), path)
        record, new = self.run.note(
            path, Kind.CHILD, order.name, fingerprint, id.encode(), self.line.clock.now(), order.shown
        )
        if self.run.was_kept(record):
            return (record.data or b"").decode()  # another workflow's child, and its business
        self.own("children")[id] = order.options.on_parent_close
        if new:
            self.host.start_child(self, order, id, path)
            self.dirty()
        return id

    def cancel_child(self, path: str, id: str) -> None:
        """The body was cancelled at ``path``, where it waited for this child: so is the child, once."""
        note = f"{path}.c"
        known = id in self.children or self.run.recorded(note) is not None  # a fork meets the note of another's child
        if self.gone or not known:
            return
        if told := self.run.give_up(note, id, self.line.new_token(), self.line.clock.now()):
            self.host.cancel_elsewhere(self, told)  # at once, too: who stands in line hears of no wake

    # -- ends

    def acted_on(self, nonces: Sequence[bytes]) -> None:
        """What these wakes were about has been handed over: their rows may go, with the next unit."""
        if not self.gone:
            for nonce in nonces:
                self.run.add_woken(nonce)
            self.dirty()

    def cancel(self, reason: str, status: Status = Status.CANCELLED, nonce: bytes | None = None) -> None:
        """Ask the body to stop. ``nonce``: of the wake that commanded it."""
        raise NotImplementedError

    def arm_deadline(self) -> None:
        """The workflow's own time, by the database's clock. What is past counts before the body comes to a rest."""
        deadline = self.row.deadline
        if deadline is None or self._deadline is not None:
            return
        if deadline <= self.line.clock.now():
            self.cancel(OUT_OF_TIME, Status.TIMED_OUT)
        else:
            self._deadline = self.line.timers.at(deadline, lambda: self.cancel(OUT_OF_TIME, Status.TIMED_OUT))

    def body_ended(self, value: Any, error: BaseException | None) -> None:
        """The body has ended: wait for the children that the end is to wait for, as for any other outcome."""
        self.final = (value, error)
        for id, policy in self.children.items():
            if policy == "wait" and id not in self.seen_ends and not self.cancel_delivered:
                question = ResultOf(id, Shape.of(Any))
                self.run.ask(Op(f"end:{id}", Kind.RESULT, id, b"", lambda _record: None, question))

    def try_finish(self) -> None:
        """After the body's end: begin the waits that are left, or end."""
        assert self.final is not None, "the body has not ended"
        for op in self.run.fresh():
            self.begin(op)
        if not self.run.asked and not self.gone:
            self.finish(*self.final)

    def finish(self, value: Any, error: BaseException | None) -> None:
        """The body has ended, and nothing is waited for. Encode what it gave, write the end."""
        if self.unawaited is not None:
            error = self.unawaited.beside(error)
        if isinstance(error, ContinueAsNew) and not self.cancel_delivered:
            self._end_with(going_on(self, error))
        elif isinstance(error, CRASHES) and not self.cancel_delivered:
            crashed(self, error, f"the body of {self.row.name}", in_thread=not self.definition.is_async)
        else:
            status, outcome, data = conclude(self, value, error)
            wake, parent = self.line.new_token(), self.row.parent
            close = Close(
                status, outcome, data, wake if parent is None else end_token(self.id, wake), parent,
                tuple(id for id, policy in self.children.items() if policy == "cancel" and id not in self.seen_ends),
                self.last_attributes, self.run.key.run > 1 and self.definition.process is None,
            )  # fmt: skip
            self._end_with(close)

    def hold(self, reason: Reason, detail: str) -> None:
        """Park with a reason; nothing of the body is executed."""
        self._end_with(Hold(reason, detail), unwind=True)

    def park(self, park: Park) -> None:
        """Evict: the body goes, the wake condition stays in the row."""
        self.run.ease()
        self._end_with(park, unwind=True)

    def release(self) -> None:
        """Hand back, for another executor."""
        self._end_with(Release(anew=self.row.attempts > 0 and self.run.observed), unwind=True)

    def _end_with(self, change: Change, unwind: bool = False) -> None:
        self.closing = change
        self.gone = True
        self._stop_all()
        if unwind:
            self.put_away()
        if self.newborns or self.run.children:
            # A close sends cancels to open children; the statement that inserts a child cannot see it yet.
            self.change_later = change
        else:
            self.run.change = change
        self.dirty()

    # -- what the body may know

    @property
    def chance(self) -> Chance:
        """Random numbers and uuids, the same on every replay."""
        self._chance = self._chance or Chance(self.run.lineage)
        return self._chance

    def current(self) -> Current:
        return Current(
            self.run.key, self.run.lineage, self.row.name, self.run.version, self.host.executor_id,
            self.row.attempts + 1, self.run.replaying, None, self.run.parameters,
        )  # fmt: skip

    def end_of_child(self, ended: Ended) -> tuple[Outcome, bytes | None]:
        self.own("seen_ends")[ended.row.id] = None
        if ended.wake is not None and ended.row.parent == self.id:
            self.own("heard")[ended.wake] = None
        return outcome_of(ended)

    @property
    def unfinished(self) -> bool:
        """Whether a step is under way, or its outcome waits for the body to be quiet."""
        return bool(self.running) or self.in_mid_burst

    @property
    def in_mid_burst(self) -> bool:
        """Whether the body was interrupted before it was quiet, so that nothing may be handed to it just now."""
        return False

    @property
    def busy(self) -> bool:
        """Whether something goes on here that needs no time to pass and no word from outside (tests wait for quiet)."""
        return bool(self.running or self.in_flight or self.unwritten or self.run.replaying)

    @property
    def at_work(self) -> bool:
        """Whether code of a blocking body runs, or is about to, so that it will say when it rests."""
        return False

    def check_alive(self) -> None:
        """Every call of unwinding code is refused, without effect or record."""
        if self.gone:
            raise Evicted
