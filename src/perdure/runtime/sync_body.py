"""A sync workflow body: one thread of a bounded pool, and a baton between it and the host loop.

While the body runs, the thread holds the baton and speaks to the pure core itself: a replay needs no hand-over. When
it must wait (for the disk, a message, a time) it hands the baton to the host loop and blocks at the gate; the host
settles the outcome and opens the gate. A ``def`` step runs in its workflow's own thread, an ``async def`` step on the
loop. ``lock`` guards what both sides touch: the outbox.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, cast

from perdure.client.timers import Timer
from perdure.client.watcher import Watch
from perdure.core.run import Op
from perdure.errors import Cancelled, Compensating, Evicted
from perdure.model.records import Kind, Outcome, Record
from perdure.model.writes import Unit
from perdure.runtime import answers
from perdure.runtime.cancelling import Kept
from perdure.runtime.context import THREAD
from perdure.runtime.eviction import evict_if_idle
from perdure.runtime.steps import CRASHES, Stage, StepCall, crashed
from perdure.runtime.unread import value_of
from perdure.runtime.waits import ContinueAsNew, RecvWait

log = logging.getLogger("perdure")

CANCELLED = "the workflow was cancelled"
PATIENCE_SECONDS = 0.002  # what a body has written waits so long for what it does next, to go in one commit with it


class ThreadStep(StepCall):
    """A ``def`` step of a sync body: starting it means letting its workflow's thread go on."""

    __slots__ = ("go",)
    go: Callable[[], None]

    def start(self, execution: Stage, op: Op) -> None:
        self.go()

    def stop(self) -> None:
        """A thread cannot be stopped; its outcome is dropped."""


