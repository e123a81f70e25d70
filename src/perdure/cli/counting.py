"""``perdure workflow count``: how many workflows a query names, in all or by groups."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from perdure.cli.asking import Asked, asking
from perdure.cli.output import VERSION, document, say, table
from perdure.cli.target import Given, common, opened, run
from perdure.errors import ConfigError
from perdure.query.counts import Count, count_of


@click.command()
@common
@asking
def count(given: Given, asked: Asked) -> None:
    """How many workflows: "status = failed", or by groups: "status = open GROUP BY version, problem"."""
    if given.output == "ids":
        raise ConfigError("a count has no ids; give --output table, json or jsonl")
    run(_count(given, asked))


async def _count(given: Given, asked: Asked) -> None:
    async with opened(given) as store:
        query = asked.query(store.app, "count")
        counted = count_of(query, await store.count(query))
    groups: list[dict[str, Any]] = [msgspec.to_builtins(group) for group in counted.groups]
    match given.output:
        case "json":
            say(document(count=int(counted), **({"groups": groups} if query.groups else {})))
        case "jsonl" if query.groups:
            for group in groups:
                say(msgspec.json.encode({"version": VERSION, "group": group}).decode())
        case "jsonl":
            say(msgspec.json.encode({"version": VERSION, "count": int(counted)}).decode())
        case _:
            for line in _lines(counted) if query.groups else [str(int(counted))]:
                say(line)


def _lines(counted: Count) -> list[str]:
    """A line for each group, and one for all."""
    if not counted.groups:
        return ["no workflows match"]
    head = (*counted.groups[0].fields, "count")
    cells = [(*map(_shown, group.fields.values()), f"{group.count:,}") for group in counted.groups]
    return [*table(head, cells, ""), f"{int(counted):,} in all"]


def _shown(value: str | float | bool | None) -> str:
    match value:
        case None:
            return "(none)"
        case bool():
            return "true" if value else "false"
        case "":
            return "(empty)"
        case _:
            return str(value)
