"""Invariants of schedules."""

from __future__ import annotations

from collections.abc import Iterator

from perdure.model.schedules import State
from perdure.model.states import CODE, Status
from perdure.schedules.judge import workflow_id
from perdure.schedules.times import Times
from perdure.testing.histcheck.evidence import Change, Evidence, Row
from perdure.testing.histcheck.judge import Findings, invariant

FIRST_CLOSED = CODE[Status.COMPLETED]
SPAN_MAX = 100_000  # nominal times that one step of ``next`` is compared at


@invariant("I41")
def one_workflow_per_nominal_time(of: Evidence, found: Findings) -> None:
    """A nominal time starts at most one workflow: its id derives from both, and it is there once that is noted."""
    starts: dict[str, Change] = {}  # the first of each id: what is deleted later may begin anew
    for change in of.of("workflow"):
        if change.op == "insert":
            starts.setdefault(change.row["id"], change)
    for change in of.of("firing"):
        row = change.new
        if row is None or row["workflow"] is None:
            continue
        found.look()
        if row["workflow"] != workflow_id(row["schedule"], row["at"]):
            found.violated("a firing names another workflow than that of its time", change)
        if row["state"] != State.STARTED:
            continue
        start = starts.get(row["workflow"])
        if start is None:
            found.violated("a firing was started, and its workflow never was", change)
        elif start.tx > change.tx:
            found.violated("a workflow was started in a later commit than its firing", change, start)


@invariant("I42")
def each_nominal_time_is_accounted_for(of: Evidence, found: Findings) -> None:
    """Every nominal time that a schedule has passed was started, skipped with a reason, or waits."""
    noted: dict[str, tuple[set[int], list[tuple[int, int]]]] = {}
    for change in of.of("firing"):
        if change.new is not None:
            singles, spans = noted.setdefault(change.row["schedule"], (set(), []))
            if change.row["at"] == change.row["until"]:
                singles.add(change.row["at"])
            else:
                spans.append((change.row["at"], change.row["until"]))
            if change.row["state"] == State.SKIPPED and not change.row["reason"]:
                found.violated("a time was skipped without a reason", change)
    for change, passed in _passed(of):
        singles, spans = noted.get(change.row["name"], (set(), []))
        for at in passed:
            found.look()
            if at not in singles and not any(first <= at <= last for first, last in spans):
                found.violated(f"nothing was noted of {workflow_id(change.row['name'], at)}", change)
                break


def _passed(of: Evidence) -> Iterator[tuple[Change, list[int]]]:
    """Steps of ``next``, with the nominal times that each left behind."""
    for change in of.of("schedule"):
        old, new = change.old, change.new
        if old is None or new is None or old["next"] is None or old["next"] == new["next"]:
            continue
        end = new["changed"] if new["next"] is None or _timing(old) != _timing(new) else new["next"] - 1
        times = Times(old["cron"], old["every"], old["tz"], old["anchor"])
        passed = [at for at, _ in zip(times.within(old["next"], end), range(SPAN_MAX), strict=False)]
        yield change, passed


def _timing(row: Row) -> tuple[object, ...]:
    return row["cron"], row["every"], row["tz"], row["anchor"]


@invariant("I44")
def a_schedule_moves_on_once(of: Evidence, found: Findings) -> None:
    """Each write of a schedule is of the revision before it; its next time never goes back; a start is never unsaid."""
    for change in of.of("schedule"):
        old, new = change.old, change.new
        if old is None or new is None:
            continue
        found.look()
        if new["revision"] != old["revision"] + 1:
            found.violated(f"revision {old['revision']} was followed by {new['revision']}", change)
        moved_back = None not in (old["next"], new["next"]) and new["next"] < old["next"]
        if moved_back and _timing(old) == _timing(new):
            found.violated("the next time went back", change)
    for change in of.of("firing"):
        if change.old is not None and change.new is not None and change.old["state"] == State.STARTED:
            found.look()
            if (change.new["state"], change.new["workflow"]) != (change.old["state"], change.old["workflow"]):
                found.violated("what was started was noted otherwise later", change)


@invariant("I44b")
def a_schedule_overlaps_if_it_may(of: Evidence, found: Findings) -> None:
    """With ``overlap`` skip or queue a time starts only when the workflow that was started before it is over."""
    for change in of.of("schedule"):
        old, new = change.old, change.new
        if old is None or new is None or old["last"] in (None, new["last"]) or new["overlap"] == "allow":
            continue
        if old["overlap"] == "allow":  # others than the last may be open
            continue
        found.look()
        before = of.row_at(old["last"], change.n)
        if before is not None and before["status"] < FIRST_CLOSED:
            found.violated(f"{new['last']} was started while {old['last']} was open", change)
