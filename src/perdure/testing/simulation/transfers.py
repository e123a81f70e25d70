"""What transactions promise, judged by what both databases were at each commit: see ``bank``.

- The sum of the accounts is the same after every commit, in each database.
- A call of a run is applied once at most, and not at all if its record tells of a failure.
- At home, a transfer and its record are one commit. Elsewhere a transfer and its row in the table are one commit; the
  record comes after it, tells of that very transfer, and is there when the run has completed.
- Nobody commits at home but the run's holder. Elsewhere nobody does but whose claim is the fence; and who has lost the
  run does not even try, but for what was on its way already.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from perdure.model.records import Kind, Outcome
from perdure.model.states import Status
from perdure.sessions.foreign import TABLE
from perdure.testing.histcheck.evidence import Change, Evidence, Row, kind_of, outcome_of, status_of
from perdure.testing.simulation.bank import ACCOUNTS, CENTS, SKIPPED, STEPS
from perdure.testing.simulation.sometimes import sometimes

Lines = Sequence[dict[str, Any]]
Place = tuple[str, int, str]  # workflow, run, path
FAILURES = ("LookupError", "StepTimeout")
CLOSE_US = 20_000  # from a look at the claim until the fence is asked for


def wrong(of: Evidence, home: Lines, away: Lines) -> str:
    """The first promise that was not kept; "" for none."""
    return (
        _sums(home) or _sums(away) or _once(home, away) or _failed(of, home, away) or _at_home(of, home)
        or _one_commit_elsewhere(away) or _elsewhere(of, away) or _by_its_holder(of, away)
    )  # fmt: skip


def _inserted(lines: Lines, table: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["table"] == table and line["op"] == "insert"]


def _place(row: Row) -> Place:
    return row["id"], row["run"], row["path"]


def _outcomes(of: Evidence) -> Iterable[Change]:
    """What was recorded of transactions, in order of commit."""
    for change in of.of("history"):
        if change.op == "insert" and kind_of(change.row) is Kind.STEP and change.row["name"] in STEPS:
            yield change


def _number(change: Change) -> int | None:
    """The transfer that a record tells of."""
    if outcome_of(change.row) is not Outcome.VALUE:
        return None
    number: int = json.loads(change.row["data"])
    return None if number == SKIPPED else number


def _first(of: Evidence) -> dict[int, Change]:
    """The first record of each transfer; a run that keeps records of another has them once more."""
    found: dict[int, Change] = {}
    for change in _outcomes(of):
        if (number := _number(change)) is not None:
            found.setdefault(number, change)
    return found


def _sums(lines: Lines) -> str:
    has: dict[str, int] = {}
    changes = (line for line in lines if line["table"] == "account")
    for tx, together in groupby(changes, key=lambda line: line["tx"]):
        has |= {line["row"]["name"]: line["row"]["cents"] for line in together}
        if sum(has.values()) != CENTS * len(ACCOUNTS):
            return f"after commit {tx} the accounts have {has}: not {CENTS * len(ACCOUNTS)} cents"
    return ""


def _once(home: Lines, away: Lines) -> str:
    for lines in (home, away):
        made: dict[Place, Row] = {}
        runs: dict[tuple[str, str], int] = {}
        for line in _inserted(lines, "transfer"):
            row = line["row"]
            if (before := made.setdefault(_place(row), row)) is not row:
                return f"applied twice: {before} and {row}"
            first = runs.setdefault((row["id"], row["path"]), row["run"])
            sometimes("a transfer was made again after a reset", first != row["run"])
    return ""


def _failed(of: Evidence, home: Lines, away: Lines) -> str:
    """What is recorded as a failure is the body's own or a timeout, and was never applied."""
    made = {_place(line["row"]) for lines in (home, away) for line in _inserted(lines, "transfer")}
    for change in _outcomes(of):
        if outcome_of(change.row) is not Outcome.ERROR:
            continue
        what = json.loads(change.row["data"])["type"].rpartition(":")[2]
        sometimes(f"a transaction failed: {what}")
        if what not in FAILURES:
            return f"a transaction failed by what is not the body's: {change} {change.row['data'][:300]}"
        if _place(change.row) in made:
            return f"recorded as a failure, and applied: {change}"
    return ""


