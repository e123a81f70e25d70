"""What an operator reads and changes of an app, over the line. Whoever works queues is told of changes at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from perdure.client import verbs
from perdure.client.line import Line
from perdure.model.queues import QueueChange, QueueCount, QueueRow
from perdure.model.schedules import Schedule
from perdure.query.conditions import Query
from perdure.store.asks import Counted, Found
from perdure.store.upkeep import Upkeep

T = TypeVar("T")

PAGE = 200  # rows of one question


async def page(line: Line, query: Query, cursor: str | None, limit: int) -> Found:
    """A page of a listing."""
    found: Found = await verbs.patiently(line, partial(line.store.list, query, cursor=cursor, limit=limit))
    return found


async def count(line: Line, query: Query) -> list[Counted]:
    """Counts of a query, by its groups."""
    counted: list[Counted] = await verbs.patiently(line, line.store.count, query)
    return counted


async def schedules(line: Line) -> list[Schedule]:
    """All schedules."""
    found: list[Schedule] = await verbs.patiently(line, line.store.schedules)
    return found


async def upkeep(line: Line, work: Callable[[Upkeep], Awaitable[T]]) -> T:
    """Something that is about the whole database; tried again where that is in trouble: all of it may be."""
    done: T = await verbs.patiently(line, work, line.store.upkeep, lasting=True)
    return done


async def queues(line: Line) -> list[tuple[QueueRow, QueueCount]]:
    """All queues by name, also those that only their items tell of, with what they hold."""
    rows = {row.name: row for row in await verbs.patiently(line, line.store.queues)}
    counts: dict[str, QueueCount] = await verbs.patiently(line, line.store.queue_counts)
    if unknown := counts.keys() - rows.keys():
        await verbs.patiently(line, line.store.make_queues, unknown)
        rows = {row.name: row for row in await verbs.patiently(line, line.store.queues)}
    return [(rows[name], counts.get(name, QueueCount())) for name in sorted(rows)]


async def change_queue(line: Line, name: str, order: QueueChange) -> QueueRow:
    """Change a queue; how it stands then."""
    row: QueueRow = await verbs.patiently(line, line.store.change_queue, name, order)
    if line.work is not None:
        line.work.look()
    line.store.hint()
    return row
