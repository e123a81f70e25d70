"""Invariants of what is deleted."""

from __future__ import annotations

from perdure.testing.histcheck.evidence import KEYS, Change, Evidence, status_of
from perdure.testing.histcheck.judge import Findings, invariant

WHOLE = (
    "past_run",
    "payload",
    "history",
    "event",
)  # written under the lock of the workflow's row: no late one can come


@invariant("I72")
def what_goes_goes_whole(of: Evidence, found: Findings) -> None:
    """A workflow is deleted closed (or by a policy's decision) and whole: its id begins again with nothing."""
    decided = {change.row["id"] for change in of.of("decision") if change.row.get("decision") == "delete"}
    left: dict[str, dict[tuple[object, ...], Change]] = {}
    gone: dict[str, Change] = {}
    for change in of.changes:
        id = change.row.get("id", "")
        if change.table in WHOLE:
            key = (change.table, *(change.row[name] for name in KEYS[change.table]))
            if change.new is None:
                left.get(id, {}).pop(key, None)
            else:
                left.setdefault(id, {})[key] = change
        elif change.table == "workflow" and change.new is None:
            found.look()
            gone[id] = change
            if change.old is not None and status_of(change.old).open and id not in decided:
                found.violated(f"{id} was deleted while it was {status_of(change.old)}", change)
        elif change.table == "workflow" and change.op == "insert" and id in gone:
            _nothing(found, left, id, gone.pop(id), change)
    for id, change in gone.items():
        _nothing(found, left, id, change, None)


def _nothing(
    found: Findings, left: dict[str, dict[tuple[object, ...], Change]], id: str, gone: Change, again: Change | None
) -> None:
    """Nothing of a workflow outlives it. What was written in the commit that begins it again is its own."""
    for change in left.get(id, {}).values():
        if change.n < gone.n and (again is None or not change.tx or change.tx != again.tx):
            found.violated(f"a row of {change.table} outlived {id}", change, gone)
