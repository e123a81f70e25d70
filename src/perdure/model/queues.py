"""Queues: their limits, and the lane in which an item stands in line.

The **lane** of an item is its queue, partition and priority in one text, in the order in which items are let through:
a queue's items are one range of the index of open workflows, a partition's a part of it, and within a partition the
smaller priority comes first, then who was queued first. An item that is not due yet stands in a lane of its own,
``DELAYED``, whatever its queue, in the order of its time. What is paused and holds no slot stands in ``PAUSED``, from
where nothing is claimed; its time is that of its place before.
"""

from __future__ import annotations

from typing import Any

import msgspec

_SEPARATOR = "\x1f"  # below every character that a name may have
_AFTER = " "  # the next one
DELAYED = "\x01"
PAUSED = "\x01\x01"
FIRST = "\x02"  # below every lane of a queue
NAME_MAX = 100
PARTITION_MAX = 200
PRIORITY_MAX = 2**31 - 1
_OFFSET = 2**31
_DIGITS = 8


def lane_of(queue: str, partition: str, priority: int) -> str:
    """Where an item stands."""
    return f"{queue}{_SEPARATOR}{partition}{_SEPARATOR}{priority + _OFFSET:0{_DIGITS}x}"


def queue_of(lane: str) -> str:
    """Whose line a lane is of."""
    return lane.split(_SEPARATOR, 1)[0]


def partition_of(lane: str) -> str:
    """The partition of a lane."""
    return lane.split(_SEPARATOR, 2)[1]


def line(queue: str) -> tuple[str, str]:
    """The bounds of a queue's lanes, both excluded."""
    return queue + _SEPARATOR, queue + _AFTER


def part(queue: str, partition: str) -> tuple[str, str]:
    """The bounds of a partition's lanes, both excluded."""
    begin = f"{queue}{_SEPARATOR}{partition}"
    return begin + _SEPARATOR, begin + _AFTER


class Limits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a queue lets through; None is no limit. Periods in microseconds."""

    concurrency: int | None = None  # in progress at a time, over all executors
    worker_concurrency: int | None = None  # … on each executor
    rate_limit: int | None = None  # starts in every window of ``rate_period``
    rate_period: int | None = None
    partition_concurrency: int | None = None  # the same of each partition
    partition_rate_limit: int | None = None
    partition_rate_period: int | None = None

    @property
    def counted(self) -> bool:
        """Whether it must be known what is in progress."""
        return self.concurrency is not None or self.partition_concurrency is not None

    @property
    def paced(self) -> bool:
        """Whether it must be known what was started lately."""
        return self.rate_limit is not None or self.partition_rate_limit is not None

    @property
    def window(self) -> int:
        """The longest period for which starts are remembered."""
        return max(self.rate_period or 0, self.partition_rate_period or 0)


LIMITS = tuple(Limits.__struct_fields__)


class QueueRow(msgspec.Struct, frozen=True, kw_only=True):
    """A queue as it stands."""

    name: str
    limits: Limits
    paused: bool = False
    cursor: str = ""  # the partition that was served last
    declared: Limits | None = None  # by the code; None: by no code that was launched
    live: dict[str, Any] = msgspec.field(default_factory=lambda: {})  # what an operator changed
    changed: int = 0
    revision: int = 0


class QueueChange(msgspec.Struct, frozen=True, kw_only=True):
    """An operator's change."""

    limits: dict[str, int | None] = msgspec.field(default_factory=lambda: {})  # by name; None takes a limit away
    paused: bool | None = None
    reset: bool = False  # first give up all changes of limits that were made live


class QueueCount(msgspec.Struct, frozen=True, kw_only=True):
    """What a queue holds, counted up to a bound."""

    in_line: int = 0
    delayed: int = 0
    in_progress: int = 0
    oldest: int | None = None  # when the first of those in line was queued


def declared(row: QueueRow, limits: Limits) -> QueueRow:
    """The queue after a launch of code that declares these limits: what was changed live stays as it is."""
    return msgspec.structs.replace(row, declared=limits, limits=effective(limits, row.live))


def changed(row: QueueRow, change: QueueChange) -> QueueRow:
    """The queue after an operator's change."""
    live = {} if change.reset else dict(row.live)
    live.update(change.limits)
    return msgspec.structs.replace(
        row, live=live, limits=effective(row.declared, live),
        paused=row.paused if change.paused is None else change.paused,
    )  # fmt: skip


def effective(code: Limits | None, live: dict[str, Any]) -> Limits:
    """What the code declares, with what was changed live over it."""
    return msgspec.structs.replace(Limits() if code is None else code, **live)
