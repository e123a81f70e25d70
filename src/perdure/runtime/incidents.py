"""From rows and records to the incident that a policy is told of, and to the audit row of what was decided."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import msgspec

from perdure.definitions import Registry, WorkflowDef
from perdure.model.records import Claimed, DecisionRow, HistoryEntry, Kind, Outcome, Record, WorkflowRow
from perdure.model.states import Cause
from perdure.model.writes import Decided
from perdure.policy.decisions import Decision, Hold, Resume
from perdure.policy.incident import CauseName, Incident, InFlight
from perdure.runtime.asking import Answer
from perdure.runtime.context import parameters_of
from perdure.runtime.process_facts import Facts
from perdure.serde.codec import Codec, is_coded, seal
from perdure.serde.values import Shape

# A policy is never asked about a workflow to which nothing happened.
_NAMES: dict[Cause, CauseName] = {
    Cause.CRASH: "crash",
    Cause.DRAINED: "drained",
    Cause.ERROR: "error",
    Cause.VERSION: "version",
}
_PARAMETERS = Shape.of(dict[str, Any])


class Host(Protocol):
    """What these need of an executor."""

    registry: Registry
    executor_id: str


def in_flight_of(row: WorkflowRow, history: Sequence[Record]) -> tuple[InFlight, ...]:
    """Steps with an intent and without an outcome, in the order in which they began."""
    begun = {intent.path: InFlight(intent.path, intent.name) for intent in row.intents}
    for record in history:
        if record.kind is Kind.STEP:
            begun.pop(record.path, None)
        elif record.kind is Kind.ATTEMPT:
            begun[record.path] = InFlight(record.path, record.name, record.attempt + 1)
        begun.update((intent.path, InFlight(intent.path, intent.name)) for intent in record.intents)
    return tuple(begun.values())


def incident_of(
    definition: WorkflowDef,
    claimed: Claimed,
    history: Sequence[Record],
    *,
    cause: Cause,
    default: Decision,
    executor: str = "",
    error: BaseException | str | None = None,
    facts: Facts | None = None,
) -> Incident:
    """What a policy is told; ``facts``: of a process."""
    row = claimed.row
    steps = [record.name for record in history if record.kind is Kind.STEP]
    incident = Incident(
        cause=_NAMES[cause],
        name=row.name,
        version=row.version,
        id=row.id,
        run=row.run,
        input=MappingProxyType(_input(definition, claimed.input) if facts is None else _own(facts.values)),
        parameters=MappingProxyType(parameters_of(parameters_in(history))),
        history=tuple(map(_entry, history)),
        last_step=steps[-1] if steps else None,
        in_flight=in_flight_of(row, history),
        attempt=row.attempts,
        executor=executor,
        status={Cause.ERROR: "failed"}.get(cause, "held" if isinstance(default, Hold) else "running"),
        error=error,
        default=default,
    )
    return incident if facts is None else _of_process(incident, facts)


def _of_process(incident: Incident, facts: Facts) -> Incident:
    """The same, told of a process. What it holds is the policy's own copy."""
    values = _own(facts.values)
    again = facts.go.attempt if incident.cause == "error" and facts.go is not None else incident.attempt
    return msgspec.structs.replace(
        incident, kind="process", status=str(facts.would_be), parameters=MappingProxyType(values), state=facts.state,
        previous=facts.at.previous, entering=facts.entering, command="" if facts.go is None else facts.go.name,
        attempt=again,
    )  # fmt: skip


def _own(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Values that a policy may change without effect."""
    try:
        return copy.deepcopy(values)
    except Exception:  # what cannot be copied is shared
        return dict(values)


def parameters_in(history: Sequence[Record]) -> list[bytes]:
    return [record.data for record in history if record.kind is Kind.DECISION and record.data is not None]


def default_of(definition: WorkflowDef, row: WorkflowRow) -> Decision:
    """What happens after a crash or a drain unless a policy says otherwise."""
    if is_over_limit(definition, row):
        return Hold(because=over_limit(definition, row))
    return Resume()


def is_over_limit(definition: WorkflowDef, row: WorkflowRow) -> bool:
    """Whether one death too many has just happened. What went on since, by a decision, is not held for it later."""
    return row.cause is Cause.CRASH and row.attempts > definition.max_deaths


def over_limit(definition: WorkflowDef, row: WorkflowRow) -> str:
    return f"{row.attempts} executors died while it was in flight (limit {definition.max_deaths})"


def _input(definition: WorkflowDef, input: bytes) -> dict[str, Any]:
    """The arguments by name; what does not fit the code's types as the plain JSON that it is."""
    try:
        args, kwargs = definition.args.decode(input)
        return dict(definition.args.signature.bind(*args, **kwargs).arguments)
    except Exception:  # a policy may be just what answers this
        return {"json": msgspec.json.decode(input)}


def _entry(record: Record) -> HistoryEntry:
    value: Any = None
    if record.data is not None and record.holds_value and not is_coded(record.data):
        value = msgspec.json.decode(record.data)
    return HistoryEntry(
        seq=record.seq, path=record.path, kind=record.kind.name.lower(), name=record.name, at=record.at,
        attempt=record.attempt, outcome=record.outcome.name.lower(), value=value, shown=record.shown,
        version=record.version,
    )  # fmt: skip


def executor_in(row: DecisionRow | None) -> tuple[str, str]:
    """The former holder's label and incarnation (hex), from what the adoption noted."""
    if row is None:
        return "", ""
    noted: dict[str, Any] = msgspec.json.decode(row.evidence)
    return str(noted.get("executor", "")), str(noted.get("owner", ""))


def data_of(decision: Decision, codec: Codec | None) -> bytes | None:
    """What a decision sets, encoded. Raises ``Unserializable``."""
    if not decision.set:
        return None
    return seal(_PARAMETERS.encode(dict(decision.set), "set"), "set", codec)


def decided(
    host: Host,
    incident: Incident,
    answer: Answer,
    *,
    cause: Cause,
    owner: str = "",
    data: bytes | None = None,
) -> Decided:
    """The audit row of an answer."""
    decision = answer.decision
    evidence: dict[str, Any] = {
        "owner": owner,
        "executor": incident.executor,
        "attempt": incident.attempt,
        "last_step": incident.last_step,
        "in_flight": [[step.path, step.name, step.attempt] for step in incident.in_flight],
    }
    if decision.target:
        evidence["target"] = decision.target
    if incident.error is not None:
        error = incident.error
        evidence["error"] = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return Decided(
        cause=cause, decision=decision.name, policy=answer.policy, because=answer.because, parameters=data,
        evidence=msgspec.json.encode(evidence), executor=host.executor_id,
    )  # fmt: skip


def step_result(registry: Registry, name: str, value: Any) -> bytes:
    """What ``Skip(result=…)`` records as a step's outcome. Raises ``Unserializable``."""
    definition = registry.steps.get(name)
    shape = definition.result if definition is not None else Shape.of(Any)
    return seal(shape.encode(value, "Skip(result=…)"), "Skip(result=…)", registry.codec)


def skipped(seq: int, step: InFlight, at: int, fingerprint: bytes, data: bytes, because: str) -> Record:
    """The outcome of a step that is not run again."""
    return Record(
        seq, step.path, Kind.STEP, step.name, at, fingerprint, Outcome.VALUE, data, step.attempt,
        f"skipped: {because}" if because else "skipped",
    )  # fmt: skip
