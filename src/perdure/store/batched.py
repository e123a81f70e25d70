"""Batches, the same in both dialects: rows, what stands in an act's way, what it comes to in words, and the sums."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from perdure.model.acts import (
    NOT_AS_SEEN,
    Act,
    CancelIt,
    DeleteIt,
    ForkIt,
    Leave,
    MoveIt,
    PauseIt,
    ReopenIt,
    ResetIt,
    RewindIt,
    Settled,
    SkipIt,
    TerminateIt,
)
from perdure.model.batches import (
    FATES,
    LEASE,
    STATE,
    STATES,
    TARGETS_MAX,
    Ask,
    AuditRow,
    BatchRow,
    BatchState,
    Fate,
    NewBatch,
    TargetRow,
)
from perdure.model.orders import Answer, Answered, MoveOrder
from perdure.model.records import WorkflowRow
from perdure.model.resets import STALE, ResetOrder, as_move
from perdure.model.states import Reason, Status

GONE = "no workflow has this id any more"
NEEDED = "an open workflow, its parent or one that waits for it, may still ask for it"
AGAIN = "ordered again: answered with this batch, which is {}"

replaced = msgspec.structs.replace


class TooMany(Exception):
    """More targets than a batch may have: whoever froze them takes it back, and refuses the order."""


# -- rows


def batch(r: Sequence[Any]) -> BatchRow:
    """A batch as it is stored."""
    return BatchRow(
        key=r[0], verb=r[1], options=r[2].encode(), query=r[3], by=r[4], reason=r[5], rate=r[6],
        state=STATES[int(r[7])], created=r[8], updated=r[9], closed=r[10], total=r[11], done=r[12], skipped=r[13],
        failed=r[14], owner=r[15], until=r[16], next=r[17], nonce=r[18],
    )  # fmt: skip


def target(r: Sequence[Any]) -> TargetRow:
    """A target as it is stored."""
    return TargetRow(r[0], r[1], FATES[int(r[2])], r[3], r[4], r[5], r[6])


def audit(r: Sequence[Any]) -> AuditRow:
    """A line of audit as it is stored."""
    return AuditRow(*r)


def inserted(new: NewBatch, now: int) -> tuple[Any, ...]:
    """A batch without targets, as a statement takes it after the app."""
    return (
        new.key, new.verb, new.options.decode(), new.query, new.by, new.reason, new.rate, now, new.owner, now + LEASE,
        new.nonce,
    )  # fmt: skip


def changed(row: BatchRow) -> tuple[Any, ...]:
    """What changes of a batch, as a statement takes it after the app."""
    return (
        row.key, STATE[row.state], row.updated, row.closed, row.total, row.done, row.skipped, row.failed, row.owner,
        row.until, row.next,
    )  # fmt: skip


def of_batch(row: BatchRow, verb: str, by: str, reason: str, nonce: bytes, now: int, after: str) -> tuple[Any, ...]:
    """A line of audit of the batch itself, as a statement takes it after the app."""
    return (row.key, "", nonce, 0, now, verb, by, reason, str(row.state), after)


# -- the batch


def frozen(row: BatchRow, total: int) -> BatchRow:
    """A batch that has its targets. Raises ``TooMany`` for more than it may have."""
    if total > TARGETS_MAX:
        raise TooMany(f"the query names more than {TARGETS_MAX:,} workflows; narrow it, and make several batches")
    return _summed(replaced(row, total=total), row.created)


def ruled(row: BatchRow, ask: Ask, now: int) -> BatchRow | None:
    """The batch after an order about it; None if nothing changes."""
    match ask.kind:
        case "cancel" if row.state is BatchState.RUNNING:
            return replaced(row, state=BatchState.CANCELLED, updated=now, closed=now, owner=None, until=0)
        case "retry" if row.failed and row.state is not BatchState.CANCELLED:
            return replaced(
                row, state=BatchState.RUNNING, updated=now, closed=None, failed=0, owner=ask.owner, until=now + LEASE
            )
        case "take" if row.state is BatchState.RUNNING and row.owner != ask.owner:
            return replaced(row, updated=now, owner=ask.owner, until=max(now, row.next) + LEASE)
        case _:
            return None


def is_for(row: BatchRow, owner: bytes, now: int) -> bool:
    """Whether a batch is to be carried out by ``owner``."""
    return row.state is BatchState.RUNNING and (row.owner == owner or row.until <= now)


def after_chunk(row: BatchRow, owner: bytes, settled: Iterable[Settled], now: int) -> BatchRow:
    """The batch after a chunk: sums, the time of the next chunk, whose it is."""
    counts = dict.fromkeys(Fate, 0)
    for one in settled:
        counts[one.fate] += 1
    spent = 0 if row.rate is None else round(counts[Fate.DONE] * 1e6 / row.rate)
    then = now + spent if spent else row.next
    return _summed(
        replaced(
            row, updated=now, done=row.done + counts[Fate.DONE], skipped=row.skipped + counts[Fate.SKIPPED],
            failed=row.failed + counts[Fate.FAILED], owner=owner, next=then, until=max(now, then) + LEASE,
        ),
        now,
    )  # fmt: skip


def _summed(row: BatchRow, now: int) -> BatchRow:
    if row.waiting:
        return row
    return replaced(row, state=BatchState.DONE, closed=now, owner=None, until=0)


# -- acts


def hears(row: WorkflowRow) -> bool:
    """Whether its code must hear of a command to cancel: somebody holds it, or it has begun."""
    return row.status is Status.RUNNING or row.parked or row.held_with_code


def hindrance(act: Act, row: WorkflowRow | None) -> Settled | None:
    """What comes of an act that changes nothing; None: it is to be carried out."""
    if isinstance(act, Leave):
        return Settled(act.fate, act.detail)
    if row is None:
        return Settled(Fate.SKIPPED, GONE)
    if row.run != act.run:
        return NOT_AS_SEEN
    match act:
        case CancelIt() | TerminateIt() | MoveIt() | SkipIt() if not row.status.open:
            return Settled(Fate.SKIPPED, f"it is {row.status}")
        case PauseIt(order=None) if row.pause is None:
            return NOT_AS_SEEN
        case PauseIt() if not row.status.open or row.reason is Reason.PAUSED:
            return Settled(Fate.SKIPPED, "it is paused" if row.status.open else f"it is {row.status}")
        case ReopenIt(seen=seen) | RewindIt(seen=seen) if (row.claim, row.status) != (seen.claim, seen.status):
            return NOT_AS_SEEN
        case ReopenIt() if not row.status.open:
            return NOT_AS_SEEN
        case DeleteIt() if row.status.open:
            return Settled(Fate.FAILED, f"it is {row.status}, and only what has ended is deleted: cancel it first")
        case _:
            return None


def concerned(acts: Iterable[Act]) -> list[str]:
    """The ids whose rows are locked for them, in order: with their families."""
    own = {act.id for act in acts}
    return sorted(own.union(order.id for act in acts if isinstance(act, ResetIt) for order in act.orders))


def rests_on_routing(acts: Iterable[Act]) -> bool:
    """Whether any of them asks where new work goes."""
    return any(isinstance(act, MoveIt | ResetIt) and act.routing is not None for act in acts)


def is_routed(act: Act, revision: int) -> bool:
    """Whether new work goes where it went when the act was decided, if it asks that. ``revision``: now; 0: of none."""
    return not isinstance(act, MoveIt | ResetIt) or act.routing in (None, revision)


def reset_orders(acts: Iterable[Act]) -> list[ResetOrder]:
    """Of all families; none is in two of them."""
    return [order for act in acts if isinstance(act, ResetIt) for order in act.orders]


def unbegun(orders: Iterable[ResetOrder], answers: Mapping[str, Answered]) -> list[MoveOrder]:
    """What is only to be moved: there is nothing to reset."""
    return [
        as_move(order, order.goal) for order in orders if answers[order.id].nothing and order.goal is not None
    ]  # fmt: skip


def of_resets(acts: Iterable[Act], answers: Mapping[str, Answered]) -> dict[str, Settled]:
    """What came of each reset, told with its family."""
    came: dict[str, Settled] = {}
    for act in acts:
        if isinstance(act, ResetIt):
            one = answered(answers[act.id])
            children = sum(answers[order.id].answer is Answer.DONE for order in act.orders) - 1
            if one.fate is Fate.DONE and children > 0:
                one = one._replace(detail=f"{one.detail}; with {children} child{'' if children == 1 else 'ren'}")
            came[act.id] = one
    return came


def answered(one: Answered) -> Settled:
    """What the answer to an order comes to."""
    if one.words == STALE:
        return NOT_AS_SEEN
    fates = {Answer.DONE: Fate.DONE, Answer.REFUSED: Fate.FAILED}
    return Settled(fates.get(one.answer, Fate.SKIPPED), one.words)


def done(act: Act, row: WorkflowRow) -> Settled:
    """What an act has come to, in words. ``row``: as it was before."""
    new: str | None = None
    match act:
        case CancelIt():
            said = "told to cancel" if hears(row) else "cancelled"
        case TerminateIt():
            said = "terminated"
        case PauseIt(order=None):
            said = "its pause is taken back"
        case PauseIt():
            said = "told to pause" if row.status is Status.RUNNING else "paused"
        case ReopenIt(order=order):
            said = ("unpaused" if order.back else "queued") + _moved(row, order.version)
        case RewindIt(change=change):
            said = f"begun anew as run {change.next.run}, from {change.keep} records" + _moved(row, change.next.version)
        case ForkIt(start=start, end=end):
            new, said = start.id, f"begun as {start.id}" + ("" if end is None else ", and terminated")
        case _:
            said = "deleted"
    return Settled(Fate.DONE, said, new)


def _moved(row: WorkflowRow, version: str | None) -> str:
    return "" if version in (None, row.version) else f", on version {version}"


# -- rows to write


def results(settled: Mapping[str, Settled]) -> dict[str, Settled]:
    """Those that are settled now."""
    return {id: one for id, one in settled.items() if one.fate is not Fate.WAITING}


def lines(
    row: BatchRow, acts: Sequence[Act], before: Mapping[str, WorkflowRow], settled: Mapping[str, Settled], now: int
) -> list[tuple[Any, ...]]:
    """A line of audit for each workflow that was changed, as a statement takes it after the app."""
    return [
        (row.key, act.id, act.nonce, act.run, now, row.verb, row.by, row.reason, _was(before[act.id]),
         settled[act.id].detail)
        for act in acts
        if settled[act.id].fate is Fate.DONE
    ]  # fmt: skip


def _was(row: WorkflowRow) -> str:
    version = f", version {row.version}" if row.version else ""
    return f"{row.status}, run {row.run}{version}"
