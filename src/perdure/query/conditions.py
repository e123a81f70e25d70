"""What is asked of a set of workflows: conditions on facts, an order, groups. Values that know no language and no SQL.

Promises: all of it is frozen; a condition is true or false of a row, never unknown: a comparison with what a row does
not have is false, and ``Not`` turns that round. Facts are what a row tells in the store's own words; each dialect has
one expression for each, and ``evaluate.py`` reads them off a row.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import Literal

import msgspec

from perdure.model.states import Reason, Status


class Kind(StrEnum):
    """What sort of value a fact is."""

    TEXT = "text"
    WHOLE = "whole"  # a whole number of 64 bits
    TIME = "time"  # microseconds since 1970
    SPAN = "span"  # microseconds
    STATUS = "status"
    VERSIONING = "versioning"
    ANY = "any"  # as it was stored: text, number or boolean


class Fact(StrEnum):
    """What a row tells."""

    ID = "id"
    RUN = "run"
    NAME = "name"
    STATUS = "status"
    VERSION = "version"
    QUEUE = "queue"
    PARTITION = "partition"
    PRIORITY = "priority"
    EXECUTOR = "executor"  # the label of its owner
    PARENT = "parent"
    CREATED = "created"
    STARTED = "started"
    UPDATED = "updated"
    CLOSED = "closed"
    DEADLINE = "deadline"
    DURATION = "duration"  # from its start to its end, or to now
    REASON = "reason"
    PROBLEM = "problem"  # see problems.py
    ATTEMPTS = "attempts"
    VERSIONING = "versioning"
    ERROR = "error"  # the class of its recorded failure

    @property
    def kind(self) -> Kind:
        """What sort of value it is."""
        return _KINDS.get(self, Kind.TEXT)

    @property
    def always(self) -> bool:
        """Whether every row has it."""
        return self in _ALWAYS


_KINDS = {
    **dict.fromkeys((Fact.RUN, Fact.PRIORITY, Fact.ATTEMPTS), Kind.WHOLE),
    **dict.fromkeys((Fact.CREATED, Fact.STARTED, Fact.UPDATED, Fact.CLOSED, Fact.DEADLINE), Kind.TIME),
    Fact.DURATION: Kind.SPAN, Fact.STATUS: Kind.STATUS, Fact.VERSIONING: Kind.VERSIONING,
}  # fmt: skip
_ALWAYS = {
    Fact.ID, Fact.RUN, Fact.NAME, Fact.STATUS, Fact.VERSION, Fact.PARTITION, Fact.PRIORITY, Fact.CREATED, Fact.UPDATED,
    Fact.ATTEMPTS, Fact.VERSIONING,
}  # fmt: skip


class Attribute(msgspec.Struct, frozen=True):
    """What a workflow was started with in ``attributes``, under this name."""

    name: str

    @property
    def kind(self) -> Kind:
        """As it was stored."""
        return Kind.ANY


class Now(msgspec.Struct, frozen=True):
    """A time so many microseconds after the statement's."""

    plus: int = 0


Subject = Fact | Attribute
Value = str | int | float | bool | Now
Sign = Literal["<", "<=", ">", ">="]
Use = Literal["list", "count", "set"]
"""What a query is for: only a list has an order, only a count has groups."""


class OneOf(msgspec.Struct, frozen=True):
    """It equals one of these; of none, never."""

    subject: Subject
    values: tuple[Value, ...]


class Compare(msgspec.Struct, frozen=True):
    """It stands in this order to a value of its own type."""

    subject: Subject
    sign: Sign
    value: Value


class StartsWith(msgspec.Struct, frozen=True):
    """It is text that begins so."""

    subject: Subject
    prefix: str


class Present(msgspec.Struct, frozen=True):
    """There is one; an empty version or partition is none."""

    subject: Subject


class Not(msgspec.Struct, frozen=True):
    """The other is false."""

    part: Condition


class AllOf(msgspec.Struct, frozen=True):
    """All are true; of none, always."""

    parts: tuple[Condition, ...]


class AnyOf(msgspec.Struct, frozen=True):
    """One is true; of none, never."""

    parts: tuple[Condition, ...]


Condition = OneOf | Compare | StartsWith | Present | Not | AllOf | AnyOf
ALL = AllOf(())


class Order(msgspec.Struct, frozen=True):
    """By a fact, then by id and run in the same direction; rows without it come last."""

    fact: Fact = Fact.CREATED
    descending: bool = True


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """A set of workflows, in an order or in groups."""

    condition: Condition = ALL
    order: Order = Order()
    groups: tuple[Subject, ...] = ()  # of a count
    all_runs: bool = False  # past runs, too


def where(
    *,
    statuses: Collection[Status] = (),
    names: Collection[str] = (),
    ids: Collection[str] = (),
    parent: str | None = None,
    reasons: Collection[Reason] = (),
) -> Query:
    """What code asks for: all that is given holds; an empty collection restricts nothing.

    >>> where(statuses=[Status.FAILED]).condition
    OneOf(subject=<Fact.STATUS: 'status'>, values=(<Status.FAILED: 'failed'>,))
    """
    given: list[tuple[Fact, Collection[str]]] = [
        (Fact.ID, ids), (Fact.STATUS, statuses), (Fact.NAME, names), (Fact.REASON, reasons),
        (Fact.PARENT, () if parent is None else (parent,)),
    ]  # fmt: skip
    return Query(condition=all_of(*(OneOf(fact, tuple(sorted(values))) for fact, values in given if values)))


def all_of(*parts: Condition) -> Condition:
    """All of them, without a needless level."""
    return parts[0] if len(parts) == 1 else AllOf(parts)


def narrowed(query: Query, *parts: Condition) -> Query:
    """The same query of fewer workflows."""
    there = () if query.condition == ALL else (query.condition,)
    return msgspec.structs.replace(query, condition=all_of(*parts, *there) if parts else query.condition)
