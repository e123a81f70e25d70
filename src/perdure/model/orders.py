"""What an operator orders of a workflow as it stands, and what that makes of it: pure, asked under the row's lock.

Of each order there is one definite answer. Done twice, it is ``already so`` or refused, and writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from perdure.errors import StepNotFound
from perdure.model.cuts import cut_of
from perdure.model.records import MOVE, SKIP, Intent, Kind, Outcome, Override, Record, WorkflowRow
from perdure.model.states import Cause, Reason, Status, Versioning
from perdure.model.writes import Decided

BY_CODE = frozenset(  # what other code may release
    {Reason.NONDETERMINISM, Reason.NO_CODE, Reason.UNDECODABLE, Reason.CRASHED}
)
LET_GO = BY_CODE | {Reason.RECOVERY_LIMIT}  # holds that end when an order gives the workflow to other code
LISTED_MAX = 30
FOLLOWS = "auto-upgrade ordered"  # the mark of an app in which workflows go with the routing that declare nothing


class Answer(StrEnum):
    """What became of an order."""

    DONE = "done"
    ALREADY = "already so"
    REFUSED = "refused"
    UNKNOWN = "unknown"  # no workflow of that id


class Answered(msgspec.Struct, frozen=True):
    """What became of an order about one workflow: durable when it is told."""

    id: str
    answer: Answer
    words: str
    status: Status | None = None  # afterwards
    new: str | None = None  # the id of what was begun
    nothing: bool = False  # of a reset: there is nothing to drop, so that at most it is moved


def unknown(id: str) -> Answered:
    return Answered(id, Answer.UNKNOWN, f"no workflow has the id {id!r}; see: perdure workflow list")


# -- move


class Goal(msgspec.Struct, frozen=True):
    """Where a workflow is to run on.

    ``PINNED``: on ``version``, for one turn only if ``once``. ``AUTO_UPGRADE``: with the routing, whose version for it
    is now ``version``, None if nobody knows. ``UNDECLARED``: what was ordered before is taken back.
    """

    versioning: Versioning
    version: str | None = None
    once: bool = False

    def __str__(self) -> str:
        if self.versioning is Versioning.PINNED:
            return f"{self.version}" + (" for one turn" if self.once else "")
        return "auto-upgrade" if self.versioning is Versioning.AUTO_UPGRADE else "unset"


def read_goal(text: str, *, once: bool = False) -> Goal:
    """Where to: ``auto-upgrade``, ``unset``, or the name of a version; there for one turn if ``once``."""
    kinds = {"auto-upgrade": Versioning.AUTO_UPGRADE, "unset": Versioning.UNDECLARED}
    return Goal(kinds[text]) if text in kinds else Goal(Versioning.PINNED, text, once)


class MoveOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Let an open workflow run on elsewhere."""

    id: str
    goal: Goal
    nonce: bytes  # becomes the claim token, which nobody holds
    shown: str  # who and why
    at: int


class Standing(NamedTuple):
    """What says where a workflow runs."""

    version: str
    versioning: Versioning
    override: Override | None


def standing(row: WorkflowRow) -> Standing:
    return Standing(row.version, row.versioning, row.override)


def aim(row: WorkflowRow, goal: Goal) -> Standing:
    """Where the row stands once it has gone there."""
    was = row.versioning if row.override is None else row.override.was
    if goal.versioning is Versioning.UNDECLARED:
        return Standing(row.version, was, None)
    version = row.version if goal.version is None else goal.version
    if goal.once and version == row.version:
        return standing(row)  # it is there already
    same = was is goal.versioning  # what it does anyway is no order
    return Standing(version, goal.versioning, None if same and not goal.once else Override(was, goal.once))


def follows(versioning: Versioning, override: Override | None) -> bool:
    """Whether it goes with the routing by an order, so that executors must look for more than their code declares."""
    return override is not None and versioning is Versioning.AUTO_UPGRADE


def rule_move(row: WorkflowRow | None, order: MoveOrder) -> tuple[Answered, Standing | None]:
    """The answer, and where it stands afterwards if that is to be written."""
    if row is None:
        return unknown(order.id), None
    if not row.status.open:
        way = f"perdure workflow reset {row.id} --to first --move-to {order.goal.version or 'V'}"
        words = f"it is {row.status}, and a move is for what goes on; to run it again elsewhere: {way}"
        return Answered(row.id, Answer.REFUSED, words, row.status), None
    after = aim(row, order.goal)
    if after == standing(row):
        return Answered(row.id, Answer.ALREADY, _stands(row, after), row.status), None
    status = after_going(row) if after.version != row.version else row.status
    return Answered(row.id, Answer.DONE, _stands(row, after), status), after


def after_going(row: WorkflowRow, reasons: frozenset[Reason] = LET_GO) -> Status:
    """The status of what is to be claimed anew."""
    held = row.status is Status.HELD and row.reason in reasons
    return Status.QUEUED if row.status is Status.RUNNING or held else row.status


