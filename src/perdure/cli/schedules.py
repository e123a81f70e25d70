"""``perdure schedule …``: when workflows start by themselves; changed while everything runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar, cast

import click
import msgspec

from perdure.api.schedule import read_changes, spec_of
from perdure.cli.amounts import AMOUNT
from perdure.cli.durations import duration
from perdure.cli.exits import Code
from perdure.cli.output import clean, emit_many, emit_one, instant, note, table, took
from perdure.cli.rollcall import call_roll, nobody
from perdure.cli.target import Given, common, opened, run
from perdure.config import read_settings
from perdure.errors import ConfigError
from perdure.model.durations import to_us
from perdure.model.ids import TokenMaker
from perdure.model.info import from_datetime
from perdure.model.schedules import FiringInfo, Schedule, ScheduleInfo, Which, firing_info, schedule_info
from perdure.operations import schedules as operations
from perdure.operations.schedules import Hand
from perdure.schedules.judge import workflow_id
from perdure.schedules.times import local, times_of, zone
from perdure.store.base import Store
from perdure.versions.routing import version_for

T = TypeVar("T")
SHOWN = 20  # firings, where nothing else is said
COMING = 3  # times to come that are shown


@click.group()
def schedule() -> None:
    """When workflows start by themselves."""


# -- reading


@schedule.command("list")
@common
def list_(given: Given) -> None:
    """Schedules, by name: when each fires next, or why it does not."""
    run(_list(given))


async def _list(given: Given) -> None:
    async with opened(given) as store:
        rows = await store.schedules()
        roll, app = await call_roll(store), store.app
    infos = [schedule_info(row) for row in rows]
    cells = [
        (one.name, timing(one), one.tz, one.workflow, one.missed, one.overlap, str(one.waiting or ""), coming(one))
        for one in infos
    ]
    head = ("schedule", "when", "zone", "workflow", "missed", "overlap", "waiting", "next")
    lines = table(head, cells, "no schedules: declare one with @app.schedule, or perdure schedule create")
    if any(row.active for row in rows) and not roll.live:
        note(f"nothing fires: {nobody(app)}")
    emit_many(given.output, "schedules", [fields(one) for one in infos], lines, id="name")


@schedule.command("show")
@common
@click.argument("name")
@click.option("--limit", type=AMOUNT, default=SHOWN, help=f"Firings to show (default {SHOWN}).")
def show(given: Given, name: str, limit: int) -> None:
    """One schedule: what holds, what was changed, the next times, and what became of the latest."""
    run(_show(given, name, limit))


async def _show(given: Given, name: str, limit: int) -> None:
    async with opened(given) as store:
        row = await operations.one(store, name)
        firings = [firing_info(one) for one in await store.firings(Which(schedule=name, limit=limit))]
    emit_one(
        given.output, "schedule", {**fields(schedule_info(row)), "firings": [_firing_fields(one) for one in firings]},
        [*_described(row), "", *_table(firings)], id="name",
    )  # fmt: skip


def _described(row: Schedule) -> list[str]:
    one = schedule_info(row)
    bound = f"{one.catch_up} times" if isinstance(one.catch_up, int) else took(to_us(one.catch_up, "catch_up"))
    origin = "declared by the code" if one.declared else "made at run time"
    if one.changed_live:
        origin += f"; changed since: {', '.join(one.changed_live)} (perdure schedule reset {one.name})"
    lines = [
        f"{one.name}: {one.workflow}, {timing(one)} in {one.tz}; next: {coming(one)}",
        f"missed={one.missed}, at most {bound}; overlap={one.overlap}; {origin}",
    ]
    if one.next is not None:
        times = times_of(row.spec, row.anchor)
        shown: list[str] = []
        at: int | None = from_datetime(one.next)
        while len(shown) < COMING and at is not None:
            shown.append(local(at, one.tz).isoformat())
            at = times.after(at)
        lines.append(f"times to come: {', '.join(shown)}")
    if one.waiting:
        lines.append(f"{one.waiting} wait for the end of {one.last}")
    return [clean(line) for line in lines]


def _table(firings: list[FiringInfo]) -> list[str]:
    cells = [
        (span(one), one.state, one.workflow or "", f"{one.reason}: {one.detail}" if one.reason else one.detail)
        for one in firings
    ]
    return table(("time", "", "workflow", "why"), cells, "no time has come yet")


# -- making and changing


def _spec_options(fn: Callable[..., None]) -> Callable[..., None]:
    """What a schedule is."""
    for option in (
        click.option("--catch-up", metavar="N|TIME", help="The bound of that: so many times, or 12h, 2d (100)."),
        click.option("--overlap", type=click.Choice(["allow", "skip", "queue"]), help="While the one before is open."),
        click.option(
            "--missed", type=click.Choice(["skip", "once", "all"]), help="Of times at which nobody was there."
        ),
        click.option("--tz", metavar="ZONE", help="The zone of the expression: Europe/Berlin (UTC)."),
        click.option("--every", metavar="TIME", help="Instead: 30s, 5m, 1h, 1d."),
        click.option("--cron", metavar="EXPR", help="Five fields, or six with seconds first: '0 2 * * *'."),
        click.option("--queue", metavar="NAME", help="The queue that its workflows go through."),
    ):
        fn = option(fn)
    return fn


@schedule.command("create")
@common
@click.argument("name")
@click.argument("workflow")
@_spec_options
@click.option("--takes-due", is_flag=True, help="The workflow is given the nominal time as its one argument.")
def create(given: Given, name: str, workflow: str, takes_due: bool, **asked: Any) -> None:
    """Make a schedule that starts WORKFLOW. The same one again changes nothing."""
    values = _asked(asked)
    spec = spec_of(
        workflow, None, values.get("cron"), values.get("every"), values.get("tz", "UTC"), values.get("missed", "once"),
        values.get("overlap", "allow"), values.get("catch_up"), values.get("queue"), takes_due=takes_due,
    )  # fmt: skip
    _changed(given, lambda store, _: operations.create(store, name, spec), may_be_new=True)


@schedule.command("set")
@common
@click.argument("name")
@_spec_options
def set_(given: Given, name: str, **asked: Any) -> None:
    """Change a schedule. Of a declared one this holds, over later deploys too, until reset."""
    changes = read_changes(_asked(asked))
    if not changes:
        raise ConfigError(
            "nothing to change was given: --cron, --every, --tz, --missed, --overlap, --catch-up, --queue"
        )
    _changed(given, lambda store, _: operations.change(store, name, changes))


@schedule.command("reset")
@common
@click.argument("name")
def reset(given: Given, name: str) -> None:
    """Take back what was changed of a declared schedule, a pause too."""
    _changed(given, lambda store, _: operations.reset(store, name))


@schedule.command("pause")
@common
@click.argument("name")
@click.option("--reason", default="", metavar="TEXT", help="Why; shown with it.")
def pause(given: Given, name: str, reason: str) -> None:
    """Fire no more until it is resumed, whatever is deployed. What runs goes on."""
    _changed(given, lambda store, _: operations.pause(store, name, reason))


@schedule.command("resume")
@common
@click.argument("name")
def resume(given: Given, name: str) -> None:
    """Fire again, from the next time on."""
    _changed(given, lambda store, _: operations.resume(store, name))


@schedule.command("delete")
@common
@click.argument("name")
def delete(given: Given, name: str) -> None:
    """Forget a schedule and its firings; its workflows stay. One that the code declares is refused."""
    run(_do(given, lambda store, _: operations.delete(store, name)))
    emit_one(given.output, "schedule", {"name": name, "deleted": True}, [f"deleted {clean(name)}"], id="name")


def _changed(given: Given, verb: Callable[[Store, Hand], Awaitable[Schedule]], *, may_be_new: bool = False) -> None:
    row = run(_do(given, verb, may_be_new=may_be_new))
    emit_one(given.output, "schedule", fields(schedule_info(row)), _described(row), id="name")


# -- firing by hand


@schedule.command("trigger")
@common
@click.argument("name")
def trigger(given: Given, name: str) -> None:
    """Fire now, paused or not, and print the workflow's id."""

    async def fire(store: Store, hand: Hand) -> tuple[str, str]:
        id = await operations.trigger(store, name, hand)
        return id, "" if (await call_roll(store)).live else f"it is queued; {nobody(store.app)}"

    id, remark = run(_do(given, fire))
    if remark:
        note(remark)
    emit_one(given.output, "workflow", {"id": id}, [clean(id)])


