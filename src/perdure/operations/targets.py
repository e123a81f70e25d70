"""The registry of a batch's verbs: from a verb and the rows of a chunk to what is to become of each target.

To add a verb: a value in ``model/verbs.py`` and a function here, from a target's row to its act. If its code for one
workflow reads and writes through a store (``operations/resume.py``), hand it a draft of one; if it needs another kind
of write, that is an act (``model/acts.py``), which each dialect carries out (``store/*/batches.py``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from perdure.errors import DatabaseTrouble, PerdureError
from perdure.model.acts import Act, CancelIt, DeleteIt, Leave, MoveIt, PauseIt, ResetIt, SkipIt, TerminateIt
from perdure.model.batches import Fate, TargetRow
from perdure.model.cuts import who_and_why
from perdure.model.ids import RunKey, TokenMaker
from perdure.model.orders import Goal, MoveOrder, SkipOrder, digest_of
from perdure.model.records import WorkflowRow
from perdure.model.resets import ResetOrder
from perdure.model.states import Status, Versioning
from perdure.model.trials import Judged
from perdure.model.verbs import (
    Cancel,
    Delete,
    Fork,
    Move,
    Pause,
    Reset,
    Restart,
    Resume,
    Skip,
    Terminate,
    Unpause,
    Verb,
)
from perdure.model.writes import Pause as PauseOrder
from perdure.operations import reset as resets
from perdure.operations.ask import ask_verdicts
from perdure.operations.drafts import Drafts
from perdure.operations.fork import fork, restart
from perdure.operations.look import Order
from perdure.operations.move import check_goal, placed, routing_for
from perdure.operations.pause import unpause
from perdure.operations.resume import Check, resume
from perdure.serde import Shape
from perdure.store.base import Store

GONE = "no workflow has this id any more"
ASKED_MAX = 50  # replays of one question: who asks waits for seconds


class Chunk(msgspec.Struct):
    """What deciding of a chunk's targets needs."""

    drafts: Drafts
    order: Order
    token: TokenMaker
    check: Check
    """Whether a history replays on a version."""
    key: str
    """Of the batch."""
    ids: list[str]
    families: dict[str, list[ResetOrder]] | None = None
    """By target: the orders to reset it and what goes with it, once they were asked for."""


How = Callable[[Chunk, Any, WorkflowRow], Awaitable[Act | str | None]]
"""An act; or words: why there is nothing to do; or None: what was drafted, if anything was."""


async def _cancel(chunk: Chunk, verb: Cancel, row: WorkflowRow) -> Act | str:
    return CancelIt(id=row.id, run=row.run, nonce=chunk.token(), reason=chunk.order.reason)


async def _terminate(chunk: Chunk, verb: Terminate, row: WorkflowRow) -> Act | str:
    shown = f"terminated {who_and_why(chunk.order.by, chunk.order.reason)}"
    return TerminateIt(id=row.id, run=row.run, nonce=chunk.token(), reason=shown)


async def _pause(chunk: Chunk, verb: Pause, row: WorkflowRow) -> Act | str:
    nonce, now = chunk.token(), (await chunk.drafts.poll(None, None)).now
    shown = who_and_why(chunk.order.by, chunk.order.reason)
    return PauseIt(id=row.id, run=row.run, nonce=nonce, order=PauseOrder(nonce=nonce, shown=shown, at=now))


async def _unpause(chunk: Chunk, verb: Unpause, row: WorkflowRow) -> str:
    return f"it is not paused: {await unpause(chunk.drafts.draft(), row.id, chunk.order, chunk.token)}"


async def _resume(chunk: Chunk, verb: Resume, row: WorkflowRow) -> str:
    draft = chunk.drafts.draft()
    status = await resume(
        draft, row.id, chunk.order, chunk.token, version=verb.version, force=verb.force, check=chunk.check
    )
    return f"it goes on already: {status}"


async def _restart(chunk: Chunk, verb: Restart, row: WorkflowRow) -> None:
    await restart(
        chunk.drafts.draft(), row.id, chunk.order, chunk.token, terminate=verb.terminate, version=verb.version
    )


async def _fork(chunk: Chunk, verb: Fork, row: WorkflowRow) -> None:
    await fork(chunk.drafts.draft(), row.id, chunk.order, chunk.token, step=verb.step, version=verb.version)


async def _move(chunk: Chunk, verb: Move, row: WorkflowRow) -> Act:
    store, nonce = chunk.drafts.draft(), chunk.token()
    routing = await routing_for(store, verb.goal)
    order = MoveOrder(
        id=row.id, goal=placed(verb.goal, routing, store.app, row.id), nonce=nonce,
        shown=who_and_why(chunk.order.by, chunk.order.reason), at=(await store.poll(None, None)).now,
    )  # fmt: skip
    return MoveIt(id=row.id, run=row.run, nonce=nonce, order=order, routing=await _revision(store, verb.goal))


async def _skip(chunk: Chunk, verb: Skip, row: WorkflowRow) -> Act:
    nonce, data = chunk.token(), Shape.of(Any).encode(verb.result, "the result")
    order = SkipOrder(
        id=row.id, step=verb.step, data=data, digest=digest_of(data), nonce=nonce,
        shown=who_and_why(chunk.order.by, chunk.order.reason), at=(await chunk.drafts.poll(None, None)).now,
    )  # fmt: skip
    return SkipIt(id=row.id, run=row.run, nonce=nonce, order=order)


