"""Ends: what a body's end is recorded as, and the run that follows when it continues as new."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from perdure.client.line import Line
from perdure.client.questions import StartOrder
from perdure.client.verbs import start_of
from perdure.core.run import Run
from perdure.definitions import WorkflowDef
from perdure.model.records import Outcome, WorkflowRow
from perdure.model.states import Status, Versioning
from perdure.model.writes import Start
from perdure.runtime.steps import recordable
from perdure.serde.codec import seal
from perdure.serde.failures import encode_failure


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
    pinned = parent.row.versioning is Versioning.PINNED
    return parent.line.routes.routed(order, id, parent.run.version if pinned else None)


def child_start(parent: Ending, order: StartOrder, id: str, path: str) -> Start:
    """A child's run, as its parent's call at ``path`` begins it."""
    return msgspec.structs.replace(
        start_of(parent.line, order, id),
        parent=parent.row.id,
        parent_run=parent.run.key.run,
        parent_path=path,
        on_parent_close=order.options.on_parent_close,
        deadline=parent.row.deadline,
    )


def next_start(of: Ending, order: StartOrder) -> Start:
    """The run that begins when this one continues as new: queued, for whoever claims it first."""
    row = of.row
    return Start(
        id=row.id,
        run=of.run.key.run + 1,
        lineage=of.line.new_token(),
        name=order.name,
        version=of.run.version,
        input=order.input,
        fingerprint=order.fingerprint,
        nonce=of.line.new_token(),
        timeout=row.timeout,
        parent=row.parent,
        parent_run=row.parent_run,
        parent_path=row.parent_path,
        on_parent_close=row.on_parent_close,
        queue=row.queue,
        priority=row.priority,
        partition=row.partition,
        through=True,
        attributes=row.attributes,
        versioning=order.options.versioning,
    )
