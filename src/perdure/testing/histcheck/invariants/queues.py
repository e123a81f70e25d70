"""Invariants of queues: limits, rates, deduplication, order; judged from the rows of workflows, not from counts.

An item is *let through* when its lane goes and it is held; it is *in progress* while it is of the queue, open, not held
(unless paused) and not in line. What claims of a queue see of ends is never more than the audit shows by then, so no
breach is made up.
"""

from __future__ import annotations

import bisect
from collections import defaultdict, deque
from collections.abc import Iterator
from typing import Any, NamedTuple

from perdure.model.queues import DELAYED, queue_of
from perdure.model.states import CODE, Reason, Status
from perdure.testing.histcheck.evidence import Change, Evidence, Row
from perdure.testing.histcheck.judge import Findings, invariant

RUNNING = CODE[Status.RUNNING]
IN_PROGRESS = frozenset(CODE[s] for s in (Status.QUEUED, Status.RUNNING, Status.WAITING))
FIRST_CLOSED = CODE[Status.COMPLETED]
SETTLED_US = 1_500_000  # after a change of limits, until every executor goes by it
FIRST = 2  # revision of a queue that was made known by what code declares
SLACK_US = 1_000_000  # what stood in line so long before and after somebody else went, was passed over


class Let(NamedTuple):
    """An item went through the line of its queue."""

    change: Change
    queue: str
    partition: str
    at: int


def let_through(change: Change) -> Let | None:
    """What a change let through."""
    old, new = change.old, change.new
    if change.table != "workflow" or old is None or new is None or new["queue"] is None:
        return None
    if old["lane"] in (None, DELAYED) or new["lane"] is not None or new["status"] != RUNNING:
        return None
    return Let(change, new["queue"], new["partition"], new["updated"])


def _counts(row: Row | None) -> bool:
    if row is None or row["queue"] is None or row["lane"] is not None:
        return False
    return row["status"] in IN_PROGRESS or row["reason"] == Reason.PAUSED


