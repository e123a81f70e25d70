"""What can be asked of another workflow, as frozen values.

Asked outside, the line answers from the database (``verbs``). Asked inside a workflow, the run answers, and records
what was answered. One value for both keeps the two from drifting apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from perdure.errors import (
    WorkflowCancelled,
    WorkflowConflict,
    WorkflowFailed,
    WorkflowTerminated,
    WorkflowTimedOut,
)
from perdure.model.orders import Goal
from perdure.model.processes import AT
from perdure.model.records import Ended, Outcome, WorkflowRow
from perdure.model.resets import Point
from perdure.model.states import Status, Versioning
from perdure.model.streams import StreamAsk
from perdure.operations.look import Order
from perdure.operations.reset import Options as Resets
from perdure.serde.failures import decode_for_caller, encode_failure
from perdure.serde.show import shortened, show_stored
from perdure.serde.values import Shape

OnConflict = Literal["attach", "fail", "replace"]
OnParentClose = Literal["cancel", "abandon", "wait"]


class StartOptions(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How a workflow is started; times in microseconds."""

    id: str | None = None
    on_conflict: OnConflict = "attach"
    queue: str | None = None
    priority: int = 0
    partition: str = ""
    dedup: str | None = None
    debounce: int | None = None
    debounce_max: int | None = None
    expires: int | None = None
    version: str | None = None
    delay: int | None = None
    until: int | None = None
    timeout: int | None = None
    attributes: bytes | None = None
    on_parent_close: OnParentClose = "cancel"
    versioning: Versioning = Versioning.UNDECLARED  # as the workflow was declared
    session: Any = None  # the caller's own, in whose transaction it starts


