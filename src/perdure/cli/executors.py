"""``perdure executor …``: who is there to work, and whose work others are to take."""

from __future__ import annotations

from collections import Counter

import click

from perdure.cli.output import clean, emit_many, instant, note, table, took
from perdure.cli.rollcall import call_roll, executor_fields, nobody
from perdure.cli.target import Given, common, opened, run
from perdure.model.states import Status
from perdure.query.conditions import where
from perdure.runtime.handover import recover
from perdure.store.base import Store
from perdure.store.pages import pages

COUNT_MAX = 10_000  # workflows that are counted; more are "10000+"


@click.group()
def executor() -> None:
    """The processes that run workflows."""


@executor.command("list")
@common
def list_(given: Given) -> None:
    """Executors, oldest first: whether they live, and how much each holds."""
    run(_list(given))


async def _list(given: Given) -> None:
    async with opened(given) as store:
        roll = await call_roll(store)
        holds = await holdings(store)
    cells = [
        (who.executor, roll.life(who), who.version, f"{who.host} {who.pid}" if who.pid else who.host,
         instant(who.started or None), roll.lease(who) if roll.lives(who) else "",
         took(who.lag) if roll.lives(who) else "", str(holds[who.id]),
         who.id.hex())
        for who in roll.known
    ]  # fmt: skip
    head = ("executor", "state", "version", "process", "started", "lease", "lag", "holds", "incarnation")
    lines = table(head, cells, "no executors: start one with perdure run MODULE:APP")
    emit_many(given.output, "executors", [executor_fields(roll, who, holds[who.id]) for who in roll.known], lines,
              id="executor")  # fmt: skip


@executor.command("recover")
@common
@click.argument("ids", metavar="ID…", nargs=-1, required=True)
@click.option("--by", metavar="EXECUTOR", help="The executor that is to take the work (default: any that may).")
@click.option("--force", is_flag=True, help="Declare it dead if it is alive: its writes are refused from then on.")
def recover_(given: Given, ids: tuple[str, ...], by: str | None, force: bool) -> None:
    """Have others take over the work of executors that are gone.

    ID is an executor's label (all of that name that are gone) or the beginning of an incarnation's id. A live one is
    refused. Executors take the work within seconds, also those with recovery=manual or own.
    """
    run(_recover(given, ids, by, force))


async def _recover(given: Given, ids: tuple[str, ...], by: str | None, force: bool) -> None:
    async with opened(given) as store:
        taken = await recover(store, ids, by, force=force)
        store.hint()
        roll = await call_roll(store)
        versions = {row.version for row in (await store.rows(taken)).values()} - {""} if by else set[str]()
    heirs = [who for who in roll.live if by in (None, who.executor)]
    if not heirs:
        note(f"executor {by!r} is not alive; the work waits until it starts" if by else nobody(store.app))
    elif foreign := sorted(versions - {who.version for who in heirs}):
        some = ", ".join(foreign)
        note(f"executor {by!r} does not run version {some}; what is of that waits until one called so does")
    count = f"{len(taken)} workflow{'' if len(taken) == 1 else 's'}"
    lines = [f"released {count} to {by or 'any executor'}", *map(clean, taken)]
    emit_many(given.output, "workflows", [{"id": id} for id in taken], lines)


async def holdings(store: Store) -> Counter[bytes]:
    """How many running workflows each incarnation holds."""
    held: Counter[bytes] = Counter()
    async for page in pages(store, where(statuses=[Status.RUNNING]), 1000):
        held.update(row.owner for row in page if row.owner is not None)
        if held.total() >= COUNT_MAX:
            break
    return held
