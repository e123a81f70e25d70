"""An operator's order: give what executors that are gone have left to another, or to any.

Whoever is named is looked up by its label (all of that name that are gone) or by the beginning of an incarnation's id.
One that is forgotten and owns something nevertheless (it started that before it learned that it was dead) is called
``forgotten``; a row is written for it, so that the order can be kept there as for any other.
A live one is refused, unless it is declared dead first (``force``): its writes are refused from then on, and it goes on
under a new identity. May be repeated: what was given already is given again, to others if so ordered.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec

from perdure.client.line import Line
from perdure.client.verbs import patiently
from perdure.errors import ExecutorAlive, ExecutorNotFound
from perdure.model.records import Incarnation
from perdure.runtime.leases import lives, provably_gone
from perdure.store.base import Store
from perdure.store.rollcall import FORGOTTEN

PREFIX_LEAST = 4


async def order(line: Line, executors: Sequence[str], by: str | None, *, force: bool = False) -> tuple[str, ...]:
    """The same as ``recover``, waiting out trouble with the database."""
    ids: tuple[str, ...] = await patiently(line, partial(recover, line.store, executors, by, force=force), lasting=True)
    return ids


async def recover(store: Store, executors: Sequence[str], by: str | None, *, force: bool = False) -> tuple[str, ...]:
    """Release the work of ``executors`` to the executor ``by`` (None: any): these workflows' ids, sorted.

    Raises ``ExecutorNotFound``, ``ExecutorAlive`` (before anything is changed), ``DatabaseTrouble``.
    """
    roll = await store.roll_call()
    known, now = [*roll.known, *roll.forgotten], roll.now
    over: dict[bytes, Incarnation] = {}
    for asked in executors:
        named = _named(asked, known)
        live = [who for who in named if lives(who, now)]
        if live and not force and (len(live) == len(named)):
            raise _alive(asked, live, now)
        over |= {who.id: who for who in named if force or who not in live}
    forced = [who.id for who in over.values() if who.serving and (force or provably_gone(who))]
    expired = [who for who in over.values() if who.serving and who.id not in forced]
    if forced:
        await store.bury(forced, expired_only=False)
    if expired:
        buried = await store.bury([who.id for who in expired])
        for who in expired:
            if who.id not in buried:  # it has renewed since, or the database was down and it could not yet
                raise _alive(who.executor, [who], now)
    for who in over.values():
        if who.state == FORGOTTEN:
            await store.register(msgspec.structs.replace(who, state="dead"), 0)
    return tuple(await store.hand_over(list(over), by))


def _named(asked: str, known: Sequence[Incarnation]) -> list[Incarnation]:
    """The incarnations that a label, or the beginning of an id, means."""
    named = [who for who in known if who.executor == asked]
    if named:
        return named
    prefix = asked.lower()
    found = [who for who in known if len(prefix) >= PREFIX_LEAST and who.id.hex().startswith(prefix)]
    if len(found) == 1:
        return found
    if found:
        listed = ", ".join(who.id.hex() for who in found)
        raise ExecutorNotFound(
            f"{asked!r} is the beginning of several incarnations: {listed}. Give more of the one meant"
        )
    listed = ", ".join(sorted({who.executor for who in known})) or "none"
    raise ExecutorNotFound(
        f"no executor is called {asked!r}, and no incarnation's id begins so; known: {listed}. One that has left and "
        "has nothing more to do is forgotten. See: perdure executor list"
    )


def _alive(asked: str, live: Sequence[Incarnation], now: int) -> ExecutorAlive:
    told = "; ".join(
        f"incarnation {who.id.hex()} (pid {who.pid} on {who.host}), {who.state}, "
        + (
            f"its lease runs {(who.lease_until - now) / 1e6:.0f} s more"
            if who.lease_until > now
            else "renewed just now"
        )
        for who in live
    )
    return ExecutorAlive(
        f"executor {asked!r} is alive: {told}. Its work is its own while it renews. Stop it, or wait until the lease "
        "has run out, or declare it dead: --force (force=True)"
    )
