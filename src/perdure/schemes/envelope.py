"""What other notations do not say about a scheme, said beside them: who may, when, which parameters.

A file or class of another tool is taken unchanged; its events become commands, and the envelope says which of them are
timers or automatic, who may order them, what people may set by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, cast

import msgspec

from perdure.errors import SchemeError
from perdure.model.durations import Duration, to_us
from perdure.schemes import times, types
from perdure.schemes.draft import Draft, DraftEdge, DraftState
from perdure.schemes.form import Handler, OnCrash, Parameter, Timer


class Envelope(TypedDict, total=False):
    """What ``read`` takes beside a source, and what a file may have beside its states.

    settable: states that people may set by hand. commands: by name, what is to be said of each: ``by``, ``reverse``,
    ``parameters``. timers: by event, ``"3d"`` or a mapping with ``after``, ``every`` or ``at``, and ``keep``, ``tz``.
    auto: events that nobody orders. parameters: by name, a type (``"int | None"``) or a mapping with ``type``,
    ``default``, ``temporary``. on_error: by state, as ``State(on_error=)`` has it.
    """

    name: str
    settable: Sequence[str]
    commands: Mapping[str, Mapping[str, Any]]
    timers: Mapping[str, Mapping[str, Any] | Duration | str]
    auto: Sequence[str]
    parameters: Mapping[str, Any]
    on_error: Mapping[str, Mapping[str, int | str | None]]
    on_crash: OnCrash


KEYS = frozenset(Envelope.__annotations__)


def envelop(draft: Draft, said: Envelope) -> Draft:
    """The draft with what the envelope says. Raises ``SchemeError`` for what it says of nothing."""
    states = {state.name for state in _walk(draft.states)}
    events = {edge.name for edge in draft.edges}
    commands, timers = said.get("commands", {}), said.get("timers", {})
    auto, settable, on_error = said.get("auto", ()), said.get("settable", ()), said.get("on_error", {})
    for what, known, named in (
        ("settable", states, settable),
        ("on_error", states, on_error),
        ("commands", events, commands),
        ("timers", events, timers),
        ("auto", events, auto),
    ):
        for name in named:
            if name not in known:
                kind = "state" if known is states else "event"
                raise SchemeError(f"{what} speaks of {name!r}, which is no {kind} of the scheme {draft.name!r}")
    clocks = {name: timer(given, name) for name, given in timers.items()}
    of_commands = {name: _command(name, given) for name, given in commands.items()}
    declared = {name: found[2] for name, found in of_commands.items() if found[2] is not None}
    own = parameters(said.get("parameters", {}))
    names = {parameter.name for parameter in own}
    return msgspec.structs.replace(
        draft,
        name=said.get("name") or draft.name,
        states=tuple(_state(state, settable, on_error) for state in draft.states),
        edges=tuple(_edge(edge, clocks, auto, of_commands) for edge in draft.edges),
        commands={**draft.commands, **declared},
        parameters=(*(p for p in draft.parameters if p.name not in names), *own),
        on_crash=said.get("on_crash", draft.on_crash),
    )


def _walk(states: Sequence[DraftState]) -> list[DraftState]:
    return [found for state in states for found in (state, *_walk(state.states))]


def _state(state: DraftState, settable: Sequence[str], on_error: Mapping[str, Mapping[str, Any]]) -> DraftState:
    return msgspec.structs.replace(
        state,
        settable=state.settable or state.name in settable,
        on_error=(*state.on_error, *handlers(on_error.get(state.name, {}), state.name)),
        states=tuple(_state(child, settable, on_error) for child in state.states),
    )


def _edge(
    edge: DraftEdge,
    clocks: Mapping[str, Timer],
    auto: Sequence[str],
    commands: Mapping[str, tuple[str, bool, object]],
) -> DraftEdge:
    if edge.name in clocks:
        return msgspec.structs.replace(edge, trigger="timer", timer=clocks[edge.name])
    if edge.name and edge.name in auto:
        return msgspec.structs.replace(edge, trigger="auto")
    by, reverse, _ = commands.get(edge.name, ("", False, None))
    return msgspec.structs.replace(edge, by=edge.by or by, reverse=edge.reverse or reverse)


def _command(name: str, given: Mapping[str, Any]) -> tuple[str, bool, tuple[Parameter, ...] | None]:
    only(given, ("by", "reverse", "parameters"), f"the command {name!r}")
    declared = parameters(given["parameters"]) if "parameters" in given else None
    return any_of(given.get("by", "")), flag(given.get("reverse", False), f"reverse of {name!r}"), declared


def timer(given: Mapping[str, Any] | Duration | str, name: str) -> Timer:
    """Read a timer: a duration, or a mapping."""
    said: Mapping[str, Any] = given if isinstance(given, Mapping) else {"after": given}
    only(said, ("after", "every", "at", "tz", "keep"), f"the timer {name!r}")
    at = said.get("at")
    return Timer(
        after=None if said.get("after") is None else _span(said["after"], f"after of {name!r}"),
        every=None if said.get("every") is None else _span(said["every"], f"every of {name!r}"),
        at=at if at is None or isinstance(at, str) else getattr(at, "isoformat", lambda: str(at))(),
        tz=said.get("tz", "UTC"),
        keep=flag(said.get("keep", False), f"keep of {name!r}"),
    )


def _span(given: Any, what: str) -> int:
    return to_us(times.span(given) if isinstance(given, str) else given, what)


def handlers(given: Mapping[str, Any], state: str) -> tuple[Handler, ...]:
    """Read what a state does about errors: a number of retries, a state, or nothing (ignore)."""
    found: list[Handler] = []
    for error, answer in given.items():
        if answer is None:
            found.append(Handler(error=error, ignore=True))
        elif isinstance(answer, int) and not isinstance(answer, bool):
            found.append(Handler(error=error, retry=answer))
        elif isinstance(answer, str):
            found.append(Handler(error=error, to=answer))
        else:
            raise SchemeError(
                f"on_error of {state!r}: {error}: {answer!r}; give a number of retries, the name of a state, or null "
                "to ignore it"
            )
    return tuple(found)


def parameters(given: Mapping[str, Any]) -> tuple[Parameter, ...]:
    """Read parameters: by name, a type or a mapping."""
    found: list[Parameter] = []
    for name, said in given.items():
        told: Mapping[str, Any] = cast("Mapping[str, Any]", said) if isinstance(said, Mapping) else {"type": said}
        only(told, ("type", "default", "temporary"), f"the parameter {name!r}")
        hint = types.read(told["type"], name) if "type" in told else Any
        default = told.get("default")
        if "default" in told:
            try:
                default = msgspec.convert(default, hint)  # a date is a text in a file
            except msgspec.ValidationError as error:
                raise SchemeError(f"the default of {name!r} is {default!r}: {error}; give one of its type") from None
        found.append(
            Parameter(
                name=name,
                hint=hint,
                required="default" not in told,
                default=default,
                temporary=flag(told.get("temporary", False), f"temporary of {name!r}"),
                fresh=isinstance(default, list | dict | set),
            )
        )
    return tuple(found)


def only(given: object, known: Sequence[str] | frozenset[str], what: str) -> None:
    """Refuse keys that mean nothing: a mistake of spelling would otherwise be silent."""
    if not isinstance(given, Mapping):
        raise SchemeError(f"{what} is {given!r}; write a mapping with {', '.join(sorted(known))}")
    for key in cast("Mapping[object, object]", given):
        if key not in known:
            raise SchemeError(f"{what} has {key!r}, which means nothing there; it may have {', '.join(sorted(known))}")


def flag(given: object, what: str) -> bool:
    """Read true or false, also as words."""
    if isinstance(given, bool):
        return given
    words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    if isinstance(given, str) and given.lower() in words:
        return words[given.lower()]
    raise SchemeError(f"{what} is {given!r}; write true or false")


def texts(given: Any, what: str) -> list[str]:
    """Read one text or several."""
    if given is None:
        return []
    several = isinstance(given, Sequence) and not isinstance(given, str)
    found: list[Any] = list(cast("Sequence[Any]", given)) if several else [given]
    for one in found:
        if not isinstance(one, str):
            raise SchemeError(f"{what} has {one!r}; write the name of a function, what it does belongs in code")
    return found


def any_of(given: Any) -> str:
    """One expression of actors of which one is enough."""
    found = texts(given, "by")
    return " or ".join(f"({one})" for one in found) if len(found) > 1 else "".join(found)


def all_of(cond: Sequence[str], unless: Sequence[str]) -> str:
    """One expression of conditions that all must hold."""
    several = len(cond) + len(unless) > 1
    return " and ".join([*(f"({one})" if several else one for one in cond), *(f"not ({one})" for one in unless)])


def functions_of(actions: object) -> dict[str, Callable[..., Any]]:
    """Functions by name: of a module, a class, or a mapping of them."""
    if isinstance(actions, Mapping):
        found = cast("Mapping[str, Any]", actions)
    else:
        found = {key: getattr(actions, key) for key in dir(actions) if not key.startswith("_")}
    return {key: value for key, value in found.items() if callable(value) and not isinstance(value, type)}
