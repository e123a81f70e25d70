"""Invariants of workflows as such: their records, their holder, their status, their times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec

from perdure.model.queues import DELAYED
from perdure.model.records import Kind
from perdure.model.states import MOVES, Status
from perdure.testing.histcheck.evidence import Change, Evidence, Row, kind_of, outcome_of, status_of
from perdure.testing.histcheck.judge import Findings, invariant

NOWHERE = (Kind.ATTEMPT, Kind.CANCEL, Kind.INTENT, Kind.DECISION)  # records that come without getting anywhere
SUSPECT_DEATHS = 2
OVER = ("dead", "gone", "released", "forgotten", "")  # of an owner; the last: no row tells of it
QUIET_US = 30_000_000  # once healed, whatever has not changed for so long is stuck
OF_TROUBLE = ("DatabaseTrouble", "LostAnswer", "Overloaded")


@invariant("I1")
def outcomes_never_change(of: Evidence, found: Findings) -> None:
    """A recorded outcome never changes, and is deleted only with its workflow."""
    present: set[str] = set()
    seen: dict[tuple[Any, ...], Change] = {}
    for change in of.changes:
        row = change.row
        if change.table == "workflow":
            (present.discard if change.new is None else present.add)(row["id"])
        if change.table != "history":
            continue
        found.look()
        key = (row["id"], row["run"], row["path"], row["kind"], row["attempt"] if kind_of(row).name == "ATTEMPT" else 0)
        if change.op == "update":
            if change.old != change.new:  # a repeated write locks the record that it finds, as an update of nothing
                found.violated("a record was changed", seen.get(key, change.old), change)
        elif change.op == "delete" and row["id"] in present:
            found.violated("a record was deleted, its workflow was not", change)
        elif change.op == "insert" and kind_of(row).name in ("STEP", "ATTEMPT", "CHILD", "RESULT", "EVENT", "RECV"):
            if key in seen:
                found.violated(f"two outcomes at path {row['path']} of {row['id']}", seen[key], change)
            seen[key] = change
    for change in of.of("payload"):
        old, new = change.old, change.new
        if change.op == "update" and old and new and old["outcome"] and _output(old) != _output(new):
            found.violated(f"the outcome {old['output']} of {new['id']} was replaced", change)


def _output(row: Row) -> tuple[Any, Any]:
    return row["outcome"], row["output"]


@invariant("I2")
def only_the_holder_writes(of: Evidence, found: Findings) -> None:
    """Each record was written by the process that held the claim at that moment (tokens tell who made them)."""
    for (id, run), changes in of.records.items():
        for change in changes:
            row = of.row_at(id, change.n)
            if row is None or row["claim"] is None:
                row = _after(of, id, change)  # a start is inserted in the same commit, maybe after its records
            if row is None or row["claim"] is None:
                continue
            found.look()
            writer, holder = change.row["nonce"][:16], row["claim"][:16]
            if row["run"] == run + 1 and change.tx and _same_commit(of, id, change):
                continue  # the last records of a run that continued as new
            ordered = kind_of(change.row) is Kind.DECISION or (id, run, change.row["seq"]) in of.given
            if ordered and (moved := _after(of, id, change)) is not None:
                holder = (moved["claim"] or "")[:16]  # a person's move or skip, who takes the token with it
            if writer != holder or row["run"] != run:
                claim = of.claim_of.get((id, row["claim"]))
                given = [c for c in of.workflows[id] if claim is not None and c.n == claim.n]
                found.violated(f"a record of {id} run {run} was written by who did not hold it", *given, change)


def _after(of: Evidence, id: str, change: Change) -> Row | None:
    return next((c.new for c in of.workflows.get(id, ()) if c.n > change.n and (not c.tx or c.tx == change.tx)), None)


def _same_commit(of: Evidence, id: str, change: Change) -> bool:
    return any(c.tx == change.tx for c in of.workflows[id])


@invariant("I3")
def starts_last_and_end(of: Evidence, found: Findings) -> None:
    """An acknowledged start is durable; after the heal each workflow has ended, or rests for a listed reason."""
    for asked, answer in of.answers:
        if asked["op"] == "start" and answer["type"] == "ok":
            found.look()
            if asked["w"] not in of.workflows:
                found.violated(f"the start of {asked['w']} was acknowledged and is not there", asked, answer)
    if of.healed is None or not of.changes:
        return
    end = max([of.changes[-1].at, *(line["at"] for line in of.faults)])
    versions = {who["version"] for who in of.final("incarnation").values() if who["state"] == "alive"}
    woken = {dest for dest, _ in of.final("wake")}
    for id, row in of.ends.items():
        found.look()
        if stuck := _stuck(row, end, versions, woken=id in woken):
            found.violated(f"{id} is {status_of(row)} and nothing happens: {stuck}", of.workflows[id][-1])


def _stuck(row: Row, end: int, versions: set[str], *, woken: bool) -> str:
    status = status_of(row)
    until = row["until"] if row["until"] is not None else end
    if not status.open or status is Status.HELD or end - row["updated"] < QUIET_US:
        return ""
    if status is Status.RUNNING:
        return "running, for longer than a wait stays in memory"
    if status is Status.WAITING and woken:
        return "woken, and nobody claims it"
    if status is Status.WAITING and row["until"] is None:
        return ""
    if row["version"] not in {"", *versions}:
        return ""  # stranded: no executor of its version
    return "due, and nobody claims it" if end - until >= QUIET_US else ""


@invariant("I4")
def one_row_one_winner(of: Evidence, found: Findings) -> None:
    """Of all starts of one id one wins: one row, whose runs count up by one, each with one name, input and lineage."""
    for id, changes in of.workflows.items():
        found.look()
        inserts = [change for change in changes if change.op == "insert"]
        deletes = sum(change.op == "delete" for change in changes)
        if len(inserts) > deletes + 1:
            found.violated(f"{id} was begun twice", *inserts)
        for change in changes:
            old, new = change.old, change.new
            if old is None or new is None:
                continue
            if new["run"] not in (old["run"], old["run"] + 1):
                found.violated(f"{id} went from run {old['run']} to {new['run']}", change)
            fixed: tuple[str, ...] = ("name", "lineage", "created")
            if old["lane"] is None or new["lane"] != DELAYED:  # else it may be debounced: the newest input counts
                fixed += ("nonce", "fingerprint")
            if new["run"] == old["run"] and any(old[name] != new[name] for name in fixed):
                found.violated(f"{id} became another workflow within run {new['run']}", *_pair(changes, change))


@invariant("I5")
def status_moves(of: Evidence, found: Findings) -> None:
    """A status moves only along the published table; a run that ended stays as it ended."""
    past = of.final("past_run")
    for id, changes in of.workflows.items():
        for change in changes:
            old, new = change.old, change.new
            if old is None or new is None:
                continue
            found.look()
            before, after = status_of(old), status_of(new)
            if new["run"] == old["run"]:
                if after is not before and after not in MOVES[before] and not _debounced(old, new):
                    found.violated(f"{id} went from {before} to {after}", *_pair(changes, change))
            elif before.open and (id, old["run"]) not in past:
                found.violated(f"run {old['run']} of {id} was {before} and is not kept", *_pair(changes, change))


def _debounced(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether another start of its key has sent one that was in line, and not begun, to wait again."""
    waits = (status_of(old), status_of(new)) == (Status.QUEUED, Status.SCHEDULED)
    return waits and old["started"] is None and old["lane"] is not None and old["nonce"] != new["nonce"]


