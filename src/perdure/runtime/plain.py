"""What is written as a coroutine for both faces, run in the blocking one, where none of it waits."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def plain(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run what never waits; its value."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    coroutine.close()
    raise RuntimeError("a process of perdure.sync awaited something; its functions must be 'def'")
