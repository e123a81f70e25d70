"""From rows to the model's values, and back: the one place that knows the order of columns.

A workflow's columns come in the order of ``WorkflowRow``'s fields; queries that add others add them at the end.
Values are stored as text, so that a person with psql can read them; outside they are bytes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.model.problems import ProblemKind
from perdure.model.records import (
    Claimed,
    Ended,
    Incarnation,
    Intent,
    Kind,
    Message,
    Outcome,
    Record,
    WorkflowRow,
    read_override,
)
from perdure.model.states import CAUSES, CODE, CODES, VERSIONINGS, Reason, Status

Row = Any  # of the driver, which has no types: a sequence of values

# The history is ahead of the hot row, which is not touched for records alone: the last of both is the truth.
ROW = """c.id, c.run, c.lineage, c.name, c.status, c.version, c.created, c.updated, c.reason, c.detail, c.claim,
    c.owner, c.epoch, c.attempts, greatest(c.last_seq, (select h.seq from perdure.history h
        where h.app = c.app and h.id = c.id and h.run = c.run order by h.seq desc limit 1)),
    c.until, c.deadline, c.timeout, c.started, c.closed, c.cancel, c.parent, c.parent_run, c.parent_path,
    c.on_parent_close, c.queue, c.priority, c.fingerprint, c.attributes, c.intents, c.cause,
    c.versioning, c.partition, c.lane, c.expires, c.pause, c.problem,
    c.override"""

TIMED_OUT = CODE[Status.TIMED_OUT]
_intents = msgspec.json.Decoder(tuple[Intent, ...])
_json = msgspec.json.Encoder()
_KINDS: dict[int, Kind] = {kind.value: kind for kind in Kind}
_OUTCOMES: tuple[Outcome, ...] = tuple(Outcome)


def _status(code: int) -> Status:
    return CODES[code]


def _outcome(code: int) -> Outcome:
    return _OUTCOMES[code]


def pack_intents(intents: tuple[Intent, ...]) -> str | None:
    """Intents as JSON, None for none: most rows have none."""
    return _json.encode(intents).decode() if intents else None


def workflow(r: Row) -> WorkflowRow:
    return WorkflowRow(
        id=r[0],
        run=r[1],
        lineage=r[2],
        name=r[3],
        status=_status(r[4]),
        version=r[5],
        created=r[6],
        updated=r[7],
        reason=None if r[8] is None else Reason(r[8]),
        detail=r[9],
        claim=r[10],
        owner=r[11],
        epoch=r[12],
        attempts=r[13],
        last_seq=r[14],
        until=r[15],
        deadline=r[16],
        timeout=r[17],
        started=r[18],
        closed=r[19],
        cancel=r[20],
        parent=r[21],
        parent_run=r[22],
        parent_path=r[23],
        on_parent_close=r[24],
        queue=r[25],
        priority=r[26],
        fingerprint=r[27],
        attributes=None if r[28] is None else r[28].encode(),
        intents=() if r[29] is None else _intents.decode(r[29]),
        cause=CAUSES[int(r[30])],
        versioning=VERSIONINGS[int(r[31])],
        partition=r[32],
        lane=r[33],
        expires=r[34],
        pause=r[35],
        problem=None if r[36] is None else ProblemKind(r[36]),
        override=None if r[37] is None else read_override(r[37]),
    )


def told(r: Row) -> WorkflowRow:
    """With a command to cancel that is on its way, which follows in the row."""
    row = workflow(r)
    return row if r[38] is None else msgspec.structs.replace(row, told=r[38])


def claimed(r: Row) -> Claimed:
    return Claimed(row=workflow(r), input=(r[38] or "").encode(), mail=r[39])


def ready(r: Row) -> Claimed:
    return Claimed(row=workflow(r), input=(r[38] or "").encode(), mail=r[39], since=r[40], versioned=r[41])


def ended(r: Row) -> Ended:
    return Ended(row=workflow(r), outcome=_outcome(r[38]), data=None if r[39] is None else r[39].encode())


def record(r: Row) -> Record:
    """From a row whose first column says which of the histories asked for it belongs to."""
    return Record(
        r[1],
        r[2],
        _KINDS[r[3]],
        r[4],
        r[5],
        r[6],
        _outcome(r[7]),
        None if r[8] is None else r[8].encode(),
        r[9],
        r[10],
        () if r[11] is None else _intents.decode(r[11]),
        r[12],
    )


def message(r: Row) -> Message:
    return Message(dest=r[0], mid=r[1], topic=r[2], data=r[3].encode(), at=r[4], sender=r[5])


def incarnation(r: Row) -> Incarnation:
    return Incarnation(
        id=r[0],
        executor=r[1],
        version=r[2],
        host=r[3],
        boot=r[4],
        space=r[5],
        pid=r[6],
        pid_started=r[7],
        state=r[8],
        started=r[9],
        lease_until=r[10],
        lease=r[11],
        beats=r[12],
        lag=r[13],
        heir=r[14],
    )
