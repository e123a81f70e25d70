"""Reset: another run of the same id from the records before a point, by ``model/resets.py``, under its row's lock."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from perdure.errors import StepNotFound
from perdure.model.cuts import latest_cut
from perdure.model.ids import RunKey, TokenMaker
from perdure.model.orders import Answer, Answered, Goal
from perdure.model.records import Record, WorkflowRow
from perdure.model.resets import STALE, Children, Exclude, Point, ResetOrder, began_by, kept, kin
from perdure.model.states import Status
from perdure.model.versions import Routing
from perdure.operations.look import Order, history_of
from perdure.operations.move import check_goal, chunks, move, noted, placed, routing_for
from perdure.store.base import Store

AT_ONCE = 400  # workflows of one commit: their histories are read in it


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to reset.

    ``exclude``: what is not given to the next run. ``goal``: where it runs on. ``key``: the name of this order, by
    which it is known again (default: what it says, and its reason); ``again``: do it even if it was done.
    """

    exclude: Exclude = "none"
    goal: Goal | None = None
    children: Children = "keep"
    key: str | None = None
    again: bool = False
    force: bool = False

    def named(self, point: Point, reason: str) -> str:
        """The key."""
        if self.key is not None:
            return self.key
        said = [str(point), self.exclude, str(self.goal or ""), self.children, reason]
        return blake2b(json.dumps(said).encode(), digest_size=12).hexdigest()


async def reset(
    store: Store, ids: Sequence[str], point: Point, order: Order, new_token: TokenMaker, options: Options
) -> list[Answered]:
    """Begin the next runs of workflows, open or closed, hundreds in one commit; an answer for each, in order.

    Raises ``VersionNotFound`` for the version to move to, before anything is changed.
    """
    unserved = await check_goal(store, options.goal, force=options.force)
    found: dict[str, Answered] = {}
    for some in chunks(list(dict.fromkeys(ids)), AT_ONCE):
        found |= await _reset(store, some, point, order, new_token, options)
    if options.goal is not None and (whole := [id for id, one in found.items() if one.nothing]):
        moved = await move(store, whole, options.goal, order, new_token, force=True)
        found |= {one.id: noted(one, "there was nothing to drop") for one in moved}
    return [noted(found[id], unserved) for id in ids]


async def _reset(
    store: Store, ids: Sequence[str], point: Point, order: Order, new_token: TokenMaker, options: Options
) -> dict[str, Answered]:
    key = options.named(point, order.reason)
    done = {} if options.again else await _done_before(store, ids, key)
    left = [id for id in ids if id not in done]
    while left:
        routing = await routing_for(store, options.goal)
        orders = await orders_of(store, left, point, order, new_token, options, key, routing)
        answers = {answered.id: answered for answered in await store.reset(orders)}
        with_it = Counter(one.root for one in orders if answers[one.id].answer is Answer.DONE)
        done |= {id: _told(answers[id], with_it[id] - 1) for id in left if answers[id].words != STALE}
        left = [id for id in left if id not in done]
    return done


async def orders_of(
    store: Store, ids: Sequence[str], point: Point, order: Order, new_token: TokenMaker, options: Options, key: str,
    routing: Routing | None,
) -> list[ResetOrder]:  # fmt: skip
    """The orders for these, and for their families if those are to be reset with them; each id is in one."""
    at = (await store.poll(None, None)).now
    members = [Member(id, point, id, key, None) for id in ids]
    if options.children == "reset":
        members = await _with_children(store, members)
    return [
        ResetOrder(
            id=one.id, root=one.root, point=one.point, exclude=options.exclude, key=one.key,
            goal=None if options.goal is None else placed(options.goal, routing, store.app, one.id),
            again=options.again and one.id == one.root, family=one.children,
            nonce=new_token(), wake=new_token(), by=order.by, reason=order.reason, at=at,
        )
        for one in members
    ]  # fmt: skip


def _told(answered: Answered, children: int) -> Answered:
    return noted(answered, "" if children < 1 else f"with {children} child{'' if children == 1 else 'ren'}")


class Member(NamedTuple):
    """A workflow that is to be reset for the sake of ``root``."""

    id: str
    point: Point
    root: str
    key: str
    children: frozenset[str] | None  # that its dropped part has started


async def _with_children(store: Store, roots: Sequence[Member]) -> list[Member]:
    """The same, and what their dropped parts have started, to the last; and what their ends have cancelled.

    Without those that the same order has reset for their own sake.
    """
    keys = {one.id: one.key for one in roots}
    found: dict[str, Member] = {}
    level = list(roots)
    while level:
        found |= {one.id: one for one in level}
        rows = await store.rows([one.id for one in level])
        histories = await store.histories([row.key for row in rows.values()])
        following: list[Member] = []
        for one in level:
            row = rows.get(one.id)
            history = [] if row is None else histories[row.key]
            if one.id != one.root and began_by(history, keys[one.root]):
                del found[one.id]
                continue
            keep = _keep(row, history, one.point)
            dropped = kin(history, keep)
            found[one.id] = one._replace(children=dropped)
            if row is None:
                continue
            key = one.key if "@" in one.key else f"{one.key}@{one.id}#{row.run}"
            for child in (await store.rows(dropped | kin(history[:keep], 0))).values():
                if child.parent != row.id or child.id in found:
                    continue
                if child.id in dropped:
                    following.append(Member(child.id, Point("first"), one.root, key, None))
                elif not row.status.open and child.status is Status.CANCELLED:
                    following.append(Member(child.id, Point("before_cancel"), one.root, key, None))
        level = list({one.id: one for one in following}.values())
    return list(found.values())


def _keep(row: WorkflowRow | None, history: Sequence[Record], point: Point) -> int:
    try:
        keep = None if row is None else kept(row, history, point)
    except StepNotFound:
        keep = None  # it will be refused
    return len(history) if keep is None else keep


async def _done_before(store: Store, ids: Sequence[str], key: str) -> dict[str, Answered]:
    """Those whose latest run goes on (continued as new) from one that began by this order."""
    found: dict[str, Answered] = {}
    rows = {row.key: row for row in (await store.rows(ids)).values() if row.run > 1}
    histories = await store.histories(list(rows)) if rows else {}
    for (id, _), row in rows.items():
        if latest_cut(histories[row.key]) is not None:
            continue  # its own mark tells
        number = row.run
        while number > 1:
            number -= 1
            before = await store.run(RunKey(id, number))
            if before is None or before.status is not Status.CONTINUED:
                break
            if began_by(await history_of(store, before), key):
                words = f"run {before.run} began with that reset, and goes on as run {row.run}; it is {row.status}"
                found[id] = Answered(id, Answer.ALREADY, f"{words}. To do it again: --again", row.status)
                break
    return found
