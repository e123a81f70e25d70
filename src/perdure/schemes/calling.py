"""What a scheme's functions are given: they ask by the names of their parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from perdure.schemes.form import Parameter

OFFERED = ("actor", "event", "source", "target", "state")
"""Names that each action, condition and actor's method may ask for, beside the parameters of the command.

actor: who ordered the command (a string; None: nobody said, a timer, an automatic transition). event: the name of the
command or timer, "" else. source, target: states. state: where it stands while the function runs.
"""


def asked(function: Callable[..., Any]) -> tuple[inspect.Parameter, ...]:
    """The parameters of a function but ``self``; none if it has no signature that can be read."""
    try:
        parameters = tuple(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return ()
    return parameters[1:] if parameters and parameters[0].name in ("self", "cls") else parameters


def arguments(function: Callable[..., Any], offered: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments for a function out of what is offered: what it names; everything if it takes ``**kwargs``."""
    wanted = asked(function)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in wanted):
        return dict(offered)
    return {parameter.name: offered[parameter.name] for parameter in wanted if parameter.name in offered}


def signature_of(function: Callable[..., Any]) -> tuple[Parameter, ...]:
    """A command's parameters as its function declares them: all but ``self`` and what is offered anyway."""
    try:
        hints = get_type_hints(inspect.unwrap(function), include_extras=True)
    except (NameError, TypeError, AttributeError):  # a name that only a type checker sees
        hints = {}
    found: list[Parameter] = []
    for parameter in asked(function):
        if parameter.name in OFFERED or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        required = parameter.default is parameter.empty
        hint = hints.get(parameter.name, Any)
        default = None if required else parameter.default
        found.append(Parameter(name=parameter.name, hint=hint, required=required, default=default))
    return tuple(found)


def unknown(function: Callable[..., Any], known: tuple[str, ...]) -> tuple[str, ...]:
    """Required parameters that nobody will give."""
    return tuple(
        parameter.name
        for parameter in asked(function)
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        and parameter.name not in known
    )
