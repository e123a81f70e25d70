"""``perdure queue …``: what stands in line, and the limits that let it through, changed while everything runs."""

from __future__ import annotations

import re
from typing import Any

import click
import msgspec

from perdure.cli.durations import UNITS, is_too_long
from perdure.cli.exits import Code, Exit
from perdure.cli.output import clean, emit_many, emit_one, instant, note, table
from perdure.cli.rollcall import call_roll, nobody
from perdure.cli.target import Given, common, opened, run
from perdure.model.amounts import MOST, is_amount, shown
from perdure.model.queues import Limits, QueueChange, QueueCount, QueueRow
from perdure.store.base import Store

NONE = "none"
BOUND = 100_000  # counted at most
_RATE = re.compile(r"(\d{1,10})/(\d{1,10}(?:\.\d{1,20})?)([smhd]?)")  # longer ones are more than can be stored


class _Count(click.ParamType[Any]):
    """A limit: a whole number, or none."""

    name = "N|none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if value == NONE:
            return NONE
        try:
            number = int(value)
        except ValueError:
            number = 0
        if not is_amount(number):
            self.fail(f"{value!r} is no limit: a whole number from 1 to {MOST}, or none", param, ctx)
        return number


class _Rate(click.ParamType[Any]):
    """A rate: so many starts in a time, or none."""

    name = "N/TIME|none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int] | str:
        if value == NONE:
            return NONE
        match = _RATE.fullmatch(value)
        seconds = float(match[2]) * UNITS[match[3]] if match is not None else 0
        if match is None or not is_amount(int(match[1])) or round(seconds * 1e6) < 1 or is_too_long(seconds):
            self.fail(f"{shown(value)} is no rate: such as 100/60s, 5/1m, 1000/1h, or none", param, ctx)
        return int(match[1]), round(seconds * 1e6)


@click.group()
def queue() -> None:
    """Queues: their limits, and what stands in line."""


@queue.command("list")
@common
def list_(given: Given) -> None:
    """All queues: what is in line, what is in progress, and the limits; * marks one that was changed live."""
    run(_list(given))


async def _list(given: Given) -> None:
    async with opened(given) as store:
        rows = {row.name: row for row in await store.queues()}
        counts = await store.queue_counts(BOUND)
    for name in counts.keys() - rows.keys():
        rows[name] = QueueRow(name=name, limits=Limits())
    ordered = [(rows[name], counts.get(name, QueueCount())) for name in sorted(rows)]
    cells = [
        (row.name, "paused" if row.paused else "open", _counted(count.in_line), _counted(count.delayed),
         _counted(count.in_progress), instant(count.oldest), _limits(row))
        for row, count in ordered
    ]  # fmt: skip
    head = ("queue", "state", "in line", "delayed", "in progress", "oldest", "limits")
    empty = 'no queues: declare one with app.queue("name", concurrency=10)'
    fields = [queue_fields(row, count) for row, count in ordered]
    emit_many(given.output, "queues", fields, table(head, cells, empty), id="name")


def _counted(n: int) -> str:
    return f"{BOUND}+" if n >= BOUND else str(n)


@queue.command("set")
@common
@click.argument("name")
@click.option("--concurrency", type=_Count(), help="In progress at a time, over all executors.")
@click.option("--worker-concurrency", type=_Count(), help="In progress at a time on each executor.")
@click.option("--rate", type=_Rate(), help="Starts in every window, such as 100/60s.")
@click.option("--partition-concurrency", type=_Count(), help="In progress at a time of each partition.")
@click.option("--partition-rate", type=_Rate(), help="Starts of each partition in every window.")
@click.option("--reset", is_flag=True, help="First give up all live changes: what the code declares holds.")
def set_(given: Given, /, name: str, reset: bool, **limits: Any) -> None:
    """Change limits of a queue, now.

    It holds for every claim that follows, on all executors, and wins over what the code declares until --reset.
    """
    stored: dict[str, int | None] = {}
    for limit, value in limits.items():
        if value is None:
            continue
        if limit.endswith("rate"):
            stored[f"{limit}_limit"], stored[f"{limit}_period"] = (None, None) if value == NONE else value
        else:
            stored[limit] = None if value == NONE else value
    if not stored and not reset:
        raise Exit(Code.USAGE, "nothing to change: give a limit, such as --concurrency 20, or --reset")
    run(_change(given, name, QueueChange(limits=stored, reset=reset), "now"))


