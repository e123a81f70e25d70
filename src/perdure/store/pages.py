"""Reading a listing to its end, page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from perdure.model.records import WorkflowRow
from perdure.store.asks import Filter
from perdure.store.base import Store


async def pages(store: Store, which: Filter) -> AsyncIterator[list[WorkflowRow]]:
    """All that ``which`` finds, newest first, ``which.limit`` at a time; one empty page if it finds nothing."""
    while True:
        found = await store.list(which)
        yield found.rows
        if found.cursor is None:
            return
        which = msgspec.structs.replace(which, cursor=found.cursor)
