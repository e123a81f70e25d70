"""From rows to the model's values, and back: the one place that knows the order of columns.

A workflow's columns come in the order of ``WorkflowRow``'s fields; queries that add others add them at the end.
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
from perdure.model.states import CAUSES, CODES, VERSIONINGS, Reason
from perdure.store.sqlite.driver import Row

_intents = msgspec.json.Decoder(tuple[Intent, ...])
_json = msgspec.json.Encoder()
_KINDS = {kind.value: kind for kind in Kind}
_OUTCOMES = tuple(Outcome)


def pack_intents(intents: tuple[Intent, ...]) -> bytes | None:
    """Intents as JSON, None for none: most rows have none."""
    return _json.encode(intents) if intents else None


def pack(keys: list[Any]) -> str:
    """Keys as a JSON array, for ``json_each``."""
    return _json.encode(keys).decode()


def workflow(r: Row) -> WorkflowRow:
    code: int = r[4]
    return WorkflowRow(
        id=r[0],
        run=r[1],
        lineage=r[2],
        name=r[3],
        status=CODES[code],
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
        attributes=r[28],
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
    return Claimed(row=workflow(r), input=r[38], mail=bool(r[39]))


def ended(r: Row) -> Ended:
    outcome: int = r[38]
    return Ended(row=workflow(r), outcome=_OUTCOMES[outcome], data=r[39])


def record(r: Row) -> Record:
    outcome: int = r[6]
    return Record(
        r[0],
        r[1],
        _KINDS[r[2]],
        r[3],
        r[4],
        r[5],
        _OUTCOMES[outcome],
        r[7],
        r[8],
        r[9],
        () if r[10] is None else _intents.decode(r[10]),
        r[11],
    )


def message(r: Row) -> Message:
    return Message(dest=r[0], mid=r[1], topic=r[2], data=r[3], at=r[4], sender=r[5])


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
