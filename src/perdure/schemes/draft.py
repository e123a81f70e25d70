"""A scheme as a source gives it, before names are resolved, sub-states flattened and anything checked.

Every notation is read into one of these; ``build`` makes the scheme of it. Names may still be wrong here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from perdure.errors import SchemeError
from perdure.schemes.form import Handler, OnCrash, Parameter, Timer

DraftTrigger = Literal["command", "timer", "auto", "done"]  # done: a final sub-state was reached


class DraftState(msgspec.Struct, frozen=True, kw_only=True):
    """A state, or a group if it has sub-states."""

    name: str
    title: str = ""
    initial: bool = False  # among its siblings
    final: bool = False
    settable: bool = False
    enter: tuple[str, ...] = ()
    exit: tuple[str, ...] = ()
    on_error: tuple[Handler, ...] = ()
    states: tuple[DraftState, ...] = ()


class DraftEdge(msgspec.Struct, frozen=True, kw_only=True):
    """An edge from a state or group to one; in the order of declaration."""

    source: str
    target: str
    trigger: DraftTrigger
    name: str = ""
    cond: str = ""
    by: str = ""
    timer: Timer | None = None
    reverse: bool = False
    internal: bool = False
    before: tuple[str, ...] = ()
    on: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A whole scheme. ``functions`` None: no code is at hand, and names of functions are not checked."""

    name: str
    states: tuple[DraftState, ...] = ()
    edges: tuple[DraftEdge, ...] = ()
    commands: Mapping[str, tuple[Parameter, ...]] = msgspec.field(default_factory=lambda: {})
    parameters: tuple[Parameter, ...] = ()
    on_crash: OnCrash = "status"
    functions: Mapping[str, Callable[..., Any]] | None = None
    attributes: Mapping[str, Any] = msgspec.field(default_factory=lambda: {})  # what functions find on self beside
    fields_of: type | None = None  # a class whose annotated attributes are parameters
    place: str = ""  # file, file:line or class, for messages


def refuse_parallel(where: str) -> SchemeError:
    """Parallel regions are not durable yet."""
    return SchemeError(
        f"{where} has parallel regions, which are not durable yet: a process stands in one state. Start a child "
        "process for each region in an action, and let the last one order the next command"
    )


def refuse_history(where: str) -> SchemeError:
    """History states are not durable yet."""
    return SchemeError(
        f"{where} is a history state, which is not durable yet. Keep the last state in a parameter (an action sees "
        "`source`) and let automatic transitions with a condition choose by it"
    )


def refuse_invoke(where: str) -> SchemeError:
    """``invoke`` starts something whose life nobody records."""
    return SchemeError(
        f"{where} invokes something, which is not durable. Start a workflow in an action on entry instead"
    )
