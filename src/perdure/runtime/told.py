"""Told: what those wait for who started a run in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from perdure.client.line import Listener
from perdure.errors import PerdureError, WorkflowConflict
from perdure.model.writes import Close


class AtOnce:
    """Somebody in this process who is told at once; the callbacks of a future wait for the next turn of the loop."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[Any, Exception | None], None]) -> None:
        self._call: Callable[[Any, Exception | None], None] | None = call

    def done(self) -> bool:
        return self._call is None

    def set_result(self, value: Any) -> None:
        self._tell(value, None)

    def set_exception(self, error: Exception) -> None:
        self._tell(None, error)

    def exception(self) -> None:
        """As of a future: nothing is left to be taken."""

    def _tell(self, value: Any, error: Exception | None) -> None:
        call, self._call = self._call, None
        if call is not None:
            call(value, error)


def tell(waiting: Listener | None, what: object) -> None:
    """Settle what somebody waits for, if anybody still does; an exception is raised there."""
    if waiting is None or waiting.done():
        return
    if isinstance(what, Exception):
        waiting.set_exception(what)
        waiting.exception()  # the loop shall not complain if nobody waits for it any more
    else:
        waiting.set_result(what)


def unborn(execution: Any) -> bool:
    """Whether a run's own start, which no parent's unit takes along, is still to be written."""
    return not execution.newborn and (execution.starting or execution.run.start is not None)


def is_there(execution: Any) -> None:
    """Its start is durable."""
    execution.starting = False
    execution.tell_started(None)
    if execution.lost and not isinstance(execution.closing, Close):
        execution.tell_ended(None)


def disown(execution: Any) -> None:
    """Put a run away that is others' by now. Its caller waits for its start: that they take over like all else."""
    execution.drop()
    if unborn(execution):
        execution.dirty()


def not_started(id: str, refusal: Exception) -> PerdureError:
    """The error for a start that can never be written: the caller must not take it for one that is there."""
    error = PerdureError(
        f"workflow {id!r} was not started, and nothing of it is stored: the store refused what it wrote at its start "
        f"({type(refusal).__name__}: {refusal}). Mend what it sends, publishes or starts there, and start it again"
    )
    error.__cause__ = refusal
    return error


def taken_and_gone(id: str) -> WorkflowConflict:
    """The error for a start whose id was taken when it was written, by a workflow that is deleted by now."""
    return WorkflowConflict(
        f"workflow {id!r} was not started: another had this id, and has been deleted since; start it again"
    )
