"""Pause and unpause: a workflow stops before its next step, and goes on from there when it is told to.

| it is | paused | unpaused |
|---|---|---|
| running | the steps in flight end, then it is held | nothing; a pause that is not done yet is taken back |
| waiting, queued, scheduled, held for another reason | held at once | nothing |
| paused | nothing | it goes on, with its slot, or from its place in line, or at its time |
| closed | nothing | nothing |
"""

from __future__ import annotations

import asyncio

from perdure.model.cuts import who_and_why
from perdure.model.ids import TokenMaker
from perdure.model.records import UNPAUSE, WorkflowRow
from perdure.model.states import Reason, Status
from perdure.model.writes import Pause, Reopen
from perdure.operations.look import Order, gone, row_of
from perdure.store.base import Store

LOOK_SECONDS = 0.05


async def pause(
    store: Store, id: str, order: Order, new_token: TokenMaker, *, patience: float | None = None
) -> WorkflowRow:
    """Stop it before its next step; its row once that is definite: held, closed, or unpaused by somebody meanwhile.

    ``patience``: seconds to wait for the steps in flight, after which the row is as it is. Raises ``WorkflowNotFound``.
    """
    shown, at = who_and_why(order.by, order.reason), (await store.poll(None, None)).now
    loop = asyncio.get_running_loop()
    end = None if patience is None else loop.time() + patience
    row = await store.pause(id, Pause(nonce=new_token(), shown=shown, at=at))
    while row is not None and row.pause is not None and row.status.open:
        if row.status is not Status.RUNNING:  # handed back before it was done
            row = await store.pause(id, Pause(nonce=new_token(), shown=row.pause, at=at))
            continue
        store.hint()
        if end is not None and loop.time() >= end:
            break
        await asyncio.sleep(LOOK_SECONDS)
        row = (await store.rows([id])).get(id)
    if row is None:
        raise await gone(store, id)
    return row


async def unpause(store: Store, id: str, order: Order, new_token: TokenMaker) -> Status:
    """Let it go on where it was; the status it then has, or has anyway. Raises ``WorkflowNotFound``."""
    while True:
        row = await row_of(store, id)
        if row.reason is not Reason.PAUSED:
            if row.pause is None or not row.status.open:
                return row.status
            after = await store.pause(id, None)
            if after is not None and after.reason is not Reason.PAUSED:
                return after.status
            continue  # it was done just before
        now = (await store.poll(None, None)).now
        back = Reopen(
            nonce=new_token(), verb=UNPAUSE, shown=who_and_why(order.by, order.reason), at=now, back=True
        )  # fmt: skip
        if await store.reopen(row, back):
            later = row.lane is not None and row.until is not None and row.until > now
            return Status.SCHEDULED if later else Status.QUEUED
