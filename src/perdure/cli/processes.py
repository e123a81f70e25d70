"""``perdure process …``: list, look at, start and order processes about. Orders go through a running executor.

What a scheme says is read from the database, where executors have told it; what only its functions can say (an actor
that is a method) needs the code: ``--code MODULE:APP``.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import click

import perdure
from perdure.api.process import ProcessHandle
from perdure.cli.amounts import AMOUNT, LIST_MAX
from perdure.cli.durations import duration
from perdure.cli.exits import Code, Exit
from perdure.cli.output import at_second, clean, emit_many, emit_one, instant, note, table, took
from perdure.cli.process_diagram import diagram
from perdure.cli.run import home_of, load_app
from perdure.cli.starting import how_to_start, start_options
from perdure.cli.stored_schemes import must_be_plain, refuse_unfit, stored_scheme
from perdure.cli.target import Given, common, find_database, opened, run
from perdure.client.questions import ProcessOf
from perdure.errors import ConfigError
from perdure.model.info import WorkflowInfo
from perdure.model.processes import START, At, ProcessStep, Seen, status_of
from perdure.model.states import Reason
from perdure.runtime import aface
from perdure.schemes.stored import Offer, offers
from perdure.store.base import Store

QUERIES = {  # what a row says of a process, in its status and its attributes
    "Idled": "attributes.status = 'Idled' AND status = waiting",
    "Error": "attributes.status = 'Error' AND status = waiting",
    "Terminated": "attributes.status = 'Terminated' AND status = held",
    "Finalized": "status = completed",
}
code = click.option("--code", metavar="MODULE:APP", help="The app whose code declares the process.")
by = click.option("--actor", metavar="NAME", help="Who gives the order.")
wait = click.option("--wait", metavar="TIME", default="10s", show_default=True, help="So long while it is Running.")
why = click.option("--reason", default="", metavar="TEXT", help="Kept in its history.")


@click.group()
def process() -> None:
    """List, show, start and order processes about: workflows that a scheme drives."""


process.add_command(diagram)


@asynccontextmanager
async def _client(
    given: Given, look: Callable[[Store], Awaitable[None]] | None = None
) -> AsyncGenerator[perdure.Client]:
    """Of the app and the database that any command would choose; ``look``: at its store, before anything is done."""
    async with opened(given) as store:
        name = store.app
        if look is not None:
            await look(store)
    async with perdure.Client(find_database(given).url, app=name) as client:
        yield client


@asynccontextmanager
async def _handle(given: Given, id: str, wait: str = "0s") -> AsyncGenerator[ProcessHandle[Any]]:
    async with _client(given) as client:
        yield client.process(id).within(duration(wait, "--wait"))


async def _seen(p: ProcessHandle[Any]) -> Seen:
    found: Seen = await aface.ask(p._home, ProcessOf(p.id))  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  whose line it is
    return found


# -- looking


@process.command("list")
@common
@click.option("--type", "name", metavar="NAME", help="Only of this scheme.")
@click.option("--state", metavar="STATE", help="Only those that stand in it.")
@click.option("--status", type=click.Choice(list(QUERIES)), help="Only those that rest, or have ended, so.")
@click.option("--limit", type=AMOUNT, default=LIST_MAX, show_default=True)
def list_(given: Given, name: str | None, state: str | None, status: str | None, limit: int) -> None:
    """Processes, newest first, with the state that each stands in."""
    parts = ["attributes.state IS NOT NULL"]
    parts += [f"type = {json.dumps(name)}"] if name is not None else []
    parts += [f"attributes.state = {json.dumps(state)}"] if state is not None else []
    parts += [QUERIES[status]] if status is not None else []
    run(_list(given, " AND ".join(parts), limit))


async def _list(given: Given, query: str, limit: int) -> None:
    async with _client(given) as client:
        found = [info async for info in client.list(query, limit=limit)]
    head = ("id", "type", "status", "state", "updated")
    rows = [(info.id, info.name, *_stands(info), at_second(info.updated)) for info in found]
    fields: list[dict[str, Any]] = [dict(zip(head, row, strict=True)) for row in rows]
    emit_many(given.output, "processes", fields, table(head, rows, "no processes match"), one="process")


def _stands(info: WorkflowInfo) -> tuple[str, str]:
    """Status and state, as the row tells them."""
    state, said = str(info.attributes.get("state", "")), info.attributes.get("status")
    # Of those at rest; the row tells the others. What has records was held in an action, but a pause is a record, too.
    go = START.go if info.steps and info.reason is not Reason.PAUSED else None
    at = At(state=state, status="Error" if said == "Error" else "Idled", go=go)
    return str(status_of(info.status, info.reason, info.run, at)), state


@process.command()
@common
@click.argument("id")
def show(given: Given, id: str) -> None:
    """Where a process stands: its status, state, parameters and timers."""
    run(_show(given, id))


async def _show(given: Given, id: str) -> None:
    async with _handle(given, id) as p:
        seen = await _seen(p)
    at, parameters = seen.at, seen.parameters
    fields: dict[str, Any] = {
        "id": id, "type": seen.name, "status": str(seen.process_status), "state": at.state, "previous": at.previous,
        "because": at.because, "parameters": parameters, "timers": {k: instant(v) for k, v in at.timers.items()},
        "moving": None if seen.go is None else seen.go.target,
        "held": f"{seen.reason}: {seen.detail}" if seen.held else None,
    }  # fmt: skip
    lines = [f"{name:10}  {clean(str(value))}" for name, value in fields.items() if value not in ("", None, {})]
    emit_one(given.output, "process", fields, lines)


@process.command()
@common
@click.argument("id")
def history(given: Given, id: str) -> None:
    """What a process did: from, to, by which trigger, who, when, how long."""
    run(_history(given, id))


async def _history(given: Given, id: str) -> None:
    async with _handle(given, id) as p:
        steps = await p.history()
    rows = [
        (
            at_second(s.at), s.source, s.target, str(s.trigger), s.name, s.actor or "", str(s.status), _took(s),
            clean(s.because),
        )
        for s in steps
    ]  # fmt: skip
    head = ("at", "from", "to", "trigger", "name", "actor", "status", "took", "because")
    fields: list[dict[str, Any]] = [dict(zip(head, row, strict=True)) for row in rows]
    emit_many(given.output, "history", fields, table(head, rows, "nothing"))


def _took(step: ProcessStep) -> str:
    return took(round(step.duration.total_seconds() * 1e6))


@process.command()
@common
@click.argument("id")
@code
@click.option("--actor", metavar="NAME", help="Whose commands (by default: that anybody could give).")
def commands(given: Given, id: str, code: str | None, actor: str | None) -> None:
    """The commands that an actor can give a process now.

    By its scheme, as the executors of its version have told it. What only a method can say of a condition or an actor
    is not judged, and shown beside the command; with --code it is asked.
    """
    run(_commands(given, id, code, actor))


async def _commands(given: Given, id: str, code: str | None, actor: str | None) -> None:
    async with _handle(given, id) as p:
        seen = await _seen(p)
    if code is None:
        found = await _offers(given, id, seen, actor)
    else:
        app, declared = _declared(given, code, seen.name)
        async with app.connect():
            found = [
                Offer(command.name, command.parameters)
                for command in await declared.cls.handle(id).commands(actor=actor)
            ]
    fields: list[dict[str, Any]] = [
        {"name": one.name, "parameters": [p.name for p in one.parameters], "asks": list(one.asks)} for one in found
    ]
    rows = [(one.name, " ".join(p.name for p in one.parameters), ", ".join(one.asks)) for one in found]
    emit_many(given.output, "commands", fields, table(("command", "parameters", "if"), rows, "none"))


async def _offers(given: Given, id: str, seen: Seen, actor: str | None) -> list[Offer]:
    must_be_plain(seen.input)
    async with opened(given) as store:
        scheme = await stored_scheme(store, seen.name, (await store.rows([id]))[id].version)
    if not seen.orderable or not scheme.has(seen.at.state):
        return []
    return offers(scheme, seen.at.state, seen.parameters, actor)


def _declared(given: Given, code: str, name: str) -> tuple[Any, Any]:
    """The app of ``--code`` over the database of this command, and what it declares."""
    app = load_app(code)
    definition = home_of(app).definitions().workflows.get(name)
    if definition is None or definition.process is None:
        raise Exit(Code.NOT_FOUND, f"{code} declares no process {name!r}")
    if not isinstance(app, perdure.App):
        raise ConfigError(
            f"{code} is an app of perdure.sync; its commands are asked in Python: handle.commands(actor=…)"
        )
    home_of(app).arguments["database"] = find_database(given).url
    return app, definition.process


# -- ordering


@process.command()
@common
@click.argument("name")
@click.argument("parameters", nargs=-1, metavar="[NAME=VALUE]...")
@how_to_start
def start(given: Given, name: str, parameters: Sequence[str], **options: Any) -> None:
    """Start a process of scheme NAME with parameters: author=ann days=3 (JSON, or text)."""
    run(_start(given, name, _named(parameters), options))


async def _start(given: Given, name: str, values: dict[str, Any], options: dict[str, Any]) -> None:
    start_options(name, options)  # checked before anything is opened
    said = {key: value for key, value in options.items() if value is not None}
    async with _client(given, partial(refuse_unfit, name=name, values=values)) as client:
        handle = await client.workflow(name, returns=object).options(**said).start(**values)
    emit_one(given.output, "process", {"id": handle.id, "type": name}, [f"started {handle.id}"])


@process.command()
@common
@click.argument("id")
@click.argument("command")
@click.argument("parameters", nargs=-1, metavar="[NAME=VALUE]...")
@by
@wait
def execute(given: Given, id: str, command: str, parameters: Sequence[str], actor: str | None, wait: str) -> None:
    """Execute a command; ends when the burst that it began has ended. An executor must be running."""

    async def order(p: ProcessHandle[Any]) -> None:
        await p.execute(command, actor=actor, **_named(parameters))

    run(_order(given, id, wait, order, parameters))


@process.command("set-state")
@common
@click.argument("id")
@click.argument("state")
@click.argument("parameters", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--without-actions", is_flag=True, help="The state's actions are not run.")
@by
@wait
@why
def set_state(
    given: Given, id: str, state: str, parameters: Sequence[str], without_actions: bool, actor: str | None, wait: str,
    reason: str,
) -> None:  # fmt: skip
    """Put a process into a settable state by hand, whatever it stands in; parameters given are changed first."""

    async def order(p: ProcessHandle[Any]) -> None:
        await p.set_state(state, run=not without_actions, set=_named(parameters), actor=actor, reason=reason)

    run(_order(given, id, wait, order, parameters))


@process.command()
@common
@click.argument("id")
@wait
@why
def resume(given: Given, id: str, wait: str, reason: str) -> None:
    """Let a process go on along automatic exits, without running its state's actions again."""

    async def order(p: ProcessHandle[Any]) -> None:
        if not await p.resume(reason=reason):
            note("no automatic exit holds: it is Idled where it stood")

    run(_order(given, id, wait, order))


