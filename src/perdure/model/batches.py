"""Batches: a verb, a frozen set of targets, and what came of each. See docs/internals/batches.md."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

import msgspec

from perdure.model.info import to_datetime

TARGETS_MAX = 1_000_000  # of one batch
LEASE = 5_000_000  # microseconds after its last chunk for which a batch is left to whoever carries it out
CHUNK_SHARE = 10  # with a rate, a chunk is at most this part of a second's worth


class BatchState(StrEnum):
    """Where a batch stands."""

    RUNNING = "running"  # targets wait, whether or not a process is at it
    DONE = "done"
    CANCELLED = "cancelled"


class Fate(StrEnum):
    """What came of a target."""

    WAITING = "waiting"
    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"


# Their order is stored: never reorder, only append.
STATES = tuple(BatchState)
STATE: dict[BatchState, int] = {state: code for code, state in enumerate(STATES)}
FATES = tuple(Fate)
FATE: dict[Fate, int] = {fate: code for code, fate in enumerate(FATES)}


class NewBatch(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is ordered: under its key, once."""

    key: str
    verb: str
    options: bytes  # JSON
    query: str
    by: str
    reason: str
    rate: float | None  # changed workflows a second
    owner: bytes  # who is going to carry it out
    nonce: bytes

    def same(self, batch: BatchRow) -> bool:
        """Whether a batch was ordered by the same words."""
        return (self.verb, self.options, self.query) == (batch.verb, batch.options, batch.query)


class BatchRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A batch as it is stored; times in microseconds."""

    key: str
    verb: str
    options: bytes
    query: str
    by: str
    reason: str
    rate: float | None
    state: BatchState
    created: int
    updated: int
    closed: int | None
    total: int
    done: int
    skipped: int
    failed: int
    owner: bytes | None
    until: int  # until then it is its owner's
    next: int  # no chunk begins before
    nonce: bytes

    @property
    def waiting(self) -> int:
        return self.total - self.done - self.skipped - self.failed


class TargetRow(msgspec.Struct, frozen=True, gc=False):
    """A target as it is stored."""

    id: str
    run: int  # that was frozen
    fate: Fate
    at: int | None  # when it was settled
    detail: str
    new: str | None
    tries: int


class AuditRow(msgspec.Struct, frozen=True, gc=False):
    """A line of audit: of the batch itself (``id`` empty), or of one workflow that it has changed."""

    batch: str
    id: str
    run: int
    at: int
    verb: str
    by: str
    reason: str
    before: str
    after: str


class Ask(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A person's order about a batch that is there."""

    kind: Literal["take", "cancel", "retry"]
    by: str
    reason: str
    owner: bytes  # who carries it out from then on; not of a cancel
    nonce: bytes


class Applied(msgspec.Struct, frozen=True, gc=False):
    """What came of a chunk. Without a batch: there is none of that key."""

    now: int
    batch: BatchRow | None
    again: frozenset[str] = frozenset()  # targets that were not as seen
    mine: bool = True  # whether the batch was ours to carry out


# -- what readers see


class BatchInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A batch when it was read."""

    key: str
    verb: str
    options: dict[str, Any]
    query: str
    state: BatchState
    total: int
    """Workflows that the query named when the batch was frozen."""
    done: int
    """Changed."""
    skipped: int
    """Nothing was to be done: they had ended, were gone, or were another run by then."""
    failed: int
    """Refused: each target says why."""
    waiting: int
    """Not acted on yet; of a cancelled batch: left."""
    rate: float | None
    by: str
    reason: str
    created: datetime
    updated: datetime
    closed: datetime | None

    @property
    def finished(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state is not BatchState.RUNNING


class TargetInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A target when it was read."""

    id: str
    run: int
    """The run that the query found."""
    state: Fate
    detail: str
    new: str | None
    """The id of the workflow that was begun (restart, fork)."""
    at: datetime | None
    tries: int


def batch_info(row: BatchRow) -> BatchInfo:
    """A batch as its reader sees it."""
    return BatchInfo(
        key=row.key, verb=row.verb, options=msgspec.json.decode(row.options), query=row.query, state=row.state,
        total=row.total, done=row.done, skipped=row.skipped, failed=row.failed, waiting=row.waiting, rate=row.rate,
        by=row.by, reason=row.reason, created=to_datetime(row.created), updated=to_datetime(row.updated),
        closed=None if row.closed is None else to_datetime(row.closed),
    )  # fmt: skip


def target_info(row: TargetRow) -> TargetInfo:
    """A target as its reader sees it."""
    return TargetInfo(
        id=row.id, run=row.run, state=row.fate, detail=row.detail, new=row.new, tries=row.tries,
        at=None if row.at is None else to_datetime(row.at),
    )  # fmt: skip


# -- the plan


class PlanGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Workflows of one type, version, status and problem."""

    type: str
    version: str
    status: str
    problem: str | None
    count: int
    applies: bool
    """Whether the verb does anything to such: else they will be skipped, or refused."""


class PlanSample(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow that was replayed, without effect, on the version that the verb moves to."""

    id: str
    type: str
    version: str
    verdict: Literal["safe", "diverges", "unknown"]
    step: str = ""
    """Where it diverges: a path, as ``perdure workflow history`` prints it."""
    recorded: str = ""
    """What history has there."""
    called: str = ""
    """What the code does there."""
    where: str = ""
    detail: str = ""
    """The verdict in words; why nobody can say."""


class BatchPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch would do. Nothing is frozen: what ``apply`` finds may be more or less."""

    verb: str
    options: dict[str, Any]
    query: str
    key: str
    """That ``apply`` will use, if none is given."""
    total: int
    groups: tuple[PlanGroup, ...]
    """The largest first."""
    target: str | None
    """The version that the samples were replayed on."""
    samples: tuple[PlanSample, ...]
    unsampled: int
    """Workflows of groups beyond those that samples were taken of."""
    before: BatchInfo | None
    """The batch that has the key already: ``apply`` answers with it."""
