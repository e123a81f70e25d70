"""Terminate and delete: an end at once, and the end of what is remembered. What a cancel has come to."""

from __future__ import annotations

from perdure.model.cuts import who_and_why
from perdure.model.ids import RunKey, TokenMaker
from perdure.model.orders import Answer, Answered, unknown
from perdure.model.records import WorkflowRow
from perdure.model.states import Status
from perdure.operations.look import Order
from perdure.store.base import Store


async def terminate(store: Store, id: str, order: Order, new_token: TokenMaker) -> Answered:
    """End an open workflow at once, with no cleanup; whoever holds it writes nothing more."""
    nonce = new_token()
    row = await store.terminate(id, f"terminated {who_and_why(order.by, order.reason)}", nonce)
    if row is None:
        return unknown(id)
    if row.claim == nonce:
        return Answered(id, Answer.DONE, "terminated", row.status)
    if row.status is Status.TERMINATED:
        return Answered(id, Answer.ALREADY, row.detail or "it is terminated", row.status)
    return Answered(id, Answer.REFUSED, f"it has ended: it is {row.status}", row.status)


async def replaced(store: Store, told: WorkflowRow, latest: WorkflowRow) -> bool:
    """Whether the run that was ``told`` to cancel was put away, and the ``latest`` one is not told in its place.

    It was reset and the command taken back; or had ended, and was resumed, reset or replaced before anybody saw that.
    """
    if latest.run == told.run or latest.status is Status.CANCELLED or latest.told_to_cancel is not None:
        return False
    for run in range(told.run, latest.run):
        past = await store.run(RunKey(told.id, run))
        if past is not None and past.status is Status.SUPERSEDED:
            return True
    return False


async def delete(store: Store, id: str) -> Answered:
    """Forget a closed workflow: every run's row, input, outcome, history, events, streams and messages."""
    row = (await store.rows([id])).get(id)
    if row is None:
        return unknown(id)
    if not row.status.open and await store.upkeep.purge([row.key]):
        return Answered(id, Answer.DONE, f"deleted; it was {row.status}")
    row = (await store.rows([id])).get(id)
    if row is None:
        return unknown(id)
    words = f"it is {row.status}, and only what has ended is deleted: perdure workflow terminate {id}"
    return Answered(id, Answer.REFUSED, words, row.status)
