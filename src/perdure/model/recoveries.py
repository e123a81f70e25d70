"""What becomes of workflows that a bad version has left: from what a group is to the verb that recovers it. Pure.

Nothing is read off a history here: whether a type may begin anew is declared with it, whether its state is wrong is
assumed by a person, for a group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from perdure.errors import ConfigError
from perdure.model.states import Status
from perdure.model.verbs import Move, Reset, Restart, Verb

OPEN = "open"  # the state of a group that has not ended; else its status


class Case(StrEnum):
    """The rows of the table."""

    RESTARTABLE = "retrying, restartable"
    INTACT = "retrying, intact, not restartable"
    CORRUPTED = "retrying, corrupted, not restartable"
    CLOSED = "closed"
    REPLACEABLE = "replaceable"
    LEFT = "left as they are"


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Workflows of one type and version that stand alike."""

    type: str
    version: str
    state: str
    problem: str | None
    """What keeps them from getting on; of closed ones None."""
    count: int
    statuses: Mapping[str, int]

    def named_by(self, said: str) -> int:
        """How closely words name it: 0 not; 1 ``TYPE`` or ``*``; 2 with ``:STATE``, ``:PROBLEM`` or ``:VERSION``."""
        if said in (self.type, "*"):
            return 1
        name, _, part = said.rpartition(":")
        return 2 if name in (self.type, "*") and part in (self.state, self.problem, self.version) else 0


class Assumed(msgspec.Struct, frozen=True, kw_only=True):
    """What a person says of groups, and where they are to go on."""

    to: str
    """The good version of before: what begins anew runs there."""
    fixed: str
    """The version that histories replay on: what keeps its history goes on there."""
    corrupted: tuple[str, ...] = ()
    intact: tuple[str, ...] = ()
    replace: tuple[str, ...] = ()

    def is_corrupted(self, group: Group) -> bool | None:
        """None: nobody has said. Raises ``ConfigError`` for both."""
        yes, no = _closest(self.corrupted, group), _closest(self.intact, group)
        if yes and yes == no:
            raise ConfigError(
                f"{group.type} ({group.state}, version {group.version}) is assumed corrupted and intact; name one of "
                f"them more closely: {group.type}:{group.state}"
            )
        return None if not yes and not no else yes > no

    def unmatched(self, groups: Sequence[Group]) -> list[str]:
        """What names none of the groups."""
        said = (*self.corrupted, *self.intact, *self.replace)
        return [one for one in said if not any(group.named_by(one) for group in groups)]


def _closest(said: Sequence[str], group: Group) -> int:
    return max((group.named_by(one) for one in said), default=0)


class Advice(msgspec.Struct, frozen=True):
    """The row of the table that a group is in, the verb, and why."""

    case: Case
    verb: Verb | None
    because: str


def advise(group: Group, assumed: Assumed, restartable: bool | None) -> Advice:
    """What to do about a group. ``restartable``: as its code declares; None: nobody could be asked."""
    corrupted = assumed.is_corrupted(group)
    why = ["assumed intact, for nobody says otherwise" if corrupted is None else _said(corrupted)]
    if group.version in (assumed.to, assumed.fixed):
        return Advice(Case.LEFT, None, f"version {group.version} is one that the others are to go on with")
    if group.state in (Status.CANCELLED, Status.TERMINATED):
        return Advice(Case.LEFT, None, f"somebody wanted that they are {group.state}")
    if group.state == Status.COMPLETED and not corrupted:
        return Advice(Case.LEFT, None, "they have a result; to have them run again: --assume-corrupted")
    if _closest(assumed.replace, group):
        verb = Restart(terminate=group.state == OPEN, version=assumed.to)
        return Advice(Case.REPLACEABLE, verb, "said to be replaceable: others begin with the same input")
    anew = Reset(to="first", exclude="all", move_to=assumed.to)
    if group.state != OPEN:
        out = "" if restartable else "; what their steps have done outside may need a remedy of its own"
        return Advice(Case.CLOSED, anew, f"an end is taken back by beginning anew{out}")
    if restartable and (corrupted or group.problem is not None):
        return Advice(Case.RESTARTABLE, anew, f"declared restartable; {why[0]}")
    if restartable is None:
        why.append(f"nobody who runs {assumed.to} says that the type is restartable")
    elif restartable:
        why.append("restartable, but nothing keeps them from getting on")
    if corrupted:
        return Advice(Case.CORRUPTED, Reset(to="last", move_to=assumed.fixed), "; ".join(why))
    return Advice(Case.INTACT, Move(to=assumed.fixed), "; ".join(why))


def _said(corrupted: bool) -> str:
    return "said to be corrupted" if corrupted else "said to be intact"
