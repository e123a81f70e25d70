"""``perdure workflow resume|restart|fork|pause|unpause``: what a person lets go on, or stops.

One id is done at once. Several are a plan first: what each is, and nothing is changed until ``--yes``.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from hashlib import blake2b
from typing import Any

import click
import msgspec

from perdure.api.options import check_id
from perdure.cli.exits import Code, code_of
from perdure.cli.output import clean, emit_many, note, redacted
from perdure.cli.rollcall import call_roll, nobody
from perdure.cli.target import Given, common, opened, run
from perdure.errors import ConfigError, DatabaseTrouble, PerdureError, ResultTimeout
from perdure.model.ids import TokenMaker
from perdure.model.orders import Answer, Answered
from perdure.model.states import Reason
from perdure.operations import fork as forks
from perdure.operations.look import Order, not_found, row_of, who
from perdure.operations.pause import pause as let_stop
from perdure.operations.pause import unpause as let_go_on_again
from perdure.operations.resume import resume as let_go_on
from perdure.store.base import Store

PAUSE_SECONDS = 30.0
Do = Callable[[Store, str], Awaitable[tuple[str, str, str]]]  # the id it is about then, its status, and in words


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one id."""

    id: str
    status: str | None
    answer: str
    new: str | None = None
    code: Code = Code.OK


again = click.option("--again", is_flag=True, help="Do it even if the same order was carried out before.")


def several(fn: Callable[..., None]) -> Callable[..., None]:
    """What each of these verbs takes."""
    for option in (
        click.option("--yes", is_flag=True, help="Do it: without it, several ids are only looked at."),
        click.option(
            "--because",
            "--reason",
            "reason",
            default="",
            metavar="TEXT",
            help="Why; kept in the history. Needed for several ids.",
        ),
        click.argument("ids", nargs=-1, required=True, metavar="ID..."),
    ):
        fn = option(fn)
    return fn


@click.command()
@common
@several
@click.option("--version", metavar="V", help="The version of the code that goes on with it.")
@click.option("--force", is_flag=True, help="Move it there even if nobody has checked that its history replays there.")
def resume(given: Given, ids: Sequence[str], reason: str, yes: bool, version: str | None, force: bool) -> None:
    """Let workflows go on from their last recorded step.

    Held, cancelled and timed out ones are queued again; queued and scheduled ones start now; what runs or waits goes on
    already. What is completed, failed or terminated is final: restart or fork it.
    """
    order, token = Order(by=who(), reason=reason), TokenMaker()

    async def do(store: Store, id: str) -> tuple[str, str, str]:
        status = await let_go_on(store, id, order, token, version=version, force=force)
        return id, str(status), "it is queued and goes on" if status == "queued" else f"it goes on already: {status}"

    run(each(given, ids, reason, do, "resume", yes=yes))


@click.command()
@common
@several
@click.option("--timeout", type=click.FloatRange(min=0), default=PAUSE_SECONDS, show_default=True, metavar="SECONDS",
              help="How long to wait for the steps in flight.")  # fmt: skip
def pause(given: Given, ids: Sequence[str], reason: str, yes: bool, timeout: float) -> None:
    """Stop workflows before their next step, until they are unpaused.

    The steps in flight end, and what they gave is recorded. Exits with 5 if one has not stopped yet: its pause is
    recorded, and takes effect when they have. Deadlines hold, timers keep their times, mail is kept.
    """
    order, token = Order(by=who(), reason=reason), TokenMaker()

    async def do(store: Store, id: str) -> tuple[str, str, str]:
        row = await let_stop(store, id, order, token, patience=timeout)
        if row.reason is Reason.PAUSED:
            return id, "held", f"paused: {row.detail}"
        if not row.status.open:
            return id, str(row.status), f"it is over: {row.status}"
        if row.pause is None:
            return id, str(row.status), f"unpaused meanwhile: it is {row.status}"
        why = "its executor stops it when the steps under way have ended"
        why = why if (await call_roll(store)).live else nobody(store.app)
        raise ResultTimeout(f"the pause is recorded, not done yet: {why}")

    run(each(given, ids, reason, do, "pause", yes=yes))


@click.command()
@common
@several
def unpause(given: Given, ids: Sequence[str], reason: str, yes: bool) -> None:
    """Let paused workflows go on where they were; timers that are overdue fire."""
    order, token = Order(by=who(), reason=reason), TokenMaker()

    async def do(store: Store, id: str) -> tuple[str, str, str]:
        before = await row_of(store, id)
        status = await let_go_on_again(store, id, order, token)
        goes_on = before.reason is Reason.PAUSED or before.pause is not None
        return id, str(status), f"it goes on: {status}" if goes_on else f"it is not paused: {status}"

    run(each(given, ids, reason, do, "unpause", yes=yes))


@click.command()
@common
@several
@click.option("--id", "new", metavar="NEW", help="The new workflow's id (default: the old one's with -2, -3 …).")
@click.option("--terminate", is_flag=True, help="End the old one at once, in the same commit.")
@click.option("--version", metavar="V", help="The version of the code that runs it (default: as any new one).")
@again
def restart(
    given: Given, ids: Sequence[str], reason: str, yes: bool, new: str | None, terminate: bool, version: str | None,
    again: bool,
) -> None:  # fmt: skip
    """Begin workflows anew, under other ids, with the same names and inputs.

    The same order again is answered with what it has begun, unless --again.
    """
    order, token, new_id = Order(by=who(), reason=reason), TokenMaker(), _one_new(ids, new)
    key = None if again else key_of("restart", version, terminate, reason)

    async def do(store: Store, id: str) -> tuple[str, str, str]:
        begun = await forks.restart(
            store, id, order, token, new_id=new_id, terminate=terminate, version=version, key=key
        )  # fmt: skip
        return _begun(begun, "begun anew", ", and terminated" if terminate else "")

    run(each(given, ids, reason, do, "restart", yes=yes))


