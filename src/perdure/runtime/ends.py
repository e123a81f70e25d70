"""Ends: what a body's end is recorded as, and the run that follows when it continues as new."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from perdure.client.line import Line
from perdure.client.questions import StartOrder
from perdure.client.verbs import start_of
from perdure.core.run import Run
from perdure.definitions import WorkflowDef
from perdure.model.ids import derived_lineage
from perdure.model.records import Outcome, WorkflowRow
from perdure.model.states import Status, Versioning
from perdure.model.writes import Continue, Start
from perdure.runtime.steps import recordable
from perdure.runtime.waits import ContinueAsNew
from perdure.serde.codec import seal
from perdure.serde.failures import encode_failure
from perdure.versions.routing import target


class Ending(Protocol):
    """What an end needs of its execution."""

    host: Any
    line: Line
    run: Run
    row: WorkflowRow
    definition: WorkflowDef
    cancel_delivered: bool
    cancelling: tuple[Status, str] | None


def conclude(of: Ending, value: Any, error: BaseException | None) -> tuple[Status, Outcome, bytes | None]:
    """Status, outcome and data of the end."""
    if of.cancel_delivered and of.cancelling is not None:
        # Whatever the body made of it, a delivered cancel is final: cancel() has to answer definitely.
        kept = encode_failure(error) if isinstance(error, Exception) else None
        return of.cancelling[0], Outcome.ERROR if kept else Outcome.NONE, kept
    if error is None:
        try:
            data = seal(of.definition.result.encode(value, "result"), "result", of.host.registry.codec)
            return Status.COMPLETED, Outcome.VALUE, data
        except Exception as unserializable:  # the body is done; its result cannot be kept
            error = unserializable
    return Status.FAILED, Outcome.ERROR, encode_failure(recordable(error))


def routed_child(parent: Ending, order: StartOrder, id: str) -> StartOrder:
    """A child's order with the version it takes: its parent's, if that is pinned."""
    return parent.line.routes.routed(order, id, parent.run.version if pins(parent.row) else None)


def child_start(parent: Ending, order: StartOrder, id: str, path: str) -> Start:
    """A child's run, as its parent's call at ``path`` begins it: in its parent's time, unless it is to outlive it."""
    start = start_of(parent.line, order, id)
    outlives = order.options.on_parent_close == "abandon"
    return msgspec.structs.replace(
        start,
        lineage=derived_lineage(parent.run.lineage, path, order.fingerprint),
        parent=parent.row.id,
        parent_run=parent.run.key.run,
        parent_path=path,
        on_parent_close=order.options.on_parent_close,
        deadline=None if outlives else parent.row.deadline,
        versioning=inherited(start.versioning, parent.row),
    )


def inherited(declared: Versioning, row: WorkflowRow) -> Versioning:
    """What a child or a next run does when the code changes: as declared, else pinned if ``row`` is.

    Nothing that says nothing goes with the current version for that: only who declares it has seen to it.
    """
    return Versioning.PINNED if declared is Versioning.UNDECLARED and pins(row) else declared


def pins(row: WorkflowRow) -> bool:
    """Whether what this run starts stays with its version: not if it was moved there for one turn only."""
    return row.versioning is Versioning.PINNED and not (row.override is not None and row.override.once)


def version_of_next(of: Ending, id: str, versioning: Versioning) -> str:
    """The version that goes on when a run continues as new: its own.

    What goes with the routing goes where that says, if somebody runs that version.
    """
    routing, own = of.line.routes.routing, of.run.version
    if versioning is not Versioning.AUTO_UPGRADE or routing is None:
        return own
    wanted = target(routing, of.line.app, id)
    return wanted if wanted in of.host.following.served else own


def going_on(of: Ending, signal: ContinueAsNew) -> Continue:
    """The change with which a run ends that goes on as the next."""
    start, stands = next_start(of, signal.order), signal.stands
    if stands is None:
        return Continue(start, of.line.new_token())
    start = msgspec.structs.replace(start, status=stands.status, attributes=stands.attributes)
    return Continue(start, of.line.new_token(), stands.rest)


def bound_of_next(row: WorkflowRow) -> int | None:
    """The deadline of the next run, before its first claim: what its parent gave, in which the whole chain has to end.

    Beside a timeout, which begins anew, the row holds the lesser of the two: the commit asks the parent's row again.
    """
    return row.deadline if row.timeout is None else None


def next_start(of: Ending, order: StartOrder) -> Start:
    """The run that begins when this one continues as new: queued, for whoever claims it first."""
    row = of.row
    override = row.override  # an operator's order outlives the run
    versioning = inherited(order.options.versioning, row) if override is None else row.versioning
    return Start(
        id=row.id,
        run=of.run.key.run + 1,
        lineage=of.line.new_token(),
        name=order.name,
        version=version_of_next(of, row.id, versioning),
        input=order.input,
        fingerprint=order.fingerprint,
        nonce=of.line.new_token(),
        timeout=row.timeout,
        deadline=bound_of_next(row),
        parent=row.parent,
        parent_run=row.parent_run,
        parent_path=row.parent_path,
        on_parent_close=row.on_parent_close,
        queue=row.queue,
        priority=row.priority,
        partition=row.partition,
        through=True,
        attributes=row.attributes if order.options.attributes is None else order.options.attributes,
        versioning=versioning,
        override=override,
    )