def _stands(row: WorkflowRow, after: Standing) -> str:
    where = f"on version {after.version}" if after.version else "on the version that claims it first"
    what = {
        Versioning.PINNED: "pinned",
        Versioning.AUTO_UPGRADE: "going with the routing",
        Versioning.UNDECLARED: "as its code declares",
    }[after.versioning]
    turn = ", for one turn" if after.override is not None and after.override.once else ""
    held = f"; it stays held: {row.reason}" if row.status is Status.HELD and row.reason not in LET_GO else ""
    return f"{where}, {what}{turn}{held}"


def decided(order: MoveOrder) -> Decided:
    """What is noted where the history is its holder's to write."""
    return Decided(
        cause=Cause.NONE, decision=f"{MOVE} to {order.goal}", policy="", because=order.shown, parameters=None,
        evidence=b"{}", executor="",
    )  # fmt: skip


# -- skip


class SkipOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Give a step in flight its outcome."""

    id: str
    step: str
    data: bytes  # the value, as it is stored
    digest: bytes  # of the value, before any codec
    nonce: bytes
    shown: str
    at: int


def digest_of(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()


def rule_skip(
    row: WorkflowRow | None, history: Sequence[Record], order: SkipOrder
) -> tuple[Answered, tuple[Record, Record] | None]:
    """The answer, and the records that skip the step if they are to be written: the order, the outcome."""
    if row is None:
        return unknown(order.id), None
    if not row.status.open:
        words = (
            f"it is {row.status}; reset it to the step first: perdure workflow reset {row.id} --to {order.step}, "
            "then skip it"
        )
        before = _not_in_flight(row, history, order, words)
        if before.answer is Answer.ALREADY:  # asked again, since the answer was lost
            return before, None
        return Answered(row.id, Answer.REFUSED, words, row.status), None
    try:
        intent = _in_flight(row, history, order.step)
    except StepNotFound as why:
        return _not_in_flight(row, history, order, str(why)), None
    at = max([order.at, *(record.at for record in history[-1:])])
    tries = [record.attempt for record in history if record.kind is Kind.ATTEMPT and record.path == intent.path]
    seq = row.last_seq + 1
    told = Record(seq, "", Kind.DECISION, SKIP, at, order.digest, shown=order.shown)
    outcome = Record(
        seq + 1, intent.path, Kind.STEP, intent.name, at, intent.fingerprint, Outcome.VALUE, order.data,
        max(tries, default=0) + 1,
    )  # fmt: skip
    words = f"step {intent.name} (path {intent.path}) has that result; it does not run"
    status = after_going(row, SKIP_LETS_GO)
    return Answered(row.id, Answer.DONE, words, status), (told, outcome)


SKIP_LETS_GO = frozenset({Reason.RECOVERY_LIMIT})


def in_flight(row: WorkflowRow, history: Sequence[Record]) -> dict[str, Intent]:
    """By path: the steps that have begun, or come next after a cut, and have no outcome."""
    waiting = {intent.path: intent for intent in row.intents}
    for record in history:
        if record.kind is Kind.CUT:
            cut = cut_of(record)
            waiting = {} if cut.next is None else {cut.next.path: cut.next}
        waiting.update((intent.path, intent) for intent in record.intents if record.kind is not Kind.CUT)
        if record.kind is Kind.STEP:
            waiting.pop(record.path, None)
    return waiting


def _in_flight(row: WorkflowRow, history: Sequence[Record], step: str) -> Intent:
    waiting = in_flight(row, history)
    if step in waiting:
        return waiting[step]
    named = [intent for intent in waiting.values() if intent.name == step]
    if len(named) == 1:
        return named[0]
    listed = ", ".join(f"{one.name} (path {one.path})" for one in list(named or waiting.values())[:LISTED_MAX])
    if named:
        raise StepNotFound(f"{step!r} is in flight {len(named)} times: {listed}; say which by its path")
    raise StepNotFound(f"no step {step!r} is in flight; there are: {listed or 'none'}")


def _not_in_flight(row: WorkflowRow, history: Sequence[Record], order: SkipOrder, why: str) -> Answered:
    """It may be that it was skipped before, or has an outcome of its own."""
    found = [(r, before) for before, r in zip([None, *history], history, strict=False) if r.kind is Kind.STEP]
    found = [(r, before) for r, before in found if order.step in (r.path, r.name)]
    if len(found) != 1:
        return Answered(row.id, Answer.REFUSED, why, row.status)
    record, before = found[0]
    skipped = before is not None and before.kind is Kind.DECISION and before.name == SKIP
    if skipped and before is not None and before.fingerprint == order.digest:
        words = f"step {record.name} (path {record.path}) was skipped with that result {before.shown}"
        return Answered(row.id, Answer.ALREADY, words, row.status)
    words = (
        f"step {record.name} (path {record.path}) has an outcome already (#{record.seq}); "
        f"to drop it: perdure workflow reset {row.id} --to {record.path}"
    )
    return Answered(row.id, Answer.REFUSED, words, row.status)