@click.command()
@common
@several
@click.option("--id", "new", metavar="NEW", help="The new workflow's id (default: the old one's with -2, -3 …).")
@click.option("--from", "step", metavar="STEP", help="Keep what came before it: its name, path (2.1) or number (#7).")
@click.option("--version", metavar="V", help="The version of the code that goes on (default: the one that wrote it).")
@click.option("--input", "input_", metavar="JSON", help="Other arguments, as workflow show prints them: '[\"a\", 2]'.")
@again
def fork(
    given: Given, ids: Sequence[str], reason: str, yes: bool, new: str | None, step: str | None, version: str | None,
    input_: str | None, again: bool,
) -> None:  # fmt: skip
    """Begin other workflows that keep what these have recorded before a step (default: all); these stay as they are.

    The same order again is answered with what it has begun, unless --again. A kept record that the code or the input
    does not repeat holds it, without effect.
    """
    order, token, new_id = Order(by=who(), reason=reason), TokenMaker(), _one_new(ids, new)
    data = None if input_ is None else _arguments(input_)
    key = None if again else key_of("fork", step, version, input_, reason)

    async def do(store: Store, id: str) -> tuple[str, str, str]:
        begun = await forks.fork(
            store, id, order, token, new_id=new_id, step=step, version=version, input=data, key=key
        )  # fmt: skip
        return _begun(begun, "forked")

    run(each(given, ids, reason, do, "fork", yes=yes))


def _begun(answered: Answered, verb: str, more: str = "") -> tuple[str, str, str]:
    new = answered.new or ""
    if answered.answer is Answer.ALREADY:
        return new, str(answered.status), f"already so: {verb} as {new}, which is {answered.status}"
    return new, "queued", f"{verb} as {new}{more}{answered.words.removeprefix(f'begun as {new}')}"


def key_of(*said: object) -> str:
    """What an order is known by: all that it says."""
    return blake2b(json.dumps(said).encode(), digest_size=12).hexdigest()


def _one_new(ids: Sequence[str], new: str | None) -> str | None:
    if new is not None and len(set(ids)) > 1:
        raise ConfigError(f"--id {new} names one new workflow, but {len(set(ids))} ids were given; leave it out")
    return None if new is None else check_id(new)


def _arguments(text: str) -> bytes:
    """Arguments as they are stored. Raises ``ConfigError`` for what is no JSON, or no arguments."""
    try:
        value: Any = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, list) and not (isinstance(value, dict) and "$args" in value):
        raise ConfigError(
            f"--input {text!r} is not a JSON array of arguments, such as '[\"order-42\", 1999]'; with arguments by "
            'name: \'{"$args": ["order-42"], "express": true}\''
        )
    return msgspec.json.encode(value)


async def each(given: Given, ids: Sequence[str], reason: str, do: Do, verb: str, *, yes: bool) -> None:
    """One after the other; what one is refused costs the others nothing."""
    ids = list(dict.fromkeys(ids))
    async with opened(given, changes=True) as store:
        if len(ids) > 1 and not (yes and reason):
            answers = await _plan(store, ids, verb)
        else:
            answers = [await _answer(store, id, do) for id in ids]
            store.hint()
            if any(answer.status in _GOES_ON for answer in answers) and not (await call_roll(store)).live:
                note(nobody(store.app))
    fields = [{"id": a.id, "status": a.status, "new": a.new, "answer": a.answer} for a in answers]
    lines = [f"{clean(a.id)}: {clean(redacted(a.answer))}" for a in answers]
    emit_many(given.output, "answers", fields, lines, id="new" if verb in ("restart", "fork") else "id")
    worst = max((answer.code for answer in answers), key=_RANK.index)
    if worst is not Code.OK:
        raise click.exceptions.Exit(int(worst))


_GOES_ON = ("queued", "running", "waiting")  # if anybody is there
_RANK = (Code.OK, Code.NO, Code.NOT_YET, Code.USAGE, Code.NOT_FOUND)


async def _plan(store: Store, ids: Sequence[str], verb: str) -> list[Outcome]:
    rows = await store.rows(ids)
    note(f"nothing was changed: to {verb} {len(ids)} workflows, add --yes and --reason TEXT")
    return [
        Outcome(id=id, status=str(rows[id].status), answer=f"is {rows[id].status}; would {verb}", code=Code.NO)
        if id in rows
        else Outcome(id=id, status=None, answer=str(not_found(id, store.app)), code=Code.NOT_FOUND)
        for id in ids
    ]


async def _answer(store: Store, id: str, do: Do) -> Outcome:
    try:
        about, status, words = await do(store, id)
    except DatabaseTrouble:
        raise
    except PerdureError as error:
        code = code_of(error)
        return Outcome(id=id, status=None, answer=str(error), code=code if code in _RANK else Code.NO)
    return Outcome(id=id, status=status, answer=words, new=about)
