"""A query as it was written: names and literals with their places, before anybody asks what they mean."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import msgspec


class Span(NamedTuple):
    """From where to where something stands in the text, in characters."""

    start: int
    end: int


class Name(msgspec.Struct, frozen=True):
    """The name of a field, or of an attribute."""

    text: str
    at: Span
    attribute: bool = False


class Written(StrEnum):
    """How a value was written."""

    TEXT = "text"  # in quotes
    WORD = "word"  # without
    NUMBER = "number"
    DURATION = "duration"
    TIME = "time"
    NOW = "now"  # now, or so many microseconds from it
    TRUTH = "truth"


class Literal(msgspec.Struct, frozen=True):
    """A value as it was written."""

    how: Written
    value: str | int | float | bool
    raw: str
    at: Span


class Comparison(msgspec.Struct, frozen=True):
    """A field, an operator and its values."""

    name: Name
    sign: str  # = < <= > >= IN BETWEEN STARTS_WITH NULL
    values: tuple[Literal, ...]
    negated: bool
    at: Span  # of the operator


class Negation(msgspec.Struct, frozen=True):
    """NOT."""

    part: Node
    depth: int


class Junction(msgspec.Struct, frozen=True):
    """AND (``every``), or OR."""

    every: bool
    parts: tuple[Node, ...]
    depth: int


Node = Comparison | Negation | Junction


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of it."""

    where: Node | None = None
    order: Name | None = None
    descending: bool = False
    groups: tuple[Name, ...] = ()


def depth_of(node: Node) -> int:
    """How many levels stand one in another."""
    return 0 if isinstance(node, Comparison) else node.depth
