"""What a chaos run is judged by: the plan, the ledger, the clients' histories, the faults, and the database.

Plain checks, each a function that gives the violations it found. Nothing here asks the library.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from chaos import accounts
from chaos.accounts import Fired, of_schedule
from chaos.database import Database
from chaos.plan import Planned, matches
from perdure.model.records import Kind
from perdure.model.states import CODES
from perdure.testing import histcheck
from perdure.testing.histcheck import read_lines

STEP = int(Kind.STEP)
STEP_SECONDS = 1.0  # longer than any step of the plan takes
DECLARED_SECONDS = 30.0  # within which a process that was taken for dead hears of it
ALARMS = (  # that an executor raises in such a run, and should
    "was declared dead", "look expired together",
    "coro=<Play.",  # a task that a drawn body left behind, and what it raised ...
    "cleanup of Play.",  # ... or that its cleanup was refused
)  # fmt: skip
SLACK_SECONDS = 0.1  # between the statement that records and its commit


class Row(NamedTuple):
    """A workflow as the database has it."""

    id: str
    run: int
    name: str
    status: int
    reason: str | None
    detail: str
    parent: str | None
    attempts: int
    epoch: int
    owner: bytes | None
    queue: str | None
    partition: str

    @property
    def shown(self) -> str:
        return str(CODES[self.status])

    @property
    def open(self) -> bool:
        return CODES[self.status].open

    @property
    def root(self) -> str:
        return self.id.partition(":")[0]


class Line(NamedTuple):
    """An effect that began."""

    name: str
    key: str
    attempt: int
    id: str
    run: int
    path: str
    pid: int
    at: float


def _line(of: dict[str, Any]) -> Line:
    return Line(of["name"], of["key"], of["attempt"], of["w"], of["run"], of["path"], of["pid"], of["at"] / 1e6)


class Evidence:
    """All that a run left, read once."""

    def __init__(self, folder: Path, database: Database, planned: dict[str, Planned]) -> None:
        self.planned = planned
        self.folder = folder
        self.database = database
        lines = [line for path in sorted(folder.glob("*.ledger")) for line in read_lines(path)]
        self.ledger = [_line(line) for line in lines if line["phase"] == "begin"]
        self.faults = read_lines(folder / "faults")
        self.said = [line for path in sorted(folder.glob("*.log")) for line in read_lines(path)]
        self.history = [line for path in sorted(folder.glob("*.history")) for line in read_lines(path)]
        schema = database.schema
        rows = database.query(
            "select id, run, name, status, reason, detail, parent, attempts, epoch, owner, queue, partition "
            f"from {schema}workflow"
        )
        self.rows = {row[0]: Row(*row) for row in rows}
        self.counts = database.query(
            f"select app, id, run, count(*), max(seq), min(seq) from {schema}history group by app, id, run"
        )
        self.doubled = database.query(
            f"select id, run, path, count(*) from {schema}history where kind = {STEP} group by app, id, run, path "
            "having count(*) > 1"
        )
        self.untaken = database.query(f"select dest, count(*) from {schema}message where taken_seq is null group by 1")
        self.recorded: dict[tuple[str, int, str], float] = {
            (id, run, path): at / 1e6
            for id, run, path, at in database.query(
                f"select id, run, path, at from {schema}history where kind = {STEP}"
            )
        }
        self.moved = database.query("select name, source, target, cents from chaos_moved")
        self.balances = dict(database.query("select name, cents from chaos_account"))
        fired = database.query(f"select schedule, at, until, state, workflow, reason from {schema}firing")
        self.fired = [Fired(*row) for row in fired]
        self.next = dict(database.query(f"select name, next from {schema}schedule"))
        self.interrupted: dict[int, list[tuple[float, float]]] = defaultdict(list)  # pid -> when
        for fault in self.faults:
            if fault.get("pid") and (fault["fault"] in {"kill", "pause"} or "SIGKILL" in fault["how"]):
                self.interrupted[fault["pid"]].append((fault["begin"], fault["end"]))
        for line in self.said:
            if "was declared dead" in line["said"]:
                self.interrupted[line["pid"]].append((line["at"] - DECLARED_SECONDS, line["at"]))

    def hit(self, pid: int, begin: float, end: float) -> bool:
        """Whether a process was interrupted at some time between."""
        return any(b <= end and e >= begin for b, e in self.interrupted[pid])


def judge(evidence: Evidence) -> list[str]:
    """All violations, in words."""
    checks = (
        answers, ends, effects, no_effect_after_its_record, histories, messages, errors, lines_times_and_transfers,
        invariants,
    )  # fmt: skip
    return [violation for check in checks for violation in check(evidence)]


def answers(evidence: Evidence) -> Iterator[str]:
    """Each client was told what the model says, and what the database holds."""
    told = {(line["w"], line["op"], line["n"]): line for line in evidence.history if line["type"] in {"ok", "fail"}}
    for id, plan in evidence.planned.items():
        for op, n in operations(plan):
            line = told.get((id, op, n))
            if line is None:
                yield f"{id}: its client has no answer to {op} {n}"
            elif op == "result":
                yield from result(evidence, plan, line)
            elif line["type"] == "fail":
                closed = line["error"] == "WorkflowClosed" and plan.ends in {"cancelled", "either"}
                if op != "send" or not closed:
                    yield f"{id}: {op} {n} failed: {line['error']}: {line['value']}"
            elif op == "cancel" and id in evidence.rows and line["value"] != evidence.rows[id].shown:
                yield f"{id}: cancel was answered {line['value']}, but it is {evidence.rows[id].shown}"


def operations(plan: Planned) -> Iterator[tuple[str, int]]:
    yield "start", 0
    if plan.line is not None and plan.line.again:
        yield "again", 0
    yield from (("send", n) for n in range(len(plan.mail)))
    if plan.cancel is not None:
        yield "cancel", 0
    if plan.pause is not None:
        yield from (("pause", 0), ("unpause", 0))
    if plan.ends != "waiting":
        yield "result", 0


def result(evidence: Evidence, plan: Planned, line: dict[str, Any]) -> Iterator[str]:
    ended = {"WorkflowCancelled": "cancelled", "RuntimeError": "failed"}.get(line.get("error", ""), "completed")
    wanted = {"either": {"cancelled", "completed"}}.get(plan.ends, {plan.ends})
    if ended not in wanted:
        yield f"{plan.id}: ended {ended} ({line['value']!r}), planned was {plan.ends}"
    elif ended in {"completed", "failed"} and not matches(plan.result, line["value"]):
        yield f"{plan.id}: its result is {line['value']!r}, the model says {plan.result!r}"
    row = evidence.rows.get(plan.id)
    if row is not None and row.shown != ended:
        yield f"{plan.id}: its client was told {ended}, but it is {row.shown}"


def ends(evidence: Evidence) -> Iterator[str]:
    """Everything has ended as planned; what is still open waits for a message that nobody sends."""
    for id in evidence.planned:
        if id not in evidence.rows:
            yield f"{id}: is not in the database"
    for row in evidence.rows.values():
        if of_schedule(row.id):
            continue
        plan = evidence.planned.get(row.root)
        if plan is None:
            yield f"{row.id}: nobody started it"
        elif row.open:
            if not (row.id == row.root and plan.ends == "waiting" and row.shown != "held"):
                why = f"{row.reason or ''} {row.detail}".strip()
                yield f"{row.id}: is {row.shown} ({why}), owner {row.owner!r}, of {row.parent}"
        elif row.shown == "failed" and not (row.id == row.root and plan.ends == "failed"):
            yield f"{row.id}: failed"
        elif row.shown not in {"completed", "cancelled", "failed"}:
            yield f"{row.id}: is {row.shown}"
        elif row.shown == "cancelled" and plan.cancel is None:
            yield f"{row.id}: was cancelled by nobody"


def effects(evidence: Evidence) -> Iterator[str]:
    """Each effect happened, under one key, and again only if whoever had it was interrupted."""
    seen: dict[str, list[Line]] = defaultdict(list)
    for line in evidence.ledger:
        seen[line.name].append(line)
    for plan in evidence.planned.values():
        for name, attempts in plan.effects.items():
            had = {line.attempt for line in seen.get(name, ())}
            missing = set(range(1, attempts + 1)) - had
            row = evidence.rows.get(plan.id)
            if missing and row is not None and not row.open and name not in plan.at_most_once:
                yield f"{plan.id}: effect {name} is missing at attempts {sorted(missing)}"
            if had - set(range(1, attempts + 1)):
                yield f"{plan.id}: effect {name} took more attempts than planned: {sorted(had)}"
    for name, lines in seen.items():
        if of_schedule(name):
            yield from again_only_if_interrupted(evidence, name, lines)
            continue
        plan = evidence.planned.get(name.partition(".")[0].partition(":")[0].partition(" ")[0])
        if plan is None or not (
            name in plan.effects or name.partition("/")[0] in plan.maybe or name.endswith(" cleaned")
        ):
            yield f"effect {name} was never planned"
            continue
        if name in plan.at_most_once and len(lines) > 1:
            yield f"effect {name} happened {len(lines)} times, at most once was promised"
        yield from again_only_if_interrupted(evidence, name, lines)


def again_only_if_interrupted(evidence: Evidence, name: str, lines: list[Line]) -> Iterator[str]:
    if len({line.key for line in lines}) > 1:
        yield f"effect {name} happened under several keys"
    attempts: dict[int, list[Line]] = defaultdict(list)
    for line in sorted(lines, key=lambda line: line.at):
        attempts[line.attempt].append(line)
    for attempt, each in attempts.items():
        for first, again in pairwise(each):
            begin, end = first.at - STEP_SECONDS, again.at + DECLARED_SECONDS
            # Either of the two may have been the one that stood still while the other took over.
            if not (evidence.hit(first.pid, begin, end) or evidence.hit(again.pid, begin, end)):
                yield (
                    f"effect {name} (attempt {attempt}) happened at {first.at:.3f} in {first.pid} and again "
                    f"{again.at - first.at:.3f} s later in {again.pid}, and nothing had interrupted the first"
                )


def no_effect_after_its_record(evidence: Evidence) -> Iterator[str]:
    """But of a process that was stopped, or cut off until its lease had run out, with the step in flight."""
    for line in evidence.ledger:
        at = evidence.recorded.get((line.id, line.run, line.path))
        if at is None or line.at <= at + SLACK_SECONDS:
            continue
        if not evidence.hit(line.pid, at - 2 * DECLARED_SECONDS, line.at + DECLARED_SECONDS):
            yield f"effect {line.name} happened {line.at - at:.3f} s after its record, in {line.pid}"


def histories(evidence: Evidence) -> Iterator[str]:
    """Gapless from 1, one outcome for each step."""
    for app, id, run, count, last, first in evidence.counts:
        if first != 1 or last != count:
            yield f"{id} run {run} of {app}: {count} records from {first} to {last}"
    for id, run, path, count in evidence.doubled:
        yield f"{id} run {run}: {count} outcomes of step {path}"


def messages(evidence: Evidence) -> Iterator[str]:
    """What was sent to who has completed has been taken. (That it was once, and in order, is in the results.)"""
    for dest, count in evidence.untaken:
        row = evidence.rows.get(dest)
        if row is not None and row.shown == "completed":
            yield f"{dest}: completed with {count} messages untaken"


def errors(evidence: Evidence) -> Iterator[str]:
    """The library says nothing of a bug: all it raises an alarm about is what the run does to its executors."""
    for line in evidence.said:
        if line["level"] in {"ERROR", "CRITICAL"} and not any(alarm in line["said"] for alarm in ALARMS):
            yield f"an error of the library in {line['pid']}: {line['said'][:2000]}"
        elif " is held" in line["said"] and " is held: paused" not in line["said"]:
            yield f"held: {line['said'][:500]}"


def lines_times_and_transfers(evidence: Evidence) -> Iterator[str]:
    """Queues, schedules and transactions."""
    again = {line["w"]: line["value"] for line in evidence.history if (line["op"], line["type"]) == ("again", "ok")}
    yield from accounts.lines(evidence.planned, evidence.rows, again)
    yield from accounts.times(evidence.fired, evidence.rows, evidence.next)
    yield from accounts.transfers(evidence.planned, evidence.rows, evidence.moved, evidence.balances)


def invariants(evidence: Evidence) -> Iterator[str]:
    """The numbered invariants, by the history checker: app by app, over audit, ledger, histories and faults."""
    audit = asyncio.run(histcheck.read_audit(evidence.database.url))
    for app in ("chaos", "chaos-sync"):
        if not any(line["row"].get("app") == app for line in audit):
            continue
        calls = [line for path in sorted(evidence.folder.glob(f"*.{app}.history")) for line in read_lines(path)]
        ledger = read_lines(evidence.folder / f"{app}.ledger")
        verdict = histcheck.check(histcheck.Evidence(audit, ledger, calls, evidence.faults, app=app))
        (evidence.folder / f"{app}.verdict").write_text(str(verdict))
        if verdict.violations:  # the database is gone after the run
            lines = [json.dumps(line, default=str) + "\n" for line in audit]
            (evidence.folder / f"{app}.audit").write_text("".join(lines))
        yield from (f"{app}: {violation}" for violation in verdict.violations)
