"""From the tree to a ``Query``: fields are found, values read, operators refused where they mean nothing.

Promise: what comes out has one meaning for every store; what cannot have one is ``Unfit``, at its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from perdure.model.states import Status
from perdure.query import tree
from perdure.query.conditions import (
    ALL,
    AllOf,
    AnyOf,
    Compare,
    Condition,
    Fact,
    Not,
    OneOf,
    Order,
    Present,
    Query,
    Sign,
    StartsWith,
    Subject,
    Use,
    Value,
)
from perdure.query.fields import SIGNS, Field, find_field
from perdure.query.marks import Unfit
from perdure.query.tree import Comparison, Negation, Node, Statement
from perdure.query.values import values_of

GROUPS_MAX = 8  # fields to group by


def check(statement: Statement, app: str, use: Use, *, all_runs: bool) -> Query:
    """What a statement asks of this app."""
    if statement.groups and use != "count":
        raise Unfit(statement.groups[0].at, "GROUP BY is for a count (perdure workflow count, client.count())")
    if statement.order is not None and use != "list":
        raise Unfit(statement.order.at, f"a {use} has no order; take ORDER BY away")
    return Query(
        condition=ALL if statement.where is None else _condition(statement.where, app),
        order=_order(statement),
        groups=_groups(statement),
        all_runs=all_runs,
    )


def _condition(node: Node, app: str) -> Condition:
    if isinstance(node, Negation):
        return Not(_condition(node.part, app))
    if isinstance(node, Comparison):
        return _comparison(node, app)
    parts = [_condition(part, app) for part in node.parts]
    if node.every:
        return AllOf(tuple(parts))
    met = _met(parts)
    return met[0] if len(met) == 1 else AnyOf(tuple(met))


def _met(parts: Sequence[Condition]) -> list[Condition]:
    """Alternatives, those of one subject together: ``status = failed OR status = timed_out`` is one look."""
    met: list[Condition] = []
    places: dict[Subject, int] = {}
    for part in parts:
        at = places.get(part.subject) if isinstance(part, OneOf) else None
        there = None if at is None else met[at]
        if at is not None and isinstance(part, OneOf) and isinstance(there, OneOf):
            met[at] = OneOf(part.subject, _distinct((*there.values, *part.values)))
            continue
        if isinstance(part, OneOf):
            places[part.subject] = len(met)
        met.append(part)
    return met


def _distinct(values: Sequence[Value]) -> tuple[Value, ...]:
    """Each once; true is not 1."""
    return tuple({(isinstance(value, bool), value): value for value in values}.values())


def _comparison(node: Comparison, app: str) -> Condition:
    field = find_field(node.name)
    signs = SIGNS[field.reading]
    if node.sign not in signs:
        fits = ", ".join(shown for sign, shown in _SHOWN.items() if sign in signs)
        raise Unfit(node.at, f"{field.name} is {field.reading}, which takes {fits}, not {node.sign}")
    if node.sign == "NULL":
        return Present(field.subject) if node.negated else Not(Present(field.subject))
    if node.sign in ("=", "IN"):
        return _one_of(node, field, app)
    condition = _ordered(node, field, app)
    return Not(condition) if node.negated else condition


_SHOWN = {
    "=": "= !=", "<": "< <= > >=", "IN": "IN", "BETWEEN": "BETWEEN", "STARTS_WITH": "STARTS_WITH", "NULL": "IS NULL",
}  # fmt: skip


def _one_of(node: Comparison, field: Field, app: str) -> Condition:
    given = [value for literal in node.values for value in values_of(field, literal, app)]
    if field.subject is Fact.STATUS and node.negated:  # a status is always one of the others
        return OneOf(Fact.STATUS, tuple(sorted(status for status in Status if status not in given)))
    condition = OneOf(field.subject, _distinct(given))
    return Not(condition) if node.negated else condition


def _ordered(node: Comparison, field: Field, app: str) -> Condition:
    subject = field.subject
    given = [_one(field, literal, app) for literal in node.values]
    if node.sign == "STARTS_WITH":
        if not isinstance(given[0], str):
            raise Unfit(node.values[0].at, f"STARTS_WITH takes text; write '{node.values[0].raw}'")
        return StartsWith(subject, given[0])
    if node.sign == "BETWEEN":
        low, high = given
        return AllOf((Compare(subject, ">=", low), Compare(subject, "<=", high)))
    return Compare(subject, cast("Sign", node.sign), given[0])


def _one(field: Field, literal: tree.Literal, app: str) -> Value:
    (value,) = values_of(field, literal, app)
    if isinstance(value, bool):
        raise Unfit(literal.at, f"{literal.raw} has no order; write {field.name} = {literal.raw}")
    return value


def _order(statement: Statement) -> Order:
    if statement.order is None:
        return Order()
    field = find_field(statement.order)
    if not field.sorts:
        raise Unfit(statement.order.at, f"a list cannot be ordered by {field.name}: its values may be of several types")
    return Order(cast("Fact", field.subject), statement.descending)


def _groups(statement: Statement) -> tuple[Subject, ...]:
    if len(statement.groups) > GROUPS_MAX:
        raise Unfit(statement.groups[GROUPS_MAX].at, f"a count is grouped by {GROUPS_MAX} fields at most")
    subjects: dict[Subject, None] = {}
    for name in statement.groups:
        field = find_field(name)
        if not field.groups:
            raise Unfit(name.at, f"a count cannot be grouped by {field.name}: each workflow would be a group")
        subjects[field.subject] = None
    return tuple(subjects)
