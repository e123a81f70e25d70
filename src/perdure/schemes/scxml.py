"""Schemes as SCXML (W3C): states, transitions, guards, data, delayed sends.

What SCXML has no word for stands in the namespace ``urn:perdure:scheme``: ``settable``, ``title``, ``by``, ``reverse``
and ``keep`` as attributes, ``<p:action name="book"/>`` for an action that is not found by the name of its state.

    <scxml xmlns="http://www.w3.org/2005/07/scxml" xmlns:p="urn:perdure:scheme" initial="draft">
      <state id="draft" p:settable="true"><transition event="submit" target="review" p:by="author"/></state>
      <state id="review">
        <onentry><send event="stale" delay="3s" p:keep="true"/></onentry>
        <transition event="stale" target="draft"/>
        <transition event="approve" target="gone"/>
      </state>
      <final id="gone"/>
    </scxml>

Executable content is refused: what a scheme does is code that has a name.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree as ET

import msgspec

from perdure.errors import SchemeError
from perdure.schemes import times
from perdure.schemes.documents import data, done_of, literal
from perdure.schemes.draft import (
    Draft,
    DraftEdge,
    DraftState,
    DraftTrigger,
    refuse_history,
    refuse_invoke,
    refuse_parallel,
)
from perdure.schemes.envelope import flag, timer
from perdure.schemes.form import Parameter, Timer
from perdure.schemes.operators import pythonic

SCXML = "{http://www.w3.org/2005/07/scxml}"
OWN = "{urn:perdure:scheme}"

_Element = ET.Element


def of_scxml(text: str, where: str) -> Draft:
    """The draft of an SCXML document. Raises ``SchemeError`` for what it may not have."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise SchemeError(f"{where} declares a document type or entities, which a scheme does not need; take them out")
    try:
        root = ET.fromstring(text)  # noqa: S314  no entities: refused above; no network: ElementTree reads none
    except ET.ParseError as error:
        raise SchemeError(f"{where} is not XML: {error}") from None
    if _kind(root) != "scxml":
        raise SchemeError(f"{where} begins with <{_kind(root)}>; an SCXML document begins with <scxml>")
    clocks: dict[str, Timer] = {}
    states = tuple(_states(root, clocks))
    edges = (edge for element in root for edge in _edges(element))
    return Draft(
        name=root.get("name", ""),
        states=states,
        edges=tuple(
            msgspec.structs.replace(edge, trigger="timer", timer=clocks[edge.name]) if edge.name in clocks else edge
            for edge in edges
        ),
        parameters=tuple(_data(root)),
        place=where,
    )


def _kind(element: _Element) -> str:
    return element.tag.removeprefix(SCXML)


def _states(parent: _Element, clocks: dict[str, Timer]) -> Iterator[DraftState]:
    children = [child for child in parent if _kind(child) in ("state", "final", "parallel", "history")]
    chosen = parent.get("initial")
    start = parent.find(f"{SCXML}initial/{SCXML}transition")
    if start is not None:
        chosen = start.get("target")
    first = next((child.get("id") for child in children if _kind(child) != "history"), None)
    for child in children:
        yield _state(child, child.get("id") == (chosen or first), clocks)


def _state(element: _Element, initial: bool, clocks: dict[str, Timer]) -> DraftState:
    name = element.get("id", "")
    what = f"the state {name!r}"
    if _kind(element) == "parallel":
        raise refuse_parallel(what)
    if _kind(element) == "history":
        raise refuse_history(repr(name))
    enter: list[str] = []
    leave: list[str] = []
    for child in element:
        match _kind(child):
            case "onentry":
                enter += _actions(child, what, clocks)
            case "onexit":
                leave += _actions(child, what, {})
            case "invoke":
                raise refuse_invoke(what)
            case "state" | "final" | "parallel" | "history" | "transition" | "initial":
                pass
            case kind:
                raise SchemeError(f"{what} has <{kind}>, which a scheme has no use for; what it does belongs in code")
    return DraftState(
        name=name,
        title=element.get(f"{OWN}title", ""),
        initial=initial,
        final=_kind(element) == "final",
        settable=flag(element.get(f"{OWN}settable", "false"), f"settable of {what}"),
        enter=tuple(enter),
        exit=tuple(leave),
        states=tuple(_states(element, clocks)),
    )


def _actions(block: _Element, what: str, clocks: dict[str, Timer]) -> Iterator[str]:
    """Names of actions; a delayed send is the timer of its event."""
    for child in block:
        kind = child.tag.removeprefix(SCXML)
        if child.tag == f"{OWN}action":
            yield child.get("name", "")
        elif kind == "send" and child.get("delay") is not None and child.get("event"):
            keep = flag(child.get(f"{OWN}keep", "false"), f"keep of {what}")
            clocks[child.get("event", "")] = msgspec.structs.replace(
                timer(times.span(child.get("delay")), child.get("event", "")), keep=keep
            )
        elif kind not in ("cancel", "log"):
            raise SchemeError(
                f'{what} has <{kind}>; what it does belongs in code: a method on_enter_…, or <p:action name="…"/>'
            )


def _edges(element: _Element) -> Iterator[DraftEdge]:
    if _kind(element) not in ("state", "final"):
        return
    for child in element:
        if _kind(child) == "transition":
            yield from _edge(element.get("id", ""), child)
        yield from _edges(child)


def _edge(name: str, element: _Element) -> Iterator[DraftEdge]:
    what = f"a transition of {name!r}"
    target = element.get("target", name)
    if len(target.split()) > 1:
        raise refuse_parallel(f"{what} (to {target})")
    for event in element.get("event", "").split() or [""]:
        if "*" in event:
            raise SchemeError(f"{what} is for {event!r}; name the event, a command must be one that can be offered")
        done = done_of(event)
        trigger: DraftTrigger = "done" if done else "command" if event else "auto"
        yield DraftEdge(
            source=name,
            target=target,
            trigger=trigger,
            name="" if done else event,
            cond=pythonic(element.get("cond", "")),
            by=element.get(f"{OWN}by", ""),
            reverse=flag(element.get(f"{OWN}reverse", "false"), f"reverse of {what}"),
            internal=element.get("type") == "internal" or element.get("target") is None,
            on=tuple(_actions(element, what, {})),
        )


def _data(root: _Element) -> Iterator[Parameter]:
    for element in root.iterfind(f"{SCXML}datamodel/{SCXML}data"):
        name = element.get("id", "")
        yield data(name, literal(element.get("expr", "null"), name))
