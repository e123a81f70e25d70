"""What can be wrong with a scheme, each problem in a sentence with the value and what to do.

``of_draft`` looks at names, before anything is looked up by them; ``of_scheme`` at the flat scheme; ``of_names`` at
what conditions, actors and actions name. Each gives everything that it finds.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from perdure.errors import did_you_mean
from perdure.schemes import calling, expressions, times
from perdure.schemes.draft import Draft, DraftEdge, DraftState
from perdure.schemes.form import Scheme, State, Transition, identifier

RESERVED = ("id", "start", "options", "handle")
"""Names that the class itself answers to."""

OWN = "perdure_"
"""What names of arguments begin with that are Perdure's own: where a process stands travels among its parameters."""

_NAME = re.compile(r"[^\W\d][\w.-]*")


def of_draft(draft: Draft) -> list[str]:
    """Names and nesting."""
    problems: list[str] = []
    if not draft.states:
        problems.append("it has no states; write for example draft = State(initial=True)")
        return problems
    nodes = list(_walk(draft.states))
    names = [node.name for node in nodes]
    problems += _twice(names)
    problems += _bad_names(draft, names)
    problems += _initials(draft.states, "")
    for node in nodes:
        if node.states and (node.final or node.settable):
            which = "final" if node.final else "settable"
            problems.append(f"{node.name!r} has sub-states and is {which}; mark one of its sub-states instead")
        problems += [
            f"the state {node.name!r} goes to {handler.to!r} after {handler.error}, {_no_state(handler.to, names)}"
            for handler in node.on_error
            if handler.to and handler.to not in names
        ]
    finals = {node.name for node in draft.states if node.final}
    for edge in draft.edges:
        problems += _of_edge(edge, names, finals)
    return problems


def _walk(states: Iterable[DraftState]) -> Iterator[DraftState]:
    for state in states:
        yield state
        yield from _walk(state.states)


def _twice(names: list[str]) -> list[str]:
    plain = Counter(identifier(name) for name in names)
    return [
        f"two states are named {', '.join(sorted({n for n in names if identifier(n) == name}))!r}"
        "; sub-states too need names of their own, because on_enter_<name> must mean one"
        for name, number in plain.items()
        if number > 1
    ]


def _bad_names(draft: Draft, states: list[str]) -> list[str]:
    problems: list[str] = []
    used = [("state", name) for name in states]
    used += [("parameter", parameter.name) for parameter in draft.parameters]
    used += [(edge.trigger, edge.name) for edge in draft.edges if edge.trigger in ("command", "timer")]
    for what, name in dict.fromkeys(used):
        if name in RESERVED:
            problems.append(f"the {what} {name!r} has a name that the process itself answers to; call it {name}_")
        elif what == "parameter" and name.startswith(OWN):
            problems.append(f"the {what} {name!r} begins with {OWN}, as names of Perdure's own do; call it otherwise")
        elif what == "parameter" and name in calling.OFFERED:
            problems.append(
                f"the parameter {name!r} has a name that conditions and actions have for something else "
                f"({', '.join(calling.OFFERED)}); call it {name}_"
            )
        elif not _NAME.fullmatch(name):
            problems.append(f"the {what} {name!r} is not a name; use letters, digits, '_', '-' and '.'")
    kinds: dict[str, set[str]] = {}
    for what, name in used:
        kinds.setdefault(name, set()).add(what)
    for name, whats in kinds.items():
        if {"command", "timer"} <= whats:
            problems.append(f"{name!r} is a command and a timer; give one of them another name")
    for name, parameters in draft.commands.items():
        problems += [
            f"the command {name!r} has a parameter {parameter.name!r}, which is what execute() calls something else; "
            f"call it {parameter.name}_"
            for parameter in parameters
            if parameter.name in calling.OFFERED
        ]
        if not any(edge.name == name and edge.trigger == "command" for edge in draft.edges):
            known = {edge.name for edge in draft.edges if edge.trigger == "command"}
            problems.append(f"the command {name!r} has parameters and no transition{did_you_mean(name, known)}")
    return problems


