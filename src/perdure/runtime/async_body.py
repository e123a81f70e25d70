"""An async workflow body: one deterministic loop, driven in bursts from plain callbacks of the host loop.

``pump`` is the whole life of it: burst; hand over the next recorded outcome; burst; … until history is used up; then
begin what was asked for. Live, each outcome that arrives is handed over the same way, one burst each.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Hashable
from contextlib import suppress
from functools import partial
from typing import Any

from perdure.core.run import Op
from perdure.errors import Compensating, Evicted, NotDurable
from perdure.model.records import Kind, Outcome, Record
from perdure.model.writes import Unit
from perdure.runtime import answers
from perdure.runtime.cancelling import Kept
from perdure.runtime.context import STEP
from perdure.runtime.loop import LoopTimer, WorkflowLoop
from perdure.runtime.steps import StepCall, cancellation
from perdure.runtime.unawaited import Unawaited
from perdure.runtime.unread import value_of
from perdure.runtime.waits import ContinueAsNew, RecvWait, as_signal

log = logging.getLogger("perdure")

NEVER_WAKES = (
    "the workflow body awaits something that is neither a step nor a wait of Perdure's or asyncio's, so nothing can "
    "ever wake it: put real I/O, threads and futures of other event loops into a step"
)
REPLAY_DELIVERIES_MAX = 500  # handed over in one turn of the host loop; then others get theirs


class AsyncExecution(answers.Answering):
    """See the head of this file."""

    loop: WorkflowLoop
    main: asyncio.Task[Any]
    _ending = False  # the main coroutine has ended, and what outlives it was cancelled

    def begin_body(self) -> None:
        """Start the body (a plain callback of the host loop)."""
        loop = self.loop = WorkflowLoop(self.run.lineage, self)
        loop.run = self
        loop.now = self.run.now
        self._timer_ops: dict[str, Op] = {}
        self._cut = False
        self._late: deque[Callable[[], Record | None]] = deque()  # what came while a burst was cut
        args, kwargs = self.definition.args.decode(self.input)
        self.main = loop.start(self.definition.fn(*args, **kwargs))
        self.arm_deadline()
        self.pump()

    # -- the burst

    def pump(self) -> None:
        if self.gone:
            return
        run, loop = self.run, self.loop
        if not self._cut:
            loop.now = run.now
        for _ in range(REPLAY_DELIVERIES_MAX):
            if not loop.burst(self._hand_over if run.replaying else None):
                self._cut = True  # where a burst is cut depends on the machine: nothing may enter the body here
                self.line.loop.call_soon(self.pump)
                return
            self._cut = False
            if loop.errors:
                self._tell_errors()
            if self.final is None and self.main.done() and run.refusal is None and not self._main_ended():
                return
            delivery = run.next_delivery()
            if delivery is None:
                break
            with loop.deliver():
                self._replay(*delivery)
        else:
            self.line.loop.call_soon(self.pump)
            return
        if run.refusal is not None:
            self.hold(*run.refusal)
        elif self._late:  # first: the body sees these before a cancel, or with it
            self.line.loop.call_soon(self._settle_late)
        elif self.try_cancel():
            self.pump()
        elif self.final is not None and not (run.asked and self.paused()):
            self.try_finish()
        elif (not self.paused() and self.cancelling is None) or self.cancel_delivered:
            self._go_on()

    def _hand_over(self) -> bool:
        """In mid-replay, and the body is quiet: give it the next outcome that it has asked for."""
        self.loop.errors.clear()  # they were told when this was first lived through
        delivery = None if self.main.done() else self.run.next_delivery(only_asked=True)
        if delivery is None:
            return False
        self._replay(*delivery)
        return True

    def _replay(self, op: Op | None, record: Record) -> None:
        """Hand over what comes next in history; what a cancel kept back, all at once with it."""
        kept: Kept = ()
        while op is not None and record.seq in self.run.kept_back:
            self.end_wait(op.path)
            kept += ((op, record),)
            delivery = self.run.next_delivery()
            if delivery is None:
                return
            op, record = delivery
        self.loop.now = self.run.now
        if op is None:
            self.replay_cancel(record, kept)
        else:
            self.end_wait(op.path)
            op.deliver(record)

    def hand_over(self, op: Op, record: Record) -> None:
        if self.will_be_cancelled:
            super().hand_over(op, record)  # it is kept
            return
        loop = self.loop
        loop.delivering = True
        try:
            op.deliver(record)
        finally:
            loop.delivering = False

    def touched(self, error: NotDurable) -> None:
        """Somebody else has woken the body, in any thread: it is no longer what a replay makes of it."""
        step = STEP.get()
        by = f"step {step.op.name} (path {step.path}) of workflow {step.key.id!r}" if step is not None else "no step"
        error.add_note(f"the body is that of workflow {self.id!r}; touched by {by}")
        with suppress(RuntimeError):  # the host's loop is closed: nothing goes on in it
            self.line.loop.call_soon_threadsafe(self._spoilt, error)

    def _spoilt(self, error: NotDurable) -> None:
        """As for a body that awaits what is not durable: so it would end after a restart."""
        if not self.gone and self.final is None:
            self.put_away()
            self.finish(None, error)

    def _go_on(self) -> None:
        self.idle_since = self.line.loop.time()
        for op in self.run.fresh():
            self.begin(op)
        if not self.run.asked and not self.loop.pending() and not self.gone:
            error: BaseException | None = NotDurable(NEVER_WAKES)
            if self.unawaited is not None:  # a call that nobody awaits may be why
                error = self.unawaited.beside(error)
            self.put_away()
            self.finish(None, error)

    def _main_ended(self) -> bool:
        """End what outlives the main coroutine, then the body. False: it takes another burst, which is on its way."""
        run, main = self.run, self.main
        if not self._ending:
            self._ending = True
            for op in list(run.asked.values()):
                self.abandon(op)  # now: however many bursts the cancelled code takes, none of these is begun
            if self.loop.cancel_leftovers():
                run.gone = True  # what they call now is refused
                if not self.loop.burst():
                    self._cut = True
                    self.line.loop.call_soon(self.pump)
                    return False
        if run.gone:
            run.gone = False
            self.loop.report_unretrieved()
        self._late.clear()  # of what was abandoned
        if self.loop.errors:
            self._tell_errors()
        if main.cancelled():
            self.body_ended(None, cancellation(main))
        elif (error := main.exception()) is not None:
            self.body_ended(None, self.loop.in_our_words(as_signal(error)))
        else:
            self.body_ended(main.result(), None)
        return True

    def _tell_errors(self) -> None:
        """What no task and no caller took, of bursts that are lived through for the first time."""
        errors = self.loop.errors
        if not self.run.repeats:
            for error in errors:
                log.error("workflow %s: %s", self.id, error.message, exc_info=error.exception)
        errors.clear()

    def put_away(self) -> None:
        self.run.gone = True
        if not hasattr(self, "loop"):  # it has not begun
            return
        self.loop.unwind()
        if self.unawaited is not None:
            self.unawaited.error()  # closes what the body had made and not come to
        for op in self._timer_ops.values():
            op.deliver = _to_nobody  # it holds this, and the run holds the op
        self._timer_ops.clear()

    def _ended(self, unit: Unit) -> None:
        super()._ended(unit)
        self.put_away()  # this and its loop hold each other: thousands would wait for the collector

    def deliver_cancel(self, kept: Kept) -> None:
        self.loop.now = self.run.now
        self.loop.cancel_main()  # first: so it reaches all that main waits for at the calls where they are
        for op, record in kept:
            # Main waited for this one itself, and is cancelled there.
            with suppress(asyncio.InvalidStateError), self.loop.deliver():
                op.deliver(record)

    def compensate(self, because: str) -> None:
        self.loop.throw_into_main(Compensating(because))

    @property
    def turn(self) -> Hashable:
        return (self.run.seq, len(self.run.asked)) if self._is_cut else None

    @property
    def _is_cut(self) -> bool:
        return not self.gone and hasattr(self, "loop") and self._cut

    @property
    def in_mid_burst(self) -> bool:
        return not self.gone and hasattr(self, "loop") and (self._cut or bool(self._late))

    @property
    def busy(self) -> bool:
        return super().busy or self.in_mid_burst

    # -- timers of the body's loop (asyncio.sleep, asyncio.timeout, perdure.sleep)

    def timer_armed(self, timer: LoopTimer) -> None:
        op = Op(timer.path, Kind.TIMER, "timer", b"", lambda _record: self.loop.fire(timer), timer.deadline)
        self._timer_ops[timer.path] = op
        self.run.ask(op)

    def timer_disarmed(self, timer: LoopTimer) -> None:
        op = self._timer_ops.pop(timer.path, None)
        if op is not None and not self.gone:
            self.abandon(op)

    def settle(self, op: Op, outcome: Outcome, data: bytes | None, name: str | None = None) -> Record | None:
        if (self._cut or self._late) and not self.gone:
            self._late.append(partial(self._settle_now, op, outcome, data, name))
            return None
        return self._settle_now(op, outcome, data, name)

    def _settle_now(self, op: Op, outcome: Outcome, data: bytes | None, name: str | None) -> Record | None:
        if op.kind is Kind.TIMER:
            self._timer_ops.pop(op.path, None)
        return super().settle(op, outcome, data, name)

    def attempt_failed(self, op: Op, data: bytes | None, error: Exception) -> None:
        # As an outcome: if the rest of the burst gives the step up, a replay has no place for the record.
        if (self._cut or self._late) and not self.gone:
            self._late.append(partial(self._attempt_failed_late, op, data, error))
        else:
            super().attempt_failed(op, data, error)

    def _attempt_failed_late(self, op: Op, data: bytes | None, error: Exception) -> None:
        if op.is_open:
            super().attempt_failed(op, data, error)

    def _settle_late(self) -> None:
        """One of what came while a burst was cut. A turn for each: delivering one may cut another."""
        if not (self.gone or self._cut or not self._late) and self._late.popleft()() is None:
            self.pump()

    # -- calls of the body. Each returns a coroutine; its path is given now, in the order of the calls.

    def step(self, path: str, call: StepCall, fingerprint: bytes, shown: str) -> Coroutine[Any, Any, Any]:
        made = self._step(path, call, fingerprint, shown)
        self.call_made(made, call.name, path)
        return made

    async def _step(self, path: str, call: StepCall, fingerprint: bytes, shown: str) -> Any:
        record = await self._outcome(path, Kind.STEP, call.name, fingerprint, call, shown)
        return value_of(self, record, call.definition.result)

    def ask(self, question: Any, *, path: str | None = None) -> Coroutine[Any, Any, Any]:
        kind, name, fingerprint = answers.shape_of_call(question)
        if path is None:
            path = self.next_path()
        return self._ask(path, kind, name, fingerprint, question)

    async def _ask(self, path: str, kind: Kind, name: str, fingerprint: bytes, question: Any) -> Any:
        question = answers.dated(question, self.loop.now)
        record = await self._outcome(path, kind, name, fingerprint, question, getattr(question, "shown", ""))
        return answers.decode(self, question, record)

    def recv(self, topic: str, timeout: int | None) -> Coroutine[Any, Any, Record]:
        return self._recv(self.next_path(), topic, timeout)

    async def _recv(self, path: str, topic: str, timeout: int | None) -> Record:
        deadline = None if timeout is None else self.loop.now + timeout
        return await self._outcome(path, Kind.RECV, topic, b"", RecvWait(topic, deadline))

    async def _outcome(
        self, path: str, kind: Kind, name: str, fingerprint: bytes, what: Any, shown: str = ""
    ) -> Record:
        """Wait for the one outcome of a call."""
        if self.gone:
            raise Evicted
        future: asyncio.Future[Record] = self.loop.plain_future()
        op = Op(path, kind, name, fingerprint, future.set_result, what)
        op.shown = shown
        self.run.ask(op)
        try:
            return await future
        except BaseException:
            if not self.gone:
                self.abandon(op)
            raise

    def call_made(self, call: Coroutine[Any, Any, Any], what: str, path: str = "") -> None:
        """Note a call until somebody awaits it."""
        if self.unawaited is None:
            self.unawaited = Unawaited()
        # This frame, its caller's, the public face's: who called is the third.
        frame = sys._getframe(3 if path else 2)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  the one way to a line number that costs nothing to speak of
        self.unawaited.note(call, what, frame, path)

    def next_path(self) -> str:
        """The path of a call, given in the order of the calls."""
        if self.gone:
            raise Evicted
        return self.loop.next_path()

    def continue_as_new(self, order: Any) -> None:
        self.check_alive()
        raise ContinueAsNew(order)


def _to_nobody(_record: Record) -> None:
    """Whoever waited has been put away."""
