"""Invariants of problems: what does not get on is visible from the first attempt, and no longer than that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from perdure.model.records import Kind
from perdure.testing.histcheck.evidence import Change, Evidence, Row, RunOf, kind_of, status_of
from perdure.testing.histcheck.judge import Findings, invariant

FAILED_STEP = "step_failed"
NOWHERE = (Kind.ATTEMPT, Kind.INTENT)

Place = tuple[str, str, str]  # kind, path, version


def _commits(of: Evidence) -> Iterator[tuple[str, list[Change]]]:
    """What each commit that has a name changed of each workflow: under the lock of its row, so one after the other."""
    changes: dict[str, list[Change]] = {}
    for change in of.changes:
        if change.tx and change.table in ("problem", "workflow", "history"):
            changes.setdefault(change.row["id"], []).append(change)
    for id, of_it in changes.items():
        for _, together in groupby(of_it, key=lambda change: change.tx):
            yield id, list(together)


@invariant("I12b")
def failures_are_visible_at_once(of: Evidence, found: Findings) -> None:
    """A failed attempt is a problem of its run in the commit that records it (judged where commits have names)."""
    for _, changes in _commits(of):
        told = {
            (c.row["id"], c.row["run"], c.row["path"]): c.row["attempt"] for c in changes
            if c.table == "problem" and c.row["kind"] == FAILED_STEP
        }  # fmt: skip
        for change in changes:
            row = change.row
            if change.table != "history" or change.op != "insert" or kind_of(row) is not Kind.ATTEMPT:
                continue
            if row["seq"] < of.kept.get((row["id"], row["run"]), 0) or _got_on(changes, row):
                continue
            found.look()
            if told.get((row["id"], row["run"], row["path"])) != row["attempt"]:
                found.violated(f"attempt {row['attempt']} at {row['path']} of {row['id']} is no problem", change)


def _got_on(changes: list[Change], attempt: Row) -> bool:
    """Whether in the same commit the run ended, or went on without the step: it was told to stop, for one."""
    mine = [c for c in changes if c.row.get("id") == attempt["id"]]
    ended = any(c.table == "workflow" and not status_of(c.row).open for c in mine)
    return ended or any(
        c.table == "history" and c.row["seq"] > attempt["seq"] and kind_of(c.row) not in NOWHERE for c in mine
    )


@invariant("I12c")
def problems_are_over_with_what_they_were(of: Evidence, found: Findings) -> None:
    """What has an outcome is no problem any more, and the row of an open run tells of each commit whether it has one.

    Of a transaction (``Evidence.transactions``), whose outcome is in the user's own commit, with the next that the run
    itself commits. (Judged where commits have names.)
    """
    open_ones: dict[RunOf, dict[Place, Change]] = {}
    rows: dict[str, Row | None] = {}
    late: dict[RunOf, list[Change]] = {}  # outcomes that are still to be looked at
    for id, changes in _commits(of):
        for change in changes:
            if change.table == "problem":
                _note(open_ones, change)
            elif change.table == "workflow":
                rows[id] = change.new
        for change in changes:
            if change.table == "history" and change.op == "insert" and kind_of(change.row) is Kind.STEP:
                places = late.setdefault((id, change.row["run"]), [])
                places.append(change)
                if change.row["name"] not in of.transactions:
                    _settled(found, open_ones, places)
                    places.clear()
        row = rows.get(id)
        if row is not None and status_of(row).open:
            _told(found, row, open_ones.get((id, row["run"]), {}), changes[-1])


def _note(open_ones: dict[RunOf, dict[Place, Change]], change: Change) -> None:
    row = change.row
    there = open_ones.setdefault((row["id"], row["run"]), {})
    place = (row["kind"], row["path"], row["version"])
    if change.new is None or row["cleared"] is not None:
        there.pop(place, None)
    else:
        there[place] = change


def _settled(found: Findings, open_ones: dict[RunOf, dict[Place, Change]], outcomes: Sequence[Change]) -> None:
    for change in outcomes:
        found.look()
        for (kind, path, _version), told in open_ones.get((change.row["id"], change.row["run"]), {}).items():
            if (kind, path) == (FAILED_STEP, change.row["path"]):
                found.violated(f"{change.row['id']} has got past {path}, and that is still its problem", told, change)


def _told(found: Findings, row: Row, problems: dict[Place, Change], change: Change) -> None:
    found.look()
    kinds = {kind for kind, _path, _version in problems}
    if row["problem"] is None and kinds:
        found.violated(f"{row['id']} has problems ({', '.join(sorted(kinds))}), and its row tells of none", change)
    elif row["problem"] is not None and row["problem"] not in kinds:
        found.violated(f"the row of {row['id']} tells of {row['problem']}, and there is no such problem", change)
