"""A blocking body in a thread of a bounded pool, and a baton between it and the host loop.

While the body runs, its thread holds the baton. When it must wait it hands the baton to the host loop and blocks at the
gate; the host settles the outcome and opens the gate. A ``def`` step runs in its workflow's own thread, an ``async
def`` step on the loop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

from perdure.client.timers import Timer
from perdure.client.watcher import Watch
from perdure.core.run import Op
from perdure.errors import Cancelled, Evicted
from perdure.model.records import Kind, Outcome, Record
from perdure.model.writes import Unit
from perdure.runtime.context import THREAD
from perdure.runtime.eviction import evict_if_idle
from perdure.runtime.steps import CRASHES, Stage, StepCall, crashed
from perdure.runtime.sync_body import CANCELLED, SyncExecution

PATIENCE_SECONDS = 0.002  # what a body has written waits so long for what it does next, to go in one commit with it


class ThreadStep(StepCall):
    """A ``def`` step of a body: starting it means letting its workflow's thread go on."""

    __slots__ = ("go",)
    go: Callable[[], None]

    def start(self, execution: Stage, op: Op) -> None:
        self.go()

    def stop(self) -> None:
        """A thread cannot be stopped; its outcome is dropped."""


class ThreadExecution(SyncExecution):
    """See the head of this file."""

    newcomer: Callable[..., None] | None = None  # tells the host of a run that it does not know yet; then calls
    _returned = False  # the body has ended, and the host is being told
    _overdue = False  # the host has looked for what the thread has written: from here on the thread rings
    _let_go_at = 0.0

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._gate = threading.Lock()  # closed while acquired; a bare lock is the cheapest thing a thread can wait at
        self._gate.acquire()

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
            self.left(error)
            return
        self._returned = True
        self._to_host(self._body_ended, value, error)

    def _body_ended(self, value: Any, error: BaseException | None) -> None:
        self.line.journal.company.back()
        super()._body_ended(value, error)

    # -- the baton

    def _to_host(self, callback: Callable[..., None], *args: Any) -> None:
        if self.newcomer is None:
            self.host.body_pool.call(callback, *args)
        else:  # in one call, or the loop might wake up between two
            tell, self.newcomer = self.newcomer, None
            self.host.body_pool.call(tell, callback, *args)

    def _stand(self, op: Op, begin: Callable[[Op], None]) -> None:
        self._to_host(self._begin_parked, op, begin)
        self._gate.acquire()

    def _begin_parked(self, op: Op, begin: Callable[[Op], None]) -> None:
        self.line.journal.company.back()
        super()._begin_parked(op, begin)

    def _let_go(self) -> None:
        self.host.threads_waiting.pop(self.id, None)
        self.host.gates.open(self._gate)
        if not self.gone:
            self._look_soon()

    def _have_done(self, work: Callable[[], None]) -> None:
        done = threading.Lock()
        done.acquire()

        def then_let_go() -> None:
            work()
            self._look_soon()
            done.release()

        self._to_host(then_let_go)
        done.acquire()

    # -- what the thread has written

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

    @property
    def turn(self) -> Hashable:
        at_work = self.at_work and self.thread is not None and not (self.running or self._returned)
        return (self._calls, self._let_go_at) if at_work else None

    # -- a thread that only waits

    def begin_wait(self, op: Op, *parts: Timer | Watch) -> None:
        super().begin_wait(op, *parts)
        self.host.threads_waiting[self.id] = self
        self._give_up_thread()

    def written(self, unit: Unit, verdict: Any) -> None:
        super().written(unit, verdict)
        if self.waiting:
            self._give_up_thread()

    def _give_up_thread(self) -> None:
        """A body that only waits is evicted at once when others want its thread."""
        if not self.gone and self.host.body_pool.crowded:
            evict_if_idle(self, self.line.loop.time())

    # -- its steps

    def step(self, path: str, call: StepCall, fingerprint: bytes, shown: str) -> Any:
        plain = type(call) is StepCall and not call.definition.is_async
        if plain and call.timeout is None:  # a timeout needs a thread that can be left alone
            call = ThreadStep(call.definition, call.args, call.kwargs, call.retry, call.timeout, call.name)
        return super().step(path, call, fingerprint, shown)

    def _live(self, op: Op) -> Record:
        if isinstance(op.what, ThreadStep):
            return self._step_here(op, op.what)
        return super()._live(op)

    def _step_here(self, op: Op, call: ThreadStep) -> Record:
        """Attempts of a ``def`` step, in this thread: wait for the barrier, run, record."""
        call.go = lambda: self._go_on(_GO)
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


def _constant(value: Any) -> Callable[[], Any]:
    return lambda: value


_GO = Record(0, "", Kind.STEP, "", 0, outcome=Outcome.NONE)  # "your turn", not an outcome
