"""The one internal form of a scheme, whatever it was written in: states, transitions, parameters, as frozen values.

A scheme names functions and holds none: two sources that mean the same give equal schemes. States are flat: a sub-state
is a leaf that knows the groups it stands in. What a burst must know, it asks here (``commands``, ``autos``, ``timers``,
``moves``, ``answers``); nothing here knows time, a database or who runs it.
"""

from __future__ import annotations

import copy
import json
import keyword
import re
from collections.abc import Collection, Mapping
from typing import Any, Literal, cast

import msgspec

from perdure.errors import StateNotFound

Trigger = Literal["command", "timer", "auto"]
OnCrash = Literal["status", "resume"]


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A named value: of a process (persistent, or temporary: it lives for one burst), or of a command."""

    name: str
    hint: Any = Any
    required: bool = False
    default: Any = None
    temporary: bool = False
    fresh: bool = False  # ``default`` is made anew for each: by calling it, or as a copy

    def value(self) -> Any:
        """The default, a new one each time where it can be changed in place."""
        if not self.fresh:
            return self.default
        return self.default() if callable(self.default) else copy.deepcopy(self.default)


class Handler(msgspec.Struct, frozen=True, kw_only=True):
    """What is done when an action of a state raises: one of retry, ignore, go to a state.

    ``error`` is the name of an exception's class (its own or that of a base), ``*`` for every one.
    """

    error: str
    retry: int = 0  # so many more times; then the next handler that matches
    ignore: bool = False  # as if the action had returned
    to: str = ""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """A leaf: what a process can stand in."""

    name: str
    title: str = ""  # for people; "": the name
    initial: bool = False
    final: bool = False
    settable: bool = False  # offered to people who set the state by hand
    enter: tuple[str, ...] = ()  # its own actions, in order
    exit: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()  # that it stands in, outermost first
    on_error: tuple[Handler, ...] = ()


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """A state with sub-states. A process never stands in it, only in one of its leaves."""

    name: str
    title: str = ""
    initial: str = ""  # the leaf that is entered where the group is named
    enter: tuple[str, ...] = ()
    exit: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


class Timer(msgspec.Struct, frozen=True, kw_only=True):
    """When a timer fires: exactly one of ``after``, ``every`` and ``at`` is given.

    ``at`` is text: a date with time and zone (``2026-12-24T18:00+01:00``), a time of day (``09:30``, in ``tz``, the
    next time it comes), or an expression over the parameters, which gives a datetime, a duration from now, a number of
    seconds from now, or None (never, until the state is entered again).
    """

    after: int | None = None  # microseconds from entering the state
    every: int | None = None  # the same, and again as long as the state is not left
    at: str | None = None
    tz: str = "UTC"
    keep: bool = False  # entering a state that has this timer too does not restart the clock


class Transition(msgspec.Struct, frozen=True, kw_only=True):
    """One edge, from leaf to leaf."""

    source: str
    target: str
    trigger: Trigger
    name: str = ""  # of the command or timer; an automatic one has none
    cond: str = ""  # an expression; "": always
    by: str = ""  # an expression over actors; "": anyone
    timer: Timer | None = None
    reverse: bool = False  # goes back, as people see it
    internal: bool = False  # no state is left or entered
    before: tuple[str, ...] = ()  # actions: before the state is left,
    on: tuple[str, ...] = ()  # between leaving and entering,
    after: tuple[str, ...] = ()  # and after entering
    domain: str = ""  # the innermost group that is neither left nor entered; "": none


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """What people or programs order, by name, with parameters."""

    name: str
    parameters: tuple[Parameter, ...] = ()


class Moves(msgspec.Struct, frozen=True, kw_only=True):
    """The names of the actions of a move, in the order in which they run."""

    leave: tuple[str, ...] = ()  # before, then exits from the inside out
    on: tuple[str, ...] = ()
    enter: tuple[str, ...] = ()  # from the outside in, then after

    @property
    def all(self) -> tuple[str, ...]:
        """All of them in order."""
        return self.leave + self.on + self.enter


class Clocks(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of a process' timers when it has entered a state."""

    keep: tuple[str, ...] = ()  # they run on, at the time they are due
    arm: tuple[tuple[str, Timer], ...] = ()  # (anew)
    drop: tuple[str, ...] = ()


