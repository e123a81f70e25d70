"""The commands for one workflow, over a query: ``workflow cancel --query …`` is ``batch apply cancel …``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from perdure.cli.batches import apply_verb
from perdure.cli.target import Given
from perdure.errors import ConfigError
from perdure.model.verbs import Cancel, Fork, Move, Pause, Reset, Restart, Resume, Unpause, Verb


def _restart(said: dict[str, Any]) -> Restart:
    _refuse(said, "new")
    return Restart(terminate=said["terminate"], version=said["version"])


def _fork(said: dict[str, Any]) -> Fork:
    _refuse(said, "new", "input_")
    return Fork(step=said["step"], version=said["version"])


def _refuse(said: dict[str, Any], *names: str) -> None:
    for name in names:
        if said[name] is not None:
            option = {"new": "--id", "input_": "--input"}[name]
            raise ConfigError(f"{option} is for one workflow, and --query may name many; leave it out")


# What each command was told, as the verb of a batch.
VERBS: dict[str, Callable[[dict[str, Any]], Verb]] = {
    "cancel": lambda _: Cancel(),
    "pause": lambda _: Pause(),
    "unpause": lambda _: Unpause(),
    "resume": lambda said: Resume(version=said["version"], force=said["force"]),
    "restart": _restart,
    "fork": _fork,
    "move": lambda said: Move(to=said["to"], one_time=said["one_time"], force=said["force"]),
    "reset": lambda said: Reset(
        to=said["to"],
        exclude=said["exclude"],
        move_to=said["move_to"],
        children=said["children"],
        force=said["force"],
    ),
}


def by_query(command: click.Command) -> None:
    """Let a command that takes ids take ``--query`` instead: then it is ``batch apply``, under the same rules."""
    inner, make = command.callback, VERBS[command.name or ""]
    assert inner is not None, "every command does something"
    named = {parameter.name for parameter in command.params}
    adds = [
        click.Option(["--query"], metavar="QUERY", default="", help="All that it names: needs --yes, --reason."),
        click.Option(["--key"], metavar="KEY", help="With --query: the batch's key."),
        click.Option(["--rate"], metavar="N", help="With --query: changed workflows a second, at most."),
    ]  # fmt: skip
    if "again" not in named:
        adds.append(
            click.Option(["--again"], is_flag=True, help="With --query: another batch, though it was ordered before.")
        )
    if "yes" not in named:
        adds.append(click.Option(["--yes"], is_flag=True, help="With --query: do it."))
    command.params += adds
    for parameter in command.params:
        if parameter.name == "ids":
            parameter.required = False
            parameter.metavar = "[ID]..."

    def verb(*args: Any, query: str, key: str | None, rate: str | None, again: bool, **said: Any) -> Any:
        if not query:
            if key is not None or rate is not None or (again and "again" not in named):
                raise ConfigError("--key, --rate and --again are of a batch: give --query with them")
            if not said["ids"]:
                raise click.UsageError("Missing argument 'ID...'; or give --query QUERY")
            if "yes" not in named:
                del said["yes"]
            if "again" in named:
                said["again"] = again
            return inner(*args, **said)
        if said["ids"]:
            raise ConfigError("ids and --query were given; give one of them")
        before = click.get_current_context().find_object(Given) or Given()
        given = Given(
            said["database"] or before.database, said["app"] or before.app, said["output"] or before.output
        )  # fmt: skip
        return apply_verb(
            given, make(said), query, reason=said["reason"], key=key, rate=rate, again=again, yes=said["yes"]
        )

    command.callback = verb