def _initials(states: tuple[DraftState, ...], group: str) -> list[str]:
    initial = [state.name for state in states if state.initial]
    where = f"among the sub-states of {group!r}" if group else "in the scheme"
    problems: list[str] = []
    if not initial:
        problems.append(f"no state is initial {where}; mark one: {states[0].name} = State(initial=True)")
    if len(initial) > 1:
        problems.append(f"{len(initial)} states are initial {where}: {', '.join(initial)}; leave one")
    for state in states:
        if state.states:
            problems += _initials(state.states, state.name)
    return problems


def _of_edge(edge: DraftEdge, names: list[str], finals: set[str]) -> Iterator[str]:
    for which, name in (("begins in", edge.source), ("leads to", edge.target)):
        if name not in names:
            yield f"{shown(edge)} {which} {name!r}, {_no_state(name, names)}"
    if edge.source in finals:
        yield f"{shown(edge)} leaves {edge.source!r}, which is final: a process ends there. Take final=True away, or it"
    if edge.trigger in ("command", "timer") and not edge.name:
        yield f"{shown(edge)} has no name; give its {edge.trigger} one"
    if edge.trigger == "timer":
        bad = "it says no time" if edge.timer is None else times.wrong(edge.timer)
        if bad is not None:
            yield f"the timer {shown(edge)}: {bad}"
    elif edge.timer is not None:
        yield f"{shown(edge)} is both automatic and a timer; leave one of auto= and after="
    if edge.by and edge.trigger != "command":
        yield f"{shown(edge)} has an actor ({edge.by}), but nobody orders it; use cond= for conditions"


def of_scheme(scheme: Scheme) -> list[str]:
    """What can never be reached or taken, and what would never end."""
    problems = list(_stranded(scheme))
    for state in scheme.states:
        problems += _ambiguous(scheme, state)
    problems += _endless(scheme)
    return problems


def _reached(scheme: Scheme) -> set[str]:
    """States that a process can come to stand in."""
    seen: set[str] = set()
    todo = [scheme.initial, *(state.name for state in scheme.states if state.settable)]
    targets: dict[str, list[str]] = {state.name: [h.to for h in state.on_error if h.to] for state in scheme.states}
    for edge in scheme.transitions:
        targets[edge.source].append(edge.target)
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += targets[name]
    return seen


def _stranded(scheme: Scheme) -> Iterator[str]:
    reached = _reached(scheme)
    for state in scheme.states:
        if state.name not in reached:
            yield (
                f"nothing reaches the state {state.name!r}; add a transition to it, or mark it settable=True if people "
                "set it by hand"
            )
        elif not state.final and not state.settable and not scheme.exits(state.name):
            yield (
                f"nothing leaves the state {state.name!r} and it is not final; mark it final=True, or add a transition "
                "(settable=True if people are to take the process out of it by hand)"
            )


def _ambiguous(scheme: Scheme, state: State) -> Iterator[str]:
    seen: dict[tuple[str, str], list[Transition]] = {}
    for edge in scheme.exits(state.name):
        before = seen.setdefault((edge.trigger, edge.name), [])
        for other in before:
            if not _hides(other, edge):
                continue
            what = "automatic" if edge.trigger == "auto" else f"{edge.trigger} {edge.name!r}"
            if other.cond or other.by:
                because = f"both hold when ({other.cond or other.by})"
            else:
                because = f"the one to {other.target!r} always holds"
            yield (
                f"{state.name!r} has two {what} exits, to {other.target!r} and {edge.target!r}, and the second is "
                f"never taken: {because}. Give it a condition (cond=), or put the one without condition last"
            )
            break
        before.append(edge)
    clocks: dict[str, Transition] = {}
    for edge in scheme.timers(state.name):
        other = clocks.setdefault(edge.name, edge)
        if other.timer != edge.timer:
            yield f"the timer {edge.name!r} of {state.name!r} is set to two times; name them apart, or make them equal"