async def _order(given: Given, id: str, wait: str, order: Any, parameters: Sequence[str] = ()) -> None:
    async with _handle(given, id, wait) as p:
        try:
            await order(p)
        except Exception as error:
            if "expected str" in str(error):
                _tell_what_is_no_text(parameters)
            raise
        seen = await _seen(p)
    fields = {"id": id, "status": str(seen.process_status), "state": seen.at.state}
    emit_one(given.output, "process", fields, [f"{id} is {fields['status']} in state {fields['state']}"])


@process.command()
@common
@click.argument("id")
@click.option("--yes", is_flag=True, help="Do it.")
def delete(given: Given, id: str, yes: bool) -> None:
    """Forget a process that has ended or is at rest, with its history."""
    run(_delete(given, id, yes=yes))


async def _delete(given: Given, id: str, *, yes: bool) -> None:
    async with _handle(given, id) as p:
        seen = await _seen(p)
        if not yes:
            raise Exit(Code.USAGE, f"{id} is {seen.process_status} in state {seen.at.state}; to delete it: --yes")
        await p.delete()
    emit_one(given.output, "process", {"id": id}, [f"deleted {id}"])


def _tell_what_is_no_text(parameters: Sequence[str]) -> None:
    for name, value in _named(parameters).items():
        if not isinstance(value, str):
            text = json.dumps({name: value})[1:-1]
            note(f"{name} was read as JSON ({text}); as text it has quotes of its own: {name}='\"{value}\"'")


def _named(parameters: Sequence[str]) -> dict[str, Any]:
    """``name=value``: JSON where it is JSON, else text."""
    found: dict[str, Any] = {}
    for given in parameters:
        name, equals, text = given.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(f"{given!r} is no parameter; write NAME=VALUE, for example: days=3 author=ann")
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found