class SyncExecution(answers.Answering):
    """See the head of this file."""

    _handed_over = False  # the host has the baton
    _returned = False  # the body has ended, and the host is being told
    newcomer: Callable[..., None] | None = None  # tells the host of a run that it does not know yet; then calls
    _overdue = False  # the host has looked for what the thread has written: from here on the thread rings
    _let_go_at = 0.0
    thread: int | None = None  # that of the body, from its begin on

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.lock = threading.RLock()
        self._gate = threading.Lock()  # closed while acquired; a bare lock is the cheapest thing a thread can wait at
        self._gate.acquire()
        self._answer: Record | BaseException | None = None
        self._parked_op: Op | None = None  # what the thread waits for; None while it holds the baton
        self._calls = 0

    def begin_body(self) -> None:
        args, kwargs = self.definition.args.decode(self.input)
        self.arm_deadline()
        self.host.body_pool.submit(lambda: self._serve(args, kwargs))
        if self.host.body_pool.crowded:
            self.host.make_room_for_threads()
        else:
            self.line.journal.company.let_go()

    def first_burst_written(self) -> None:
        """A body that has a thread asks for its first step soon: start and intent go together then."""
        if self.host.body_pool.crowded:
            self.dirty()
        else:
            self._look_soon()

    def serve_newcomer(self) -> None:
        """The thread of a run that the host does not know yet."""
        try:
            args, kwargs = self.definition.args.decode(self.input)
        except Exception as error:
            self._to_host(self.host.not_begun, self, error)
        else:
            self._serve(args, kwargs)

    def _serve(self, args: Any, kwargs: Any) -> None:
        """The thread: run the body, then hand its end to the host."""
        THREAD.execution = self
        self.thread = threading.get_ident()
        value: Any = None
        error: BaseException | None = None
        try:
            if not self.gone:
                value = self.host.context.copy().run(self.definition.fn, *args, **kwargs)
        except BaseException as raised:
            error = raised
        finally:
            THREAD.execution = None
        if self.gone:
            if error is None and self.closing is None:
                log.info("the body of workflow %s went on after it was put away; nothing of that was kept", self.id)
            return
        self._returned = True
        self._to_host(self._body_ended, value, error)

    def _body_ended(self, value: Any, error: BaseException | None) -> None:
        self.line.journal.company.back()
        if self.gone:
            return
        if self.run.refusal is None:
            self.body_ended(value, error)
        while (delivery := self.run.next_delivery()) is not None:
            op, record = delivery
            if op is None:
                self.replay_cancel(record)
        if self.run.refusal is not None:
            self.hold(*self.run.refusal)
        elif not isinstance(error, Evicted):
            self.try_finish()
        if self.unwritten:
            self.dirty()

    # -- the baton

    def _to_host(self, callback: Callable[..., None], *args: Any) -> None:
        if self.newcomer is None:
            self.host.body_pool.call(callback, *args)
        else:  # in one call, or the loop might wake up between two
            tell, self.newcomer = self.newcomer, None
            self.host.body_pool.call(tell, callback, *args)

    def dirty(self) -> None:
        """The thread goes on, to its next call or its end, which write what there is; the host looks if neither comes.

        So a thread that is quick does not ring for what it has written, and one that takes its time does.
        """
        if threading.current_thread() is self.host.thread:
            super().dirty()
        elif self._overdue:
            self._to_host(self._look_soon)

    def _look_soon(self) -> None:
        """The thread goes on: look after it, unless its next call comes first."""
        self._overdue = False
        self._let_go_at = self.line.loop.time()
        self.host.gates.expect(self, PATIENCE_SECONDS)

    @property
    def back(self) -> bool:
        """Whether the thread's next call, or its end, has come."""
        return self.gone or self._parked_op is not None or self._returned

    def look_after(self) -> None:
        """The thread takes its time: write what it has written so far. From here on it rings."""
        self._overdue = True  # first: what the thread writes after the next line finds it so
        if not self.gone and self.unwritten:
            super().dirty()

    def take(self) -> Unit:
        with self.lock:
            return super().take()

    def _wait(self, op: Op, begin: Callable[[Op], None]) -> Record:
        """Hand the baton over; the answer, once the gate opens."""
        self._answer = None
        self._parked_op = op
        self._to_host(self._begin_parked, op, begin)
        self._gate.acquire()
        answer = cast("Record | BaseException | None", self._answer)  # the host has set it meanwhile
        if isinstance(answer, Record):
            return answer
        raise answer if answer is not None else Evicted()

    def _begin_parked(self, op: Op, begin: Callable[[Op], None]) -> None:
        self.line.journal.company.back()
        if self.gone:
            self._open_gate(Evicted())
        elif not (self.try_cancel() or self.paused()):
            self.idle_since = self.line.loop.time()
            self._handed_over = True
            begin(op)
            if self.unwritten:
                self.dirty()
            self.host.on_change()

    def begin_wait(self, op: Op, *parts: Timer | Watch) -> None:
        super().begin_wait(op, *parts)
        self.host.threads_waiting[self.id] = self
        self._give_up_thread()

    def _give_up_thread(self) -> None:
        """A body that only waits is evicted at once when others want its thread."""
        if not self.gone and self.host.body_pool.crowded:
            evict_if_idle(self, self.line.loop.time())

    def _open_gate(self, answer: Record | BaseException) -> None:
        if self._parked_op is not None:
            self._parked_op = None
            self._handed_over = False
            self.host.threads_waiting.pop(self.id, None)
            self._answer = answer
            self.host.gates.open(self._gate)
            if not self.gone:
                self._look_soon()

    @property
    def at_work(self) -> bool:
        """Whether the thread holds the baton. After the body's end the host may still wait for children, without it."""
        return not self.gone and not self._handed_over and self.final is None

    @property
    def turn(self) -> Hashable:
        at_work = self.at_work and self.thread is not None and not (self.running or self._returned)
        return (self._calls, self._let_go_at) if at_work else None

    def pump(self) -> None:
        """On the host: only a cancel or a pause is left to do; the thread runs by itself."""
        if self.gone or self.run.replaying:
            return
        if self.final is not None:
            self.try_cancel()
            if not self.paused():
                self.try_finish()
        elif self._parked_op is not None and not self.try_cancel():
            self.paused()

    def written(self, unit: Unit, verdict: Any) -> None:
        super().written(unit, verdict)
        if self.waiting:
            self._give_up_thread()

    def put_away(self) -> None:
        self.run.gone = True
        self._open_gate(Evicted())

    def deliver_cancel(self, kept: Kept) -> None:
        op = self._parked_op  # it may be the one whose outcome was kept back: a blocking body waits for one thing
        if op is not None:
            self.abandon(op)
            self._open_gate(Cancelled(CANCELLED))

    # -- calls of the body (its own thread)

    def next_path(self) -> str:
        self.check_alive()
        self._calls += 1
        return str(self._calls)

    def _outcome(self, path: str, kind: Kind, name: str, fingerprint: bytes, what: Any, shown: str = "") -> Record:
        self.check_alive()
        op = Op(path, kind, name, fingerprint, self._open_gate, what)
        op.shown = shown
        with self.lock:
            self.run.ask(op)
            delivery = self.run.next_delivery()
        if delivery is not None:
            return self._replayed(op, *delivery)
        if self.run.refusal is not None:
            raise Evicted
        for fresh in self.run.fresh():
            assert fresh is op, "a sync body asks one thing at a time"
        if isinstance(what, ThreadStep):
            return self._step_here(op, what)
        return self._wait(op, self.begin)

    def _replayed(self, op: Op, delivered: Op | None, record: Record) -> Record:
        if delivered is op:
            if record.seq not in self.run.kept_back:
                return record
            with self.lock:
                delivery = self.run.next_delivery()
            assert delivery is not None, "the cancel that kept it back"
            _, record = delivery
        # A recorded cancel: it was delivered where the body waited for this call.
        self.run.abandon(op)
        if record.kind is Kind.DECISION:
            raise Compensating(record.shown)
        self.see_cancel(record)
        raise Cancelled(CANCELLED)

    def _step_here(self, op: Op, call: ThreadStep) -> Record:
        """Attempts of a ``def`` step, in this thread: wait for the barrier, run, record."""
        call.go = lambda: self._open_gate(_GO)
        begin = self._begin_step
        while True:
            if not (call.definition.pure and op.attempt == 1):
                answer = self._wait(op, begin)
                if answer is not _GO:
                    return answer
            fn, is_async = self.host.body_of(call.definition)
            if is_async:  # a test's fake
                return self._wait(op, lambda op: self._run_fake(op, call))
            error: BaseException | None = None
            value: Any = None
            try:
                value = call.context(self, op).run(fn, *call.args, **call.kwargs)
            except BaseException as raised:
                error = raised
            if isinstance(error, CRASHES):
                self.on_host(partial(crashed, self, error, f"step {call.name}", in_thread=True))
                raise Evicted
            outcome, data, failure = call.conclude(error, _constant(value), self.host.registry.codec)
            with self.lock:
                self.running = max(0, self.running - 1)
                self._steps.pop(op.path, None)
                self.check_alive()
                if failure is None or not call.wants_retry(failure, op.attempt):
                    record = self.run.settle(op, self.line.clock.now(), outcome, data)
                    if cancelled := self.will_be_cancelled:
                        self.note_cancel(kept=1)
                    break
                call.remember(op.attempt, failure)
                self.run.fail_attempt(op, self.line.clock.now(), data or b"", call.wait(op.attempt))
            begin = self._attempt_again
        self.dirty()
        if cancelled:
            raise Cancelled(CANCELLED)
        return record

    def _attempt_again(self, op: Op) -> None:
        """The failed attempt must be durable before the next begins."""
        self._barrier(op, True)

    def _run_fake(self, op: Op, call: ThreadStep) -> None:
        plain = StepCall(call.definition, call.args, call.kwargs, call.retry, call.timeout, call.name)
        op.what = plain
        plain.start(self, op)

    def step(self, path: str, call: StepCall, fingerprint: bytes, shown: str) -> Any:
        plain = type(call) is StepCall and not call.definition.is_async
        if plain and call.timeout is None:  # a timeout needs a thread that can be left alone
            here = ThreadStep(call.definition, call.args, call.kwargs, call.retry, call.timeout, call.name)
            call = here
        record = self._outcome(path, Kind.STEP, call.name, fingerprint, call, shown)
        return value_of(self, record, call.definition.result)

    def ask(self, question: Any, *, path: str | None = None) -> Any:
        kind, name, fingerprint = answers.shape_of_call(question)
        question, shown = answers.dated(question, self.run.now), getattr(question, "shown", "")
        record = self._outcome(path or self.next_path(), kind, name, fingerprint, question, shown)
        return answers.decode(self, question, record)

    def recv(self, topic: str, timeout: int | None) -> Record:
        deadline = None if timeout is None else self.run.now + timeout
        return self._outcome(self.next_path(), Kind.RECV, topic, b"", RecvWait(topic, deadline))

    def sleep(self, duration: int) -> None:
        self._outcome(self.next_path(), Kind.TIMER, "timer", b"", self.run.now + duration)

    def note_event(self, path: str, name: str, data: bytes) -> None:
        with self.lock:
            super().note_event(path, name, data)

    def note_stream(self, path: str, name: str, data: bytes | None) -> None:
        with self.lock:
            super().note_stream(path, name, data)

    def patched(self, name: str) -> bool:
        with self.lock:
            return super().patched(name)

    def note_child(self, path: str, order: Any, fingerprint: bytes) -> str:
        if self.run.recorded(path):
            return super().note_child(path, order, fingerprint)
        parent_note = super().note_child
        return self.on_host(lambda: parent_note(path, order, fingerprint))  # type: ignore[no-any-return]

    def on_host(self, call: Callable[[], Any]) -> Any:
        """Run something on the host loop's thread, from the body's; its value, or its exception."""
        done = threading.Lock()
        done.acquire()
        answer: list[Any] = [None, None]

        def run() -> None:
            try:
                answer[0] = call()
            except BaseException as error:
                answer[1] = error
            self._look_soon()
            done.release()

        self._to_host(run)
        done.acquire()
        if answer[1] is not None:
            raise answer[1]
        return answer[0]

    def continue_as_new(self, order: Any) -> None:
        self.check_alive()
        raise ContinueAsNew(order)


def _constant(value: Any) -> Callable[[], Any]:
    return lambda: value


_GO = Record(0, "", Kind.STEP, "", 0, outcome=Outcome.NONE)  # "your turn", not an outcome
