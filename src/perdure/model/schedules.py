"""Schedules as the database has them: when a workflow is to be started, and what became of each of these times.

Times are integers: microseconds since 1970-01-01 UTC, by the database's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Any, Literal

import msgspec

from perdure.model.info import to_datetime
from perdure.model.writes import Start

Missed = Literal["skip", "once", "all"]
Overlap = Literal["allow", "skip", "queue"]

CATCH_UP = 100  # times, where nothing else is said


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """When a workflow is started, and what becomes of the times at which it could not be."""

    workflow: str
    cron: str | None = None
    every: int | None = None  # microseconds; one of both
    tz: str = "UTC"
    missed: Missed = "once"
    overlap: Overlap = "allow"
    catch_up: int | None = CATCH_UP  # so many of the latest times count ...
    catch_up_span: int | None = None  # ... or those of so many microseconds
    takes_due: bool = False  # the workflow is given the nominal time
    queue: str | None = None

    @property
    def timing(self) -> tuple[str | None, int | None, str]:
        """What decides the nominal times."""
        return self.cron, self.every, self.tz


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule's row. ``spec`` holds: what was declared, with the ``live`` changes over it."""

    name: str
    spec: Spec
    next: int | None  # the nominal time to be accounted for next; None: there is none any more
    anchor: int  # what ``every`` counts from
    paused: str | None = None  # why a person paused it
    gone: str | None = None  # why it is paused by itself: the code declares it no longer
    declared: Spec | None = None  # None: created at run time
    live: Mapping[str, Any] = msgspec.field(default_factory=lambda: {})  # fields of the spec that a person changed
    last: str | None = None  # the workflow that was started last
    waiting: int = 0  # firings that wait for the one before them to end
    created: int = 0
    changed: int = 0
    revision: int = 1  # counts writes, from when it was made: compared and set by each
    busy: bool = False  # read only: ``last`` is open

    @property
    def active(self) -> bool:
        """Whether it fires."""
        return self.paused is None and self.gone is None

    def due(self, now: int) -> bool:
        """Whether there is something to do."""
        return self.active and ((self.next is not None and self.next <= now) or (self.waiting > 0 and not self.busy))


class State(IntEnum):
    """What became of a nominal time. The number is stored."""

    STARTED = 1
    SKIPPED = 2
    WAITING = 3  # starts when the one before it has ended


class Firing(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one nominal time, or (``until`` after ``at``) of all from ``at`` to ``until`` together."""

    at: int
    until: int
    state: State
    workflow: str | None = None  # its id
    reason: str = ""  # why skipped: missed, overlap, catch_up, paused, gone, changed, id_taken
    detail: str = ""
    noted: int = 0


class Reschedule(msgspec.Struct, frozen=True, kw_only=True):
    """One write about a schedule: done whole, if its row still has the revision ``before`` (0: if there is none)."""

    name: str
    before: int
    after: Schedule | None  # None: deleted, with its firings
    firings: tuple[Firing, ...] = ()
    starts: tuple[Start, ...] = ()
    forget: int | None = None  # firings older than this are no longer needed, but for the latest ``KEEP``


KEEP = 1000  # firings of a schedule that are kept in any case


class Which(msgspec.Struct, frozen=True, kw_only=True):
    """Which firings to read, the latest first."""

    schedule: str
    since: int | None = None
    until: int | None = None  # both inclusive
    state: State | None = None
    limit: int = 100
    oldest_first: bool = False


class ScheduleInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule when it was read. Times are aware datetimes in UTC."""

    name: str
    workflow: str
    cron: str | None
    every: timedelta | None
    tz: str
    missed: Missed
    overlap: Overlap
    catch_up: int | timedelta
    """So many times, or those of so long, are caught up with at most."""
    next: datetime | None
    """When it fires next; None while it is paused."""
    paused: str | None
    """Why it does not fire; None if it does."""
    declared: bool
    """Whether the code declares it; else it was created at run time."""
    changed_live: tuple[str, ...]
    """What was changed at run time, and holds until ``reset``."""
    last: str | None
    """The id of the workflow that was started last."""
    waiting: int
    """Firings that wait for the one before them to end."""
    queue: str | None
    changed: datetime


class FiringInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a nominal time (or of all from ``at`` to ``until``)."""

    at: datetime
    until: datetime
    state: Literal["started", "skipped", "waiting"]
    workflow: str | None
    """The id of the workflow; the same for the same nominal time."""
    reason: str
    detail: str
    noted: datetime


def schedule_info(row: Schedule) -> ScheduleInfo:
    """A row as its reader sees it."""
    spec = row.spec
    span = spec.catch_up_span
    return ScheduleInfo(
        name=row.name,
        workflow=spec.workflow,
        cron=spec.cron,
        every=None if spec.every is None else timedelta(microseconds=spec.every),
        tz=spec.tz,
        missed=spec.missed,
        overlap=spec.overlap,
        catch_up=(spec.catch_up or CATCH_UP) if span is None else timedelta(microseconds=span),
        next=to_datetime(row.next) if row.active and row.next is not None else None,
        paused=row.gone if row.gone is not None else row.paused,
        declared=row.declared is not None,
        changed_live=tuple(sorted({*row.live, *(("paused",) if row.paused is not None else ())})),
        last=row.last,
        waiting=row.waiting,
        queue=spec.queue,
        changed=to_datetime(row.changed),
    )


_STATES: dict[State, Literal["started", "skipped", "waiting"]] = {
    State.STARTED: "started",
    State.SKIPPED: "skipped",
    State.WAITING: "waiting",
}


def firing_info(row: Firing) -> FiringInfo:
    """A row as its reader sees it."""
    return FiringInfo(
        at=to_datetime(row.at),
        until=to_datetime(row.until),
        state=_STATES[row.state],
        workflow=row.workflow,
        reason=row.reason,
        detail=row.detail,
        noted=to_datetime(row.noted),
    )
