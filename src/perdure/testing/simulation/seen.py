"""Points that are seen in the evidence of a world, after it has ended."""

from __future__ import annotations

from perdure.model.records import Kind
from perdure.model.schedules import State
from perdure.model.states import VERSIONINGS, Status, Versioning
from perdure.testing.histcheck.evidence import Evidence, kind_of, outcome_of, status_of
from perdure.testing.histcheck.invariants.queues import let_through
from perdure.testing.simulation.sometimes import sometimes


def look(of: Evidence) -> None:
    """Count what happened in this world."""
    _records(of)
    _queues_and_schedules(of)
    for id, changes in of.workflows.items():
        taken = 0
        for change in changes:
            old, new = change.old, change.new
            if old is None or new is None:
                continue
            before, after = status_of(old), status_of(new)
            sometimes("a workflow began its next run", new["run"] > old["run"])
            if old["version"] not in ("", new["version"]) and new["run"] == old["run"]:
                upgraded = VERSIONINGS[new["versioning"]] is Versioning.AUTO_UPGRADE
                sometimes("work was upgraded" if upgraded else "work was adopted by another version")
            if new["run"] == old["run"] and after is not before:
                sometimes(f"a workflow went from {before} to {after}")
            taken += new["attempts"] > old["attempts"]
            owners = (old["owner"], new["owner"])
            sometimes("a lost claim was found", None not in owners and owners[0] == owners[1]
                      and old["claim"] != new["claim"])  # fmt: skip
        sometimes("work was taken over", taken)
        sometimes("one workflow was taken over twice", taken > 1)
        parent = of.ends.get(of.ends[id]["parent"] or "") if id in of.ends else None
        sometimes("a child outlived its parent", parent is not None and _outlived(parent, of.ends[id]))
    for key, begun in of.begun.items():
        again = {line["attempt"] for line in begun}
        sometimes("a step was run again", len(begun) > len(again) and key)
    for change in of.of("incarnation"):
        old, new = change.old, change.new
        if old is not None and new is not None and (old["state"], new["state"]) == ("alive", "dead"):
            sometimes("a death was known by the lease alone", old["lease_until"] <= change.at)
            same = [c for c in of.of("incarnation") if c.op == "insert" and c.row["pid"] == new["pid"]]
            sometimes("who was declared dead came back as another", len(same) > 1)
    for asked, answer in of.answers:
        if asked["op"] == "send" and answer["type"] == "fail":
            sometimes("a late message met an ended workflow", answer["error"] == "WorkflowClosed")


def _records(of: Evidence) -> None:
    for changes in of.records.values():
        for change in changes:
            row = change.row
            kind, outcome = kind_of(row), outcome_of(row).name
            sometimes(f"a {kind.name} was recorded")
            sometimes("a receive timed out", kind is Kind.RECV and outcome == "NONE")
            if outcome == "ERROR":
                sometimes("a step at most once was left unknown", "StepOutcomeUnknown" in row["data"])
                sometimes("a message met nobody", kind is Kind.SEND)


def _queues_and_schedules(of: Evidence) -> None:
    for id, changes in of.workflows.items():
        if changes[0].row["queue"] is None:
            continue
        sometimes("an item of a queue was let through", any(map(let_through, changes)))
        sometimes("an item of a queue was taken over", of.ends.get(id, {"attempts": 0})["attempts"])
    for change in of.of("firing"):
        if change.new is not None:
            sometimes(f"a nominal time was {State(change.new['state']).name.lower()}")


def _outlived(parent: dict[str, object], child: dict[str, object]) -> bool:
    closed = parent["closed"]
    if status_of(parent).open or not isinstance(closed, int):
        return False
    ended = child["closed"]
    return status_of(child) is not Status.CANCELLED and (not isinstance(ended, int) or ended > closed)
