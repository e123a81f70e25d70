"""Decisions: what a recovery policy answers, as frozen values.

Each may carry ``set``, data that the workflow reads at ``current().parameters`` from then on, and ``because``, which is
kept with the decision for whoever looks later.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import msgspec

_RESTS: Mapping[str, Literal["Idled", "Error", "Terminated"]] = {
    "Idled": "Idled", "Error": "Error", "Terminated": "Terminated",
}  # fmt: skip


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all decisions; ``name`` is what rows and people call it."""

    name: ClassVar[str] = ""
    set: Mapping[str, Any] = msgspec.field(default_factory=dict[str, Any])
    because: str = ""

    @property
    def target(self) -> str:
        """What it is about, in words: a step, a version; "" for most."""
        return ""

    def __str__(self) -> str:
        return f"{self.name} {self.target}".rstrip()


class Default(Decision, frozen=True, kw_only=True):
    """What would have happened without a policy. Plain ``Default()`` leaves the question to the next policy."""

    name: ClassVar[str] = "default"


class Resume(Decision, frozen=True, kw_only=True):
    """Go on from the last recorded step: recorded steps are not run again, the one in flight is.

    A process goes on along the automatic exits of its persisted state, whose actions are not run again.
    """

    name: ClassVar[str] = "resume"


class Rerun(Decision, frozen=True, kw_only=True):
    """Run what was in flight again. Of a code workflow that is what ``Resume`` does, too.

    Of a process after a death: the actions of its persisted state, then its automatic exits. Of an error: the move.
    """

    name: ClassVar[str] = "rerun"


class _OnVersion(Decision, frozen=True, kw_only=True):
    version: str | None = None


class RunFrom(_OnVersion, frozen=True):
    """Begin the next run of the same id, which keeps what was recorded before ``step`` and runs the rest again.

    ``step``: a step, its name (if the run called it once), or a path such as ``"3"``. ``version``: of the code that is
    to run it, default the one that ran it. Of a process ``step`` is a state, or its name: it is entered, with its
    actions. Raises ``TypeError`` for what names no step.
    """

    name: ClassVar[str] = "run_from"
    step: object

    def __post_init__(self) -> None:
        named: object = self.step
        if not isinstance(named, str):
            named = getattr(getattr(named, "definition", named), "name", None)
        if not isinstance(named, str) or not named:
            raise TypeError(f"RunFrom({self.step!r}): give a step, its name, or a path such as '3'")
        msgspec.structs.force_setattr(self, "step", named)

    @property
    def target_step(self) -> str:
        """Name or path."""
        return str(self.step)

    @property
    def target(self) -> str:
        return f"{self.step} on {self.version}" if self.version is not None else str(self.step)


class SetStatus(Decision, frozen=True):
    """Let a process rest as it stands: ``"Idled"``, ``"Error"`` or ``"Terminated"``. Of an error: it is not raised.

    Raises ``TypeError`` for any other status.
    """

    name: ClassVar[str] = "set_status"
    status: str

    def __post_init__(self) -> None:
        given: object = self.status
        if given not in _RESTS:
            raise TypeError(f"SetStatus({given!r}): a process rests as one of {', '.join(_RESTS)}")
        msgspec.structs.force_setattr(self, "status", _RESTS[str(given)])

    @property
    def rests(self) -> Literal["Idled", "Error", "Terminated"]:
        """How it rests."""
        return _RESTS[self.status]

    @property
    def target(self) -> str:
        return self.status


class Skip(Decision, frozen=True, kw_only=True):
    """The one step in flight is not run again: ``result`` is recorded as its outcome.

    Of a process: the state that was being entered counts as entered.
    """

    name: ClassVar[str] = "skip"
    result: Any = None


class Hold(Decision, frozen=True, kw_only=True):
    """Park it with the reason ``policy``, until a person says how it goes on."""

    name: ClassVar[str] = "hold"


class Terminate(Decision, frozen=True, kw_only=True):
    """End it at once, with no cleanup."""

    name: ClassVar[str] = "terminate"


class Delete(Decision, frozen=True, kw_only=True):
    """Forget it: row, input, history, events and messages go; the decision stays on record."""

    name: ClassVar[str] = "delete"


class Compensate(Decision, frozen=True, kw_only=True):
    """Raise ``Compensating`` where the workflow stood, so that it unwinds and undoes what it did."""

    name: ClassVar[str] = "compensate"


class MoveTo(Decision, frozen=True):
    """Hand it to the executors of another version of the code."""

    name: ClassVar[str] = "move_to"
    version: str

    def __post_init__(self) -> None:
        if not isinstance(self.version, str) or not self.version:  # pyright: ignore[reportUnnecessaryIsInstance]  users without a checker
            raise TypeError(f"MoveTo({self.version!r}): give the name of a version; see: perdure executor list")

    @property
    def target(self) -> str:
        return self.version


COMPENSATE = Compensate.name
RUN_FROM = RunFrom.name
