"""What happened to a workflow, as a recovery policy is told it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from perdure.model.records import HistoryEntry
from perdure.policy.decisions import Decision

CauseName = Literal["crash", "drained", "error", "version"]


class InFlight(msgspec.Struct, frozen=True):
    """A step whose beginning is on record and whose outcome is not: it may have had its effect, or part of it."""

    path: str
    name: str
    attempt: int = 1


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """One interrupted workflow, frozen as it was found.

    Attributes:
        kind: ``"workflow"``.
        cause: ``"crash"``: its executor died. ``"drained"``: its executor was told to stop and handed it back.
            ``"error"``: an exception is about to fail it. ``"version"``: what it recorded does not fit the code.
        name, version, id, run: of the workflow.
        input: its arguments by name.
        parameters: what earlier decisions set.
        history: its records in the order in which it observed them.
        last_step: name of the last step that has an outcome, None if none has.
        in_flight: steps that had begun. A step that the workflow no longer waited for counts, too.
        attempt: deaths of executors while it was running, this one included.
        executor: label of the executor that had it; "" where that is not recorded.
        status: what it becomes by the default decision.
        error: of an error: the exception. Of a version: both sides of the mismatch in words. Else None.
        default: what happens unless a policy says otherwise.
        state: of a process: the state that is persisted. None for a workflow.
        previous: of a process: the state before that; "" if there was none.
        entering: of a process: the state whose actions were under way; None if none were.
        command: of a process: the command or timer that began the burst; "" for what goes on by itself.

    Of a process ``name`` is its scheme, ``status`` is ``Error`` or ``Terminated`` by the exits of the persisted state,
    and ``parameters`` are its own, as they are persisted.
    """

    kind: Literal["workflow", "process"] = "workflow"
    cause: CauseName
    name: str
    version: str
    id: str
    run: int
    input: Mapping[str, Any]
    parameters: Mapping[str, Any]
    history: tuple[HistoryEntry, ...]
    last_step: str | None
    in_flight: tuple[InFlight, ...]
    attempt: int
    executor: str
    status: str
    error: BaseException | str | None = None
    default: Decision
    state: str | None = None
    previous: str | None = None
    entering: str | None = None
    command: str | None = None

    def __repr__(self) -> str:
        """All but the history, which may be long."""
        shown = (f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__ if name != "history")
        return f"Incident({', '.join(shown)})"
