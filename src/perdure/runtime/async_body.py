"""An async workflow body: one deterministic loop, driven in bursts from plain callbacks of the host loop.

``pump`` is the whole life of it: burst; hand over the next recorded outcome; burst; … until history is used up; then
begin what was asked for. Live, each outcome that arrives is handed over the same way, one burst each.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Hashable
from typing import Any

from perdure.core.run import Op
from perdure.errors import Compensating, Evicted, NotDurable
from perdure.model.records import Kind, Outcome, Record
from perdure.model.writes import Unit
from perdure.runtime import answers
from perdure.runtime.loop import LoopTimer, WorkflowLoop
from perdure.runtime.steps import StepCall, cancellation
from perdure.runtime.unawaited import Unawaited
from perdure.runtime.unread import value_of
from perdure.runtime.waits import ContinueAsNew, RecvWait

NEVER_WAKES = (
    "the workflow body awaits something that is neither a step nor a wait of Perdure's or asyncio's, so nothing can "
    "ever wake it: put real I/O, threads and futures of other event loops into a step"
)
REPLAY_DELIVERIES_MAX = 500  # handed over in one turn of the host loop; then others get theirs


class AsyncExecution(answers.Answering):
    """See the head of this file."""

    loop: WorkflowLoop
    main: asyncio.Task[Any]

    def begin_body(self) -> None:
        """Start the body (a plain callback of the host loop)."""
        loop = self.loop = WorkflowLoop(self.run.lineage, self)
        loop.run = self
        loop.now = self.run.now
        self._timer_ops: dict[str, Op] = {}
        self._cut = False
        self._late: list[tuple[Op, tuple[Outcome, bytes | None, str | None]]] = []
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
            if self.final is None and self.main.done() and run.refusal is None:
                self._main_ended()
            delivery = run.next_delivery()
            if delivery is None:
                break
            op, record = delivery
            loop.now = run.now
            if op is None:
                self.replay_cancel(record)
            else:
                self.end_wait(op.path)
                op.deliver(record)
        else:
            self.line.loop.call_soon(self.pump)
            return
        if run.refusal is not None:
            self.hold(*run.refusal)
        elif self.try_cancel():
            self.pump()
        elif self.final is not None and not (run.asked and self.paused()):
            self.try_finish()
        elif self._late:
            op, args = self._late.pop(0)
            if self.settle(op, *args) is None:
                self.line.loop.call_soon(self.pump)
        elif (not self.paused() and self.cancelling is None) or self.cancel_delivered:
            self._go_on()

    def _hand_over(self) -> bool:
        """In mid-replay, and the body is quiet: give it the next outcome that it has asked for."""
        delivery = None if self.main.done() else self.run.next_delivery(only_asked=True)
        if delivery is None:
            return False
        op, record = delivery
        assert op is not None, "only what was asked for"
        self.loop.now = self.run.now
        self.end_wait(op.path)
        op.deliver(record)
        return True

    def _go_on(self) -> None:
        self.idle_since = self.line.loop.time()
        for op in self.run.fresh():
            self.begin(op)
        if not self.run.asked and not self.loop.pending() and not self.gone:
            self.put_away()
            self.finish(None, NotDurable(NEVER_WAKES))

    def _main_ended(self) -> None:
        self._end_leftovers()
        main = self.main
        if main.cancelled():
            self.body_ended(None, cancellation(main))
        elif (error := main.exception()) is not None:
            self.body_ended(None, self.loop.in_our_words(error))
        else:
            self.body_ended(main.result(), None)

    def _end_leftovers(self) -> None:
        """Tasks that outlive the main coroutine are cancelled in order; what they call then is refused."""
        if self.loop.cancel_leftovers():
            asked, self.run.gone = self.run.gone, True
            self.loop.burst()
            self.run.gone = asked

    def put_away(self) -> None:
        self.run.gone = True
        if not hasattr(self, "loop"):  # it has not begun
            return
        self.loop.unwind()
        for op in self._timer_ops.values():
            op.deliver = _to_nobody  # it holds this, and the run holds the op
        self._timer_ops.clear()

    def _ended(self, unit: Unit) -> None:
        super()._ended(unit)
        self.put_away()  # this and its loop hold each other: thousands would wait for the collector

    def deliver_cancel(self) -> None:
        self.loop.cancel_main()

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
        if self._cut and not self.gone:
            self._late.append((op, (outcome, data, name)))
            return None
        if op.kind is Kind.TIMER:
            self._timer_ops.pop(op.path, None)
        return super().settle(op, outcome, data, name)

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
