"""Invariants of steps: what they did outside, beside what is recorded of them. Only what the ledger has is judged."""

from __future__ import annotations

from typing import Any

from perdure.model.records import Kind
from perdure.testing.histcheck.evidence import Change, Evidence, Row, kind_of, outcome_of
from perdure.testing.histcheck.judge import Findings, invariant

# An audit on SQLite tells the time in milliseconds: what is closer together than this has no order.
CLOSE_US = 2_000


def _outcomes(of: Evidence) -> dict[tuple[str, int, str], Change]:
    """The final record of each step."""
    return {
        (id, run, change.row["path"]): change
        for (id, run), changes in of.records.items()
        for change in changes
        if kind_of(change.row) is Kind.STEP
    }


@invariant("I10")
def order_is_replayed(of: Evidence, found: Findings) -> None:
    """A call at a path is made with the same arguments by every life: what it saw before is replayed in its order."""
    for (id, _run, path), begun in of.begun.items():
        found.look()
        for line in begun[1:]:
            if (line["name"], line["args"]) != (begun[0]["name"], begun[0]["args"]):
                found.violated(f"another call at path {path} of {id} in another life", begun[0], line)


@invariant("I11")
def never_after_its_record(of: Evidence, found: Findings) -> None:
    """A step runs before its outcome is recorded, never after, and no more often than attempts and claims allow."""
    outcomes = _outcomes(of)
    for key, begun in of.begun.items():
        found.look()
        id, run, path = key
        record = outcomes.get(key)
        for line in begun:
            if record is not None and _late(of, line, record):
                found.violated(f"path {path} of {id} ran again after its record", record, line)
        attempts = max(line["attempt"] for line in begun)
        claims = sum(claim.run == run for claim in of.claims.get(id, ()))
        if len(begun) > attempts - 1 + max(1, claims):
            found.violated(f"path {path} of {id} ran {len(begun)} times in {claims} claims", *begun)
    known = {(line["w"], line["run"]) for line in of.ledger}
    noted = _noted_names(of, outcomes)
    for (id, run, path), record in outcomes.items():
        missing = (id, run) in known and (id, run, path) not in of.begun and record.row["name"] in noted
        if (id, run, "skip") in of.decided or _kept(of, id, run, record) or (id, run, record.row["seq"]) in of.given:
            continue
        if missing and outcome_of(record.row).name == "VALUE":
            found.violated(f"path {path} of {id} has an outcome and never ran", record)


def _kept(of: Evidence, id: str, run: int, record: Change) -> bool:
    """Whether a run that was rewound or forked has it of another."""
    return bool(record.row["seq"] < of.kept.get((id, run), 0))


def _late(of: Evidence, line: Row, record: Change) -> bool:
    """Whether an effect began under a claim that had the record to see, or after it under the claim that wrote it."""
    claim = of.claim_of.get((line["w"], line["claim"]))
    if claim is None:
        return False
    if claim.n > record.n and claim.run == record.row["run"]:
        return True
    if (line["w"], record.row["run"], record.row["seq"]) in of.given:
        return False  # by a person: who runs it learns of that at its next write, and may begin another attempt
    now = of.row_at(line["w"], record.n)
    return now is not None and now["claim"] == line["claim"] and line["at"] > record.at + CLOSE_US


def _noted_names(of: Evidence, outcomes: dict[tuple[str, int, str], Change]) -> set[str]:
    """Names of steps that write the ledger: all their calls do."""
    return {outcomes[key].row["name"] for key in of.begun if key in outcomes}


@invariant("I12")
def failed_attempts_are_recorded(of: Evidence, found: Findings) -> None:
    """Each failed attempt that is retried is recorded, in order, before the next one begins."""
    for (id, run), changes in of.records.items():
        last: dict[str, int] = {}
        for change in changes:
            row = change.row
            if kind_of(row) not in (Kind.STEP, Kind.ATTEMPT):
                continue
            found.look()
            if row["attempt"] != last.get(row["path"], 0) + 1:
                found.violated(f"attempt {row['attempt']} at path {row['path']} of {id} comes too early", change)
            last[row["path"]] = row["attempt"]
        for path, attempt in last.items():
            begun = [line for line in of.begun.get((id, run, path), ()) if line["attempt"] > attempt + 1]
            if begun:
                found.violated(f"an attempt at path {path} of {id} began before the last was recorded", begun[0])


@invariant("I13")
def at_most_once(of: Evidence, found: Findings) -> None:
    """A step declared ``at_most_once`` begins at most once."""
    for (id, _run, path), begun in of.begun.items():
        if begun[0]["once"]:
            found.look()
            if len(begun) > 1:
                found.violated(f"path {path} of {id} began {len(begun)} times", *begun)


@invariant("I15")
def idempotency_keys(of: Evidence, found: Findings) -> None:
    """A step's idempotency key is the same at every attempt on every executor, and that of no other step."""
    owners: dict[str, tuple[Any, ...]] = {}
    lines: dict[str, Row] = {}
    for (id, run, path), begun in of.begun.items():
        found.look()
        place = (id, of.lineages.get((id, run), run), path)
        for line in begun:
            if line["key"] != begun[0]["key"]:
                found.violated(f"two keys at path {path} of {id}", begun[0], line)
            if owners.setdefault(line["key"], place) != place:
                found.violated("two steps have one key", lines[line["key"]], line)
            lines.setdefault(line["key"], line)


@invariant("I46")
def nothing_begins_after_the_end(of: Evidence, found: Findings) -> None:
    """No step begins under a claim once the workflow was closed under it.

    Closed from outside, by a command that takes the token: what was about to run, or to be tried again, may begin once
    more, for who runs it learns of the end at its next write.
    """
    for id, changes in of.workflows.items():
        for change in changes:
            old, new = change.old, change.new
            if old is None or new is None or new["closed"] is None or old["closed"] is not None:
                continue
            found.look()
            taken = old["claim"] != new["claim"]
            for (w, run, path), begun in of.begun_of.get(id, ()):
                late = [line for line in begun if line["claim"] == old["claim"] and line["at"] > change.at + CLOSE_US]
                for line in late[taken:]:
                    if (w, run) == (id, new["run"]):
                        found.violated(f"path {path} of {id} began after the end", change, line)