def _hides(first: Transition, second: Transition) -> bool:
    """Whether the second is never taken because the first is, whenever it could be."""
    return first.cond in ("", second.cond) and first.by in ("", second.by)


def _endless(scheme: Scheme) -> Iterator[str]:
    """Automatic exits that always hold and go round."""
    step: dict[str, str] = {}
    for state in scheme.states:
        autos = scheme.autos(state.name)
        if autos and not autos[0].cond:
            step[state.name] = autos[0].target
    reported: set[str] = set()
    for start in step:
        path: list[str] = []
        at = start
        while at in step and at not in path and at not in reported:
            path.append(at)
            at = step[at]
        if at in path:
            ring = path[path.index(at) :]
            yield (
                f"automatic exits without a condition go round and never end: {' → '.join([*ring, ring[0]])}; "
                "give one of them a condition, or make it a command or a timer"
            )
        reported.update(path)


def of_names(scheme: Scheme, functions: Mapping[str, Callable[..., Any]] | None) -> list[str]:
    """What names mean. ``functions`` None: names of functions are taken to be right."""
    if functions is None:
        return []
    return list(dict.fromkeys(_names(scheme, functions)))


def _names(scheme: Scheme, functions: Mapping[str, Callable[..., Any]]) -> Iterator[str]:
    fields = {parameter.name for parameter in scheme.parameters}
    of_commands = {command.name: {p.name for p in command.parameters} for command in scheme.commands}
    for name in sorted(fields & set(functions)):
        yield f"{name!r} is a parameter and a function; give one of them another name"
    for edge in scheme.transitions:
        known = {*fields, *functions, *of_commands.get(edge.name, ()), *calling.OFFERED}
        for name in expressions.names(edge.cond):
            if name not in known:
                yield f"{shown(edge)} has the condition {edge.cond!r}, {_nothing(name, known)}"
        for name in expressions.names(edge.by):
            if name not in fields and name not in functions:
                yield (
                    f"{shown(edge)} is for the actor {edge.by!r}, {_nothing(name, {*fields, *functions})}; an actor is "
                    f"a parameter that holds one or several of them, or a method: async def {name}(self, actor: str)"
                )
        for name in times.names(edge.timer) if edge.timer is not None else ():
            if name not in fields and name not in functions:
                yield f"the time of {shown(edge)} names {name!r}, {_nothing(name, {*fields, *functions})}"
    everywhere = (*calling.OFFERED, *(name for names in of_commands.values() for name in names))
    for where, actions in _all_actions(scheme):
        for action in actions:
            if action not in functions:
                yield f"{where} names the action {action!r}, which nobody has defined{did_you_mean(action, functions)}"
                continue
            for name in calling.unknown(functions[action], everywhere):
                yield (
                    f"the action {action!r} asks for {name!r}, which nobody gives; it may ask for "
                    f"{', '.join(calling.OFFERED)} and for parameters of commands; what is the process' is on self"
                )


def _all_actions(scheme: Scheme) -> Iterator[tuple[str, tuple[str, ...]]]:
    for state in scheme.states:
        yield f"the state {state.name!r}", (*state.enter, *state.exit)
    for group in scheme.groups:
        yield f"the state {group.name!r}", (*group.enter, *group.exit)
    for edge in scheme.transitions:
        yield shown(edge), (*edge.before, *edge.on, *edge.after)


def shown(edge: Transition | DraftEdge) -> str:
    """An edge in words."""
    name = f"{edge.name} " if edge.name else ""
    return f"{name}({edge.source} → {edge.target})"


def _no_state(name: str, known: Collection[str]) -> str:
    return f"which is no state{did_you_mean(name, known)}"


def _nothing(name: str, known: Collection[str]) -> str:
    return f"and {name!r} is nothing that it knows{did_you_mean(name, known)}"
