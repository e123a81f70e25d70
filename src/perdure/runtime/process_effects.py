"""What a decision does to a process, as one unit of writes: its next run, the line of its history, the audit row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from perdure.client.line import Line
from perdure.definitions import Registry
from perdure.model.problems import ProblemKind
from perdure.model.processes import AT, HISTORY, ORDERS, At, Entry
from perdure.model.records import WorkflowRow
from perdure.model.states import Cause
from perdure.model.writes import Append, Continue, Rest, Start
from perdure.runtime.ends import bound_of_next
from perdure.runtime.process_body import ENTRY, attributes_of, standing
from perdure.runtime.process_facts import Facts, Settled
from perdure.serde.codec import seal


class Host(Protocol):
    """What this needs of an executor."""

    line: Line
    registry: Registry


def next_run(host: Host, row: WorkflowRow, facts: Facts, settled: Settled, cause: Cause, version: str) -> Continue:
    """The change with which the run ends, and the next begins as was settled."""
    at = settled.at
    rest = Rest(topic=ORDERS, attempts=_deaths(row, facts, at), problem=_problem(at, cause))
    stands = standing(at, attributes_of(row.attributes, at), rest)
    line = host.line
    start = Start(
        id=row.id, run=row.run + 1, lineage=line.new_token(), name=row.name, version=version,
        input=encoded(host, facts, settled.values, at), fingerprint=row.fingerprint, nonce=line.new_token(),
        status=stands.status, timeout=row.timeout, deadline=bound_of_next(row), parent=row.parent,
        parent_run=row.parent_run, parent_path=row.parent_path, on_parent_close=row.on_parent_close, queue=row.queue,
        priority=row.priority, partition=row.partition, through=True, attributes=stands.attributes,
        versioning=row.versioning, override=row.override,
    )  # fmt: skip
    return Continue(start, line.new_token(), stands.rest)


def _deaths(row: WorkflowRow, facts: Facts, at: At) -> int:
    """Deaths go on being counted in what goes on by itself: it may die again of the same."""
    by_timer = facts.go is not None and facts.go.trigger == "timer"
    return row.attempts if at.go is not None or by_timer else 0


def _problem(at: At, cause: Cause) -> ProblemKind | None:
    if at.go is None and at.status != "Error":
        return None
    return ProblemKind.EXECUTOR_DIED if cause is Cause.CRASH else None  # an error: as ``standing`` says


def encoded(host: Host, facts: Facts, values: dict[str, Any], at: At) -> bytes:
    """The input of a run."""
    return seal(facts.args.encode((), {**values, AT: at}), "parameters", host.registry.codec)


def appends_of(host: Host, entries: Sequence[Entry], path: str) -> tuple[Append, ...]:
    """Lines of the history, to go with a unit; ``path``: what nothing else of the run has."""
    codec = host.registry.codec
    return tuple(
        Append(HISTORY, path, n, seal(ENTRY.encode(entry, "an entry"), "an entry", codec))
        for n, entry in enumerate(entries)
    )