class Scheme(msgspec.Struct, frozen=True, kw_only=True):
    """A whole scheme. Made by ``build``, which checks it; transitions stand in the order of their declaration."""

    name: str
    states: tuple[State, ...]
    transitions: tuple[Transition, ...] = ()
    groups: tuple[Group, ...] = ()
    commands: tuple[Command, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    on_crash: OnCrash = "status"

    @property
    def initial(self) -> str:
        """The state in which a process begins."""
        return next(state.name for state in self.states if state.initial)

    def refusal(self, given: Collection[str]) -> str:
        """Why no process can begin with parameters of these names; empty if one can."""
        known = [parameter.name for parameter in self.parameters]
        for name in given:
            if name not in known:
                return f"{self.name} has no parameter {name!r}; it has: {', '.join(sorted(known)) or 'none'}"
        for parameter in self.parameters:
            if parameter.required and parameter.name not in given:
                return f"{self.name} needs the parameter {parameter.name!r}; give {parameter.name}=…"
        return ""

    def has(self, name: str) -> bool:
        """Whether a process can stand in it."""
        return any(state.name == name for state in self.states)

    def state(self, name: str) -> State:
        """The state of that name; the initial leaf of the group of that name. Raises ``StateNotFound``."""
        for state in self.states:
            if state.name == name:
                return state
        for group in self.groups:
            if group.name == name:
                return self.state(group.initial)
        known = ", ".join(sorted(state.name for state in self.states))
        raise StateNotFound(f"the scheme {self.name!r} has no state {name!r}; it has: {known}")

    def exits(self, state: str) -> tuple[Transition, ...]:
        """All that leave a state, in order."""
        return tuple(edge for edge in self.transitions if edge.source == state)

    def autos(self, state: str) -> tuple[Transition, ...]:
        """Automatic exits in the order in which they are asked: the first whose condition holds is taken."""
        return tuple(edge for edge in self.exits(state) if edge.trigger == "auto")

    def timers(self, state: str) -> tuple[Transition, ...]:
        """Timer exits, in order."""
        return tuple(edge for edge in self.exits(state) if edge.trigger == "timer")

    def fired(self, state: str, timer: str) -> tuple[Transition, ...]:
        """What a timer may do in a state, in order; the first whose condition holds is taken."""
        return tuple(edge for edge in self.timers(state) if edge.name == timer)

    def offers(self, state: str) -> Mapping[str, tuple[Transition, ...]]:
        """Commands that leave a state, each with its transitions in order; actors and conditions are not asked."""
        found: dict[str, tuple[Transition, ...]] = {}
        for edge in self.exits(state):
            if edge.trigger == "command":
                found[edge.name] = (*found.get(edge.name, ()), edge)
        return found

    def command(self, name: str) -> Command | None:
        """The command of that name, if the scheme has one."""
        return next((command for command in self.commands if command.name == name), None)

    def answers(self, state: str) -> bool:
        """Whether a command or a timer leaves a state: after a crash it is in Error if so, else Terminated."""
        return any(edge.trigger != "auto" for edge in self.exits(state))

    def entering(self, state: str) -> tuple[str, ...]:
        """Actions run when a state is entered from nowhere: at the start, or when it is set by hand."""
        leaf = self.state(state)
        return (*self._of_groups(leaf.groups, "enter"), *leaf.enter)

    def moves(self, edge: Transition) -> Moves:
        """Actions that an edge runs."""
        if edge.internal:
            return Moves(leave=edge.before, on=edge.on, enter=edge.after)
        source, target = self.state(edge.source), self.state(edge.target)
        outer = reversed(_below(source.groups, edge.domain))
        leave = (*edge.before, *source.exit, *self._of_groups(tuple(outer), "exit"))
        enter = (*self._of_groups(_below(target.groups, edge.domain), "enter"), *target.enter, *edge.after)
        return Moves(leave=leave, on=edge.on, enter=enter)

    def clocks(self, state: str, running: frozenset[str] = frozenset()) -> Clocks:
        """What becomes of the ``running`` timers (those armed and not fired) once ``state`` is entered."""
        wanted: dict[str, Timer] = {}
        for edge in self.timers(state):
            if edge.timer is not None:
                wanted.setdefault(edge.name, edge.timer)
        kept = tuple(name for name, timer in wanted.items() if timer.keep and name in running)
        return Clocks(
            keep=kept,
            arm=tuple((name, timer) for name, timer in wanted.items() if name not in kept),
            drop=tuple(sorted(running - set(wanted))),
        )

    def text(self) -> str:
        """The scheme in one line that is the same wherever the same thing is meant; for fingerprints of versions.

        Titles are left out: they change nothing that happens.
        """
        return json.dumps(_told(self), sort_keys=True)

    def _of_groups(self, names: tuple[str, ...], which: Literal["enter", "exit"]) -> tuple[str, ...]:
        known = {group.name: group for group in self.groups}
        return tuple(action for name in names for action in getattr(known[name], which))


def _told(value: object) -> object:
    match value:
        case msgspec.Struct():
            # What stands at its default is left out: a later field of the form must not change the text of before.
            own = [(field, getattr(value, field.name)) for field in msgspec.structs.fields(value)]
            return {field.name: _told(one) for field, one in own if field.name != "title" and one != field.default}
        case tuple():
            return [_told(one) for one in cast("tuple[object, ...]", value)]
        case None | bool() | int() | float() | str():
            return value
        case type():
            return value.__qualname__
        case _:
            return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _below(groups: tuple[str, ...], domain: str) -> tuple[str, ...]:
    return groups[groups.index(domain) + 1 :] if domain in groups else groups


def identifier(name: str) -> str:
    """A state's or command's name as part of a function's: ``on_enter_`` + it."""
    plain = re.sub(r"\W", "_", name)
    return f"{plain}_" if keyword.iskeyword(plain) else plain