@queue.command("pause")
@common
@click.argument("name")
def pause(given: Given, name: str) -> None:
    """Let nothing more through; what is in progress goes on."""
    run(_change(given, name, QueueChange(paused=True), "paused"))


@queue.command("resume")
@common
@click.argument("name")
def resume(given: Given, name: str) -> None:
    """Let a paused queue go on."""
    run(_change(given, name, QueueChange(paused=False), "open"))


async def _change(given: Given, name: str, change: QueueChange, verb: str) -> None:
    async with opened(given, changes=True) as store:
        await _must_be_known(store, name)
        row = await store.change_queue(name, change)
        store.hint()
        count = (await store.queue_counts(BOUND)).get(name, QueueCount())
        roll = await call_roll(store)
    if not roll.live and count.in_line:
        note(f"{_counted(count.in_line)} in line; {nobody(store.app)}")
    lines = [f"queue {clean(name)} is {verb}" if verb != "now" else f"queue {clean(name)} now has {_limits(row)}"]
    emit_one(given.output, "queue", queue_fields(row, count), lines, id="name")


async def _must_be_known(store: Store, name: str) -> None:
    """A mistyped name must not make a queue that nobody uses."""
    known = {row.name for row in await store.queues()} | (await store.queue_counts(BOUND)).keys()
    if name not in known:
        listed = ", ".join(sorted(known)) or "none"
        raise Exit(Code.NOT_FOUND, f"no queue is called {name!r}; there are: {listed}. See: perdure queue list")


def queue_fields(row: QueueRow, count: QueueCount) -> dict[str, Any]:
    """A queue as JSON."""
    limits = msgspec.to_builtins(row.limits)
    return {
        "name": row.name, "paused": row.paused, "limits": limits, "live": row.live,
        "declared": None if row.declared is None else msgspec.to_builtins(row.declared),
        "in_line": count.in_line, "delayed": count.delayed, "in_progress": count.in_progress,
        "oldest": instant(count.oldest) or None,
    }  # fmt: skip


def _limits(row: QueueRow) -> str:
    """The limits in words."""
    limits, live = row.limits, row.live
    words = [
        f"{name.replace('_', ' ')} {value}{_mark(live, name)}"
        for name in ("concurrency", "worker_concurrency", "partition_concurrency")
        if (value := getattr(limits, name)) is not None or name in live
    ]
    for name in ("rate", "partition_rate"):
        n, period = getattr(limits, f"{name}_limit"), getattr(limits, f"{name}_period")
        if n is not None and period is not None:
            words.append(f"{name.replace('_', ' ')} {n}/{period / 1e6:g}s{_mark(live, name + '_limit')}")
        elif name + "_limit" in live:
            words.append(f"{name.replace('_', ' ')} none*")
    return ", ".join(words).replace("None", NONE) or "no limits"


async def full_queues(store: Store, live: int) -> dict[str, str]:
    """Queues that let nobody through for now, as far as counts tell, and why. ``live``: so many executors."""
    counts = await store.queue_counts(BOUND)
    full: dict[str, str] = {}
    for row in await store.queues():
        busy, limits = counts.get(row.name, QueueCount()).in_progress, row.limits
        most = min(limits.concurrency or MOST, (limits.worker_concurrency or MOST) * live)
        if row.paused:
            full[row.name] = "it is paused"
        elif busy >= most or limits.paced or (busy and limits.partition_concurrency is not None):
            full[row.name] = f"{_counted(busy)} in progress, {_limits(row)}"
    return full


def _mark(live: dict[str, Any], name: str) -> str:
    return "*" if name in live else ""
