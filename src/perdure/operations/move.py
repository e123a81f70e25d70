"""Move and skip: an open workflow runs on other code, or past a step; by ``model/orders.py``, under its row's lock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from perdure.errors import VersionNotFound
from perdure.model.cuts import who_and_why
from perdure.model.ids import TokenMaker
from perdure.model.orders import Answer, Answered, Goal, MoveOrder, SkipOrder, digest_of
from perdure.model.states import Versioning
from perdure.model.versions import Routing
from perdure.operations.look import Order, served
from perdure.store.base import Store
from perdure.versions.routing import target

AT_ONCE = 500  # workflows of one commit


async def move(
    store: Store, ids: Sequence[str], goal: Goal, order: Order, new_token: TokenMaker, *, force: bool = False
) -> list[Answered]:
    """Let open workflows run on elsewhere, hundreds in one commit; an answer for each, in the order of ``ids``.

    ``force``: also to a version that was never launched. Raises ``VersionNotFound`` before anything is changed.
    """
    unserved = await check_goal(store, goal, force=force)
    found: dict[str, Answered] = {}
    for some in chunks(list(dict.fromkeys(ids)), AT_ONCE):
        while True:
            routing = await routing_for(store, goal)
            at, shown = (await store.poll(None, None)).now, who_and_why(order.by, order.reason)
            orders = [
                MoveOrder(id=id, goal=placed(goal, routing, store.app, id), nonce=new_token(), shown=shown, at=at)
                for id in some
            ]
            for answered in await store.move(orders):
                before = found.get(answered.id)
                if before is None or answered.answer is not Answer.ALREADY:
                    found[answered.id] = answered
            if await routing_for(store, goal) == routing:  # else its executors may have looked before this
                break
    return [noted(found[id], unserved) for id in ids]


async def skip(store: Store, id: str, step: str, data: bytes, order: Order, new_token: TokenMaker) -> Answered:
    """Give a step in flight ``data`` (JSON) as its result; what the body then sees."""
    at, shown = (await store.poll(None, None)).now, who_and_why(order.by, order.reason)
    return await store.skip(
        SkipOrder(id=id, step=step, data=data, digest=digest_of(data), nonce=new_token(), shown=shown, at=at)
    )


async def check_goal(store: Store, goal: Goal | None, *, force: bool) -> str:
    """What to say beside what goes there; "" for nothing. Raises ``VersionNotFound``."""
    if goal is None or goal.version is None:
        return ""
    live = (await served(store)).versions
    if goal.version in live:
        return ""
    if not force:
        known = [one.name for one in await store.versions() if one.deleted is None and one.first_launched]
        if goal.version not in known:
            raise VersionNotFound(
                f"version {goal.version!r} of {store.app} was never launched, so nothing would run what goes there; "
                f"there are: {', '.join(known[:10]) or 'none'}. Launch it first; or, to have work wait for it: --force"
            )
    return f"no live executor runs {goal.version} now"


async def routing_for(store: Store, goal: Goal | None) -> Routing | None:
    """The routing, if the goal is to go with it."""
    return await store.routing() if goal is not None and goal.versioning is Versioning.AUTO_UPGRADE else None


def placed(goal: Goal, routing: Routing | None, app: str, id: str) -> Goal:
    """The goal of one workflow: with the version that the routing gives to it."""
    return goal if routing is None else msgspec.structs.replace(goal, version=target(routing, app, id))


def noted(answered: Answered, words: str) -> Answered:
    """The answer with a remark, if it was done."""
    if not words or answered.answer is not Answer.DONE:
        return answered
    return msgspec.structs.replace(answered, words=f"{answered.words}; {words}")


def chunks(ids: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for first in range(0, len(ids), size):
        yield ids[first : first + size]
