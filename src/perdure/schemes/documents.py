"""Schemes as YAML or JSON: the documents of ``python-statemachine`` (schema v1), and what they do not say beside it.

    name: vacation
    parameters: {author: str, days: {type: int, default: 0}}
    states:
      draft:
        initial: true
        settable: true
        transitions:
          - {event: submit, target: review, by: author}
      review:
        transitions:
          - {event: approve, target: gone, by: manager}
          - {event: stale, target: draft}
      gone: {final: true}
    timers: {stale: {after: 3d, keep: true}}

A transition without an event is automatic. The whole document of another tool may also stand under ``machine:``.
Actions are names of functions: what a document would have evaluated (``script``, ``assign``, ...) is refused.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

import msgspec

from perdure.errors import SchemeError
from perdure.schemes import times
from perdure.schemes.draft import (
    Draft,
    DraftEdge,
    DraftState,
    DraftTrigger,
    refuse_history,
    refuse_invoke,
    refuse_parallel,
)
from perdure.schemes.envelope import (
    KEYS,
    Envelope,
    all_of,
    any_of,
    envelop,
    flag,
    handlers,
    only,
    parameters,
    texts,
    timer,
)
from perdure.schemes.form import Parameter, Timer, identifier
from perdure.schemes.operators import pythonic

_MACHINE = ("name", "description", "datamodel", "states")
_STATE = ("initial", "final", "parallel", "enter", "exit", "transitions", "invoke", "states", "history", "donedata")
_OWN_STATE = ("settable", "title", "on_error")
_EDGE = ("event", "target", "cond", "unless", "internal", "initial", "on", "before", "after")
_OWN_EDGE = ("by", "reverse", "timer")


_INT = re.compile(r"[-+]?\d+\Z")
_FLOAT = re.compile(r"[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?\Z")


def of_yaml(text: str, where: str) -> Mapping[str, Any]:
    """Parse YAML, values only. Raises ``SchemeError`` if it is none, or PyYAML is not installed."""
    try:
        import yaml  # noqa: PLC0415  an extra: asked for when a file needs it
    except ImportError:
        raise SchemeError(f"{where}: reading YAML takes PyYAML: pip install 'perdure[yaml]', or write JSON") from None

    class Plain(yaml.SafeLoader):
        """YAML 1.2: ``on`` is a word and ``10:30`` a text, as everybody expects who has not read YAML 1.1."""

        yaml_implicit_resolvers = {  # noqa: RUF012  as the library declares it
            "": [("tag:yaml.org,2002:null", re.compile(r"\Z"))],
            **{key: [("tag:yaml.org,2002:null", re.compile(r"(~|null|Null|NULL)\Z"))] for key in "~nN"},
            **{key: [("tag:yaml.org,2002:bool", re.compile(r"(?i:true|false)\Z"))] for key in "tTfF"},
            **{key: [("tag:yaml.org,2002:int", _INT), ("tag:yaml.org,2002:float", _FLOAT)] for key in "-+.0123456789"},
        }

    try:
        return _mapping(yaml.load(text, Plain), where)  # noqa: S506  a SafeLoader
    except yaml.YAMLError as error:
        raise SchemeError(f"{where} is not YAML: {error}") from None


def of_json(text: str, where: str) -> Mapping[str, Any]:
    """Parse JSON. Raises ``SchemeError`` if it is none."""
    try:
        return _mapping(json.loads(text), where)
    except ValueError as error:
        raise SchemeError(f"{where} is not JSON: {error}") from None


def _mapping(found: Any, where: str) -> Mapping[str, Any]:
    kind = type(found).__name__
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in cast("dict[object, object]", found)):
        raise SchemeError(f"{where} holds {kind}, not a mapping by names; write states: and so on")
    return cast("Mapping[str, Any]", found)


def of_document(document: Mapping[str, Any], where: str) -> Draft:
    """The draft of a document. Raises ``SchemeError`` for what it may not have."""
    if "machine" in document:
        only(document, KEYS | {"machine"}, where)
        machine, own = document["machine"], document
        only(machine, _MACHINE, f"{where}, machine")
    else:
        only(document, KEYS | set(_MACHINE), where)
        machine, own = document, document
    # `parameters` of a document that is its own envelope are read once, with the envelope's.
    said = cast("Envelope", {key: own[key] for key in KEYS & set(own)})
    clocks: dict[str, Timer] = {}
    states = _mapping(machine.get("states", {}), f"{where}, states")
    draft = Draft(
        name=machine.get("name", ""),
        states=tuple(_state(name, given or {}, clocks) for name, given in states.items()),
        edges=tuple(edge for name, given in states.items() for edge in _edges(name, given or {})),
        parameters=tuple(_datamodel(machine.get("datamodel", {}))),
        place=where,
    )
    edges = tuple(
        msgspec.structs.replace(edge, trigger="timer", timer=clocks[edge.name]) if edge.name in clocks else edge
        for edge in draft.edges
    )
    return envelop(msgspec.structs.replace(draft, edges=edges), said)


def _state(name: str, given: Mapping[str, Any], clocks: dict[str, Timer]) -> DraftState:
    what = f"the state {name!r}"
    only(given, _STATE + _OWN_STATE, what)
    if flag(given.get("parallel", False), f"parallel of {what}"):
        raise refuse_parallel(what)
    for history in given.get("history") or ():
        raise refuse_history(f"{history!r} of {what}")
    if given.get("invoke"):
        raise refuse_invoke(what)
    if given.get("donedata"):
        raise SchemeError(f"{what} has donedata, which nobody would read; set a parameter in an action instead")
    inside = _mapping(given.get("states") or {}, f"states of {what}")
    return DraftState(
        name=name,
        title=given.get("title", ""),
        initial=flag(given.get("initial", False), f"initial of {what}"),
        final=flag(given.get("final", False), f"final of {what}"),
        settable=flag(given.get("settable", False), f"settable of {what}"),
        enter=tuple(texts(_entering(given.get("enter"), what, clocks), f"enter of {what}")),
        exit=tuple(texts(_without_cancel(given.get("exit")), f"exit of {what}")),
        on_error=handlers(given.get("on_error") or {}, name),
        states=tuple(_state(child, said or {}, clocks) for child, said in inside.items()),
    )


def _entering(given: Any, what: str, clocks: dict[str, Timer]) -> list[Any]:
    """What is done on entry, without the delayed sends: those are timers."""
    found: list[Any] = []
    for one in _each(given):
        sent: Any = cast("dict[str, Any]", one).get("send") if isinstance(one, dict) else None
        said: dict[str, Any] = cast("dict[str, Any]", sent) if isinstance(sent, dict) else {}
        if said and set(said) <= {"event", "delay", "id"}:
            clocks[said["event"]] = timer(times.span(said.get("delay", "")), f"of {what}")
        else:
            found.append(one)
    return found


def _without_cancel(given: Any) -> list[Any]:
    """Cancelling a timer on exit says what is done anyway."""
    return [one for one in _each(given) if not (isinstance(one, dict) and list(cast("Any", one)) == ["cancel"])]


def _each(given: Any) -> list[Any]:
    if given is None:
        return []
    return list(given) if _is_list(given) else [given]


def _is_list(given: object) -> bool:
    return isinstance(given, list)


def _edges(name: str, given: Mapping[str, Any]) -> Iterator[DraftEdge]:
    for said in given.get("transitions") or ():
        what = f"a transition of {name!r}"
        only(said, _EDGE + _OWN_EDGE, what)
        yield from _edge(name, said, what)
    inside: Mapping[str, Any] = given.get("states") or {}
    for child, state in inside.items():
        yield from _edges(child, state or {})


def _edge(name: str, said: Mapping[str, Any], what: str) -> Iterator[DraftEdge]:
    target: str = said.get("target") or name
    if len(target.split()) > 1:
        raise refuse_parallel(f"{what} (to {target})")
    cond = [pythonic(text) for text in texts(said.get("cond"), f"cond of {what}")]
    unless = [pythonic(text) for text in texts(said.get("unless"), f"unless of {what}")]
    for event in str(said.get("event") or "").split() or [""]:
        if "*" in event:
            raise SchemeError(f"{what} is for {event!r}; name the event, a command must be one that can be offered")
        done = done_of(event)
        if done and identifier(event[len("done.state.") :]) != identifier(name):
            raise SchemeError(f"{what} is for {event!r}; only {name!r} itself can say what comes when it is done")
        trigger: DraftTrigger = "done" if done else "command" if event else "auto"
        clock = timer(said["timer"], event) if "timer" in said else None
        yield DraftEdge(
            source=name,
            target=target,
            trigger="timer" if clock is not None else trigger,
            name="" if done else event,
            cond=all_of(cond, unless),
            by=any_of(said.get("by", "")),
            timer=clock,
            reverse=flag(said.get("reverse", False), f"reverse of {what}"),
            internal=flag(said.get("internal", False), f"internal of {what}") or not said.get("target"),
            before=tuple(texts(said.get("before"), f"before of {what}")),
            on=tuple(texts(said.get("on"), f"on of {what}")),
            after=tuple(texts(said.get("after"), f"after of {what}")),
        )


def done_of(event: str) -> bool:
    """Whether an event says that a group has reached its final sub-state."""
    return event.startswith(("done.state.", "done_state_"))


def _datamodel(given: Any) -> Iterator[Parameter]:
    """Data of another tool: persistent parameters of the type of their first value."""
    if isinstance(given, Mapping):
        for name, default in cast("Mapping[str, Any]", given).items():
            yield data(name, default)
        return
    for item in given:
        only(item, ("id", "expr", "content", "src"), "datamodel")
        yield data(
            item["id"], literal(item.get("expr", "None"), item["id"]) if "content" not in item else item["content"]
        )


def data(name: str, default: Any) -> Parameter:
    """A parameter with a first value."""
    return parameters({name: {"type": type(default) if default is not None else "Any", "default": default}})[0]


def literal(text: str, name: str) -> Any:
    """The constant that a text is. Raises ``SchemeError``: a file computes nothing."""
    words = {"true": True, "false": False, "null": None}
    if text in words:
        return words[text]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        raise SchemeError(f"{name!r} begins as {text!r}, which is no constant; set it in an action instead") from None
