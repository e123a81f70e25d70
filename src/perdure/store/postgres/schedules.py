"""Schedules: each write compares the row's revision, and starts in the transaction that moves it on."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from perdure.model.ids import RunKey
from perdure.model.records import WorkflowRow
from perdure.model.schedules import KEEP, Firing, Reschedule, Schedule, Which
from perdure.model.writes import Unit, Verdict
from perdure.store import scheduled
from perdure.store.postgres.columns import Columns
from perdure.store.postgres.commit import Place, finish, write
from perdure.store.postgres.connection import Link, Transaction


async def change(link: Link, place: Place, order: Reschedule, now: int | None) -> bool:
    """Write it, if the schedule still has the revision that was seen."""
    sql, app = place.sql, place.app
    async with link.transaction() as tx:
        if order.before or order.after is None:
            seen = await tx.fetchrow(sql["schedule_lock"], app, order.name)
            if (0 if seen is None else seen[0]) != order.before:
                return False
        if order.after is None:
            await tx.fetch(sql["firing_delete"], app, order.name)
            await tx.fetch(sql["schedule_delete"], app, order.name)
            return True
        columns = scheduled.columns(order.after)
        if order.before:
            await tx.fetch(sql["schedule_update"], app, *columns)
        elif await tx.fetchrow(sql["schedule_insert"], app, *columns) is None:
            return False
        firings = scheduled.as_started(order, await _start(tx, place, order, now)) if order.starts else order.firings
        if firings:
            written: list[Any] = [list(column) for column in zip(*map(scheduled.put_columns, firings), strict=True)]
            await tx.fetch(sql["firing_put"], app, order.name, *written)
        if order.forget is not None:
            await tx.fetch(sql["firing_forget"], app, order.name, order.forget, KEEP)
        return True


async def _start(tx: Transaction, place: Place, order: Reschedule, now: int | None) -> dict[str, WorkflowRow]:
    """Insert the workflows; whose the ids are that were taken."""
    unit, verdict = Unit(key=RunKey("", 0), children=order.starts), Verdict(applied=True)
    written = await write(tx, place, Columns([unit]), now, watchers_seen=True)
    await finish(tx, place, [(unit, verdict)], written)
    return verdict.exists


async def schedules(link: Link, place: Place, names: Collection[str] | None, due: int | None) -> list[Schedule]:
    wanted = None if names is None else sorted(names)
    return [scheduled.schedule(row) for row in await link.fetch(place.sql["schedule_list"], place.app, wanted, due)]


async def firings(link: Link, place: Place, which: Which) -> list[Firing]:
    sql = place.sql["firing_list_oldest" if which.oldest_first else "firing_list"]
    state = None if which.state is None else which.state.value
    found = await link.fetch(sql, place.app, which.schedule, which.since, which.until, state, which.limit)
    return [scheduled.firing(row) for row in found]
