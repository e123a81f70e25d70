"""Starts that have a deduplication key: one open workflow of a queue for each key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from perdure.client.line import Line
from perdure.client.questions import CancelOf, StartOrder
from perdure.errors import WorkflowConflict
from perdure.model.ids import RunKey
from perdure.model.records import WorkflowRow
from perdure.model.states import Status
from perdure.model.writes import Start
from perdure.store.lines import Deduplicated, prolongable

Cancel = Callable[[Line, CancelOf], Awaitable[Status]]


def how_of(order: StartOrder, over: RunKey | None = None) -> Deduplicated:
    """How the order says that its key is to be used; ``over``: by the run after this one of the id."""
    options = order.options
    assert options.dedup is not None
    return Deduplicated(key=options.dedup, debounce=options.debounce, debounce_max=options.debounce_max, over=over)


async def try_start(
    line: Line, order: StartOrder, start: Start, patiently: Any, over: RunKey | None = None
) -> WorkflowRow | None:
    """Begin it if its key is free: None; else the row that has the key, or the id."""

    async def write() -> WorkflowRow | None:
        return await line.store.start_once(start, how_of(order, over), now=line.clock.stamp())

    row: WorkflowRow | None = await patiently(line, write)
    return row


def waits_anew(order: StartOrder, row: WorkflowRow) -> bool:
    """Whether it was debounced by this start, under the id of both: it has its input, and was not begun."""
    return order.options.debounce is not None and prolongable(row, order.name) and row.fingerprint == order.fingerprint


async def resolve(line: Line, order: StartOrder, row: WorkflowRow, cancel: Cancel) -> bool:
    """The key is another's. True: try again (that one was cancelled); False: attached, or told; else raises."""
    options, spelled, key = order.options, line.spelling.of, order.options.dedup or ""
    if row.name != order.name and (options.on_conflict == "attach" or options.debounce is not None):
        raise WorkflowConflict(
            f"queue {row.queue!r} has an open workflow with {spelled('dedup', key)} already: {row.id!r}, a "
            f"{row.name} ({row.status}), and this call is one of {order.name}: its result would be another's. Give the "
            f"key a prefix of each workflow's own{_or_replace(line, order)}"
        )
    if options.debounce is not None:
        return False
    if options.on_conflict == "replace":
        await cancel(line, CancelOf(row.id, "replaced by a new start"))
        return True
    if options.on_conflict == "fail":
        raise WorkflowConflict(
            f"queue {row.queue!r} has an open workflow with {spelled('dedup', key)} already: {row.id!r} "
            f"({row.name}, {row.status}); {spelled('on_conflict', 'fail')} asked for this error. Leave it out to "
            f"attach to that one, or say {spelled('on_conflict', 'replace')} to cancel it"
        )
    return False


def _or_replace(line: Line, order: StartOrder) -> str:
    """Where that can be said: not of a debounced one."""
    if order.options.debounce is not None:
        return ""
    return f", or say {line.spelling.of('on_conflict', 'replace')} to cancel that one"
