"""From a draft to a scheme: the one place where names find functions, sub-states become flat and everything is checked.

Promises: equal drafts give equal schemes; a scheme that was built can be run; all that is wrong is said at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import msgspec

from perdure.errors import SchemeError
from perdure.schemes import calling, checks, expressions
from perdure.schemes.draft import Draft, DraftEdge, DraftState
from perdure.schemes.form import Command, Group, Parameter, Scheme, State, Transition, Trigger, identifier

_Functions = Mapping[str, Callable[..., Any]]


def build(draft: Draft) -> Scheme:
    """Make a scheme of a draft. Raises ``SchemeError`` with everything that is wrong, each with what to do."""
    problems = checks.of_draft(draft)
    edges = [_normal(edge, problems) for edge in draft.edges]
    _raise(draft, problems)  # names must be sound before anything is looked up by them
    functions = draft.functions or {}
    tree = _Tree(draft.states)
    states, groups = tree.flat(functions)
    flat = _sorted(_flat_edges(tree, edges, functions), states)
    scheme = Scheme(
        name=draft.name,
        states=states,
        transitions=flat,
        groups=groups,
        commands=_commands(draft, flat, functions),
        parameters=draft.parameters,
        on_crash=draft.on_crash,
    )
    problems = [*checks.of_scheme(scheme), *checks.of_names(scheme, draft.functions)]
    _raise(draft, problems)
    return scheme


def _raise(draft: Draft, problems: list[str]) -> None:
    if not problems:
        return
    where = f"the scheme {draft.name!r}" + (f" ({draft.place})" if draft.place else "")
    listed = problems[0] if len(problems) == 1 else "".join(f"\n  - {problem}" for problem in problems)
    raise SchemeError(f"{where} cannot be run: {listed}", problems=tuple(problems))


def _normal(edge: DraftEdge, problems: list[str]) -> DraftEdge:
    texts = {"cond": edge.cond, "by": edge.by}
    for which, text in texts.items():
        try:
            texts[which] = expressions.normal(text)
        except SchemeError as error:
            problems.append(f"{checks.shown(edge)}: {which}= {error}")
    return msgspec.structs.replace(edge, **texts)


class _Tree:
    """The nested states by name, with the groups that each stands in."""

    def __init__(self, states: tuple[DraftState, ...]) -> None:
        self.nodes: dict[str, DraftState] = {}
        self.groups: dict[str, tuple[str, ...]] = {}
        self._walk(states, ())

    def _walk(self, states: tuple[DraftState, ...], groups: tuple[str, ...]) -> None:
        for state in states:
            self.nodes[state.name] = state
            self.groups[state.name] = groups
            self._walk(state.states, (*groups, state.name))

    def first(self, name: str) -> str:
        """The leaf that is entered where a state or group is named."""
        node = self.nodes[name]
        return self.first(next(child.name for child in node.states if child.initial)) if node.states else name

    def flat(self, functions: _Functions) -> tuple[tuple[State, ...], tuple[Group, ...]]:
        top = next(name for name, node in self.nodes.items() if node.initial and not self.groups[name])
        initial = self.first(top)
        states: list[State] = []
        groups: list[Group] = []
        for name, node in self.nodes.items():
            enter = _actions(functions, node.enter, "on_enter_state", f"on_enter_{identifier(name)}")
            leave = _actions(functions, node.exit, "on_exit_state", f"on_exit_{identifier(name)}")
            inside = self.groups[name]
            if node.states:
                groups.append(
                    Group(name=name, title=node.title, initial=self.first(name), enter=enter, exit=leave, groups=inside)
                )
                continue
            states.append(
                State(
                    name=name,
                    title=node.title,
                    initial=name == initial,
                    final=node.final and not inside,  # a final sub-state ends its group, not the process
                    settable=node.settable,
                    enter=enter,
                    exit=leave,
                    groups=inside,
                    on_error=self._handlers(node),
                )
            )
        return tuple(states), tuple(groups)

    def _handlers(self, node: DraftState) -> tuple[Any, ...]:
        return tuple(
            type(handler)(
                error=handler.error,
                retry=handler.retry,
                ignore=handler.ignore,
                to=self.first(handler.to) if handler.to in self.nodes else handler.to,
            )
            for handler in node.on_error
        )

    def domain(self, edge: DraftEdge) -> str:
        """The innermost group that the edge neither leaves nor enters."""
        if edge.internal and edge.source in self.groups[edge.target]:
            return edge.source
        common = ""
        for one, other in zip(self.groups[edge.source], self.groups[edge.target], strict=False):
            if one != other:
                break
            common = one
        return common


def _actions(
    functions: _Functions, named: tuple[str, ...], generic: str, own: str, *, late: bool = False
) -> tuple[str, ...]:
    """Actions of one moment in order: the generic one, those the source names, the one found by its name."""
    before = () if late else (generic,)
    behind = (own, generic) if late else (own,)
    found = [name for name in before if name in functions]
    found += named
    found += [name for name in behind if name in functions]
    return tuple(dict.fromkeys(found))


def _flat_edges(tree: _Tree, edges: Iterable[DraftEdge], functions: _Functions) -> list[Transition]:
    """Those of each leaf before those of its groups, innermost first; what can never be taken is left out."""
    by_source: dict[str, list[DraftEdge]] = {}
    for edge in edges:
        by_source.setdefault(edge.source, []).append(edge)
    flat: list[Transition] = []
    for name, node in tree.nodes.items():
        if node.states:
            continue
        always: set[tuple[str, str]] = set()
        for source in (name, *reversed(tree.groups[name])):
            taken: set[tuple[str, str]] = set()
            for edge in by_source.get(source, ()):
                if edge.trigger == "done" and not (node.final and tree.groups[name][-1] == source):
                    continue
                made = _edge(tree, name, edge, functions)
                if (made.trigger, made.name) in always:
                    continue  # the leaf, or a group further in, always takes another
                flat.append(made)
                if not made.cond and not made.by:
                    taken.add((made.trigger, made.name))
            always |= taken
    return flat


def _edge(tree: _Tree, leaf: str, edge: DraftEdge, functions: _Functions) -> Transition:
    trigger: Trigger = "auto" if edge.trigger == "done" else edge.trigger
    internal = edge.internal and edge.target == edge.source
    name = "" if trigger == "auto" else edge.name

    def acts(moment: Literal["before", "on", "after"]) -> tuple[str, ...]:
        own = f"{moment}_{identifier(edge.name)}" if edge.name else ""
        return _actions(functions, getattr(edge, moment), f"{moment}_transition", own, late=moment == "after")

    return Transition(
        source=leaf,
        target=leaf if internal else tree.first(edge.target),
        trigger=trigger,
        name=name,
        cond=edge.cond,
        by=edge.by,
        timer=edge.timer,
        reverse=edge.reverse,
        internal=internal,
        before=acts("before"),
        on=acts("on"),
        after=acts("after"),
        domain="" if internal else tree.domain(edge),
    )


def _sorted(edges: list[Transition], states: tuple[State, ...]) -> tuple[Transition, ...]:
    """By source; within one, as declared. How notations mix the edges of several states means nothing."""
    place = {state.name: number for number, state in enumerate(states)}
    return tuple(sorted(edges, key=lambda edge: place[edge.source]))


def _commands(draft: Draft, edges: tuple[Transition, ...], functions: _Functions) -> tuple[Command, ...]:
    """Each command once; its parameters as declared, else as the functions that its edges name ask for them."""
    found: dict[str, Command] = {}
    for edge in edges:
        if edge.trigger != "command":
            continue
        if edge.name in draft.commands:
            found.setdefault(edge.name, Command(name=edge.name, parameters=draft.commands[edge.name]))
            continue
        known: dict[str, Parameter] = {p.name: p for p in found[edge.name].parameters} if edge.name in found else {}
        for action in (*edge.before, *edge.on, *edge.after):
            if action in functions and not action.endswith("_transition"):
                for parameter in calling.signature_of(functions[action]):
                    known.setdefault(parameter.name, parameter)
        found[edge.name] = Command(name=edge.name, parameters=tuple(known.values()))
    return tuple(found.values())
