"""Decisions: what a recovery policy answers, as frozen values.

Each may carry ``set``, data that the workflow reads at ``current().parameters`` from then on, and ``because``, which is
kept with the decision for whoever looks later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar


def _nothing() -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Base of all decisions; ``name`` is what rows and people call it."""

    name: ClassVar[str] = ""
    set: Mapping[str, Any] = field(default_factory=_nothing)
    because: str = ""

    @property
    def target(self) -> str:
        """What it is about, in words: a step, a version; "" for most."""
        return ""

    def __str__(self) -> str:
        return f"{self.name} {self.target}".rstrip()


@dataclass(frozen=True, kw_only=True)
class Default(Decision):
    """What would have happened without a policy. Plain ``Default()`` leaves the question to the next policy."""

    name: ClassVar[str] = "default"


@dataclass(frozen=True, kw_only=True)
class Resume(Decision):
    """Go on from the last recorded step: recorded steps are not run again, the one in flight is."""

    name: ClassVar[str] = "resume"


@dataclass(frozen=True, kw_only=True)
class Rerun(Decision):
    """Run what was in flight again. Of a code workflow that is what ``Resume`` does, too."""

    name: ClassVar[str] = "rerun"


@dataclass(frozen=True)
class RunFrom(Decision):
    """Begin the next run of the same id, which keeps what was recorded before ``step`` and runs the rest again.

    ``step``: a step, its name (if the run called it once), or a path such as ``"3"``. ``version``: of the code that is
    to run it, default the one that ran it. Raises ``TypeError`` for what names no step.
    """

    name: ClassVar[str] = "run_from"
    step: object
    version: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        named: object = self.step
        if not isinstance(named, str):
            named = getattr(getattr(named, "definition", named), "name", None)
        if not isinstance(named, str) or not named:
            raise TypeError(f"RunFrom({self.step!r}): give a step, its name, or a path such as '3'")
        object.__setattr__(self, "step", named)

    @property
    def target_step(self) -> str:
        """Name or path."""
        return str(self.step)

    @property
    def target(self) -> str:
        return f"{self.step} on {self.version}" if self.version is not None else str(self.step)


@dataclass(frozen=True, kw_only=True)
class Skip(Decision):
    """The one step in flight is not run again: ``result`` is recorded as its outcome."""

    name: ClassVar[str] = "skip"
    result: Any = None


@dataclass(frozen=True, kw_only=True)
class Hold(Decision):
    """Park it with the reason ``policy``, until a person says how it goes on."""

    name: ClassVar[str] = "hold"


@dataclass(frozen=True, kw_only=True)
class Terminate(Decision):
    """End it at once, with no cleanup."""

    name: ClassVar[str] = "terminate"


@dataclass(frozen=True, kw_only=True)
class Delete(Decision):
    """Forget it: row, input, history, events and messages go; the decision stays on record."""

    name: ClassVar[str] = "delete"


@dataclass(frozen=True, kw_only=True)
class Compensate(Decision):
    """Raise ``Compensating`` where the workflow stood, so that it unwinds and undoes what it did."""

    name: ClassVar[str] = "compensate"


@dataclass(frozen=True)
class MoveTo(Decision):
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
