"""A blocking workflow body, and what it may call: each call blocks until its one outcome is there.

It speaks to the pure core itself: a replay needs no hand-over. Where it must wait (for the disk, a message, a time) it
is *parked*: the host begins what it waits for, settles the outcome, and lets it go on. Where the body stands meanwhile
is not known here: in a thread of its own (``thread_body``) or in a greenlet on the host loop (``greenlet_body``). What
they record is the same, so that either goes on with what the other has begun.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, cast

from perdure.core.run import Op
from perdure.errors import Cancelled, Compensating, Evicted
from perdure.model.records import Kind, Record
from perdure.model.writes import Unit
from perdure.runtime import answers
from perdure.runtime.cancelling import Kept
from perdure.runtime.collected import COLLECTOR
from perdure.runtime.steps import StepCall
from perdure.runtime.unread import value_of
from perdure.runtime.waits import ContinueAsNew, RecvWait

log = logging.getLogger("perdure")

CANCELLED = "the workflow was cancelled"


class SyncExecution(answers.Answering):
    """See the head of this file. ``lock`` guards what the body and the host both touch: the outbox."""

    _handed_over = False  # the body waits, and the host sees to it

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.lock = threading.RLock()
        self._answer: Record | BaseException | None = None
        self._parked_op: Op | None = None  # what the body waits for; None while it goes on
        self._calls = 0

    # -- where the body stands: what its kinds differ in

    def _have_done(self, work: Callable[[], None]) -> None:
        """In the body: have the host do something that does not raise, and come back once it is done."""
        raise NotImplementedError

    def _stand(self, op: Op, begin: Callable[[Op], None]) -> None:
        """In the body: have the host begin what is waited for, and come back once let go on."""
        raise NotImplementedError

    def _let_go(self) -> None:
        """On the host: the answer is there; the body goes on."""
        raise NotImplementedError

    # -- parked

    def _wait(self, op: Op, begin: Callable[[Op], None]) -> Record:
        self._answer = None
        self._parked_op = op
        self._stand(op, begin)
        answer = cast("Record | BaseException | None", self._answer)  # the host has set it meanwhile
        if isinstance(answer, Record):
            return answer
        raise answer if answer is not None else Evicted()

    def _begin_parked(self, op: Op, begin: Callable[[Op], None]) -> None:
        """On the host, as all that follows here."""
        if self.gone:
            self._go_on(Evicted())
        elif not (self.try_cancel() or self.paused()):
            self.idle_since = self.line.loop.time()
            self._handed_over = True
            begin(op)
            if self.unwritten:
                self.dirty()
            self.host.on_change()

    def _go_on(self, answer: Record | BaseException) -> None:
        """Let the body go on with what it has waited for, if it waits."""
        if self._parked_op is not None:
            self._parked_op = None
            self._handed_over = False
            self._answer = answer
            self._let_go()

    @property
    def at_work(self) -> bool:
        """Whether the body goes on. After its end the host may still wait for children, without it."""
        return not self.gone and not self._handed_over and self.final is None

    def pump(self) -> None:
        """Only a cancel or a pause is left to do; the body goes on by itself."""
        if self.gone or self.run.replaying:
            return
        if self.final is not None:
            self.try_cancel()
            if not self.paused():
                self.try_finish()
        elif self._parked_op is not None and not self.try_cancel():
            self.paused()

    def put_away(self) -> None:
        self.run.gone = True
        self._go_on(Evicted())

    def deliver_cancel(self, kept: Kept) -> None:
        op = self._parked_op  # it may be the one whose outcome was kept back: a blocking body waits for one thing
        if op is not None:
            self.abandon(op)
            self._go_on(Cancelled(CANCELLED))

    def _body_ended(self, value: Any, error: BaseException | None) -> None:
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

    def left(self, error: BaseException | None) -> None:
        """The body of a run that was put away has ended: how does not count."""
        if error is None and self.closing is None:
            log.info("the body of workflow %s went on after it was put away; nothing of that was kept", self.id)

    def take(self) -> Unit:
        with self.lock:
            return super().take()

    # -- calls of the body

    def next_path(self) -> str:
        if COLLECTOR.thread:
            COLLECTOR.refuse()
        self.check_alive()
        self._calls += 1
        return str(self._calls)

    def _outcome(self, path: str, kind: Kind, name: str, fingerprint: bytes, what: Any, shown: str = "") -> Record:
        self.check_alive()
        op = Op(path, kind, name, fingerprint, self._go_on, what)
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
        return self._live(op)

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

    def _live(self, op: Op) -> Record:
        """History does not answer: wait for what comes."""
        return self._wait(op, self.begin)

    def step(self, path: str, call: StepCall, fingerprint: bytes, shown: str) -> Any:
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
        """Have the host do something; its value, or its exception."""
        answer: list[Any] = [None, None]

        def work() -> None:
            try:
                answer[0] = call()
            except BaseException as error:
                answer[1] = error

        self._have_done(work)
        if answer[1] is not None:
            raise answer[1]
        return answer[0]

    def continue_as_new(self, order: Any) -> None:
        self.check_alive()
        raise ContinueAsNew(order)
