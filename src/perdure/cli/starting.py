"""The options of ``perdure workflow start``: those of ``.options()`` in Python, as a command line can say them."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from datetime import datetime
from typing import Any

import click

from perdure.api.options import check_queued, read_options
from perdure.cli.durations import duration
from perdure.client.questions import Spelling, StartOptions
from perdure.errors import ConfigError

_DURATIONS = ("timeout", "expires", "debounce", "debounce_max")


def _option(name: str, value: str) -> str:
    return f"--{name.replace('_', '-')} {shlex.quote(value)}"


AS_OPTIONS = Spelling(_option, "--on-conflict replace")


def how_to_start(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of a start."""
    for option in (
        click.option("--timeout", metavar="TIME", help="Ended as timed out so long after it begins: 30s, 5m, 1h, 1d."),
        click.option("--expires", metavar="TIME", help="Closed if it is still in line after so long."),
        click.option("--debounce-max", metavar="TIME", help="… but not longer than this after the first."),
        click.option("--debounce", metavar="TIME", help="Begin so long after the latest start with that --dedup."),
        click.option("--dedup", metavar="KEY", help="Only one open workflow of the queue has this key."),
        click.option("--delay", metavar="TIME", help="Not before so long, or 2030-01-01T02:00+01:00."),
        click.option("--partition", metavar="KEY", help="The part of the queue, with limits of its own."),
        click.option("--priority", type=int, metavar="N", help="Smaller ones go first (0)."),
        click.option("--queue", metavar="NAME", help="Its queue (by default the one that its code declares, if any)."),
        click.option("--on-conflict", type=click.Choice(["attach", "fail", "replace"]), help="If id or key is taken."),
        click.option("--id", metavar="ID", help="The workflow id: the same start twice is one start."),
    ):
        command = option(command)
    return command


def start_options(name: str, given: dict[str, Any]) -> StartOptions:
    """What was given for a start of workflow ``name``. Raises ``DefinitionError`` or ``ConfigError``."""
    said: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    for key in _DURATIONS:
        if key in said:
            said[key] = duration(said[key], f"--{key.replace('_', '-')}")
    if "delay" in said:
        said["delay"] = _delay(said["delay"])
    options = read_options(said, StartOptions())
    check_queued(name, options)
    return options


def _delay(text: str) -> Any:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return duration(text, "--delay")
    if when.tzinfo is None:
        raise ConfigError(f"--delay {text!r} has no offset; give 2030-01-01T02:00+01:00, or 30s, 5m, 1h, 1d")
    return when
