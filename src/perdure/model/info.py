"""What users and programs see of a workflow: frozen values with real datetimes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from perdure.model.problems import ProblemKind
from perdure.model.records import Override, WorkflowRow
from perdure.model.states import Reason, Status, Versioning

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_datetime(at: int) -> datetime:
    """Microseconds since 1970 as an aware datetime, exactly."""
    return EPOCH + timedelta(microseconds=at)


def from_datetime(when: datetime) -> int:
    """An aware datetime as microseconds since 1970, exactly."""
    return (when - EPOCH) // timedelta(microseconds=1)


class WorkflowInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a workflow when it was read."""

    id: str
    name: str
    status: Status
    run: int
    version: str
    created: datetime
    updated: datetime
    reason: Reason | None = None
    """Why it is held. None for what is stranded: that is no fact of its row; ``handle.problems()`` tells it."""
    detail: str = ""
    attempts: int = 0
    steps: int = 0
    """Records in the history of this run when it was read: of steps, and of all else that it observed."""
    until: datetime | None = None
    deadline: datetime | None = None
    started: datetime | None = None
    closed: datetime | None = None
    cancel_requested: bool = False
    """Whether somebody has told it to cancel, which it may not have seen yet: a step under way ends first."""
    parent: str | None = None
    queue: str | None = None
    partition: str = ""
    priority: int = 0
    in_line: bool = False
    """Whether it waits for its queue to let it through."""
    expires: datetime | None = None
    versioning: Versioning = Versioning.UNDECLARED
    """What it does when the code changes: as declared, or as an operator has ordered."""
    override: Override | None = None
    """An operator's order about where it runs: what it overrides, and whether for one turn."""
    attributes: dict[str, Any] = msgspec.field(default_factory=lambda: {})
    """What it was started with in ``.options(attributes=…)``, as plain JSON."""
    problem: ProblemKind | None = None
    """What keeps it from getting on just now, the latest if several do; ``handle.problems()`` tells all."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Attempts that did not get a workflow on, of one kind, at one place, by one version of the code."""

    kind: ProblemKind
    text: str
    run: int
    version: str
    """Of the code that tried."""
    step: str = ""
    """The name of the step that failed; empty for the workflow as a whole."""
    path: str = ""
    attempt: int
    """Which attempt the latest was, from 1."""
    first: datetime
    last: datetime
    next: datetime | None = None
    """When the step is tried again. Of held work: not before this time, and once other code is there.

    None where no time is waited for: work held for the first time is tried as soon as other code is there."""
    cleared: datetime | None = None
    """When it was over; None while it lasts."""


def info_of(row: WorkflowRow) -> WorkflowInfo:
    """A row as its reader sees it."""

    def when(at: int | None) -> datetime | None:
        return None if at is None else to_datetime(at)

    return WorkflowInfo(
        id=row.id,
        name=row.name,
        status=row.status,
        run=row.run,
        version=row.version,
        created=to_datetime(row.created),
        updated=to_datetime(row.updated),
        reason=row.reason,
        detail=row.detail,
        attempts=row.attempts,
        steps=row.last_seq,
        until=when(row.until),
        deadline=when(row.deadline),
        started=when(row.started),
        closed=when(row.closed),
        cancel_requested=row.told_to_cancel is not None,
        parent=row.parent,
        queue=row.queue,
        partition=row.partition,
        priority=row.priority,
        in_line=row.lane is not None,
        expires=when(row.expires),
        versioning=row.versioning,
        override=row.override,
        attributes=msgspec.json.decode(row.attributes) if row.attributes is not None else {},
        problem=row.problem if row.status.open else None,
    )
