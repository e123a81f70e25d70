"""Invariants of parents and children."""

from __future__ import annotations

from typing import Any

from perdure.model.ids import RunKey, child_id
from perdure.model.records import Kind
from perdure.model.states import Status
from perdure.testing.histcheck.evidence import Change, Evidence, kind_of, outcome_of, status_of
from perdure.testing.histcheck.judge import Findings, invariant


@invariant("I20")
def one_child_per_call(of: Evidence, found: Findings) -> None:
    """A call makes one child; one of a derived id and without a key, and the parent's record of it, are one commit."""
    calls: dict[tuple[Any, ...], Change] = {}
    for (id, run), changes in of.records.items():
        for change in changes:
            if kind_of(change.row) is Kind.CHILD:
                calls[id, run, change.row["path"]] = change
    children: dict[tuple[Any, ...], Change] = {}
    keyed = {change.row["id"] for change in of.of("dedup")}  # begun by transactions of their own
    for change in of.of("workflow"):
        row = change.row
        if change.op != "insert" or row["parent"] is None:
            continue
        found.look()
        call = (row["parent"], row["parent_run"], row["parent_path"])
        if call in children and children[call].row["id"] != row["id"]:
            found.violated("one call made two children", children[call], change)
        children[call] = change
        derived = row["id"] == child_id(RunKey(row["parent"], row["parent_run"]), row["parent_path"])
        if derived and row["id"] not in keyed:
            record = calls.get(call)
            if record is None:
                found.violated(f"child {row['id']} is there, its parent's record of it is not", change)
            elif record.tx != change.tx:
                found.violated(f"child {row['id']} and its parent's record are two commits", record, change)
    for (id, _run, path), record in calls.items():
        child = record.row["data"]
        if outcome_of(record.row).name == "VALUE" and child not in of.workflows:
            found.violated(f"{id} recorded a child at {path} that is not there", record)


@invariant("I21")
def parents_see_the_stored_result(of: Evidence, found: Findings) -> None:
    """The result that a parent has recorded is the one that its child has stored."""
    outputs: dict[str, set[Any]] = {}
    for (id, _run), row in of.final("payload").items():
        outputs.setdefault(id, set()).add(row["output"])
    for changes in of.records.values():
        for change in changes:
            row = change.row
            if kind_of(row) is Kind.RESULT and outcome_of(row).name == "VALUE" and row["name"] in of.workflows:
                found.look()
                if row["data"] not in outputs.get(row["name"], set()):
                    found.violated(f"{row['id']} saw another result of {row['name']} than is stored", change)


@invariant("I22")
def children_follow_their_parent(of: Evidence, found: Findings) -> None:
    """When a parent ends, each child that is to be cancelled with it is told so, and ends once all is healed."""
    if of.healed is None:
        return
    for id, row in of.ends.items():
        parent = of.ends.get(row["parent"]) if row["parent"] else None
        if parent is None or status_of(parent).open:
            continue
        if row["on_parent_close"] == "cancel":
            found.look()
            if status_of(row).open and status_of(row) is not Status.HELD:
                found.violated(f"{id} lives on without its parent", of.workflows[row["parent"]][-1],
                               of.workflows[id][-1])  # fmt: skip
