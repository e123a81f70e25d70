"""Schemes of ``python-statemachine``'s own classes, if that library is there: it is never imported from here.

A class is looked at, not run: its states and transitions become a draft, its methods the functions, its annotated
attributes the parameters. In an action ``self`` is the process, and so is ``self.model``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from perdure.errors import SchemeError
from perdure.schemes.documents import done_of
from perdure.schemes.draft import Draft, DraftEdge, DraftState, refuse_history, refuse_invoke, refuse_parallel
from perdure.schemes.envelope import all_of
from perdure.schemes.form import identifier
from perdure.schemes.grammar import Functions
from perdure.schemes.operators import pythonic

_LIBRARY = "statemachine"


def is_chart(cls: object) -> bool:
    """Whether it is a class of that library."""
    return isinstance(cls, type) and any(_theirs(base) for base in cls.__mro__) and hasattr(cls, "states_map")


def of_chart(cls: Any) -> Draft:
    """The draft of a chart's class. Raises ``SchemeError`` for what cannot be durable."""
    members = {key: value for base in reversed(cls.__mro__) if not _theirs(base) for key, value in _members(base)}
    functions = Functions({key: value for key, value in members.items() if callable(value)})
    states = tuple(_state(state, functions) for state in cls.states)
    edges = tuple(edge for state in cls.states for edge in _edges(state, functions))
    return Draft(
        name=cls.__name__,
        states=states,
        edges=edges,
        functions=functions.known,
        attributes={key: value for key, value in members.items() if not callable(value)},
        fields_of=cls,
        place=f"{cls.__module__}.{cls.__qualname__}",
    )


def _theirs(cls: type) -> bool:
    return cls is object or cls.__module__.partition(".")[0] == _LIBRARY


def _members(cls: type) -> Iterator[tuple[str, Any]]:
    for key, value in vars(cls).items():
        if key.startswith(("__", "_abc")) or type(value).__module__.partition(".")[0] == _LIBRARY:
            continue
        if key not in ("states", "states_map", "final_states", "initial_state", "name") or callable(value):
            yield key, value


def _state(state: Any, functions: Functions) -> DraftState:
    what = f"the state {state.id!r}"
    if type(state).__name__ == "HistoryState":
        raise refuse_history(repr(state.id))
    if getattr(state, "parallel", False):
        raise refuse_parallel(what)
    for history in getattr(state, "history", None) or ():
        raise refuse_history(repr(history.id))
    if _specs(state, "INVOKE"):
        raise refuse_invoke(what)
    plain = state.id.replace("_", " ").capitalize()
    return DraftState(
        name=state.id,
        title="" if str(state.name) == plain else str(state.name),
        initial=bool(state.initial),
        final=bool(state.final),
        enter=_named(_specs(state, "ENTER"), functions),
        exit=_named(_specs(state, "EXIT"), functions),
        states=tuple(_state(child, functions) for child in state.states),
    )


def _specs(of: Any, group: str) -> list[Any]:
    """Callbacks that the class names; those found by their own name are found by ours."""
    specs = of._specs  # noqa: SLF001  the library shows callbacks to nobody else
    return [spec for spec in specs if spec.group.name == group and not spec.is_convention]


def _named(specs: list[Any], functions: Functions) -> tuple[str, ...]:
    return tuple(_name(spec, functions) for spec in specs)


def _name(spec: Any, functions: Functions) -> str:
    given: str | Callable[..., Any] = spec.func
    return functions.name(pythonic(given) if isinstance(given, str) else given, f"{spec.group.name.lower()}_function")


def _on(spec: Any, event: str, functions: Functions) -> str:
    """The function under a transition's decorator is what is found by name elsewhere: ``on_<event>``."""
    if event and getattr(spec.func, "__name__", None) == event:
        functions.known[f"on_{identifier(event)}"] = spec.func
        return f"on_{identifier(event)}"
    return _name(spec, functions)


def _edges(state: Any, functions: Functions) -> Iterator[DraftEdge]:
    for transition in state.transitions:
        if not transition.initial:  # of a group into its first state: the form has that already
            yield from _edge(transition, functions)
    for child in state.states:
        yield from _edges(child, functions)


def _edge(transition: Any, functions: Functions) -> Iterator[DraftEdge]:
    targets = list(transition.targets)
    if len(targets) > 1:
        raise refuse_parallel(f"a transition of {transition.source.id!r}")
    events = [str(event.id) for event in transition.events]
    done = any(done_of(event) for event in events)
    if _specs(transition, "VALIDATOR"):
        raise SchemeError(
            f"the transition {' '.join(events)} of {transition.source.id!r} has validators, which refuse by raising; "
            "name what must hold with cond="
        )
    conds = _specs(transition, "COND")
    cond = all_of(
        [_name(spec, functions) for spec in conds if spec.expected_value is not False],
        [_name(spec, functions) for spec in conds if spec.expected_value is False],
    )
    for event in [""] if done else events or [""]:
        yield DraftEdge(
            source=transition.source.id,
            target=targets[0].id if targets else transition.source.id,
            trigger="done" if done else "command" if event else "auto",
            name=event,
            cond=cond,
            internal=bool(transition.internal) or not targets,
            before=_named(_specs(transition, "BEFORE"), functions),
            on=tuple(_on(spec, event, functions) for spec in _specs(transition, "ON")),
            after=_named(_specs(transition, "AFTER"), functions),
        )