@invariant("I6")
def a_path_is_one_call(of: Evidence, found: Findings) -> None:
    """What is recorded at a path is of one kind, name and fingerprint, in every attempt."""
    seen: dict[tuple[Any, ...], Change] = {}
    for (id, run), changes in of.records.items():
        for change in changes:
            row = change.row
            if kind_of(row).name not in ("STEP", "ATTEMPT"):
                continue
            found.look()
            first = seen.setdefault((id, run, row["path"]), change).row
            if (row["name"], row["fingerprint"]) != (first["name"], first["fingerprint"]):
                found.violated(f"two calls at path {row['path']} of {id}", seen[id, run, row["path"]], change)


@invariant("I7")
def no_gaps(of: Evidence, found: Findings) -> None:
    """A run's records are gapless from 1, in the order of their commits, and a closed row counts them all."""
    for (id, _run), changes in of.records.items():
        for before, change in zip([None, *changes], changes, strict=False):
            found.look()
            expected = 1 if before is None else before.row["seq"] + 1
            if change.row["seq"] != expected:
                found.violated(f"record {change.row['seq']} of {id} where {expected} was next", before, change)
    for id, row in of.ends.items():
        last = max((change.row["seq"] for change in of.records.get((id, row["run"]), ())), default=0)
        if not status_of(row).open and row["closed"] and row["last_seq"] != last and _ended_by_itself(row):
            found.violated(f"{id} ended with {last} records and says {row['last_seq']}", of.workflows[id][-1])


def _ended_by_itself(row: Row) -> bool:
    return status_of(row) in (Status.COMPLETED, Status.FAILED)