class StartOrder(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Start a workflow: the answer is its id, once the start is durable."""

    name: str
    input: bytes
    fingerprint: bytes
    shown: str = ""
    options: StartOptions = StartOptions()


class ResultOf(msgspec.Struct, frozen=True):
    """Wait for a workflow's end: the answer is its result, or the exception it ended with."""

    id: str
    shape: Shape
    timeout: int | None = None
    ended: Any = None  # a future of the end, where this process started the run itself
    until: int | None = None  # of a body: when the timeout has passed, from the call on


class InfoOf(msgspec.Struct, frozen=True):
    """Read a workflow's state."""

    id: str


class CancelOf(msgspec.Struct, frozen=True):
    """Cancel a workflow: the answer is the status it ended with, once that is definite."""

    id: str
    reason: str = ""


class SendTo(msgspec.Struct, frozen=True):
    """Send a message: the answer is that it is durable."""

    id: str
    topic: str
    data: bytes
    key: str | None = None


class EventOf(msgspec.Struct, frozen=True):
    """Wait for an event: the answer is its value, None at the timeout or when the workflow closed without it."""

    id: str
    name: str
    shape: Shape
    timeout: int | None = None
    until: int | None = None  # of a body: when the timeout has passed, from the call on


class StreamOf(msgspec.Struct, frozen=True):
    """Read a stream on: the answer is a page of it and the record it is from, if it is recorded; it may wait.

    ``patience``: the answer is a page without values when so many microseconds have passed. Only outside workflows.
    """

    ask: StreamAsk
    patience: int | None = None


class ProblemsOf(msgspec.Struct, frozen=True):
    """Read what did not get a workflow on: the answer is a list of ``Problem``. Only outside workflows."""

    id: str


class ProcessOf(msgspec.Struct, frozen=True):
    """Read where a process stands; wait up to ``rest`` (microseconds) while it is Running.

    ``settle``: up to so long, if that is more, while it is Running and in no action that anybody has ordered.
    ``since``: with lines of its history from that one on, so many as there are or as one page takes.
    """

    id: str
    rest: int = 0
    settle: int = 0
    since: int | None = None


class OpenOf(msgspec.Struct, frozen=True):
    """Which of these workflows are open: the answer is a list of their ids. Only inside workflows."""

    ids: tuple[str, ...]


class ResumeOf(msgspec.Struct, frozen=True, kw_only=True):
    """Let a workflow go on: the answer is the status it then has. Only outside workflows, as the next four."""

    id: str
    version: str | None = None
    force: bool = False
    order: Order


class PauseOf(msgspec.Struct, frozen=True, kw_only=True):
    """Stop a workflow before its next step, until it is unpaused: the answer is its status, once that is definite."""

    id: str
    order: Order


class UnpauseOf(msgspec.Struct, frozen=True, kw_only=True):
    """Let a paused workflow go on: the answer is the status it then has."""

    id: str
    order: Order


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator orders of a workflow as it stands: the answer is what became of it."""

    id: str


class MoveOf(Command, frozen=True, kw_only=True):
    """Let an open workflow run on elsewhere."""

    goal: Goal
    force: bool = False
    order: Order


class ResetOf(Command, frozen=True, kw_only=True):
    """Begin another run of a workflow from its first records."""

    point: Point
    options: Resets
    order: Order


class SkipOf(Command, frozen=True, kw_only=True):
    """Give a step in flight its result."""

    step: str
    data: bytes
    order: Order


class TerminateOf(Command, frozen=True, kw_only=True):
    """End a workflow at once."""

    order: Order


class DeleteOf(Command, frozen=True, kw_only=True):
    """Forget a closed workflow."""


class RestartOf(msgspec.Struct, frozen=True, kw_only=True):
    """Begin a workflow of the same name and input: the answer is its id."""

    id: str
    new_id: str | None = None
    terminate: bool = False
    version: str | None = None
    order: Order


class ForkOf(msgspec.Struct, frozen=True, kw_only=True):
    """Begin a workflow that keeps what another has recorded before a step: the answer is its id."""

    id: str
    new_id: str | None = None
    step: str | int | None = None
    version: str | None = None
    input: bytes | None = None
    order: Order


Move = ResumeOf | RestartOf | ForkOf | PauseOf | UnpauseOf | Command
Question = StartOrder | ResultOf | InfoOf | CancelOf | SendTo | EventOf | StreamOf | ProblemsOf | ProcessOf | Move


def outcome_of(ended: Ended) -> tuple[Outcome, bytes | None]:
    """How a closed workflow ended, as something that can be recorded: its value, or an encoded exception."""
    row = ended.row
    if row.status in (Status.COMPLETED, Status.FAILED):
        return ended.outcome, ended.data
    kinds: Mapping[Status, tuple[type[WorkflowFailed], str]] = {
        Status.CANCELLED: (WorkflowCancelled, "was cancelled"),
        Status.TERMINATED: (WorkflowTerminated, "was terminated"),
        Status.TIMED_OUT: (WorkflowTimedOut, "ran out of its time"),
    }
    kind, words = kinds.get(row.status, (WorkflowFailed, f"ended as {row.status}"))
    reason = row.detail or (row.cancel if row.status is Status.CANCELLED else "")
    why = f": {reason}" if reason else ""
    return Outcome.ERROR, encode_failure(kind(f"workflow {row.id} {words}{why}", id=row.id, status=str(row.status)))


def decode_outcome(outcome: Outcome, data: bytes | None, shape: Shape) -> Any:
    """The value, or the exception raised. For callers outside."""
    if outcome is Outcome.ERROR:
        raise decode_for_caller(data or b"")
    return shape.decode(data) if data is not None else None


class Spelling(NamedTuple):
    """How whoever is told of a conflict writes the options of a start."""

    of: Callable[[str, str], str]  # an option with its value
    anew: str  # what replaces the one that has an id


def _keyword(name: str, value: str) -> str:
    return f"{name}={value!r}"


IN_PYTHON = Spelling(_keyword, ".options(on_conflict='replace')")


def check_same(row: WorkflowRow, order: StartOrder, stored: bytes | None, spelling: Spelling = IN_PYTHON) -> None:
    """The id is taken: raise unless by the very same call."""
    if row.name == order.name and row.fingerprint == order.fingerprint:
        return
    has = f"{row.name}{_text(stored)}" if stored is not None else row.name
    raise WorkflowConflict(
        f"workflow id {row.id!r} is taken by {has}; this call is {order.name}{_text(order.input)}. "
        f"One id is one call: choose another id, or {spelling.anew} to cancel that one and run this"
    )


def _text(data: bytes | None) -> str:
    """Stored arguments: those by name, as of every process, as a call; where a process stands is none of a caller's."""
    data = data or b""
    if not data.startswith(b'{"$args":'):
        return show_stored(data, 200)
    tree: dict[str, msgspec.Raw] = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    args = msgspec.json.decode(tree.pop("$args"), type=list[msgspec.Raw])
    given = [show_stored(bytes(arg)) for arg in args]
    given += [f"{name}={show_stored(bytes(value))}" for name, value in tree.items() if name != AT]
    return shortened(f"({', '.join(given)})", 200)