def _at_home(of: Evidence, home: Lines) -> str:
    made = {line["row"]["token"]: line for line in _inserted(home, "transfer")}
    records = {n: change for n, change in _first(of).items() if change.row["name"] == STEPS[0]}
    sometimes("a transfer was made in the app's database", made)
    sometimes("an operator gave a transaction its result", any(c.row["data"] == str(SKIPPED) for c in _outcomes(of)))
    for number, line in made.items():
        record = records.get(number)
        if record is None or record.tx != line["tx"] or _place(record.row) != _place(line["row"]):
            return f"transfer {line['row']} and its record are not one commit: {record}"
        holder = of.row_at(line["row"]["id"], record.n)
        if holder is None or holder["claim"] != line["row"]["holder"]:
            return f"transfer {line['row']} was made by who did not hold the run: {holder}"
    missing = [str(record) for number, record in records.items() if number not in made]
    return f"recorded and never made: {missing[0]}" if missing else ""


def _one_commit_elsewhere(away: Lines) -> str:
    """Each transfer is with its row in the table, and the fence is its maker's."""
    fences: dict[str, str] = {}
    for _, together in groupby(away, key=lambda line: line["tx"]):
        lines = list(together)
        made = {_place(line["row"]): line["row"] for line in _inserted(lines, "transfer")}
        told = {_place(line["row"]) for line in _inserted(lines, TABLE) if line["row"]["run"]}
        if made.keys() != told:
            return f"a transfer and its row are not one commit: {made} and {told}"
        for row in made.values():
            if fences.get(row["id"]) != row["holder"]:
                return f"transfer {row} was made past the fence {fences.get(row['id'])}"
        for line in lines:
            if line["table"] == TABLE and not line["row"]["run"]:
                fences[line["row"]["id"]] = "" if line["op"] == "delete" else line["row"]["nonce"]
    return ""


def _elsewhere(of: Evidence, away: Lines) -> str:
    made = {line["row"]["token"]: line for line in _inserted(away, "transfer")}
    records = {n: change for n, change in _first(of).items() if change.row["name"] == STEPS[1]}
    outcomes = {_place(change.row): change for change in _outcomes(of)}
    sometimes("a transfer was made in another database", made)
    for number, record in records.items():
        line = made.get(number)
        if line is None or line["at"] > record.at or _place(record.row) != _place(line["row"]):
            return f"recorded and not made before: {record}"
        holder = of.row_at(record.row["id"], record.n)
        found = holder is not None and holder["claim"] != line["row"]["holder"]
        sometimes("a transfer was found in another database by the next holder", found)
    for number, line in made.items():
        row, outcome = line["row"], outcomes.get(_place(line["row"]))
        end = of.ends[row["id"]]
        if outcome is None and status_of(end) is Status.COMPLETED and end["run"] == row["run"]:
            return f"made, and the completed run has no record of it: {row}"
        if outcome is None or _number(outcome) == number:
            continue
        sometimes("an operator skipped what was made in another database", outcome.row["data"] == str(SKIPPED))
        if outcome.row["data"] != str(SKIPPED):
            return f"made, and recorded otherwise: {row} and {outcome}"
    return ""


def _by_its_holder(of: Evidence, away: Lines) -> str:
    """Who had lost the run has not asked for its fence: it looks right before, if nothing stops it in between."""
    held: dict[tuple[str, int, str], int] = defaultdict(int)  # until when
    for id, changes in of.workflows.items():
        for change in changes:
            if change.old is not None and change.old["claim"] is not None:
                held[id, change.old["run"], change.old["claim"]] = change.at
    now = max((change.at for change in of.changes), default=0) + 1
    for id, row in of.ends.items():
        held[id, row["run"], row["claim"]] = now
    for line in _inserted(away, "transfer"):
        row = line["row"]
        lost = held[row["id"], row["run"], row["holder"]]
        late = row["sealed"] - lost
        sometimes("a transfer was on its way when its run was lost", line["at"] > lost)
        if late > CLOSE_US and not _held_up(of, row):
            return f"transfer {row} was asked for {late / 1e6:.3f} s after its run was lost"
    return ""


def _held_up(of: Evidence, row: Row) -> bool:
    """Whether its process, or the app's database, stood still right before."""
    for fault in of.faults:
        if fault["fault"] in ("stop", "stall", "outage", "cut") and str(fault["whom"]) in ("", str(row["pid"])):
            until = fault["at"] + int(fault["seconds"] * 1e6)
            if fault["at"] - CLOSE_US <= row["sealed"] <= until + CLOSE_US:
                return True
    return False
