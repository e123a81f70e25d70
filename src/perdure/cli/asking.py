"""Which workflows a command is about: a query, and the options that narrow it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import click
import msgspec

from perdure.errors import ConfigError
from perdure.query.conditions import Condition, Fact, OneOf, Query, Use, narrowed
from perdure.query.read import read_query

F = TypeVar("F", bound=Callable[..., Any])

OPTIONS = (
    click.argument("text", metavar="[QUERY]", required=False, default=""),
    click.option("--query", "option", default="", metavar="QUERY", help="The query, as an option."),
    click.option(
        "--status", "statuses", multiple=True, metavar="STATUS", help="Only these: failed, held, open, closed …"
    ),
    click.option("--type", "names", multiple=True, metavar="NAME", help="Only workflows of this name."),
    click.option("--all-runs", is_flag=True, help="Earlier runs, too: not only the latest of each id."),
)


class Asked(msgspec.Struct, frozen=True):
    """What was said on the command line."""

    text: str
    statuses: tuple[str, ...]
    names: tuple[str, ...]
    all_runs: bool

    def query(self, app: str, use: Use) -> Query:
        """All of it together, for an app. Raises ``QueryError``."""
        query = read_query(self.text, app, use=use, all_runs=self.all_runs)
        parts: list[Condition] = []
        if self.statuses:
            quoted = ", ".join("'" + status.replace("'", "''") + "'" for status in self.statuses)
            parts.append(read_query(f"status IN ({quoted})", app).condition)
        if self.names:
            parts.append(OneOf(Fact.NAME, self.names))
        return narrowed(query, *parts)


def asking(verb: F) -> F:
    """A verb that takes a query: its keyword ``asked`` holds what was said."""

    @functools.wraps(verb)
    def asks(
        *args: Any, text: str, option: str, statuses: tuple[str, ...], names: tuple[str, ...], all_runs: bool,
        **kwargs: Any,
    ) -> Any:  # fmt: skip
        if text and option:
            raise ConfigError("the query was given twice: as an argument and as --query; give it once")
        return verb(*args, asked=Asked(text or option, statuses, names, all_runs), **kwargs)

    for declare in reversed(OPTIONS):
        asks = declare(asks)
    return cast("F", asks)
