"""Lone writes: what one caller or one run waits for, as constant statements with plain parameters.

For a single row the JSON arrays of a batch, and the parts that find nothing to do, cost more than the write, here and
in the server. So what somebody waits for alone has statements of its own: a checkpoint; a start; the last record with
the end; both of these, made by a caller who starts one workflow after another; a message; a record that received one.

Each locks by id, fences and recognises a second try as the batch's statement does. What none of them can carry
(``fitting``), or what one refuses (a fence that fails, a run that is watched or closed, a command to cancel: then it
has written nothing), goes the way of a batch. That an id is taken or a message did not arrive is explained as there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from perdure.model.states import Status
from perdure.model.writes import Close, Receipt, Send, Start, Unit, Verdict
from perdure.store.postgres.commit import Place, Ways, Written, finish
from perdure.store.postgres.lone_values import of_run, of_send, of_start
from perdure.store.postgres.rows import pack_intents
from perdure.store.postgres.shapes import numbered
from perdure.store.postgres.text import statements

_ONE: dict[str, tuple[str, ...]] = {
    "start": ("outside", "start", "answer_start"),
    "end": ("ending", "record", "answer"),
    "end_and_start": ("ending", "record", "start", "answer_start"),
    "send": ("outside", "send", "answer_send"),
    # A message received, an event set, a wake acted on: any of them, each once.
    "told": ("going_on", "record", "mail", "woken", "answer"),
    "told_end": ("ending", "record", "mail", "answer"),
}
# The same of a run that writes two records, as one does that set an event.
_TWO = {
    f"{form}_of_two": tuple("two_records" if part == "record" else part for part in parts)
    for form, parts in _ONE.items()
    if "record" in parts
}
PARTS = {**_ONE, **_TWO}


class Lone(NamedTuple):
    """A batch that fits: its statement, its parameters, and the start or the message in it."""

    form: str
    values: dict[str, Any]
    start: Start | None = None
    send: Send | None = None


@cache
def statement(form: str, schema: str) -> tuple[str, tuple[str, ...]]:
    """One statement, and the names of its parameters in order."""
    texts = statements(schema)
    *parts, answer = (texts["part_lone_" + part] for part in PARTS[form])
    return numbered("with " + ",\n".join(parts) + "\n" + answer)


async def _checkpoint(ways: Ways, place: Place, unit: Unit, now: int | None) -> Receipt:
    """Write the record if the unit holds the run. One that another unit put there first is the server's error."""
    (r,) = unit.records
    row = await ways.fetchrow(
        place.sql["checkpoint"], place.app, unit.key.id, unit.claim, unit.key.run, r.seq, r.path, r.kind, r.name, r.at,
        r.fingerprint, r.outcome, None if r.data is None else r.data.decode(), r.attempt, r.shown,
        pack_intents(r.intents), unit.version, unit.nonce, now,
    )  # fmt: skip
    return Receipt(row[0], [Verdict(applied=row[1])])


def fitting(batch: Sequence[Unit]) -> Lone | None:
    """The batch as one of the statements, if it is one."""
    if len(batch) > 2:
        return None
    kinds = [_kind(unit) for unit in batch]
    match kinds:
        case ["checkpoint"]:
            return Lone("checkpoint", {})
        case ["start"]:
            start = _start(batch[0])
            return Lone("start", of_start(start), start)
        case ["end" | "told" | "told_end" as form]:
            return Lone(form + _count(batch[0]), of_run(batch[0]))
        case ["send"]:
            (send,) = batch[0].sends
            return Lone("send", of_send(send), send=send)
        case ["end", "start"] | ["start", "end"]:
            ended, begun = batch if kinds[0] == "end" else reversed(batch)
            start = _start(begun)
            if start.id != ended.key.id:  # else one row twice, which takes two statements
                return Lone("end_and_start" + _count(ended), {**of_run(ended), **of_start(start)}, start)
        case _:
            pass
    return None


async def write(ways: Ways, place: Place, batch: Sequence[Unit], lone: Lone, now: int | None) -> Receipt | None:
    """Send the statement. None: nothing was written, and only the way of a batch will do."""
    if lone.form == "checkpoint":
        return await _checkpoint(ways, place, batch[0], now)
    sql, names = statement(lone.form, place.schema)
    values: Mapping[str, Any] = {**lone.values, "app": place.app, "now": now}
    row = await ways.fetchrow(sql, *[values[name] for name in names])
    if row is None:
        return None
    verdicts = [Verdict(applied=True) for _ in batch]
    took: dict[str, bytes | None] | None = None
    if lone.start is not None and (row[1] is None or row[2] != lone.start.claim):
        took = {} if row[1] is None else {row[1]: row[2]}
    lost = lone.send is not None and not row[1]
    if took is not None or lost:
        written = Written(row[0], set(), took, 0 if lost else None)
        await finish(ways, place, zip(batch, verdicts, strict=True), written)
    return Receipt(row[0], verdicts)


def _kind(unit: Unit) -> str | None:
    """What a unit is if it may go alone: one thing of everything (records: two), and nobody else to be told."""
    if unit.decision is not None or unit.appends or unit.given_up or unit.trouble is not None:
        return None
    if unit.start is not None or unit.claim is None:
        return _newcomer(unit)
    if not 1 <= len(unit.records) <= 2 or unit.sends or unit.children:
        return None
    told = bool(unit.events or unit.taken or unit.woken)
    if told and (len(unit.events) > 1 or len(unit.taken) > 1 or len(unit.woken) > 1):
        return None
    change = unit.change
    if change is None:
        return "told" if told else "checkpoint" if len(unit.records) == 1 else None
    if not isinstance(change, Close) or change.parent is not None or change.children or change.attributes is not None:
        return None
    if change.family:
        return None
    return "told_end" if told else "end"


def _count(unit: Unit) -> str:
    return "_of_two" if len(unit.records) == 2 else ""


def _newcomer(unit: Unit) -> str | None:
    """The same of a run's first unit, and of a caller outside."""
    if unit.records or unit.events or unit.taken or unit.woken or unit.change is not None:
        return None
    starts, sends = len(unit.children) + (unit.start is not None), len(unit.sends)
    if (starts, sends) == (0, 1):
        return "send"
    if (starts, sends) != (1, 0):
        return None
    start = _start(unit)
    if start.expires is not None:
        return None
    return "start" if start.claim is None or start.status is Status.RUNNING else None


def _start(unit: Unit) -> Start:
    return unit.children[0] if unit.start is None else unit.start