@schedule.command("backfill")
@common
@click.argument("name")
@click.option("--from", "since", required=True, metavar="TIME", help="2030-01-01T00:00; without offset in its zone.")
@click.option("--to", "until", required=True, metavar="TIME", help="The last time, inclusive.")
@click.option("--yes", is_flag=True, help="Do it: without it, the times are only listed.")
def backfill(given: Given, name: str, since: str, until: str, yes: bool) -> None:
    """Fire times of the past that were not started: all at once, or one by one if they must not overlap."""

    async def plan(store: Store, hand: Hand) -> list[str]:
        tz = (await operations.one(store, name)).spec.tz
        first, last = (_instant(text, tz, what) for text, what in ((since, "--from"), (until, "--to")))
        if yes:
            return await operations.backfill(store, name, first, last, hand)
        return [workflow_id(name, at) for at in await operations.backfill_plan(store, name, first, last)]

    ids = run(_do(given, plan))
    head = f"{'started or queued' if yes else 'would start'} {len(ids)} workflow{'' if len(ids) == 1 else 's'}"
    emit_many(given.output, "workflows", [{"id": id} for id in ids], [head, *map(clean, ids)], done=yes)
    if not yes and ids:
        note("nothing was started: say --yes to do it")
        raise click.exceptions.Exit(int(Code.NO))