async def _reset(chunk: Chunk, verb: Reset, row: WorkflowRow) -> Act:
    store = chunk.drafts.draft()
    if chunk.families is None:
        options = resets.Options(exclude=verb.exclude, goal=verb.goal, children=verb.children, force=verb.force)
        routing, key = await routing_for(store, verb.goal), f"batch {chunk.key}"
        orders = await resets.orders_of(
            store, chunk.ids, verb.point, chunk.order, chunk.token, options, key, routing
        )  # fmt: skip
        chunk.families = {id: [] for id in chunk.ids}
        for order in sorted(orders, key=lambda order: order.id != order.root):
            chunk.families[order.root].append(order)
    own = tuple(chunk.families[row.id])
    revision = await _revision(store, verb.goal)
    return ResetIt(id=row.id, run=row.run, nonce=own[0].nonce, orders=own, routing=revision)


async def _revision(store: Store, goal: Goal | None) -> int | None:
    """Of the routing, if where it goes rests on that."""
    if goal is None or goal.versioning is not Versioning.AUTO_UPGRADE:
        return None
    routing = await store.routing()
    return 0 if routing is None else routing.revision


async def _delete(chunk: Chunk, verb: Delete, row: WorkflowRow) -> Act | str:
    return DeleteIt(id=row.id, run=row.run, nonce=chunk.token())


HOW: dict[type[Verb], How] = {
    Cancel: _cancel, Terminate: _terminate, Pause: _pause, Unpause: _unpause, Resume: _resume, Restart: _restart,
    Fork: _fork, Delete: _delete, Move: _move, Reset: _reset,
    Skip: _skip,
}  # fmt: skip


async def check_verb(store: Store, verb: Verb) -> None:
    """Raises ``VersionNotFound`` for a verb that moves to a version which was never launched, unless it insists."""
    if isinstance(verb, Move | Reset):
        await check_goal(store, verb.goal, force=verb.force)
    if isinstance(verb, Restart) and verb.version is not None:
        await check_goal(store, Goal(Versioning.PINNED, verb.version), force=False)


async def acts_of(
    store: Store, verb: Verb, targets: Sequence[TargetRow], order: Order, token: TokenMaker, check: Check | None,
    key: str,
) -> list[Act]:  # fmt: skip
    """What is to become of each target of the batch ``key``, as it stands now.

    ``check``: whether a history replays on a version; None: executors of it are asked.
    """
    rows = await store.rows([target.id for target in targets])
    acts: list[Act] = []
    meant: list[WorkflowRow] = []
    for target in targets:
        row = rows.get(target.id)
        if row is None:
            acts.append(_left(target.id, target.run, token, Fate.SKIPPED, GONE))
        elif row.run != target.run and (why := await _another(store, target, row)):
            acts.append(_left(row.id, row.run, token, Fate.SKIPPED, why))
        else:
            meant.append(row)
    ids = [row.id for row in meant]
    chunk = Chunk(Drafts(store, meant), order, token, check or _asking(store, token, ids), key, ids)
    return [*acts, *[await _act(chunk, verb, row) for row in meant]]


def _asking(store: Store, token: TokenMaker, ids: Sequence[str]) -> Check:
    """Ask executors of a version about many targets at once: they look for questions every few seconds only."""
    known: dict[tuple[str, str], Judged | None] = {}

    async def check(row: WorkflowRow, version: str) -> str | None:
        if (row.id, version) not in known:
            first = ids.index(row.id)
            asked = ids[first : first + ASKED_MAX]
            found = await ask_verdicts(store, token, asked, version)
            known.update(((id, version), found.get(id)) for id in asked)
        judged = known[row.id, version]
        if judged is None:
            return f"no live executor of version {version!r} answered whether its history replays there"
        return None if judged.finding == "safe" else judged.detail

    return check


async def _act(chunk: Chunk, verb: Verb, row: WorkflowRow) -> Act:
    chunk.drafts.draft()
    try:
        found = await HOW[type(verb)](chunk, verb, row)
    except DatabaseTrouble:
        raise
    except PerdureError as refused:
        return _left(row.id, row.run, chunk.token, Fate.FAILED, str(refused))
    if isinstance(found, Act):
        return found
    if chunk.drafts.act is not None:
        return chunk.drafts.act
    return _left(row.id, row.run, chunk.token, Fate.SKIPPED, found or f"it is {row.status}")


def _left(id: str, run: int, token: TokenMaker, fate: Fate, why: str) -> Leave:
    return Leave(id=id, run=run, nonce=token(), fate=fate, detail=why)


async def _another(store: Store, target: TargetRow, row: WorkflowRow) -> str:
    """Why the latest run of an id is not meant; "" if it continues the one that was frozen."""
    for number in range(target.run, row.run):
        seen = await store.run(RunKey(target.id, number))
        if seen is None or seen.status is not Status.CONTINUED:
            return f"run {target.run} was meant, and it is run {row.run} by now"
    return ""
