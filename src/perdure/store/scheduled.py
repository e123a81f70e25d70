"""Rows of schedules and firings, the same in both dialects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from perdure.model.records import WorkflowRow
from perdure.model.schedules import Firing, Reschedule, Schedule, Spec, State

_spec = msgspec.json.Decoder(Spec)
_live = msgspec.json.Decoder(dict[str, Any])
_json = msgspec.json.Encoder(order="sorted")


def columns(row: Schedule) -> tuple[Any, ...]:
    """What is stored of a schedule, in the order of its columns, after ``app``."""
    spec = row.spec
    return (
        row.name, spec.workflow, spec.cron, spec.every, spec.tz, spec.missed, spec.overlap, spec.catch_up,
        spec.catch_up_span, spec.takes_due, spec.queue, row.next, row.anchor, row.paused, row.gone,
        None if row.declared is None else _json.encode(row.declared).decode(), _json.encode(dict(row.live)).decode(),
        row.last, row.waiting, row.created, row.changed, row.revision,
    )  # fmt: skip


def schedule(row: Sequence[Any]) -> Schedule:
    """A schedule as it is stored, and whether the workflow started last is open."""
    spec = Spec(
        workflow=row[1], cron=row[2], every=row[3], tz=row[4], missed=row[5], overlap=row[6], catch_up=row[7],
        catch_up_span=row[8], takes_due=bool(row[9]), queue=row[10],
    )  # fmt: skip
    return Schedule(
        name=row[0], spec=spec, next=row[11], anchor=row[12], paused=row[13], gone=row[14],
        declared=None if row[15] is None else _spec.decode(row[15]), live=_live.decode(row[16]), last=row[17],
        waiting=row[18], created=row[19], changed=row[20], revision=row[21], busy=bool(row[22]),
    )  # fmt: skip


def firing(row: Sequence[Any]) -> Firing:
    return Firing(
        at=row[0], until=row[1], state=State(row[2]), workflow=row[3], reason=row[4], detail=row[5], noted=row[6]
    )


def put_columns(one: Firing) -> tuple[Any, ...]:
    """What is stored of a firing, after the schedule's name."""
    return (one.at, one.until, one.state.value, one.workflow, one.reason, one.detail, one.noted)


def as_started(change: Reschedule, exists: Mapping[str, WorkflowRow]) -> list[Firing]:
    """The firings, now that it is known which ids were taken: by the same workflow, it was started before."""
    names = {start.id: start.name for start in change.starts}
    found: list[Firing] = []
    for one in change.firings:
        taken = exists.get(one.workflow or "")
        if taken is not None and taken.name != names.get(taken.id):
            one = msgspec.structs.replace(  # noqa: PLW2901
                one, state=State.SKIPPED, workflow=None, reason="id_taken",
                detail=f"workflow {taken.id} is {taken.name}, started by somebody else",
            )  # fmt: skip
        found.append(one)
    return found
