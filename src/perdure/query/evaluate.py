"""A row against a condition, in Python: what the databases' answers are held against, and what plans judge rows by."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from perdure.model.ids import RunKey
from perdure.model.records import WorkflowRow
from perdure.model.states import CODES, VERSIONINGS
from perdure.query.conditions import (
    AllOf,
    AnyOf,
    Attribute,
    Compare,
    Condition,
    Fact,
    Kind,
    Not,
    Now,
    OneOf,
    Order,
    Present,
    StartsWith,
    Subject,
    Value,
)

_SIGNS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


_CODED: Mapping[Kind, tuple[Any, ...]] = {Kind.STATUS: CODES, Kind.VERSIONING: VERSIONINGS}  # in their stored order


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What a row does not tell by itself."""

    now: int
    executors: Mapping[bytes, str] = {}  # the labels of owners
    errors: Mapping[RunKey, str] = {}  # the classes of recorded failures


def matches(condition: Condition, row: WorkflowRow, known: Known) -> bool:
    """Whether the row is one of those."""
    match condition:
        case AllOf(parts):
            return all(matches(part, row, known) for part in parts)
        case AnyOf(parts):
            return any(matches(part, row, known) for part in parts)
        case Not(part):
            return not matches(part, row, known)
        case Present(subject):
            found = value_of(subject, row, known)
            return found is not None and (isinstance(subject, Attribute) or found != "")
        case OneOf(subject, values):
            found = value_of(subject, row, known)
            return any(_alike(found, value) and found == value for value in _plain(values, known))
        case StartsWith(subject, prefix):
            found = value_of(subject, row, known)
            return isinstance(found, str) and found.startswith(prefix)
        case Compare(subject, sign, value):
            found = value_of(subject, row, known)
            (plain,) = _plain((value,), known)
            return _alike(found, plain) and bool(_SIGNS[sign](found, plain))


def _plain(values: tuple[Value, ...], known: Known) -> list[Any]:
    return [known.now + value.plus if isinstance(value, Now) else value for value in values]


def _alike(found: Any, value: Any) -> bool:
    """Whether both are text, both numbers, or both true or false."""
    for kind in (bool, str, (int, float)):
        if isinstance(found, kind) or isinstance(value, kind):
            return isinstance(found, kind) and isinstance(value, kind)
    return False


def value_of(subject: Subject, row: WorkflowRow, known: Known) -> Any:
    """What a row has of it; None if nothing."""
    if isinstance(subject, Attribute):
        if row.attributes is None or rb"\u0000" in row.attributes:
            return None
        return cast("dict[str, Any]", msgspec.json.decode(row.attributes)).get(subject.name)
    match subject:
        case Fact.EXECUTOR:
            return None if row.owner is None else known.executors.get(row.owner)
        case Fact.ERROR:
            return known.errors.get(row.key)
        case Fact.DURATION:
            return None if row.started is None else (known.now if row.closed is None else row.closed) - row.started
        case Fact.PROBLEM:
            return row.problem if row.status.open else None
        case _:
            return getattr(row, subject)


def place_of(order: Order, row: WorkflowRow, known: Known) -> tuple[Any, ...]:
    """Where a row stands: rows sorted by it, from small to large, are in that order."""
    found = value_of(order.fact, row, known)
    if order.fact.kind in _CODED:
        found = _CODED[order.fact.kind].index(found)
    place: tuple[Any, ...] = (0 if found is None else found, row.id, row.run)
    return (found is None, _Turned(place) if order.descending else place)


class _Turned:
    """Stands before those whose place is smaller."""

    __slots__ = ("_place",)

    def __init__(self, place: tuple[Any, ...]) -> None:
        self._place = place

    def __lt__(self, other: _Turned) -> bool:
        return self._place > other._place
