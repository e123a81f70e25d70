"""Schemes written as Python classes, in the grammar of ``python-statemachine``.

    class Vacation(Process):
        author: str                              # annotated: a persistent parameter
        draft = State(initial=True)
        review = State(settable=True)
        gone = State(final=True)
        submit = draft.to(review, by="author")   # a command; auto=True: automatic; after=, every=, at=: a timer

        @review.to(gone)                         # a command whose parameters are the function's
        async def close(self, comment: str = "") -> None: ...

A class has no colour: both faces use these. What a class says goes through ``build`` when the class is made, so that an
error of a scheme shows at import, with all that is wrong.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import date, datetime, time
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, cast

from perdure.errors import SchemeError
from perdure.model.durations import Duration, to_us
from perdure.schemes import calling
from perdure.schemes.draft import DraftEdge, DraftState, refuse_history, refuse_parallel
from perdure.schemes.form import Command as FormCommand
from perdure.schemes.form import Handler, Parameter, Timer

P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., Any])

Named = str | Callable[..., Any]
"""An expression, the name of a method, or the method itself."""

OnError = int | str | None
"""What a state does when an action raises: retry so many times, go to that state, or (None) ignore it."""


class Order:
    """A command with its parameters, to be executed: ``Vacation.approve(comment="ok")``."""

    def __init__(self, name: str, parameters: Mapping[str, Any]) -> None:
        self.name = name
        self.parameters = dict(parameters)

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{name}={value!r}' for name, value in self.parameters.items())})"


class Command(Generic[P]):
    """A command written as a function under its transitions: its parameters are the function's."""

    def __init__(
        self,
        action: Callable[..., object],
        transition: Transition | None = None,
        *,
        declared: FormCommand | None = None,
    ) -> None:
        self.action = action
        self.transition = transition
        self.name = getattr(action, "__name__", "") if declared is None else declared.name
        self._declared = declared

    @classmethod
    def of(cls, declared: FormCommand) -> Self:
        """The command that a scheme has, wherever it was written."""
        return cls(lambda: None, declared=declared)

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name
        if self.transition is not None:
            self.transition.__set_name__(owner, name)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Order:
        """The order to execute it with these parameters. Raises ``TypeError`` if they do not fit."""
        try:
            bound = inspect.Signature(list(self._signature())).bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"the command {self.name}: {error}") from None
        return Order(self.name, bound.arguments)

    def __or__(self, other: Transition, /) -> Transition:
        if self.transition is None:
            raise TypeError(f"the command {self.name} has no transitions of its own to add to")
        return self.transition | other

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """What it takes: name, type, whether it is required, default. For a form that asks for them."""
        return calling.signature_of(self.action) if self._declared is None else self._declared.parameters

    def _signature(self) -> Iterator[inspect.Parameter]:
        if self._declared is None:
            for parameter in calling.asked(self.action):
                if parameter.name not in calling.OFFERED:
                    yield parameter
            return
        for said in self._declared.parameters:
            default = inspect.Parameter.empty if said.required else said.value()
            yield inspect.Parameter(said.name, inspect.Parameter.KEYWORD_ONLY, default=default)

    def __repr__(self) -> str:
        return f"<command {self.name}>"


class Edge:
    """One edge as it is written; names come when the class is made."""

    def __init__(self, source: State, target: State | None, details: Mapping[str, Any]) -> None:
        self.source = source
        self.target = target
        self.details = details
        self.names: list[str] = []
        self.owner: type | None = None
        self.hooks: dict[str, list[Named]] = {"before": [], "on": [], "after": [], "cond": [], "unless": []}


class Transition:
    """One or several edges under one name, joined by ``|``; their order is the order in which they are tried."""

    def __init__(self, edges: Iterable[Edge]) -> None:
        self.edges = tuple(edges)
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = self.name or name
        for edge in self.edges:
            if name not in edge.names:
                edge.names.append(name)

    def __or__(self, other: Transition | Command[Any], /) -> Transition:
        others = other.transition if isinstance(other, Command) else other
        return Transition((*self.edges, *(others.edges if others is not None else ())))

    def __call__(self, action: Callable[Concatenate[Any, P], object], /) -> Command[P]:
        """Make a command of a function that runs when the transition is taken, between leaving and entering."""
        return Command[P](action, self)

    def _hook(self, kind: str, function: F) -> F:
        for edge in self.edges:
            edge.hooks[kind].append(function)
        return function

    def before(self, function: F, /) -> F:
        """Decorator: run before the state is left."""
        return self._hook("before", function)

    def on(self, function: F, /) -> F:
        """Decorator: run between leaving and entering."""
        return self._hook("on", function)

    def after(self, function: F, /) -> F:
        """Decorator: run after the state was entered."""
        return self._hook("after", function)

    def cond(self, function: F, /) -> F:
        """Decorator: taken only if it gives true."""
        return self._hook("cond", function)

    def unless(self, function: F, /) -> F:
        """Decorator: not taken if it gives true."""
        return self._hook("unless", function)

    def __repr__(self) -> str:
        return f"<transition {self.name or '(automatic)'}>"


