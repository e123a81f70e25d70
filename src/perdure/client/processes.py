"""Where a process stands, read from outside: its row, the input of its run, and what that has recorded of states."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from perdure.client.line import Line
from perdure.client.questions import ProcessOf
from perdure.model.processes import HISTORY, ProcessStatus, Seen, recorded
from perdure.model.records import Record
from perdure.model.streams import StreamAsk
from perdure.operations.look import not_found

PAUSE_SECONDS = (0.02, 0.25)  # between two looks at one that is Running: the first, and the longest


async def look(line: Line, question: ProcessOf, patiently: Any) -> Seen:
    """Where it stands; with ``rest`` or ``settle`` as soon as it is not Running, or when that time has passed."""
    asked = line.clock.now()
    pause = PAUSE_SECONDS[0]
    while True:
        seen = await _seen(line, question.id, patiently)
        if question.since is not None:
            [page] = await patiently(line, line.store.streams, [StreamAsk(question.id, HISTORY, question.since)])
            return msgspec.structs.replace(seen, lines=() if page is None else tuple(page.values))
        patience = question.rest if seen.acting and seen.at.state else max(question.rest, question.settle)
        left = asked + patience - line.clock.now()
        if seen.process_status is not ProcessStatus.RUNNING or left <= 0:
            return seen
        await asyncio.sleep(min(pause, left / 1e6))
        pause = min(pause * 1.5, PAUSE_SECONDS[1])


async def _seen(line: Line, id: str, patiently: Any) -> Seen:
    while True:
        row = (await patiently(line, line.store.rows, [id])).get(id)
        if row is None:
            raise not_found(id, line.app)
        input = (await patiently(line, line.store.inputs, [row.key])).get(row.key)
        if input is None:
            continue  # deleted meanwhile, or begun anew
        history: list[Record] = []
        if not row.status.open or row.owner is not None or row.last_seq:  # else at rest, and nothing is on record since
            history = (await patiently(line, line.store.histories, [row.key]))[row.key]
        stands, move, arrived = recorded(history)
        return Seen(
            name=row.name, status=row.status, run=row.run, input=input, reason=row.reason, detail=row.detail,
            stands=stands, moving=None if arrived else move,
        )  # fmt: skip
