"""``perdure workflow …``: list, look at, start and operate workflows, from their rows alone."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import click
import msgspec

from perdure.api.keys import check_message_key, check_name, encode_message
from perdure.cli.amounts import AMOUNT, LIST_MAX
from perdure.cli.asking import Asked, asking
from perdure.cli.exits import Code
from perdure.cli.output import (
    clean,
    emit_many,
    emit_one,
    instant,
    moment,
    note,
    plain,
    redacted,
    say,
    table,
    took,
    workflow_fields,
)
from perdure.cli.rollcall import call_roll, nobody
from perdure.cli.starting import AS_OPTIONS, how_to_start, start_options
from perdure.cli.story import (
    failure_fields,
    failure_of,
    outcome_text,
    read_story,
    record_fields,
    spans_of,
    story_fields,
)
from perdure.cli.stranded import Stranded, list_stranded, stranded_of, unserved
from perdure.cli.target import Given, common, opened, run
from perdure.cli.timeline import draw, failure_lines
from perdure.cli.values import json_of
from perdure.cli.waiting import NotYet, wait_end
from perdure.client import verbs
from perdure.client.bounded import Bounded
from perdure.client.line import Line
from perdure.client.once import waits_anew
from perdure.client.questions import SendTo, StartOrder, outcome_of
from perdure.config import read_settings
from perdure.errors import ConfigError
from perdure.model.ids import TokenMaker
from perdure.model.records import WITHOUT_CLEANUP, Ended, Outcome, WorkflowRow
from perdure.model.states import Status
from perdure.operations.end import replaced
from perdure.operations.look import not_found
from perdure.query.conditions import Order, Query, where
from perdure.serde import ArgsShape, Shape, fingerprint_data, is_coded
from perdure.store.base import Store

PAGE = 500
VERSIONS_MAX = 3  # named below a list
CANCEL_SECONDS = 30.0
PATIENCE_SECONDS = 10.0  # with a database that does not answer, unless PERDURE_PATIENCE says another
_ANY_ARGS = ArgsShape.of(lambda *_args, **_kwargs: None)  # the code is not here: by their own types


@click.group()
def workflow() -> None:
    """List, show, start, message and cancel workflows."""


# -- list


@workflow.command("list")
@common
@asking
@click.option("--limit", type=AMOUNT, default=LIST_MAX, show_default=True)
@click.option("--stranded", is_flag=True, help="Only open ones that no live executor can run, with the reason.")
def list_(given: Given, asked: Asked, limit: int, stranded: bool) -> None:
    """Workflows, newest first, or as a QUERY orders them: "status = failed AND type = checkout ORDER BY closed"."""
    if stranded:
        if asked.text or asked.statuses or asked.all_runs:
            raise ConfigError("--stranded goes with --type and --limit, not with --status, --all-runs or a query")
        run(list_stranded(given, asked.names, limit))
        return
    run(_list(given, asked, limit))


async def _list(given: Given, asked: Asked, limit: int) -> None:
    async with opened(given) as store:
        query = asked.query(store.app, "list")
        rows, more = await _page(store, query, limit)
        rows = await _with_commands(store, rows)
        roll = await call_roll(store)
        stranded = await stranded_of(store, roll, rows)
    cells = [
        (f"{row.id} #{row.run}" if asked.all_runs else row.id, row.name, str(row.status), instant(row.created),
         took((row.closed or roll.now) - row.created), _remark(row, stranded.get(row.id)))
        for row in rows
    ]  # fmt: skip
    head = ("id", "type", "status", "created", "duration", "")
    lines = table(head, cells, "no workflows match", paint=2)
    if more:
        which = "newest" if query.order == Order() else "first"
        lines.append(f"(the {which} {len(rows)}; for more: --limit {len(rows) * 10})")
    if lost := unserved(roll):  # perhaps not among those listed: a version that ended in peace leaves no problem
        named = ", ".join(lost[:VERSIONS_MAX]) + (", …" if len(lost) > VERSIONS_MAX else "")
        lines.append(f"open work of version {named} has no live executor: perdure workflow list --stranded")
    fields = [_listed(row, stranded.get(row.id)) for row in rows]
    emit_many(given.output, "workflows", fields, lines, more=more)


def _listed(row: WorkflowRow, stranded: Stranded | None) -> dict[str, Any]:
    return {**workflow_fields(row), "stranded": None if stranded is None else stranded.told}


async def _page(store: Store, query: Query, limit: int) -> tuple[list[WorkflowRow], bool]:
    rows: list[WorkflowRow] = []
    cursor: str | None = None
    while len(rows) < limit:
        found = await store.list(query, cursor=cursor, limit=min(PAGE, limit - len(rows)))
        rows += found.rows
        cursor = found.cursor
        if cursor is None:
            break
    return rows, cursor is not None


async def _with_commands(store: Store, rows: list[WorkflowRow]) -> list[WorkflowRow]:
    """The same with the cancels that are on their way, which stand beside the rows."""
    told = await store.rows([row.id for row in rows if row.status.open])
    return [
        msgspec.structs.replace(row, told=told[row.id].told) if row.id in told and told[row.id].run == row.run else row
        for row in rows
    ]


def _remark(row: WorkflowRow, stranded: Stranded | None) -> str:
    if row.status is Status.HELD:
        return f"{row.reason}: {row.detail}"
    if row.pause is not None and row.status.open:
        return f"about to pause: {row.pause}"
    if row.status.open and (reason := row.told_to_cancel) is not None:
        asked = f"cancel asked for{': ' + reason if reason else ''}"
        return asked if stranded is None else f"{asked}; stranded: {stranded.reason}"
    if stranded is not None:
        return f"stranded: {stranded.reason}: {stranded.detail}"
    due = f" until {instant(row.until)}" if row.until is not None else ""
    if row.problem is not None and row.status.open:
        return f"{row.problem}{': ' if row.detail else ''}{row.detail}{due}"
    if row.status is Status.WAITING:
        return f"{row.detail}{due}"
    return f"not before{due.removeprefix(' until')}" if row.status is Status.SCHEDULED else row.detail


# -- show, history


@workflow.command()
@common
@click.argument("id")
@click.option("--run", "number", type=AMOUNT, metavar="N", help="An earlier run (default: the latest).")
def show(given: Given, id: str, number: int | None) -> None:
    """One workflow: where it stands and why, and its timeline, a line for each record."""
    run(_show(given, id, number))


async def _show(given: Given, id: str, number: int | None) -> None:
    async with opened(given) as store:
        story = await read_story(store, id, number)
    emit_one(given.output, "workflow", story_fields(story), draw(story))


@workflow.command()
@common
@click.argument("id")
@click.option("--run", "number", type=AMOUNT, metavar="N", help="An earlier run (default: the latest).")
def history(given: Given, id: str, number: int | None) -> None:
    """The records of a run as they are stored, in the order in which the workflow observed them."""
    run(_history(given, id, number))


async def _history(given: Given, id: str, number: int | None) -> None:
    async with opened(given) as store:
        story = await read_story(store, id, number)
    texts = {span.seq: outcome_text(span, 200) for span in spans_of(story)}
    cells = [
        (
            str(record.seq), record.path, record.kind.name.lower(), record.name, str(record.attempt),
            moment(record.at), record.version, record.shown,
            texts.get(record.seq, "") or ", ".join(f"intends {intent.name}" for intent in record.intents),
        )
        for record in story.records
    ]  # fmt: skip
    head = ("seq", "path", "kind", "name", "attempt", "at", "version", "shown", "outcome")
    lines = table(head, cells, f"run {story.row.run} of workflow {id} has no records yet")
    rows = [record_fields(record) for record in story.records]
    emit_many(given.output, "records", rows, lines, id="seq", workflow=id, run=story.row.run)


# -- result


@workflow.command()
@common
@click.argument("id")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="How long to wait for its end.")
def result(given: Given, id: str, timeout: float | None) -> None:
    """Wait for the end and print the result as JSON.

    Exits with 1 and the exception if it did not complete, with 5 if it does not end in time. Without --timeout it
    waits as long as an executor is there.
    """
    run(_result(given, id, timeout))


async def _result(given: Given, id: str, timeout: float | None) -> None:
    async with opened(given) as store:
        if id not in await store.rows([id]):
            raise not_found(id, store.app)
        ended = await wait_end(store, id, timeout)
    _print_result(given.output, ended)


def _print_result(output: str, ended: Ended) -> None:
    row = ended.row
    outcome, data = outcome_of(ended)
    if is_coded(data or b""):
        note(f"the outcome is coded; who has the app's codec can read it: Client(…, codec=…).handle({row.id!r})")
    fields: dict[str, Any] = {"id": row.id, "run": row.run, "status": str(row.status)}
    if outcome is Outcome.ERROR:
        failure = failure_of(data)
        fields["error"] = failure_fields(failure)
        if output == "table":
            for line in failure_lines(failure):
                say(line, err=True)
        else:
            _emit_result(output, fields)
        raise click.exceptions.Exit(int(Code.NO))
    value = plain(data)
    if output == "table":
        say(json.dumps(value, ensure_ascii=False, indent=2))
    else:
        _emit_result(output, {**fields, "result": value})


def _emit_result(output: str, fields: dict[str, Any]) -> None:
    emit_one(output, "outcome", fields, [])


# -- start


@workflow.command()
@common
@click.argument("name")
@click.argument("args", nargs=-1, metavar="[ARG]...")
@how_to_start
@click.option("--arg", "named", multiple=True, metavar="NAME=JSON", help="An argument by name.")
def start(given: Given, name: str, args: Sequence[str], named: Sequence[str], **how: Any) -> None:
    """Start a workflow, for an executor to run. Arguments are JSON: 42, true, '"text"', '{"a": 1}'.

    Prints the id once the start is durable. An argument that begins with - is given after --.
    """
    positional = [json_of(text, f"argument {at}") for at, text in enumerate(args, 1)]
    keywords = dict(_keyword(text) for text in named)
    options = start_options(check_name(name, "workflow"), how)
    input = _ANY_ARGS.encode(tuple(positional), keywords)
    order = StartOrder(name=name, input=input, fingerprint=fingerprint_data(name, input), options=options)
    run(_start(given, order))


def _keyword(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ConfigError(f"--arg {text!r} is not NAME=JSON; for example: --arg cents=1999")
    return name, json_of(value, f"--arg {name}")


async def _start(given: Given, order: StartOrder) -> None:
    chosen = order.options.id
    async with opened(given, may_be_new=True) as store, _line(store) as line:
        await _warn_of_name(store, order.name)
        before = {} if chosen is None else await store.rows([chosen])
        own = chosen or line.new_id()  # of one's own, so that who has the key is told apart
        order = msgspec.structs.replace(order, options=msgspec.structs.replace(order.options, id=own))
        id = (await verbs.start(line, order)).id
        roll = await call_roll(store)
        row = (await store.rows([id]))[id]
    if waits_anew(order, row) and (before or id != own):
        note(f"workflow {id} was there already; it waits anew, with this input, until {instant(row.until)}")
    elif id != own or (before and order.options.on_conflict != "replace"):
        note(f"workflow {id} was there already ({row.status}); this start is answered by it{_run_anew(row, own)}")
    elif not roll.live:
        note(f"it is queued; {nobody(store.app)}")
    emit_one(given.output, "workflow", workflow_fields(row), [id])


def _run_anew(row: WorkflowRow, own: str) -> str:
    if row.id != own or row.status.open:
        return ""
    return f", which ended at {instant(row.closed)}. To run it again: another --id, or {AS_OPTIONS.anew}"


async def _warn_of_name(store: Store, name: str) -> None:
    """Without the code nobody can tell whether the name is right; rows can tell that it is new."""
    if (await store.list(where(names=[name]), limit=1)).rows:
        return
    names = sorted({row.name for row in (await store.list(Query(), limit=PAGE)).rows})
    if name not in names and (close := difflib.get_close_matches(name, names, n=1)):  # or it ran just now
        note(f"app {store.app!r} has not run a workflow {name!r} so far; did you mean {close[0]!r}?")


@contextlib.asynccontextmanager
async def _line(store: Store) -> AsyncGenerator[Line, None]:
    """A line over an open store, for verbs that write; a person waits so long, and is told what is known."""
    line = Line(store, asyncio.get_running_loop())
    settings = read_settings("cli", {})
    line.routes.rollout = settings.rollout
    line.spelling, line.told_attached = AS_OPTIONS, True  # the command says itself who has answered
    try:
        yield Bounded(line, settings.patience or PATIENCE_SECONDS)
    finally:
        line.drop()


# -- send


@workflow.command()
@common
@click.argument("id")
@click.argument("value", metavar="JSON")
@click.option("--topic", default="", metavar="NAME", help="The topic that the workflow receives on (default: none).")
@click.option("--key", metavar="TEXT", help="Delivered once for this key, however often it is sent.")
def send(given: Given, id: str, value: str, topic: str, key: str | None) -> None:
    """Send a message to a workflow. Exits with 3 if there is none of that id, with 1 if it has ended."""
    name = check_name(topic, "topic")
    data = encode_message(json_of(value, "the message"), Shape.of(Any), name)
    run(_send(given, SendTo(id, name, data, check_message_key(key))))


async def _send(given: Given, message: SendTo) -> None:
    async with opened(given) as store, _line(store) as line:
        await verbs.send(line, message)
        alive = (await call_roll(store)).live
    if not alive:
        note(f"it will be received later; {nobody(store.app)}")
    fields = {"id": message.id, "topic": message.topic, "key": message.key, "sent": True}
    emit_one(given.output, "message", fields, [f"sent to {message.id}"])


# -- cancel


@workflow.command()
@common
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--reason", default="", metavar="TEXT", help="Why; kept with the workflow.")
@click.option("--timeout", type=click.FloatRange(min=0), default=CANCEL_SECONDS, show_default=True, metavar="SECONDS",
              help="How long to wait for the answer.")  # fmt: skip
def cancel(given: Given, ids: Sequence[str], reason: str, timeout: float) -> None:
    """Cancel workflows and say how each ended.

    Exits with 0 if all are cancelled, 1 if one had ended otherwise, 3 if one is unknown, 5 if one has not stopped yet:
    its cancel is recorded and takes effect when its executor acts on it.
    """
    run(_cancel(given, list(dict.fromkeys(ids)), reason, timeout))


async def _cancel(given: Given, ids: list[str], reason: str, timeout: float) -> None:
    async with opened(given) as store:
        new_token = TokenMaker()
        asked = {id: await store.cancel(id, reason, new_token()) for id in ids}
        store.hint()
        until = asyncio.get_running_loop().time() + timeout
        answers = [await _answer(store, id, row, until) for id, row in asked.items()]
    rows = [{"id": id, "status": status, "answer": text} for id, status, text, _ in answers]
    lines = [f"{clean(id)}: {clean(redacted(text))}" for id, _, text, _ in answers]
    emit_many(given.output, "answers", rows, lines)
    worst = max(answers, key=lambda answer: _RANK.index(answer[3]))[3]
    if worst is not Code.OK:
        raise click.exceptions.Exit(int(worst))


_RANK = (Code.OK, Code.NO, Code.NOT_YET, Code.NOT_FOUND)


async def _answer(store: Store, id: str, row: WorkflowRow | None, until: float) -> tuple[str, str | None, str, Code]:
    """What became of one: id, status, in words, exit code."""
    if row is None:
        return id, None, str(not_found(id, store.app)), Code.NOT_FOUND
    if row.status.open:
        try:
            roll = await call_roll(store)
            left = max(until - asyncio.get_running_loop().time(), 0) if roll.live else 0
            latest = (await wait_end(store, id, left, tell=_nothing)).row
            if await replaced(store, row, latest):
                return _replaced(row, latest)
            row = latest
        except NotYet as yet:
            now = (await store.rows([id])).get(id)
            if now is not None and await replaced(store, row, now):
                return _replaced(row, now)
            why = yet.why or (
                "its executor stops it when the step under way has ended; where that hangs, to end the workflow "
                f"without its cleanup: perdure workflow terminate {id}"
            )
            return id, str(row.status), f"the cancel is recorded, not done yet: {why}", Code.NOT_YET
    if row.status is Status.CANCELLED:
        return id, str(row.status), row.detail if row.detail.startswith(WITHOUT_CLEANUP) else "cancelled", Code.OK
    return id, str(row.status), f"not cancelled: it is {row.status} since {instant(row.closed)}", Code.NO


def _replaced(told: WorkflowRow, latest: WorkflowRow) -> tuple[str, str | None, str, Code]:
    words = f"run {told.run} was replaced meanwhile, by run {latest.run}, which was not told to cancel"
    return told.id, str(latest.status), f"not cancelled: {words}; it is {latest.status}", Code.NO


def _nothing(_text: str) -> None:
    """The answer will say it."""
