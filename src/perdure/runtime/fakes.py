"""What runs for a step: its own function, or what a test put in its place."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from perdure.definitions import StepDef


def body_of(definition: StepDef, fakes: Mapping[str, Callable[..., Any]]) -> tuple[Callable[..., Any], bool]:
    """The function to run for a step, and whether it is a coroutine function."""
    fake = fakes.get(definition.name) if fakes else None
    if fake is not None:
        return _awaiting(fake), True
    return definition.fn, definition.is_async


def _awaiting(fake: Callable[..., Any]) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        value = fake(*args, **kwargs)
        return await value if inspect.isawaitable(value) else value

    return call