@invariant("I8")
def one_result_for_all(of: Evidence, found: Findings) -> None:
    """Every reader gets the one stored result."""
    outputs: dict[str, list[Any]] = {}
    for (id, _run), row in of.final("payload").items():
        if row["outcome"] == 1:
            outputs.setdefault(id, []).append(msgspec.json.decode(row["output"]))
    for asked, answer in of.answers:
        if asked["op"] == "result" and answer["type"] == "ok":
            found.look()
            if answer["value"] not in outputs.get(asked["w"], []):
                found.violated(f"the result of {asked['w']} is {outputs.get(asked['w'])}", asked, answer)


@invariant("I9")
def attempts_count_deaths(of: Evidence, found: Findings) -> None:
    """Attempts are deaths in a row: one more when the work of the dead is taken over, none when it got anywhere.

    Nothing else counts. Beside a suspect (two deaths in a row) others are not counted: it was most likely the cause.
    """
    states = _states(of)
    for id, changes in of.workflows.items():
        counted_on = (-1, 0)  # the commit that rewound it, and the deaths of the run before
        for change in changes:
            old, new = change.old, change.new
            if old is None or new is None:
                continue
            if old["run"] != new["run"]:
                counted_on = (change.tx, old["attempts"]) if old["lineage"] == new["lineage"] else (-1, 0)
                continue
            if counted_on[0] == change.tx and new["attempts"] <= counted_on[1]:
                continue
            former: str | None = old["owner"]
            left = former is not None and former != new["owner"]
            state = states.at(former, change.n) if former is not None and left else ""
            died = left and (new["owner"] is not None or state in OVER)  # else it gave it back
            if not died and new["attempts"] <= old["attempts"]:
                continue
            found.look()
            more = new["attempts"] - old["attempts"]
            if more > int(died):
                found.violated(f"{id} counts {more} more deaths", *_pair(changes, change))
            elif former is not None and new["owner"] is not None and state == "dead":
                tries = _deaths_in_a_row(of, old, _before(change.n))
                if new["attempts"] <= tries and not _held_a_suspect(of, former, change):
                    found.violated(f"the death of its holder is not counted for {id}", *_pair(changes, change))


def _before(n: int) -> Callable[[Change], bool]:
    return lambda change: change.n < n


def _deaths_in_a_row(of: Evidence, row: Row, seen: Callable[[Change], bool]) -> int:
    """The deaths that a run has been through without getting anywhere, as its holder's row and records tell."""
    for change in of.records.get((row["id"], row["run"]), ()):
        record = change.new
        came = record is not None and seen(change) and record["seq"] > row["last_seq"]
        if came and kind_of(change.row) not in NOWHERE:
            return 0
    return int(row["attempts"])


def _held_a_suspect(of: Evidence, owner: str, taken: Change) -> bool:
    """Whether an executor died with a run in its hands that had been through two deaths in a row already.

    It may have been cut off, or stopped, in the commit with which that run got somewhere: until this goes on, the run
    is in its hands for all others. Who takes over has looked at some moment between the death and its own commit.
    """
    death = [c for c in of.of("incarnation") if c.row["id"] == owner and c.row["state"] == "dead"][:1]
    for id in of.workflows:
        views: list[tuple[Row | None, Callable[[Change], bool]]] = [
            (of.row_seen_by(who, id), partial(of.sees, who)) for who in (*death, taken)
        ]
        views += ((of.row_at(id, n), _before(n + 1)) for n in (*(c.n for c in death), taken.n - 1))
        for row, seen in views:
            if row is not None and row["owner"] == owner and _deaths_in_a_row(of, row, seen) >= SUSPECT_DEATHS:
                return True
    return False


@invariant("I47")
def deadlines_are_fixed(of: Evidence, found: Findings) -> None:
    """A deadline is fixed once, is not put off by recovery, and a child's is not later than its parent's."""
    for id, changes in of.workflows.items():
        for change in changes:
            old, new = change.old, change.new
            if new is None or new["deadline"] is None:
                continue
            found.look()
            if old and old["run"] == new["run"] and old["deadline"] not in (None, new["deadline"]):
                if old["owner"] is None and old["started"] is None:
                    continue  # the first claim counts the timeout from itself
                found.violated(f"the deadline of {id} was moved", *_pair(changes, change))
            parent = of.row_at(new["parent"], change.n) if new["parent"] else None
            bound = parent["deadline"] if parent and parent["run"] == new["parent_run"] else None
            if change.op == "insert" and bound is not None and bound < new["deadline"]:
                found.violated(f"child {id} has longer than its parent", of.workflows[new["parent"]][0], change)


