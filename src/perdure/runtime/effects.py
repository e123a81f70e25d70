"""What a decision does, as one unit of writes: its audit row, what the history tells of it, the change of the row.

Nothing here asks, waits or writes. What cannot be done says why, and the default is done instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from perdure.client.line import Line
from perdure.core.run import Run
from perdure.definitions import Registry
from perdure.errors import StepNotFound, Unserializable
from perdure.model.cuts import rewind
from perdure.model.records import Kind, Outcome, Record, WorkflowRow
from perdure.model.states import Cause, Reason, Status
from perdure.model.steps import records_before
from perdure.model.writes import Append, Change, Close, Decided, Release
from perdure.model.writes import Delete as Forget
from perdure.model.writes import Hold as Park
from perdure.policy.decisions import (
    COMPENSATE,
    Compensate,
    Delete,
    Hold,
    MoveTo,
    Resume,
    RunFrom,
    SetStatus,
    Skip,
    Terminate,
)
from perdure.policy.incident import Incident
from perdure.runtime.asking import Answer
from perdure.runtime.incidents import data_of, decided, skipped, step_result
from perdure.runtime.process_children import Family
from perdure.runtime.process_effects import appends_of, next_run
from perdure.runtime.process_facts import Facts, Impossible, Why, interrupted, settle
from perdure.runtime.steps import recordable
from perdure.serde.failures import encode_failure

TEXT_MAX = 2000  # characters of a reason that are kept


class Host(Protocol):
    """What effects need of an executor."""

    line: Line
    registry: Registry
    executor_id: str


class Case(NamedTuple):
    """One interrupted run: what was found, and what is told of it."""

    row: WorkflowRow
    input: bytes
    history: Sequence[Record]
    incident: Incident
    cause: Cause
    reason: Reason  # why it would be held by default
    owner: str = ""  # the former holder, hex
    facts: Facts | None = None  # of a process
    family: Family = Family()  # of a process that is to be deleted: what goes with it


class Effect(NamedTuple):
    """What is written: with ``change`` the run ends here, else it goes on."""

    decision: Decided
    records: tuple[Record, ...]
    change: Change | None
    appends: tuple[Append, ...] = ()


def effect_of(host: Host, case: Case, answer: Answer) -> Effect:
    """The effect of an answer. Raises ``Impossible``, never for the default."""
    decision = answer.decision
    because = plain_text(answer.because)
    answer = answer._replace(because=because)
    try:
        data = data_of(decision, host.registry.codec)
    except Unserializable as error:
        raise Impossible(str(error)) from None
    if case.facts is not None and not _as_a_workflow(answer):
        return _of_process(host, case, case.facts, answer, data)
    run = Run(case.row.key, case.row.lineage, case.row.version, host.line.clock.now(), case.history)
    change = _change(host, case, answer, data)
    if isinstance(decision, RunFrom):
        pass  # what it sets is told to the next run
    elif isinstance(decision, Compensate):
        if any(record.kind is Kind.DECISION and record.name == COMPENSATE for record in case.history):
            because = because or "it is compensating already, and goes on with that"
            answer = answer._replace(because=because)
        else:
            run.decide(COMPENSATE, run.now, data, because)
    elif data is not None:
        run.decide(decision.name, run.now, data, because)
    records = tuple(run.take().records)
    if isinstance(decision, Skip):
        records = (*records, _skip(host, case, decision, because, run.seq + 1, run.now))
    row = decided(host, case.incident, answer, cause=case.cause, owner=case.owner, data=data)
    return Effect(row, records, change, _told(host, case, answer))


def _told(host: Host, case: Case, answer: Answer) -> tuple[Append, ...]:
    """Who gave the order that a process was carrying out is told that nothing comes of it, if that is held or ended."""
    if case.facts is None or not isinstance(answer.decision, Hold | Terminate):
        return ()
    entry = interrupted(case.facts, host.line.clock.now(), answer.because)
    return () if entry is None else appends_of(host, (entry,), "decision")


def _as_a_workflow(answer: Answer) -> bool:
    """Whether a decision about a process is done as of any workflow: its burst goes on, rests as it is, or ends."""
    decision = answer.decision
    return isinstance(decision, Hold | Terminate | Delete | MoveTo) or (
        isinstance(decision, Resume) and answer.by_default
    )


def _of_process(host: Host, case: Case, facts: Facts, answer: Answer, data: bytes | None) -> Effect:
    """The process goes on, or rests, as its next run."""
    decision, error = answer.decision, case.incident.error
    failure = encode_failure(recordable(error)).decode() if isinstance(error, Exception) else ""
    because = answer.because or (f"{type(error).__name__}: {error}" if failure else "")
    why = Why(case.cause, host.line.clock.now(), because, answer.by_default, failure)
    settled = settle(facts, decision, why)
    version = (decision.version if isinstance(decision, RunFrom) else None) or case.row.version
    change = next_run(host, case.row, facts, settled, case.cause, version)
    row = decided(host, case.incident, answer, cause=case.cause, owner=case.owner, data=data)
    return Effect(row, (), change, appends_of(host, settled.entries, "decision"))


def _change(host: Host, case: Case, answer: Answer, data: bytes | None) -> Change | None:
    row = case.row
    match answer.decision:
        case Hold():
            if answer.by_default:  # whatever a policy said of it: what has to be mended is this
                return Park(case.reason, case.incident.default.because)
            return Park(Reason.POLICY, answer.because or f"by policy {answer.policy}")
        case Terminate():
            return Close(Status.TERMINATED, Outcome.NONE, None, host.line.new_token(), row.parent, family=True)
        case Delete():
            if row.parent is not None:
                raise Impossible(f"answered delete, but its parent {row.parent} may wait for it; Terminate() tells it")
            if (awaited := case.family.awaited) is not None:
                raise Impossible(f"answered delete, but its end has to wait for {awaited.id}, which is open")
            return Forget(case.family.ids)
        case MoveTo(version=version):
            return Release(version)
        case RunFrom() as again:
            return _from(host, case, again, answer, data)
        case _:
            return None


def _from(host: Host, case: Case, decision: RunFrom, answer: Answer, data: bytes | None) -> Change:
    """The next run, from what was recorded before a step."""
    row, at = case.row, host.line.clock.now()
    try:
        keep = records_before(row, case.history, decision.target_step)
    except StepNotFound as error:
        raise Impossible(f"answered {decision}: {error}") from None
    change = rewind(
        row, case.history, case.input, keep, host.line.new_token, at=at, by=f"policy {answer.policy}",
        reason=answer.because, verb=RunFrom.name, version=decision.version, attempts=row.attempts,
    )  # fmt: skip
    if data is None:
        return change
    told = Record(keep + 2, "", Kind.DECISION, RunFrom.name, at, b"", Outcome.VALUE, data, shown=answer.because)
    return msgspec.structs.replace(change, then=(told,))


def _skip(host: Host, case: Case, decision: Skip, because: str, seq: int, at: int) -> Record:
    """The outcome of the one step in flight."""
    steps = case.incident.in_flight
    if len(steps) != 1:
        names = ", ".join(f"{step.name} at {step.path}" for step in steps) or "none"
        raise Impossible(f"answered skip, but not exactly one step is in flight: {names}")
    try:
        data = step_result(host.registry, steps[0].name, decision.result)
    except Unserializable as error:
        raise Impossible(f"answered skip for {steps[0].name}: {error}") from None
    return skipped(seq, steps[0], at, _fingerprint(case, steps[0].path), data, because)


def _fingerprint(case: Case, path: str) -> bytes:
    """Of the call at a path, as its intent (or a failed attempt) recorded it."""
    for record in case.history:
        if record.path == path and record.kind is Kind.ATTEMPT:
            return record.fingerprint
        for intent in record.intents:
            if intent.path == path:
                return intent.fingerprint
    return next((intent.fingerprint for intent in case.row.intents if intent.path == path), b"")


def plain_text(text: str) -> str:
    """Words of a policy's as every database can keep them."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")[:TEXT_MAX]


def says_something(answer: Answer) -> bool:
    """Whether the answer has to be written down: not where nobody was asked anything, and nothing is done."""
    return answer.spoken or isinstance(answer.decision, Hold | SetStatus)


def default_by(answer: Answer, incident: Incident, why: str) -> Answer:
    """The default in place of an answer that cannot be done."""
    because = f"policy {answer.policy} {why}; the default was applied"
    return Answer(incident.default, answer.policy, because, by_default=True)