class Limits:
    """The limits of each queue as they were at a point of the audit."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self.since: dict[tuple[str, str], int] = {}  # when a limit got its value

    def see(self, change: Change) -> None:
        if change.table != "queue" or change.new is None:
            return
        name = change.new["name"]
        before = self._rows.get(name, {})
        for limit, value in change.new.items():
            if before.get(limit) != value:
                self.since[name, limit] = change.at if change.new["revision"] > FIRST else 0
        self._rows[name] = change.new

    def of(self, queue: str, limit: str) -> int | None:
        found: int | None = self._rows.get(queue, {}).get(limit)
        return found


@invariant("I34")
def no_more_in_progress_than_the_limit(of: Evidence, found: Findings) -> None:
    """When an item is let through, no more of its queue, and of its partition, is in progress than the limit allows."""
    limits, live = Limits(), defaultdict[tuple[str, str | None], int](int)
    for change in of.changes:
        limits.see(change)
        if change.table != "workflow":
            continue
        for row, by in ((change.old, -1), (change.new, 1)):
            if _counts(row):
                assert row is not None
                live[row["queue"], None] += by
                live[row["queue"], row["partition"]] += by
        let = let_through(change)
        if let is None:
            continue
        for key, limit in ((None, "concurrency"), (let.partition, "partition_concurrency")):
            bound = limits.of(let.queue, limit)
            if bound is not None:
                found.look()
                if live[let.queue, key] > bound:
                    found.violated(f"{live[let.queue, key]} of queue {let.queue} in progress, {limit} {bound}", change)


@invariant("I35")
def no_more_on_an_executor_than_the_limit(of: Evidence, found: Findings) -> None:
    """An executor that takes an item, let through or left by another, then holds no more of its queue than it may."""
    limits, held = Limits(), defaultdict[tuple[str, str], int](int)
    for change in of.changes:
        limits.see(change)
        if change.table != "workflow":
            continue
        for row, by in ((change.old, -1), (change.new, 1)):
            if row is not None and row["owner"] is not None and row["queue"] is not None:
                held[row["owner"], row["queue"]] += by
        new = change.new
        if new is None or new["owner"] is None or new["queue"] is None:
            continue
        if change.old is not None and change.old["owner"] == new["owner"]:
            continue
        bound = limits.of(new["queue"], "worker_concurrency")
        if bound is None or change.at - limits.since[new["queue"], "worker_concurrency"] < SETTLED_US:
            continue
        found.look()
        if held[new["owner"], new["queue"]] > bound:
            n = held[new["owner"], new["queue"]]
            found.violated(f"{n} of queue {new['queue']} on one executor, worker_concurrency {bound}", change)


@invariant("I36")
def no_window_has_more_starts_than_the_rate(of: Evidence, found: Findings) -> None:
    """Every window of a queue's period, by the database's clock, holds at most its limit of starts."""
    _rates(of, found, "rate", whole=True)


@invariant("I37")
def no_window_of_a_partition_has_more_starts(of: Evidence, found: Findings) -> None:
    """The same of each partition."""
    _rates(of, found, "partition_rate", whole=False)


def _rates(of: Evidence, found: Findings, rate: str, *, whole: bool) -> None:
    limits = Limits()
    windows: dict[tuple[str, str], deque[Let]] = defaultdict(deque)
    for change in of.changes:
        limits.see(change)
        let = let_through(change)
        if let is None:
            continue
        bound, period = limits.of(let.queue, rate + "_limit"), limits.of(let.queue, rate + "_period")
        if bound is None or period is None:
            continue
        window = windows[let.queue, "" if whole else let.partition]
        window.append(let)
        since = max(let.at - period, limits.since[let.queue, rate + "_period"])
        while window[0].at < since:
            window.popleft()
        found.look()
        if len(window) > bound:
            what = f"{len(window)} starts of queue {let.queue} in one window, {rate} {bound}"
            found.violated(what, window[0].change, change)


@invariant("I38")
def one_open_workflow_has_a_key(of: Evidence, found: Findings) -> None:
    """A key is given away or forgotten only when the workflow that has it is over (or, debounced, was begun)."""
    rows: dict[str, Row] = {}
    pending: list[tuple[Change, Row, str | None]] = []
    gone: set[tuple[int, str]] = set()  # keys go with their workflow
    for change in of.changes:
        if change.table == "workflow":
            if change.new is None:
                rows.pop(change.row["id"], None)
                gone.add((change.tx, change.row["id"]))
            else:
                rows[change.new["id"]] = change.new
        elif change.table == "dedup":
            found.look()
            id = None if change.new is None else change.new["id"]
            before = None if change.old is None or change.old["id"] == id else rows.get(change.old["id"])
            if before is not None and before["status"] < FIRST_CLOSED and before["queue"] == change.row["queue"]:
                pending.append((change, before, id))
    starts = {id: changes[0].new for id, changes in of.workflows.items()}
    for change, before, id in pending:
        start = None if id is None else starts.get(id)
        debounced = start is not None and start["lane"] == DELAYED
        if (change.tx, before["id"]) not in gone and (before["lane"] is not None or not debounced):
            found.violated(f"key {change.row['key']} of queue {change.row['queue']} was given away", change)


@invariant("I39")
def nobody_is_passed_over(of: Evidence, found: Findings) -> None:
    """Whoever is let through was first of those in line of its partition that its executor saw and could have taken."""
    lines: dict[tuple[str, str], list[tuple[str, int, str]]] = defaultdict(list)
    lined: dict[str, int] = {}
    passed: dict[str, list[Let]] = defaultdict(list)
    for change in of.changes:
        if change.table != "workflow":
            continue
        id = change.row["id"]
        for row, enters in ((change.old, False), (change.new, True)):
            place = _place(row)
            if place is None:
                continue
            line = lines[place[0]]
            if enters:
                bisect.insort(line, place[1])
                lined.setdefault(id, change.seen)
            elif place[1] in line:
                line.remove(place[1])
        if _place(change.new) is None and id in lined:
            del lined[id]
            for before in passed.pop(id, ()):
                if change.at - before.change.at > SLACK_US:
                    found.violated(f"{id} was passed over in queue {before.queue}", before.change, change)
        let = let_through(change)
        if let is not None:
            found.look()
            for other in _better(change, lines[let.queue, let.partition], of, lined):
                passed[other].append(let)


def _place(row: Row | None) -> tuple[tuple[str, str], tuple[str, int, str]] | None:
    """Where a row stands in line."""
    if row is None or row["lane"] in (None, DELAYED) or row["status"] != CODE[Status.QUEUED]:
        return None
    return (queue_of(row["lane"]), row["partition"]), (row["lane"], row["until"], row["id"])


def _better(change: Change, line: list[tuple[str, int, str]], of: Evidence, lined: dict[str, int]) -> Iterator[str]:
    """Who stood before it, for long enough to be seen, and could be taken by whoever took it."""
    old, new = change.old, change.new
    assert old is not None
    assert new is not None
    mine: tuple[Any, ...] = (old["lane"], old["until"])
    for lane, until, id in line:
        if (lane, until) >= mine:
            return
        row = of.row_at(id, change.n)
        fits = row is not None and row["version"] in ("", new["version"])
        late = row is not None and row["expires"] is not None and row["expires"] <= new["updated"]
        if fits and not late and change.at - lined[id] > SLACK_US:
            yield id
