"""What a replay rests on: a row, its input and its history, read for a page of workflows at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import NamedTuple

from perdure.model.records import Record, WorkflowRow
from perdure.model.states import OPEN
from perdure.query.conditions import where
from perdure.store.base import Store

PAGE = 100  # histories held in memory at once


class Past(NamedTuple):
    """One run, as it stands."""

    row: WorkflowRow
    input: bytes
    history: list[Record]


async def read_pasts(store: Store, rows: Sequence[WorkflowRow]) -> list[Past]:
    """Inputs and histories of these rows, in their order; those that are gone meanwhile are left out."""
    keys = [row.key for row in rows]
    inputs = await store.inputs(keys)
    histories = await store.histories(keys)
    return [Past(row, inputs[row.key], histories.get(row.key, [])) for row in rows if row.key in inputs]


async def open_pasts(store: Store, names: Collection[str] = (), limit: int | None = None) -> AsyncIterator[list[Past]]:
    """The open workflows of an app, newest first, page by page; ``limit`` of them at most."""
    query, cursor = where(statuses=OPEN, names=names), None
    left = limit
    while left is None or left > 0:
        size = PAGE if left is None else min(PAGE, left)
        found = await store.list(query, limit=size, cursor=cursor)
        yield await read_pasts(store, found.rows)
        if found.cursor is None:
            return
        cursor = found.cursor
        left = None if left is None else left - len(found.rows)
