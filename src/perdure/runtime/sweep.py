"""Rows of transactions in other databases whose records are durable in the app's: they go, a bounded number at a time.

Promise: a row goes only when nobody will ask for it again: its record is in the history of its run, or its run can
never go on. A sweep that fails is told in the log and made again later; nothing waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator, Sequence
from typing import Any

from perdure.definitions import StepDef
from perdure.model.ids import RunKey
from perdure.model.records import Kind, Record, WorkflowRow
from perdure.runtime.attempts import Act, Do
from perdure.runtime.in_session import Flow, in_awaited_session, in_blocking_session
from perdure.sessions import foreign
from perdure.sessions.foreign import Row

log = logging.getLogger("perdure")

EVERY = 100  # transactions in one other database, between two sweeps of it; the first comes with the first
RUNS_MAX = 100  # whose histories are read for one sweep


def count_for_sweep(host: Any, definition: StepDef, here: str) -> None:
    """A transaction was committed there."""
    counts: dict[str, int] = host.line.places.committed
    counts[here] = counts.get(here, 0) + 1
    if counts[here] % EVERY == 1 and not host.draining:
        host.keep(asyncio.create_task(_sweep_quietly(host, definition)))


async def _sweep_quietly(host: Any, definition: StepDef) -> None:
    try:
        await sweep(host, definition)
    except Exception as error:
        log.info("rows of transactions that are not needed any more were left for later: %r", error)


async def sweep(host: Any, definition: StepDef) -> int:
    """Delete what is not needed any more in the database of a transaction; how many rows."""
    app: str = host.line.app
    rows: list[Row] = await _in_session(host, definition, lambda _: _look(app))
    keys = list(dict.fromkeys(RunKey(row.id, row.run) for row in rows if row.run))[:RUNS_MAX]
    known = await host.line.store.rows(list(dict.fromkeys(row.id for row in rows)))
    histories = await host.line.store.histories([key for key in keys if key.id in known])
    gone = [row for row in rows if _is_over(row, known.get(row.id), histories.get(RunKey(row.id, row.run)))]
    if gone:
        await _in_session(host, definition, lambda _: _forget(app, gone))
    return len(gone)


def _is_over(row: Row, now: WorkflowRow | None, history: Sequence[Record] | None) -> bool:
    if now is None:
        return True
    if row.run == 0:  # a fence: set again by whoever needs it
        return not now.status.open
    if row.run < now.run or row.lineage != now.lineage:
        return True
    return any(record.path == row.path and record.kind is Kind.STEP for record in history or ())


def _look(app: str) -> Generator[Do, Any, list[Row]]:
    yield Act("begin")
    rows = yield from foreign.old(app)
    yield Act("rollback")
    return rows


def _forget(app: str, rows: Sequence[Row]) -> Generator[Do, Any, None]:
    yield Act("begin")
    yield from foreign.forget(app, rows)
    yield Act("commit")


async def _in_session(host: Any, definition: StepDef, flow: Flow) -> Any:
    if definition.is_async:
        return await in_awaited_session(definition, flow, _no_body)
    return await host.step_pool.run(
        host.context.copy(), in_blocking_session, (definition, flow, _no_body, _no_body), {}
    )  # fmt: skip


def _no_body(_: Any) -> Any:
    raise AssertionError("a sweep runs nothing of the user's")