class _To:
    """``state.to``: a call that makes a transition, and ``state.to.itself()``."""

    def __init__(self, state: State) -> None:
        self._state = state

    def __call__(
        self,
        target: State | _Nested,
        /,
        *more: State | _Nested,
        by: Named | Collection[str] = "",
        cond: Named | Collection[Named] = (),
        unless: Named | Collection[Named] = (),
        auto: bool = False,
        after: Duration | None = None,
        every: Duration | None = None,
        at: datetime | date | time | str | None = None,
        tz: str = "UTC",
        keep: bool = False,
        reverse: bool = False,
        internal: bool = False,
        event: str = "",
        before: Named | Collection[Named] = (),
        on: Named | Collection[Named] = (),
    ) -> Transition:
        """A transition to ``target`` (to each of several, tried in order).

        Assigned to a name it is a command; with ``after``, ``every`` (durations) or ``at`` (a datetime, a time of day
        in ``tz``, an expression) a timer; with ``auto=True``, or assigned to no name, it is taken by itself.

        by: who may order it: a parameter or method of the process, an expression of them, or several of which one is
        enough. cond, unless: what must hold. keep: a clock that runs already is not started again. reverse: it goes
        back, as people see it. internal: no state is left or entered. event: further names of the command. before, on:
        actions before the state is left, and between leaving and entering.
        """
        timer = _timer(after, every, at, tz, keep=keep)
        if auto and timer is not None:
            raise SchemeError(f"{self._state!r}.to({target!r}) has auto= and a time; leave one of them")
        details = {"auto": auto, "timer": timer, "reverse": reverse, "internal": internal, "by": _any_of(by)}
        edges: list[Edge] = []
        for state in (target, *more):
            if not isinstance(state, State):
                raise SchemeError(f"{self._state!r}.to({state!r}): give a State of the class")
            edge = Edge(self._state, state, details)
            for kind, given in (("cond", cond), ("unless", unless), ("before", before), ("on", on)):
                edge.hooks[kind] += _several(given)
            edge.names += event.split()
            self._state.edges.append(edge)
            edges.append(edge)
        return Transition(edges)

    def itself(self, **details: Any) -> Transition:
        """A transition from the state to itself."""
        return self(self._state, **details)


class _Nested(type):
    """Makes of ``class review(State.Compound): ...`` a state that has sub-states, as the grammar writes it."""

    # What such a state answers to, for type checkers: to them it is a class.
    to: _To
    from_: Callable[..., Transition]
    enter: Callable[[Callable[..., Any]], Callable[..., Any]]
    exit: Callable[[Callable[..., Any]], Callable[..., Any]]

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **details: Any) -> Any:
        if not any(isinstance(base, _Nested) for base in bases):
            return super().__new__(mcs, name, bases, namespace)
        if any(getattr(base, "parallel", False) for base in bases):
            raise refuse_parallel(f"the state {name!r}")
        group = State(details.pop("name", ""), **details)
        for key, value in namespace.items():
            if isinstance(value, State):
                value.__set_name__(group, key)
                group.states.append(value)
                group.__dict__.setdefault(key, value)
            elif isinstance(value, Transition | Command):
                value.__set_name__(State, key)
                group.members[key] = value
                group.__dict__.setdefault(key, value)
            elif callable(value) and not key.startswith("__"):
                group.members[key] = value
        group.__set_name__(group, name)
        return group


class State:
    """What a process can stand in."""

    class Compound(metaclass=_Nested):
        """Base of a state with sub-states."""

    class Parallel(metaclass=_Nested):
        """Refused: parallel regions are not durable yet."""

        parallel = True

    def __init__(
        self,
        title: str = "",
        *,
        initial: bool = False,
        final: bool = False,
        settable: bool = False,
        enter: Named | Collection[Named] = (),
        exit: Named | Collection[Named] = (),
        on_error: Mapping[type[BaseException] | str, OnError] | None = None,
    ) -> None:
        """Declare a state; it is named as the attribute is.

        title: for people. initial: a process begins in it. final: it ends there. settable: people may set it by hand.
        enter, exit: actions, beside ``on_enter_<name>`` and ``on_exit_<name>``. on_error: by class of exception, or its
        name, or ``"*"``: how often to run the action again, which state to go to, or None to ignore the error.
        """
        self.name = ""
        self.title = title
        self.initial = initial
        self.final = final
        self.settable = settable
        self.entering: list[Named] = _several(enter)
        self.exiting: list[Named] = _several(exit)
        self.handlers = _handlers(on_error or {})
        self.states: list[State] = []
        self.members: dict[str, Any] = {}
        self.edges: list[Edge] = []

    def __set_name__(self, owner: object, name: str) -> None:
        self.name = self.name or name

    @property
    def to(self) -> _To:
        """``draft.to(review)``: a transition."""
        return _To(self)

    def from_(self, *sources: State, **details: Any) -> Transition:
        """Transitions from each of the sources to this state."""
        return Transition(edge for source in sources for edge in source.to(self, **details).edges)

    def enter(self, function: F, /) -> F:
        """Decorator: run when the state is entered."""
        self.entering.append(function)
        return function

    def exit(self, function: F, /) -> F:
        """Decorator: run when the state is left."""
        self.exiting.append(function)
        return function

    def __repr__(self) -> str:
        return self.name or "State()"