@invariant("I32")
def timers_are_not_early(of: Evidence, found: Findings) -> None:
    """A wait is not over before its time, unless something woke it; a sleep lasts as long as it was told to.

    Effects whose args hold ``slept: [before, after, duration]`` (microseconds) tell of sleeps.
    """
    wakes: dict[str, int] = {}
    for change in of.changes:
        if change.table == "wake":
            dest = change.row["dest"]
            wakes[dest] = wakes.get(dest, 0) + (1 if change.op == "insert" else -1 if change.op == "delete" else 0)
        if change.table != "workflow" or change.old is None or change.new is None:
            continue
        old, new = change.old, change.new
        if status_of(old) is Status.WAITING and status_of(new) is Status.RUNNING and old["until"] is not None:
            found.look()
            if new["updated"] < old["until"] and wakes.get(new["id"], 0) <= 0:
                found.violated(f"{new['id']} was claimed before its time", *_pair(of.workflows[new["id"]], change))
    for line in of.ledger:
        if isinstance(line.get("args"), dict) and "slept" in line["args"]:
            found.look()
            before, after, duration = line["args"]["slept"]
            if after - before < duration:
                found.violated(f"{line['w']} slept {after - before} µs of {duration}", line)


@invariant("I45")
def cancel_answers_definitely(of: Evidence, found: Findings) -> None:
    """``cancel()`` answers with the status that the workflow ended with."""
    past = {(key[0], str(status_of(row))) for key, row in of.final("past_run").items()}
    for asked, answer in of.answers:
        if asked["op"] == "cancel" and answer["type"] == "ok":
            found.look()
            row = of.ends.get(asked["w"])
            if row is None or (answer["value"] != str(status_of(row)) and not _later_run(past, asked["w"])):
                last = of.workflows.get(asked["w"], [])[-1:]
                found.violated(f"cancelling {asked['w']} was answered {answer['value']!r}", asked, answer, *last)
    for (id, run), changes in of.records.items():
        closed = next((c for c in of.workflows.get(id, ()) if _closes(c, run)), None)
        late = [c for c in changes if closed is not None and c.n > closed.n and c.tx != closed.tx]
        if late and not _reopened(of, id, closed):
            found.violated(f"{id} was written to after its end", closed, late[0])


def _later_run(past: set[tuple[str, str]], id: str) -> bool:
    return any(of == id for of, _status in past)


def _closes(change: Change, run: int) -> bool:
    return change.new is not None and change.new["run"] == run and not status_of(change.new).open


def _reopened(of: Evidence, id: str, closed: Change | None) -> bool:
    return any(
        closed is not None and c.n > closed.n and c.new is not None and status_of(c.new).open for c in of.workflows[id]
    )


@invariant("I67")
def trouble_is_unknown(of: Evidence, found: Findings) -> None:
    """What was acknowledged is there, and a lost answer is called unknown, never a failure."""
    for asked, answer in of.answers:
        found.look()
        if answer["type"] == "fail" and answer.get("error") in OF_TROUBLE:
            found.violated("a client was told of trouble as if nothing had happened", asked, answer)


@invariant("I68")
def trouble_fails_nobody(of: Evidence, found: Findings) -> None:
    """Trouble with the database is never a workflow's failure, nor a step's."""
    names = tuple(f"perdure.errors.{name}" for name in OF_TROUBLE)
    for row in of.final("payload").values():
        if row["outcome"] == 2:
            found.look()
            if any(name in (row["output"] or "") for name in names):
                found.violated(f"{row['id']} failed of trouble with the database", row)
    for changes in of.records.values():
        for change in changes:
            if outcome_of(change.row).name == "ERROR" and any(name in (change.row["data"] or "") for name in names):
                found.violated("a step failed of trouble with the database", change)


# -- helpers


class States:
    """The state of each incarnation over the audit."""

    def __init__(self, of: Evidence) -> None:
        self._by_id: dict[str, list[tuple[int, str]]] = {}
        for change in of.of("incarnation"):
            state = "forgotten" if change.new is None else change.new["state"]
            self._by_id.setdefault(change.row["id"], []).append((change.n, state))

    def at(self, id: str, n: int) -> str:
        """The state before the audit's line ``n``; "" if nothing is known of it."""
        state = ""
        for at, then in self._by_id.get(id, ()):
            if at >= n:
                break
            state = then
        return state


def _states(of: Evidence) -> States:
    return States(of)


def _pair(changes: list[Change], change: Change) -> Iterator[Change]:
    """The change before, and the change."""
    at = changes.index(change)
    yield from changes[max(0, at - 1) : at + 1]
