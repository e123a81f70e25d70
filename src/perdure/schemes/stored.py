"""Schemes as text in a database: enough to draw one and to say what it offers, where its code is not.

Types and defaults of parameters are code: of a type its name is kept, of a default nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from perdure.schemes import expressions
from perdure.schemes.form import Parameter, Scheme, Transition

_decoder = msgspec.json.Decoder(Scheme)


def write(scheme: Scheme) -> str:
    """The text of a scheme; the same scheme gives the same text."""
    commands = tuple(
        msgspec.structs.replace(command, parameters=_plain(command.parameters)) for command in scheme.commands
    )
    plain = msgspec.structs.replace(scheme, commands=commands, parameters=_plain(scheme.parameters))
    return msgspec.json.encode(plain).decode()


def _plain(parameters: tuple[Parameter, ...]) -> tuple[Parameter, ...]:
    return tuple(
        msgspec.structs.replace(parameter, hint=_named(parameter.hint), default=None, fresh=False)
        for parameter in parameters
    )


def _named(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def read(text: str) -> Scheme:
    """The scheme of a text. Raises ``ValueError`` if this version of Perdure cannot read it."""
    return _decoder.decode(text)


class Offer(msgspec.Struct, frozen=True):
    """A command that may be given; ``asks``: names in its condition or actors that only the code can judge."""

    name: str
    parameters: tuple[Parameter, ...]
    asks: tuple[str, ...] = ()


class _Asks(Exception):
    """A name that only the code can judge."""


class _Known(dict[str, Any]):
    """Values by name, of which one that is not here is asked of the code."""

    def __missing__(self, name: str) -> Any:
        raise _Asks(name)


def offers(scheme: Scheme, state: str, values: Mapping[str, Any], actor: str | None) -> list[Offer]:
    """What an actor can order in a state, as far as it can be said without code; without an actor: what anybody could.

    Conditions and actors are judged by the parameters alone, as plain JSON.
    """
    found: list[Offer] = []
    for name, edges in scheme.offers(state).items():
        asks: dict[str, None] = {}
        open = False
        for edge in edges:
            verdict = _judge(scheme, edge, values, actor)
            if verdict is True:
                open, asks = True, {}
                break
            if isinstance(verdict, str):
                asks[verdict] = None
        if open or asks:
            command = scheme.command(name)
            found.append(Offer(name, () if command is None else command.parameters, tuple(asks)))
    return found


def _judge(scheme: Scheme, edge: Transition, values: Mapping[str, Any], actor: str | None) -> bool | str:
    """Whether it can be taken; or what it asks of the code."""
    known = _Known({
        **values,
        "actor": actor, "event": edge.name, "source": edge.source, "target": edge.target, "state": edge.source,
    })  # fmt: skip
    fields = [parameter.name for parameter in scheme.parameters if parameter.name in known]
    actors = _Known({name: _is(known[name], actor) for name in fields})
    try:
        if actor is not None and not expressions.value(edge.by, actors):
            return False
        return bool(expressions.value(edge.cond, known))
    except _Asks as asks:
        return str(asks)
    except Exception:  # of a value that is more than JSON: only the code can compare it
        return edge.cond or edge.by


def _is(value: Any, actor: str | None) -> bool:
    """Whether an actor is who the parameter names."""
    return actor in value if isinstance(value, list) else actor is not None and value == actor
