"""Suspects: runs that were in flight at deaths in a row and have got nowhere since. One at a time is at work here."""

from __future__ import annotations

from collections.abc import Iterable

from perdure.runtime.execution import Execution
from perdure.runtime.sync_body import SyncExecution

SUSPECT_DEATHS = 2  # in a row; as in the stores' SQL


def at_work(executions: Iterable[Execution]) -> bool:
    """Whether a suspect is among them whose code runs, or is about to."""
    return any(e.row.attempts >= SUSPECT_DEATHS and not e.run.observed and _may_kill(e) for e in executions)


def _may_kill(execution: Execution) -> bool:
    """Whether code of the user's runs, or is about to.

    One that only waits keeps no other from running, be it for an answer that no row can hold: a cancel, say, which
    whoever claims the other suspect has to answer.
    """
    return not execution.gone and bool(
        execution.running
        or execution.in_flight
        or execution.unwritten
        or execution.run.replaying
        or not execution.run.asked
        or (isinstance(execution, SyncExecution) and execution.at_work)
    )
