"""Where the calling code stands: in an async workflow body, in a sync one, in a step, or outside.

An async body is known by its loop, a sync body by its thread, a step by a context variable. Nothing else is global.
"""

from __future__ import annotations

import threading
from asyncio import events
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any

import msgspec

from perdure.client.questions import CancelOf, ResultOf
from perdure.errors import Misuse, OutsideWorkflow
from perdure.model.ids import RunKey, idempotency_key
from perdure.runtime.loop import WorkflowLoop
from perdure.serde.values import Shape
from perdure.telemetry import ask_who_speaks


class StepContext(msgspec.Struct, frozen=True, eq=False):
    """What a step may know of itself."""

    key: RunKey
    lineage: bytes
    workflow: str
    version: str
    path: str
    attempt: int
    executor: str
    decided: tuple[bytes, ...] = ()  # what recovery decisions have set
    execution: Any = None  # that it runs in, of a floor above
    op: Any = None  # the call that it is an attempt of


_PARAMETERS = Shape.of(dict[str, Any])


def parameters_of(decided: Iterable[bytes]) -> dict[str, Any]:
    """What decisions set, a later one over an earlier."""
    merged: dict[str, Any] = {}
    for data in decided:
        merged.update(_PARAMETERS.decode(data, "parameters"))
    return merged


class Current:
    """The workflow or step that is asking: who it is, and whether it is replaying.

    Attributes:
        id, run, name, version, executor: of the workflow.
        attempt: in a step, which attempt this is (1, 2, …); in a workflow, 1 + the deaths it survived.
        replaying: in a workflow, whether history is being replayed just now. For logging only.
        parameters: what recovery decisions have set. A workflow sees it from the first outcome after the decision on,
            a step at once.
        idempotency_key: in a step, the same at every attempt on every executor, different for every step.
    """

    __slots__ = ("_lineage", "_path", "attempt", "executor", "id", "name", "parameters", "replaying", "run", "version")

    def __init__(
        self,
        key: RunKey,
        lineage: bytes,
        name: str,
        version: str,
        executor: str,
        attempt: int,
        replaying: bool,
        path: str | None,
        decided: tuple[bytes, ...] = (),
    ) -> None:
        self.id = key.id
        self.run = key.run
        self.name = name
        self.version = version
        self.executor = executor
        self.attempt = attempt
        self.replaying = replaying
        self.parameters = parameters_of(decided)
        self._lineage = lineage
        self._path = path

    @property
    def idempotency_key(self) -> str:
        """Raises ``OutsideWorkflow`` in a workflow body: a key belongs to one step."""
        if self._path is None:
            raise OutsideWorkflow(
                f"current().idempotency_key was read in the body of workflow {self.id!r}; a key belongs to one step: "
                "read it inside the step that makes the outside call"
            )
        return idempotency_key(self._lineage, self._path)

    def __repr__(self) -> str:
        return f"<{self.name} {self.id!r} run {self.run} attempt {self.attempt}>"


STEP: ContextVar[StepContext | None] = ContextVar("perdure_step", default=None)


class _Thread(threading.local):
    execution: Any | None = None  # of a floor above


THREAD = _Thread()


def async_body() -> Any | None:
    """The execution whose async body is calling, if one is."""
    loop = events._get_running_loop()  # noqa: SLF001  the public form raises where there is none
    return loop.run if type(loop) is WorkflowLoop else None


def sync_body() -> Any | None:
    """The execution whose sync body is calling, if one is (not within a step of it)."""
    return THREAD.execution if STEP.get() is None else None


def body() -> Any | None:
    """The execution whose body is calling, of either face."""
    return async_body() or sync_body()


def need_body(what: str) -> Any:
    """The calling execution, or an error that says where ``what`` belongs."""
    execution = body()
    if execution is not None:
        return execution
    raise outside(what)


def outside(what: str) -> OutsideWorkflow:
    """The error for a call that speaks for a workflow, made where there is none."""
    where = "in a step" if STEP.get() is not None else "outside any workflow"
    return OutsideWorkflow(
        f"{what} was called {where}; it speaks for the workflow that calls it, so call it in a workflow body. "
        "To speak to a workflow from elsewhere use its handle: my_workflow.handle(id)"
    )


def refuse_in_step(workflow: str, *, foreign: bool) -> None:
    """Raise ``Misuse`` for a start made by a step: it runs again after a crash, and so would the start.

    A ``foreign`` one, through a client, has no other place; it may be made under an id of its own.
    """
    step = STEP.get()
    if step is None or async_body() is not None:
        return
    say = "" if foreign else f"call it in the body of {step.workflow!r}, where it is a child and recorded; or, "
    raise Misuse(
        f"workflow {workflow!r} was started in a step of {step.workflow!r} ({step.key.id!r}, path {step.path}). A step "
        f"may run again after a crash, and would start it twice: {say}through a client, give it an id that stays the "
        f"same: client.workflow({workflow!r}, returns=…).options(id=current().idempotency_key).start(…)"
    )


def refuse_own_end(question: Any, app: str) -> None:
    """Raise ``Misuse`` for a step that waits for the end of its own workflow: that waits for the step."""
    step = STEP.get()
    if step is None or async_body() is not None or not isinstance(question, ResultOf | CancelOf):
        return
    id = step.key.id
    if question.id == id and step.execution.line.app == app and getattr(question, "timeout", None) is None:
        raise Misuse(
            f"a step of workflow {id!r} waits for the end of {id!r}, which waits for the step. To end the workflow, "
            "raise an exception or let the body return; to cancel it, call from outside"
        )


def refuse_session_in_body(execution: Any | None) -> None:
    """Raise ``Misuse`` for ``session=`` in a workflow's body, which has no transaction of its own."""
    if execution is not None:
        raise Misuse(
            f"session= was given in the body of workflow {execution.row.name!r}: what a body starts and sends is "
            "recorded with it. Leave it out, or do it in a transaction (@app.transaction)"
        )


def _speaker() -> dict[str, Any] | None:
    """Who logs: fields for the record, None for a body that says again what it said before."""
    step = STEP.get()
    if step is not None and async_body() is None:
        return {
            "workflow_id": step.key.id, "workflow_name": step.workflow, "workflow_run": step.key.run,
            "step_path": step.path, "attempt": step.attempt,
        }  # fmt: skip
    execution = body()
    if execution is None:
        return {}
    if execution.gone or execution.run.repeats:
        return None
    return {
        "workflow_id": execution.id, "workflow_name": execution.row.name, "workflow_run": execution.run.key.run,
        "step_path": None, "attempt": execution.row.attempts + 1,
    }  # fmt: skip


ask_who_speaks(_speaker)


def current() -> Current:
    """Who is asking: the calling workflow, or the calling step.

    Raises ``OutsideWorkflow`` elsewhere.

    >>> # in a step:  gateway.charge(cents, idempotency_key=current().idempotency_key)
    """
    step = STEP.get()
    if step is not None and async_body() is None:
        return Current(
            step.key,
            step.lineage,
            step.workflow,
            step.version,
            step.executor,
            step.attempt,
            False,
            step.path,
            step.decided,
        )
    execution = need_body("current()")
    return execution.current()  # type: ignore[no-any-return]
