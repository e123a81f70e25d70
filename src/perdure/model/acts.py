"""What is to become of a batch's target, as a value: a write together with what it rests on.

An act is carried out only if its id still has the run that it names and, where it has ``seen`` a row, if that row is as
it was; else nothing is done, and the target is looked at again.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from perdure.model.batches import Fate
from perdure.model.ids import RunKey
from perdure.model.orders import MoveOrder, SkipOrder
from perdure.model.records import Record, WorkflowRow
from perdure.model.resets import ResetOrder
from perdure.model.writes import Pause, Reopen, Rewind, Start


class Act(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One target's. ``nonce``: of this act alone; tells its line of audit, and its wakes, from others."""

    id: str
    run: int
    nonce: bytes


class Leave(Act, frozen=True, gc=False):
    """Change nothing, and say why."""

    fate: Fate
    detail: str


class CancelIt(Act, frozen=True, gc=False):
    """Cancel what nobody holds; tell whoever holds it."""

    reason: str


class TerminateIt(Act, frozen=True, gc=False):
    """End it at once."""

    reason: str


class PauseIt(Act, frozen=True, gc=False):
    """Hold what nobody holds; tell whoever holds it. Without an order: take back what is not done yet."""

    order: Pause | None


class ReopenIt(Act, frozen=True, gc=False):
    """Queue it."""

    seen: WorkflowRow
    order: Reopen


class RewindIt(Act, frozen=True, gc=False):
    """Begin its next run from its first records."""

    seen: WorkflowRow
    change: Rewind


class ForkIt(Act, frozen=True, gc=False):
    """Begin another from its records; ``end``: why it is terminated in the same commit, if it is."""

    source: RunKey
    start: Start
    mark: Record
    end: str | None


class DeleteIt(Act, frozen=True, gc=False):
    """Forget it, whole."""


class MoveIt(Act, frozen=True, gc=False):
    """Let it run on elsewhere; decided by its row, under its lock."""

    order: MoveOrder
    routing: int | None = None
    """The revision of the routing that its goal rests on; 0: there is none yet; None: it rests on none."""


class SkipIt(Act, frozen=True, gc=False):
    """Give a step of it its result; decided by its row and history, under its lock."""

    order: SkipOrder


class ResetIt(Act, frozen=True, gc=False):
    """Begin its next run, and those of its family: its own order first, each decided by its row, under its lock."""

    orders: tuple[ResetOrder, ...]
    routing: int | None = None


class Settled(NamedTuple):
    """What came of an act. ``fate`` waiting: it was not as seen, and nothing was done."""

    fate: Fate
    detail: str
    new: str | None = None  # the id that was begun


NOT_AS_SEEN = Settled(Fate.WAITING, "")