# -- the rest


async def _do(given: Given, verb: Callable[[Store, Hand], Awaitable[T]], *, may_be_new: bool = False) -> T:
    async with opened(given, may_be_new=may_be_new, changes=True) as store:
        rollout = read_settings("cli", {}).rollout
        route = partial(version_for, rollout, store.app, routing=await store.routing())
        done = await verb(store, Hand(TokenMaker(), route))
        store.hint()
        return done


def _asked(options: dict[str, Any]) -> dict[str, Any]:
    """What was given on the command line, as Python would say it."""
    found = {key: value for key, value in options.items() if value is not None}
    if "every" in found:
        found["every"] = duration(found["every"], "--every")
    if "catch_up" in found:
        text = str(found["catch_up"])
        found["catch_up"] = int(text) if text.isdecimal() else duration(text, "--catch-up")
    return found


def _instant(text: str, tz: str, what: str) -> int:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{what} {text!r} is no time; give 2030-01-01T02:00 or 2030-01-01T02:00+01:00") from None
    return from_datetime(when if when.tzinfo is not None else when.replace(tzinfo=zone(tz)))


def fields(one: ScheduleInfo) -> dict[str, Any]:
    """A schedule as programs see it; durations in seconds."""
    shown: dict[str, Any] = msgspec.to_builtins(one)
    shown["every"] = None if one.every is None else one.every.total_seconds()
    if isinstance(one.catch_up, timedelta):
        shown |= {"catch_up": None, "catch_up_seconds": one.catch_up.total_seconds()}
    return shown


def _firing_fields(one: FiringInfo) -> dict[str, Any]:
    return cast("dict[str, Any]", msgspec.to_builtins(one))


def timing(one: ScheduleInfo) -> str:
    """When it fires, for people."""
    return one.cron if one.cron is not None else f"every {took(to_us(one.every or 0, 'every'))}"


def coming(one: ScheduleInfo) -> str:
    """The next time, or why there is none."""
    if one.paused is not None:
        return f"paused: {one.paused}"
    return "never" if one.next is None else instant(from_datetime(one.next))


def span(one: FiringInfo) -> str:
    """The time of a firing, or the first and last of those it stands for."""
    first = instant(from_datetime(one.at))
    return first if one.until == one.at else f"{first} to {instant(from_datetime(one.until))}"
