"""Reading a listing to its end, page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator

from perdure.model.records import WorkflowRow
from perdure.query.conditions import Query
from perdure.store.base import Store


async def pages(store: Store, query: Query, limit: int) -> AsyncIterator[list[WorkflowRow]]:
    """All that ``query`` names, in its order, ``limit`` at a time; one empty page if it names nothing."""
    cursor: str | None = None
    while True:
        found = await store.list(query, limit=limit, cursor=cursor)
        yield found.rows
        cursor = found.cursor
        if cursor is None:
            return
