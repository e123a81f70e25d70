"""Resets: which records another run of the same id begins with, and what else it gets. Pure; asked under the lock."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from perdure.errors import StepNotFound
from perdure.model.cuts import begun_of, cut_of, latest_cut, mark, rewind, who_and_why
from perdure.model.orders import Answer, Answered, Goal, MoveOrder, aim, unknown
from perdure.model.records import Intent, Kind, Record, WorkflowRow
from perdure.model.states import Reason, Status
from perdure.model.steps import records_before
from perdure.model.writes import Rewind

Exclude = Literal["none", "messages", "all"]
Children = Literal["keep", "reset"]
VERB = "reset"
_WAITS = frozenset({Kind.TIMER, Kind.RECV, Kind.RESULT, Kind.READ})
_NOT_BY_CODE = frozenset({Kind.DECISION, Kind.CUT})
_BEFORE_VERSION = re.compile(r"before-version:(.+)")


class Point(msgspec.Struct, frozen=True):
    """Where to cut: ``first``, ``last``, ``before_cancel``, ``before_version`` or ``step`` with its ``name``."""

    kind: Literal["first", "last", "step", "before_version", "before_cancel"]
    name: str = ""

    def __str__(self) -> str:
        return {"step": self.name, "before_version": f"before-version:{self.name}"}.get(self.kind, self.kind)


def read_point(text: str) -> Point:
    """``first``, ``last``, ``before-version:V``; all else names a step: its name, path or ``#number``."""
    if text in ("first", "last"):
        return Point(text)  # type: ignore[arg-type]
    found = _BEFORE_VERSION.fullmatch(text)
    return Point("step", text) if found is None else Point("before_version", found[1])


class ResetOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Begin another run of an id from the records before a point."""

    id: str
    root: str  # for whose sake: its own, or that of an ancestor, with which it stands or falls
    point: Point
    exclude: Exclude = "none"
    goal: Goal | None = None
    key: str
    again: bool = False
    family: frozenset[str] | None = None  # children that are reset with it; None: they are left as they are
    nonce: bytes  # of the next run
    wake: bytes
    by: str
    reason: str
    at: int


def as_move(order: ResetOrder, goal: Goal) -> MoveOrder:
    """The order for one that has not begun: there is nothing to reset, and it is moved all the same."""
    return MoveOrder(
        id=order.id, goal=goal, nonce=order.nonce, shown=who_and_why(order.by, order.reason), at=order.at
    )  # fmt: skip


class Resetting(msgspec.Struct, frozen=True):
    """What a reset writes."""

    row: WorkflowRow
    change: Rewind
    exclude: Exclude
    since: int  # messages that came later came in the dropped part

    @property
    def pause(self) -> str | None:
        """Who told it to pause, for the next run."""
        if self.exclude == "all" or not self.row.status.open:
            return None
        return self.row.detail if self.row.reason is Reason.PAUSED else self.row.pause


STALE = "its children are others by now"


Ruled = tuple[Answered, "Resetting | None"]


def rule_resets(
    orders: Sequence[ResetOrder], rows: Mapping[str, WorkflowRow], histories: Mapping[str, Sequence[Record]]
) -> list[Ruled]:
    """The answers, and what is to be written. A family whose children are others by now is left alone, all of it."""
    ruled = [rule_reset(rows.get(order.id), histories.get(order.id, ()), order) for order in orders]
    own = {order.id: answered for order, (answered, _) in zip(orders, ruled, strict=True) if order.root == order.id}
    stale = {order.root for order, (answered, _) in zip(orders, ruled, strict=True) if answered.words == STALE}

    def stands(order: ResetOrder, of: Ruled) -> Ruled:
        if order.root in stale:
            return Answered(order.id, Answer.REFUSED, STALE, of[0].status), None
        if order.root != order.id and own[order.root].answer is not Answer.DONE:
            return Answered(order.id, Answer.REFUSED, "its parent is not reset", of[0].status), None
        return of

    return [stands(order, of) for order, of in zip(orders, ruled, strict=True)]


def rule_reset(row: WorkflowRow | None, history: Sequence[Record], order: ResetOrder) -> Ruled:
    """The answer about one. Refused with ``STALE``: look again."""
    if row is None:
        return unknown(order.id), None
    last = latest_mark(history)
    if last is not None and not order.again and cut_of(last).key == order.key:
        words = f"run {row.run} began with that reset, {last.shown}; it is {row.status}. To do it again: --again"
        return Answered(row.id, Answer.ALREADY, words, row.status), None
    told = all(record.kind is Kind.DECISION for record in history)  # before it began, if it has not
    if told and not row.intents and row.started is None and row.status.open:
        words = "it has not begun: there is nothing to reset"
        return Answered(row.id, Answer.ALREADY, words, row.status, unbegun=True), None
    if order.point.kind == "before_cancel" and row.status is not Status.CANCELLED:
        return Answered(row.id, Answer.ALREADY, f"it is {row.status}", row.status), None
    try:
        keep = kept(row, history, order.point)
    except StepNotFound as why:
        return Answered(row.id, Answer.REFUSED, str(why), row.status), None
    if keep is None:
        if order.goal is None and row.status.open:
            words = f"no record of it was written by version {order.point.name}"
            return Answered(row.id, Answer.ALREADY, words, row.status), None
        keep = len(history)
    if order.family is not None and not kin(history, keep) <= order.family:
        return Answered(row.id, Answer.REFUSED, STALE, row.status), None
    after = None if order.goal is None else aim(row, order.goal)
    words = f"run {row.run + 1} goes on from {keep} record{'' if keep == 1 else 's'} of run {row.run}"
    if after is not None and after.version:
        words += f", on version {after.version}"
    return Answered(row.id, Answer.DONE, words, Status.QUEUED), _resetting(row, history, keep, order)


def _resetting(row: WorkflowRow, history: Sequence[Record], keep: int, order: ResetOrder) -> Resetting:
    after = None if order.goal is None else aim(row, order.goal)
    past = row.deadline is not None and row.deadline <= order.at
    told = any(record.kind is Kind.CANCEL for record in history[:keep])
    change = rewind(
        row, history, b"", keep, lambda: order.nonce, at=order.at, by=order.by, reason=order.reason, verb=VERB,
        version=None if after is None else after.version, versioning=None if after is None else after.versioning,
        override=None if after is None else after.override, rearm=row.timeout is not None or past,
        uncancel=not told and (not row.status.open or order.exclude == "all"),
    )  # fmt: skip
    words = {"none": "", "messages": "messages dropped", "all": "messages and commands dropped"}[order.exclude]
    cut = msgspec.structs.replace(
        cut_of(change.mark), key=order.key, dropped=words, next=_next_step(history[keep:])
    )  # fmt: skip
    sign = mark(cut, VERB, at=order.at, shown=change.mark.shown, begun=begun_of(row, history, keep))
    change = msgspec.structs.replace(change, mark=sign, wake=order.wake)
    return Resetting(row, change, order.exclude, history[keep - 1].at if keep else -1)


def foreseen(row: WorkflowRow, history: Sequence[Record], point: Point) -> tuple[WorkflowRow, list[Record]]:
    """The next run as a reset would begin it, and its records: for who asks whether they replay.

    Raises ``StepNotFound``.
    """
    found = kept(row, history, point)
    keep = len(history) if found is None else found
    order = ResetOrder(
        id=row.id, root=row.id, point=point, key="", nonce=bytes(16), wake=bytes(16), by="", reason="", at=row.updated
    )  # fmt: skip
    sign = _resetting(row, history, keep, order).change.mark
    following = msgspec.structs.replace(row, run=row.run + 1, intents=(), last_seq=sign.seq)
    return following, [*history[:keep], sign]


def latest_mark(history: Sequence[Record]) -> Record | None:
    """The mark that the run began with, or goes on from; None if it began with nothing."""
    marks = [record for record in history if record.kind is Kind.CUT]
    return marks[-1] if marks else None


def began_by(history: Sequence[Record], key: str) -> bool:
    """Whether this run began by that order."""
    cut = latest_cut(history)
    return cut is not None and cut.key == key


def kept(row: WorkflowRow, history: Sequence[Record], point: Point) -> int | None:
    """How many records are kept; None: nothing stands behind the point. Raises ``StepNotFound``."""
    match point.kind:
        case "first":
            return 0
        case "last":
            until = before_cancel(history)
            return max((record.seq for record in history[:until] if record.kind in _WAITS), default=0)
        case "before_cancel":
            return before_cancel(history)
        case "before_version":
            wrote = (r.seq - 1 for r in history if r.version == point.name and r.kind not in _NOT_BY_CODE)
            return next(wrote, None)
        case "step":
            return records_before(row, history, point.name)


def before_cancel(history: Sequence[Record]) -> int:
    """How many records there are before the workflow was told to stop."""
    return next((record.seq - 1 for record in history if record.kind is Kind.CANCEL), len(history))


def _next_step(dropped: Sequence[Record]) -> Intent | None:
    """The step whose outcome, or failed attempt, is the first thing that was cut off."""
    first = next((record for record in dropped if record.kind not in (Kind.INTENT, *_NOT_BY_CODE)), None)
    if first is None or first.kind not in (Kind.STEP, Kind.ATTEMPT):
        return None
    return Intent(first.path, first.name, first.fingerprint)


def kin(history: Sequence[Record], keep: int) -> frozenset[str]:
    """The children that the dropped records started."""
    dropped = history[keep:]
    return frozenset((r.data or b"").decode() for r in dropped if r.kind is Kind.CHILD and r.data is not None)
