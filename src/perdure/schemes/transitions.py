"""Schemes as the configuration of the ``transitions`` library: what ``Machine(**config)`` takes, as a mapping.

    {"states": ["draft", {"name": "review", "on_enter": "notify"}, {"name": "gone", "final": True}],
     "initial": "draft",
     "transitions": [{"trigger": "submit", "source": "draft", "dest": "review", "conditions": "ready"},
                     ["approve", "review", "gone"]]}

Nothing there is automatic by itself: the envelope says which triggers are (``auto=``), and which are timers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import msgspec

from perdure.errors import SchemeError
from perdure.schemes.draft import Draft, DraftEdge, DraftState, refuse_parallel
from perdure.schemes.envelope import all_of, only, texts

_TOP = (
    "name",
    "states",
    "transitions",
    "initial",
    "before_state_change",
    "after_state_change",
    "auto_transitions",
    "send_event",
    "ignore_invalid_triggers",
    "queued",
    "model",
)
_STATE = ("name", "on_enter", "on_exit", "final", "children", "states", "initial", "transitions", "label", "tags")
_EDGE = ("trigger", "source", "dest", "conditions", "unless", "before", "after", "label")
_ORDER = ("trigger", "source", "dest", "conditions", "unless", "before", "after")
_BETWEEN = "_"  # what the library puts between the name of a state and of one in it


def of_transitions(config: Mapping[str, Any], where: str) -> Draft:
    """The draft of a configuration. Raises ``SchemeError`` for what it may not have."""
    only(config, _TOP, where)
    states = tuple(_states(config.get("states", ()), _text(config.get("initial", "initial")), ""))
    names = [name for state in states for name in _names(state)]
    edges = [edge for said in config.get("transitions", ()) for edge in _edges(said, names, "")]
    edges += [edge for state in config.get("states", ()) for edge in _nested(state, names, "")]
    before = tuple(texts(config.get("before_state_change"), "before_state_change"))
    after = tuple(texts(config.get("after_state_change"), "after_state_change"))
    return Draft(
        name=_text(config.get("name", "")),
        states=states,
        edges=tuple(_with(edge, before, after) for edge in edges),
        place=where,
    )


def _with(edge: DraftEdge, before: tuple[str, ...], after: tuple[str, ...]) -> DraftEdge:
    return msgspec.structs.replace(edge, before=(*before, *edge.before), after=(*edge.after, *after))


def _text(given: Any) -> str:
    """A name, also of an enumeration's member."""
    return given if isinstance(given, str) else str(getattr(given, "name", given))


def _states(given: Sequence[Any], initial: str, prefix: str) -> Iterator[DraftState]:
    for one in given:
        said: Mapping[str, Any] = cast("Mapping[str, Any]", one) if isinstance(one, Mapping) else {"name": one}
        own = _text(said.get("name", ""))
        name = prefix + own
        what = f"the state {name!r}"
        if "parallel" in said:
            raise refuse_parallel(what)
        only(said, _STATE, what)
        children = said.get("children", said.get("states", ()))
        first = said.get("initial", "")
        if isinstance(first, list | tuple):
            raise refuse_parallel(what)
        chosen = initial == own or initial.startswith(own + _BETWEEN)
        inner = _text(first) or (initial.removeprefix(own + _BETWEEN) if chosen else "")
        yield DraftState(
            name=name,
            title=said.get("label", ""),
            initial=chosen,
            final=bool(said.get("final", False)),
            enter=tuple(texts(said.get("on_enter"), f"on_enter of {what}")),
            exit=tuple(texts(said.get("on_exit"), f"on_exit of {what}")),
            states=tuple(_states(children, inner, name + _BETWEEN)),
        )


def _names(state: DraftState) -> list[str]:
    return [state.name, *(name for child in state.states for name in _names(child))]


def _nested(given: Any, names: list[str], prefix: str) -> Iterator[DraftEdge]:
    """Transitions that a state has for those in it: their names begin with its own."""
    if not isinstance(given, Mapping):
        return
    said = cast("Mapping[str, Any]", given)
    inside = prefix + _text(said.get("name", "")) + _BETWEEN
    for one in said.get("transitions", ()):
        yield from _edges(one, names, inside)
    for child in said.get("children", said.get("states", ())):
        yield from _nested(child, names, inside)


def _edges(given: Any, names: list[str], prefix: str) -> Iterator[DraftEdge]:
    said: Mapping[str, Any] = (
        cast("Mapping[str, Any]", given) if isinstance(given, Mapping) else dict(zip(_ORDER, given, strict=False))
    )
    what = f"the transition {said.get('trigger', '')!r}"
    only(said, _EDGE, what)
    for missing in [key for key in ("trigger", "source", "dest") if key not in said]:
        raise SchemeError(f"{what} has no {missing}; write trigger, source and dest")
    source, dest = said["source"], said["dest"]
    several: list[Any] = list(cast("list[Any]", source)) if isinstance(source, list | tuple) else [source]
    tops = [name for name in names if not any(name.startswith(other + _BETWEEN) for other in names)]
    sources = tops if source == "*" else [prefix + _text(one) for one in several]
    for one in sources:
        target = one if dest in ("=", None) else prefix + _text(dest)
        yield DraftEdge(
            source=one,
            target=target,
            trigger="command",
            name=_text(said["trigger"]),
            cond=all_of(texts(said.get("conditions"), what), texts(said.get("unless"), what)),
            internal=dest is None,
            before=tuple(texts(said.get("before"), what)),
            after=tuple(texts(said.get("after"), what)),
        )
