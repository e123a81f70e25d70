"""What a count answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self

import msgspec

from perdure.query.conditions import Query
from perdure.query.fields import name_of


class Group(msgspec.Struct, frozen=True):
    """The workflows that have these values of what a count was grouped by."""

    fields: dict[str, str | int | float | bool | None]
    """By the names of the fields, in the order of the query; None where they have nothing."""
    count: int


class Count(int):
    """How many workflows: an ``int``, with ``groups`` (the largest first) if the query says ``GROUP BY``."""

    groups: tuple[Group, ...]

    def __new__(cls, total: int, groups: Iterable[Group] = ()) -> Self:
        made = super().__new__(cls, total)
        made.groups = tuple(groups)
        return made


def count_of(query: Query, counted: Sequence[tuple[Sequence[str | int | float | bool | None], int]]) -> Count:
    """The answer to a query, from values and counts in the order of its groups."""
    total = sum(count for _, count in counted)
    if not query.groups:
        return Count(total)
    names = [name_of(subject) for subject in query.groups]
    return Count(total, (Group(dict(zip(names, values, strict=True)), count) for values, count in counted))