class HistoryState:
    """Refused: history states are not durable yet."""

    def __init__(self, *_: object, **__: object) -> None:
        raise refuse_history("HistoryState()")


def _timer(
    after: Duration | None, every: Duration | None, at: datetime | date | time | str | None, tz: str, *, keep: bool
) -> Timer | None:
    if after is None and every is None and at is None:
        if keep:
            raise SchemeError("keep=True keeps a clock, and there is none; give after=, every= or at=")
        return None
    return Timer(
        after=None if after is None else to_us(after, "after"),
        every=None if every is None else to_us(every, "every"),
        at=at if at is None or isinstance(at, str) else at.isoformat(),
        tz=tz,
        keep=keep,
    )


def _several(given: Named | Collection[Named]) -> list[Named]:
    return [given] if isinstance(given, str) or callable(given) else list(given)


def _any_of(given: Named | Collection[str]) -> list[Named]:
    return [part for part in _several(cast("Named | Collection[Named]", given)) if part]


def _handlers(given: Mapping[type[BaseException] | str, OnError]) -> tuple[Handler, ...]:
    found: list[Handler] = []
    for error, answer in given.items():
        name = error if isinstance(error, str) else error.__name__
        match answer:
            case None:
                found.append(Handler(error=name, ignore=True))
            case int():
                found.append(Handler(error=name, retry=answer))
            case _:
                found.append(Handler(error=name, to=str(answer)))
    return tuple(found)


class Functions:
    """The functions of a class by name; those given as such, not by name, get one here."""

    def __init__(self, known: Mapping[str, Callable[..., Any]]) -> None:
        self.known = dict(known)

    def name(self, given: Named, wanted: str) -> str:
        """The name of a function, or the text as it is."""
        if isinstance(given, str):
            return given
        own = getattr(given, "__name__", "")
        for name in (own, wanted, *(f"{wanted}_{number}" for number in range(2, 100))):
            if name.isidentifier() and self.known.get(name, given) is given:
                self.known[name] = given
                return name
        raise SchemeError(f"{given!r} cannot be named; write a method and give its name")

    def names(self, given: Iterable[Named], wanted: str) -> tuple[str, ...]:
        """Several of them."""
        return tuple(self.name(one, wanted) for one in given)

    def all_of(self, cond: Iterable[Named], unless: Iterable[Named], wanted: str) -> str:
        """One expression of conditions that all must hold."""
        texts = [self.name(one, wanted) for one in cond]
        refused = [f"not ({self.name(one, wanted)})" for one in unless]
        several = len(texts) + len(refused) > 1
        return " and ".join([*(f"({text})" if several else text for text in texts), *refused])


def draft_states(states: Iterable[State], functions: Functions) -> tuple[DraftState, ...]:
    """The states of a class, with those in them."""
    return tuple(
        DraftState(
            name=state.name,
            title=state.title,
            initial=state.initial,
            final=state.final,
            settable=state.settable,
            enter=functions.names(state.entering, f"enter_{state.name}"),
            exit=functions.names(state.exiting, f"exit_{state.name}"),
            on_error=state.handlers,
            states=draft_states(state.states, functions),
        )
        for state in states
    )


def draft_edges(states: Iterable[State], owner: type, functions: Functions) -> Iterator[DraftEdge]:
    """All edges that the class or one of its bases wrote, under each of their names."""
    for state in states:
        for edge in state.edges:
            if edge.owner is None:
                edge.owner = owner
            if issubclass(owner, edge.owner):
                yield from _edges(edge, functions)
        yield from draft_edges(state.states, owner, functions)


def _edges(edge: Edge, functions: Functions) -> Iterator[DraftEdge]:
    target = edge.target if edge.target is not None else edge.source
    details, hooks = edge.details, edge.hooks
    names = edge.names or [""]
    label = names[0] or f"{edge.source.name}_to_{target.name}"
    timer: Timer | None = details["timer"]
    for name in names:
        done = name.removeprefix("done_state_") if name.startswith("done_state_") else ""
        auto = details["auto"] or (not name and timer is None)
        by = [functions.name(one, f"{label}_by") for one in details["by"]]
        yield DraftEdge(
            source=edge.source.name,
            target=target.name,
            trigger="done" if done else "auto" if auto else "command" if timer is None else "timer",
            name="" if done or auto else name or label,
            cond=functions.all_of(hooks["cond"], hooks["unless"], f"{label}_cond"),
            by=" or ".join(f"({one})" for one in by) if len(by) > 1 else "".join(by),
            timer=timer,
            reverse=details["reverse"],
            internal=details["internal"],
            before=functions.names(hooks["before"], f"before_{label}"),
            on=functions.names(hooks["on"], f"on_{label}"),
            after=functions.names(hooks["after"], f"after_{label}"),
        )
        if done or auto:
            return
