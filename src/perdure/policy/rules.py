"""Recovery policies as they are declared, and the rules that judge what they answer.

Which policies are asked, and whose answer counts: those whose target and causes fit, by ``order``, then as declared.
A function that answers plain ``Default()``, and an object whose ``needs`` is false, leave the question to the next.
Everything else is the answer: no later policy is asked, also where it cannot be followed and the default is applied.
"""

from __future__ import annotations

import reprlib
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping
from typing import Any, Protocol

import msgspec

from perdure.model.states import Cause
from perdure.policy.decisions import (
    Compensate,
    Decision,
    Default,
    Delete,
    Hold,
    MoveTo,
    Rerun,
    Resume,
    RunFrom,
    SetStatus,
    Skip,
    Terminate,
)
from perdure.policy.incident import Incident


class Restorer(Protocol):
    """The form of a policy that is a class: asked twice, so that what needs no thought costs none."""

    def needs(self, name: str, status: str, /) -> bool:
        """Whether ``decide`` is to be asked about workflows of this name that would become ``status``."""
        ...

    def decide(self, incident: Incident, /) -> Decision | Awaitable[Decision]:
        """What becomes of this one; also ``Default()`` is final here."""
        ...


class Policy(msgspec.Struct, frozen=True, eq=False):
    """A declared policy. ``target``: a workflow's name, or None for every workflow in ``scope``."""

    name: str
    decide: Callable[[Incident], Any]
    needs: Callable[[str, str], Any] | None
    is_async: bool
    target: str | None
    scope: Container[str]
    causes: frozenset[Cause]
    order: int
    place: str

    def fits(self, workflow: str, cause: Cause) -> bool:
        return cause in self.causes and (workflow == self.target if self.target is not None else workflow in self.scope)


_STANDING = (Hold, Terminate, Delete, MoveTo, RunFrom)  # whatever happened, these make sense
LEGAL: dict[Cause, tuple[type[Decision], ...]] = {
    Cause.CRASH: (Resume, Rerun, Skip, Compensate, *_STANDING),
    Cause.DRAINED: (Resume, Rerun, Skip, Compensate, *_STANDING),
    Cause.ERROR: _STANDING,
    Cause.VERSION: _STANDING,
}
_WHY_NOT = {
    Cause.ERROR: "the body has ended by its exception, and the same history would end it so again",
    Cause.VERSION: "this code cannot follow what the workflow recorded",
}
PLAIN = Default()


def passes(answer: object) -> bool:
    """Whether a function's answer leaves the question to the next policy."""
    return answer == PLAIN


OF_PROCESSES = (Resume, Rerun, RunFrom, SetStatus, Skip, Hold, Terminate, Delete, MoveTo)
"""What can be done to a process, whatever happened to it."""


def why_not(answer: object, cause: Cause, *, process: bool = False) -> str:
    """Why an answer cannot be followed; "" if it can."""
    if isinstance(answer, Decision) and (wrong := _malformed(answer)):
        return wrong
    if process and isinstance(answer, Decision):
        if isinstance(answer, (Default, *OF_PROCESSES)):
            return ""
        able = ", ".join(sorted(kind.__name__ for kind in OF_PROCESSES))
        return f"answered {answer}, which cannot be done to a process; possible are {able}"
    if not isinstance(answer, Decision):
        return f"answered {answer!r}, which is no decision of perdure.recovery"
    if isinstance(answer, (Default, *LEGAL[cause])):
        return ""
    if cause not in _WHY_NOT:
        return f"answered {type(answer).__name__}, which is no decision of perdure.recovery"
    able = ", ".join(sorted(kind.__name__ for kind in LEGAL[cause]))
    return f"answered {answer}, which cannot follow {cause}: {_WHY_NOT[cause]}; possible are {able}"


def _malformed(decision: Decision) -> str:
    """What of a decision is not what it has to be: nobody checks that where it is made."""
    wanted: tuple[tuple[str, type, str], ...] = (("because", str, "text"), ("set", Mapping, "a mapping"))
    if getattr(decision, "version", None) is not None:
        wanted += (("version", str, "the name of a version"),)
    for name, kind, words in wanted:
        given: object = getattr(decision, name)
        if not isinstance(given, kind):
            return f"answered {type(decision).__name__} with {name}={reprlib.repr(given)}; give {words}"
    return ""


def fitting(policies: Iterable[Policy], workflow: str, cause: Cause) -> list[Policy]:
    """The policies to ask, in the order in which they are asked."""
    found = [policy for policy in policies if policy.fits(workflow, cause)]
    found.sort(key=lambda policy: policy.order)  # stable: then as declared
    return found
