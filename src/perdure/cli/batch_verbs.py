"""The verbs of a batch on the command line: ``VERB QUERY`` and the options of each verb.

An option is named as the field of the verb's value that it fills (``model/verbs.py``), and told of once, whichever
verbs take it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any, TypeVar, cast

import click
import msgspec

from perdure.cli.values import json_of
from perdure.errors import ConfigError
from perdure.model.verbs import VERBS, Skip, Verb

F = TypeVar("F", bound=Callable[..., Any])

OPTIONS: dict[str, click.Option] = {
    "version": click.Option(["--version"], metavar="V", help="resume, restart, fork: of the code that goes on."),
    "force": click.Option(
        ["--force"], is_flag=True, default=None,
        help="resume: move it to the version even where nobody can say that the history replays there. move, reset: "
        "also to a version that was never launched.",
    ),
    "to": click.Option(
        ["--to"], metavar="V|POINT", help="move: V, auto-upgrade, unset. reset: first, last, STEP, before-version:V."
    ),
    "one_time": click.Option(
        ["--one-time"], is_flag=True, default=None, help="move: there until it next comes to rest."
    ),
    "exclude": click.Option(
        ["--exclude"], type=click.Choice(["none", "messages", "all"]), help="reset: what the next runs are not given."
    ),
    "move_to": click.Option(
        ["--move-to"], metavar="V|auto-upgrade|unset", help="reset: where they run on, in the same commits."
    ),
    "children": click.Option(
        ["--children"], type=click.Choice(["keep", "reset"]), help="reset: with those that the dropped part started."
    ),
    "step": click.Option(
        ["--from", "--step", "step"], metavar="STEP",
        help="fork --from: keep what came before it: its name or path (2.1). skip --step: the one in flight.",
    ),
    "result": click.Option(["--result"], metavar="JSON", help="skip: what each body sees as the step's result."),
    "terminate": click.Option(
        ["--terminate"], is_flag=True, default=None, help="restart: end the old ones in the same commits."
    ),
}  # fmt: skip
VERB = click.Argument(["name"], metavar="VERB", type=click.Choice(list(VERBS)))
QUERY = click.Argument(["text"], metavar="QUERY")


def with_verb(verb: F) -> F:
    """A command about a verb and a query: its keyword ``verb`` holds the verb with its options, ``text`` the query."""

    @functools.wraps(verb)
    def told(*args: Any, name: str, **said: Any) -> Any:
        chosen = {field: said.pop(field) for field in OPTIONS}
        return verb(*args, verb=verb_of(name, chosen), **said)

    known: list[click.Parameter] = getattr(told, "__click_params__", [])
    told.__click_params__ = [*known, *OPTIONS.values(), QUERY, VERB]  # type: ignore[attr-defined]  # click's own
    return cast("F", told)


def options_of(verb: Verb) -> list[str]:
    """What is said on the command line for it.

    >>> from perdure.model.verbs import Reset
    >>> options_of(Reset(to="last", move_to="v3"))
    ['--to', 'last', '--move-to', 'v3']
    """
    said: list[str] = []
    for field in msgspec.structs.fields(verb):
        value = getattr(verb, field.name)
        if field.required or value != field.default:
            said += [_option(type(verb), field.name), *_worded(field.name, value)]
    return said


def _option(kind: type[Verb], field: str) -> str:
    """What an option is called, with this verb."""
    opts = OPTIONS[field].opts
    return opts[-1] if kind is Skip else opts[0]


def _worded(field: str, value: Any) -> list[str]:
    """What is said after it."""
    if field == "result":
        return [json.dumps(value)]
    return [] if value is True else [str(value)]


def verb_of(name: str, said: dict[str, Any]) -> Verb:
    """A verb by what was said. Raises ``ConfigError`` for an option that it does not take."""
    kind = VERBS[name]
    given = {field: value for field, value in said.items() if value is not None}
    for field in given:
        if field not in kind.__struct_fields__:
            takes = ", ".join(_option(kind, one) for one in kind.__struct_fields__) or "no options of its own"
            raise ConfigError(f"{name} does not take {OPTIONS[field].opts[0]}; it takes {takes}")
    for field in kind.__struct_fields__[: len(kind.__struct_fields__) - len(kind.__struct_defaults__)]:
        if field not in given:
            raise ConfigError(f"{name} needs {_option(kind, field)}; see: perdure workflow {name} --help")
    if "result" in given:
        given["result"] = json_of(given["result"], "--result")
    return kind(**given)
