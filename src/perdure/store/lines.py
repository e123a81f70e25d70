"""What a queue lets through, decided from what is counted: the one place that knows what limits mean.

Pure: a dialect counts under the queue's lock, asks ``Dealer`` how many of each partition may go, takes them, and says
what it got. Partitions are dealt to in turn, one each round, from the one after that which was served last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from perdure.model.ids import RunKey
from perdure.model.queues import Limits, partition_of, queue_of
from perdure.model.records import Claimed, WorkflowRow
from perdure.model.states import Reason, Status, Versioning

HOPS = 256  # partitions looked at in one claim: where there are more, the next claim goes on from there
PRUNED = 8  # deduplication keys looked at, beside the one that is asked for: those that count no more are forgotten
_MANY = 2**31 - 1


class Line(NamedTuple):
    """A queue in whose line somebody stands."""

    queue: str
    partitioned: bool  # whether somebody there has a partition


def lines_of(bounds: Iterable[tuple[str, str]]) -> list[Line]:
    """Lines, from the first and the last lane of each."""
    return [Line(queue_of(first), partition_of(last) != "") for first, last in bounds]


class LineRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Ask for up to ``limit`` of what stands in the line of a queue."""

    queue: str
    owner: bytes
    token: bytes
    version: str
    limit: int
    mine: int = 0  # what the asker has of this queue already
    partitioned: bool = False  # whether somebody in line has a partition
    limited: bool = True  # whether the queue may have limits; if not, and it has got some meanwhile: nothing
    fresh: bool = True  # also what has no version yet
    series: int | None = None  # where the queue limits each executor: see `Store.new_series`

    @property
    def versions(self) -> list[str]:
        """Of which versions."""
        return versions_of(self.version, fresh=self.fresh)


def versions_of(version: str, *, fresh: bool) -> list[str]:
    """What an executor of a version takes: of that version and, if it is to have that, what has none yet."""
    return sorted({"", version}) if fresh else [version]


class Declared(msgspec.Struct, frozen=True, kw_only=True):
    """A claimed workflow that was started without its code, and never begun: what that declares of it."""

    id: str
    queue: str
    versioning: Versioning
    since: int | None = None  # its place among those of its priority; None: behind those who stand in line now
    versioned: bool = True  # else it has no version, as before the claim


class LineClaim(msgspec.Struct, frozen=True, kw_only=True):
    """What was let through."""

    claimed: list[Claimed] = msgspec.field(default_factory=lambda: [])
    again: int | None = None  # when its rate lets more through, if that is what stopped it
    more: bool = False  # whether it was only the asker's room, or the number of partitions, that stopped it


class Deduplicated(msgspec.Struct, frozen=True, kw_only=True):
    """How a start that has a deduplication key is to be made, times in microseconds."""

    key: str
    debounce: int | None = None  # one that was not begun yet waits so long from now on, with the new input
    debounce_max: int | None = None  # … but not longer than this from its first start on
    over: RunKey | None = None  # if this is the latest run of the start's id, and closed: begin the next in its place

    def until(self, now: int, first: int) -> int:
        """How long one waits that was first started then."""
        until = now + (self.debounce or 0)
        return until if self.debounce_max is None else max(now, min(until, first + self.debounce_max))


def prolongable(row: WorkflowRow, name: str) -> bool:
    """Whether it is one of this workflow that was not begun yet, so that a new start of its key prolongs its wait.

    One that was paused before it began is none the less: it waits, and stays paused.
    """
    waits = row.status in (Status.SCHEDULED, Status.QUEUED) or row.reason is Reason.PAUSED
    return waits and row.started is None and row.lane is not None and row.name == name


class Used(msgspec.Struct, frozen=True):
    """What is counted of a queue, under its lock."""

    now: int
    live: Mapping[str, int]  # in progress, by partition
    starts: Sequence[tuple[str, int, int]]  # partition, when, how many: within the longest window


class Dealer:
    """How many of each partition may go."""

    def __init__(self, limits: Limits, used: Used, limit: int, mine: int) -> None:
        self.limits = limits
        self.used = used
        self.again: int | None = None
        self.last: str | None = None  # who was dealt to last
        self._live = Counter(used.live)
        self._lately: Counter[str] = Counter()
        self.room = limit
        if limits.worker_concurrency is not None:
            self.room = min(self.room, limits.worker_concurrency - mine)
        if limits.concurrency is not None:
            self.room = min(self.room, limits.concurrency - sum(used.live.values()))
        if limits.rate_limit is not None:
            period = limits.rate_period or 0
            since = used.now - period
            lately = [(at, n) for _, at, n in used.starts if at >= since]
            left = limits.rate_limit - sum(n for _, n in lately)
            if left < self.room:
                self._wait_for(min((at for at, _ in lately), default=used.now) + period + 1)
            self.room = min(self.room, left)
        if limits.partition_rate_limit is not None:
            since = used.now - (limits.partition_rate_period or 0)
            for partition, at, n in used.starts:
                if at >= since:
                    self._lately[partition] += n
        self.room = max(0, self.room)

    def _wait_for(self, when: int) -> None:
        self.again = when if self.again is None else min(self.again, when)

    def free(self, partition: str) -> int:
        """How many more of one partition may go."""
        limits, free = self.limits, _MANY
        if limits.partition_concurrency is not None:
            free = limits.partition_concurrency - self._live[partition]
        if limits.partition_rate_limit is not None:
            left = limits.partition_rate_limit - self._lately[partition]
            if left < free:
                period = limits.partition_rate_period or 0
                since = self.used.now - period
                own = [at for of, at, _ in self.used.starts if of == partition and at >= since]
                self._wait_for(min(own, default=self.used.now) + period + 1)
            free = min(free, left)
        return max(0, free)

    def deal(self, partitions: Iterable[str]) -> dict[str, int]:
        """Quotas for these, in their order."""
        left = self.room
        free = {partition: self.free(partition) for partition in partitions}
        open = [partition for partition, n in free.items() if n]
        quotas = dict.fromkeys(open, 0)
        while left and open:
            share = max(1, left // len(open))
            further: list[str] = []
            for partition in open:
                n = min(share, free[partition] - quotas[partition], left)
                quotas[partition] += n
                left -= n
                self.last = partition
                if not left:
                    break
                if quotas[partition] < free[partition]:
                    further.append(partition)
            open = further
        return {partition: n for partition, n in quotas.items() if n}

    def gave(self, partition: str, n: int) -> None:
        """So many of a partition have gone."""
        self.room -= n
        self._live[partition] += n
        self._lately[partition] += n
