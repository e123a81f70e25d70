"""Births: runs that begin in this process, from the first moment; and those that a blocking caller begins by itself.

A blocking caller makes the run in its own thread, so that the host's loop is told once, of all that it needs: with a
body in a thread when that makes its first call (the start, and the intent of the step that it is about), with one in a
greenlet at once. Told of each, or by way of a task, the loop would wake up twice for every start. Promises: what the
loop does not know of yet has no effect and no record, and is dropped without a trace if it may not run here; a body in
a thread that takes its time delays its start by the patience of ``thread_body``.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, cast

import msgspec

from perdure.client.questions import StartOrder
from perdure.client.verbs import Begun, start_of
from perdure.core.run import Run
from perdure.model.ids import RunKey
from perdure.model.records import WorkflowRow
from perdure.model.states import Status, Versioning
from perdure.model.writes import Start
from perdure.runtime import thread_body
from perdure.runtime.callers import CALLER
from perdure.runtime.execution import Execution
from perdure.runtime.thread_body import ThreadExecution
from perdure.runtime.told import AtOnce


def born(host: Any, order: StartOrder, id: str, start: Start) -> Execution:
    """A run that begins here; its start is written after its first burst. The host does not know of it yet."""
    definition = host.registry.workflows[order.name]
    line = host.line
    now = line.clock.now()
    timeout = order.options.timeout if order.options.timeout is not None else definition.timeout
    deadline = start.deadline
    if timeout is not None:
        deadline = min(now + timeout, deadline) if deadline is not None else now + timeout
    start = msgspec.structs.replace(
        start, status=Status.RUNNING, claim=line.new_token(),
        owner=host.me.id, version=host.version,
        timeout=timeout, deadline=deadline, began=now,
        versioning=definition.versioning if start.versioning is Versioning.UNDECLARED else start.versioning,
    )  # fmt: skip
    row = WorkflowRow(
        id=id, run=1, lineage=start.lineage, name=order.name, status=Status.RUNNING, version=host.version,
        created=now, updated=now, claim=start.claim, owner=host.me.id, deadline=deadline, timeout=timeout,
        parent=start.parent, parent_run=start.parent_run, parent_path=start.parent_path,
        on_parent_close=start.on_parent_close, fingerprint=start.fingerprint, attributes=start.attributes,
        versioning=start.versioning,
    )  # fmt: skip
    run = Run(RunKey(id, 1), start.lineage, host.version, now, start=start)
    execution: Execution = host.bodies.of(definition)(host, definition, run, row, order.input)
    return execution


class Newcomer:
    """One start by a blocking caller, and the run that it makes. Where its body stands is the kinds' business."""

    _ended: asyncio.Future[Any] | None = None  # for handles

    def __init__(self, host: Any, order: StartOrder, *, until_end: bool) -> None:
        self._host = host
        self._order = order
        self._until_end = until_end
        self._answer: tuple[Begun, Any] | None = None
        self._error: BaseException | None = None  # it was not started
        self._caller = CALLER.get()
        self._gate = threading.Lock()
        self._gate.acquire()
        id = order.options.id or host.line.new_id()
        self._execution = born(host, order, id, start_of(host.line, order, id))

    def begin(self) -> tuple[Begun, Any] | None:
        """In the caller's thread: who was started, and what the awaited moment gave. None: it cannot run here."""
        self._host.newcomers.add(self)
        if self._begin():
            self._gate.acquire()
        if self._error is not None:
            raise self._error
        return self._answer

    def _begin(self) -> bool:
        """Begin the body; whether the gate is to be waited at, which is opened once the awaited moment is there."""
        raise NotImplementedError

    def _caller_waits(self) -> None:
        if self._caller is not None:
            self._caller.waits()

    def _tell(self) -> bool:
        """On the loop, before anything else that this run does there; whether it may run here."""
        host, execution = self._host, self._execution
        host.newcomers.discard(self)
        if not host.can_run(self._order) or execution.row.owner != host.me.id:
            execution.drop()
            self._let_go()
            return False
        loop: asyncio.AbstractEventLoop = host.line.loop
        if self._until_end:
            execution.ended = AtOnce(self._done)
        else:
            execution.started = AtOnce(self._done)
            self._ended = execution.ended = loop.create_future()
        host.executions[execution.id] = execution
        return True

    def _done(self, answer: Any, error: Exception | None) -> None:
        self._error = error
        if error is None:
            self._answer = (Begun(self._execution.id, self._ended), answer)
        self._host.line.journal.company.let_go()
        self._let_go()

    def _let_go(self) -> None:
        if self._caller is not None:
            self._caller.goes_on()
        self._gate.release()


class ThreadNewcomer(Newcomer):
    """With its body in a thread of the pool, which tells the loop of the run by the body's first call."""

    _known = False  # to the loop

    def _begin(self) -> bool:
        host, execution = self._host, self._execution
        assert isinstance(execution, ThreadExecution), "asked for where blocking bodies have threads"
        execution.newcomer = self._tell_and_call
        host.body_pool.submit(execution.serve_newcomer)
        self._caller_waits()
        on_time = False
        try:
            on_time = self._gate.acquire(timeout=thread_body.PATIENCE_SECONDS)
        finally:  # an interrupted caller does not interrupt what it asked for
            heard = on_time or host.bell.call(self._tell_late)
        return heard and not on_time

    def _tell_and_call(self, callback: Callable[..., None], *args: Any) -> None:
        """On the loop: the body's first call."""
        self._tell()
        callback(*args)

    def _tell(self) -> bool:
        if self._known:
            return True
        self._known = True
        if may_run := super()._tell():
            self._execution.arm_deadline()
        return may_run

    def _tell_late(self) -> None:
        """The body takes its time: its start goes without the intent of its first step."""
        if not self._known:
            self._tell()
            cast(ThreadExecution, self._execution).look_after()
            if self._host.body_pool.crowded:
                self._host.make_room_for_threads()


class LoopNewcomer(Newcomer):
    """With its body on the loop, which begins it as soon as it hears of the run."""

    def _begin(self) -> bool:
        heard: bool = self._host.bell.call(self._tell_and_begin)
        if heard:
            self._caller_waits()
        return heard

    def _tell_and_begin(self) -> None:
        self._host.line.journal.company.back()
        if self._tell():
            self._host.begin(self._execution)


def newcomer(host: Any, order: StartOrder, *, until_end: bool) -> Newcomer | None:
    """A start that its caller begins by itself; None if it cannot run here, or there is no thread for it."""
    if not host.can_run(order) or (host.bodies.threads and host.body_pool.crowded):
        return None
    return (ThreadNewcomer if host.bodies.threads else LoopNewcomer)(host, order, until_end=until_end)
