"""Lists that are made when first needed, and never copied as they grow: there may be thousands in one burst."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def also(kept: list[T] | None, one: T) -> list[T]:
    """One more kept with what is kept."""
    if kept is None:
        return [one]
    kept.append(one)
    return kept
