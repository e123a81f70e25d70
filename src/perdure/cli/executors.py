"""``perdure executor …``: who is there to work."""

from __future__ import annotations

from collections import Counter

import click

from perdure.cli.output import emit_many, instant, table
from perdure.cli.rollcall import call_roll, executor_fields
from perdure.cli.target import Given, common, opened, run
from perdure.model.states import Status
from perdure.store.base import Filter, Store

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
        (who.executor, roll.life(who), who.version, f"{who.host} {who.pid}".strip(), instant(who.started),
         roll.lease(who) if roll.lives(who) else "", str(holds[who.id]))
        for who in roll.known
    ]  # fmt: skip
    head = ("executor", "state", "version", "process", "started", "lease", "holds")
    lines = table(head, cells, "no executors: start one with perdure run MODULE:APP")
    emit_many(given.output, "executors", [executor_fields(roll, who, holds[who.id]) for who in roll.known], lines,
              id="executor")  # fmt: skip


async def holdings(store: Store) -> Counter[bytes]:
    """How many running workflows each incarnation holds."""
    held: Counter[bytes] = Counter()
    cursor: str | None = None
    while held.total() < COUNT_MAX:
        found = await store.list(Filter(statuses=frozenset({Status.RUNNING}), cursor=cursor, limit=1000))
        held.update(row.owner for row in found.rows if row.owner is not None)
        cursor = found.cursor
        if cursor is None:
            break
    return held
