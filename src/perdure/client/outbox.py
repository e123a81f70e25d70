"""Outbox: starts and messages within the caller's own transaction; they exist if, and only if, that commits.

``order_start`` and ``order_send`` are asked on the line's loop, and make the unit that would be written for the same
call without a session: same rows, same nonces. ``put`` writes it through the session, wherever that is used.
"""

from __future__ import annotations

import msgspec

from perdure.client import once, verbs
from perdure.client.line import Line
from perdure.client.questions import SendTo, StartOrder
from perdure.errors import Misuse
from perdure.model.ids import RunKey
from perdure.model.records import WorkflowRow
from perdure.model.states import Status
from perdure.model.writes import Send, Unit, Verdict
from perdure.sessions.base import AsyncSession, Session
from perdure.sessions.places import check_copy, place
from perdure.store.within import Within


class Ordered(msgspec.Struct, frozen=True):
    """What is to be written, and where."""

    line: Line
    unit: Unit
    home: str  # the app's database, as it was last known


async def order_start(line: Line, order: StartOrder) -> Ordered:
    """Raises ``Misuse`` for what no single transaction can do."""
    if order.options.on_conflict == "replace":
        raise Misuse(
            f"workflow {order.name!r}: on_conflict='replace' waits for the workflow that it cancels, which your "
            "transaction cannot; start it without session=, or under another id"
        )
    order = await verbs.routed(line, order)
    start = verbs.start_of(line, order, order.options.id or line.new_id())
    return Ordered(line, Unit(key=RunKey("", 0), children=[start]), await line.places.home(""))


async def order_send(line: Line, question: SendTo) -> Ordered:
    if line.work is not None:
        line.work.post.comes_within(question.id)
    message = Send(question.id, line.new_mid(), question.topic, question.data, line.new_token(), question.key)
    return Ordered(line, Unit(key=RunKey("", 0), sends=[message]), await line.places.home(""))


def look(session: Session | AsyncSession, ordered: Ordered, *, within: bool) -> Within[None]:
    """Raises ``Misuse`` for a session that is in no transaction, or speaks to another database."""
    if not within:
        raise Misuse(
            f"session=: this {session.kind} is in no transaction, so what it is given would be there at once, whatever "
            "becomes of your own writes: begin one"
        )
    there = yield from place(session)
    check_copy(session, ordered.home, there)
    if there != ordered.home:
        raise Misuse(
            f"session=: this {session.kind} speaks to another database than the app's ({ordered.line.store.url}), and "
            "no commit covers both. Call it without session= after your commit, or from a transaction step"
        )


def put_start(
    session: Session | AsyncSession, order: StartOrder, ordered: Ordered, *, within: bool
) -> Within[WorkflowRow | None]:
    """Start it within the session's transaction: None, or who has its id or its deduplication key."""
    yield from look(session, ordered, within=within)
    store, now = ordered.line.store, ordered.line.clock.stamp()
    (start,) = ordered.unit.children
    if order.options.dedup is not None:
        row: WorkflowRow | None = yield from store.within_once(start, once.how_of(order), now=now)
        return row
    verdict: Verdict = yield from store.within(ordered.unit, now=now)
    return verdict.exists.get(start.id)


def put_send(session: Session | AsyncSession, ordered: Ordered, *, within: bool) -> Within[Verdict]:
    """Send it within the session's transaction."""
    yield from look(session, ordered, within=within)
    verdict: Verdict = yield from ordered.line.store.within(ordered.unit, now=ordered.line.clock.stamp())
    return verdict


async def begun(ordered: Ordered, order: StartOrder, row: WorkflowRow | None) -> verbs.Begun:
    """Who it is. Raises ``WorkflowConflict`` if the id, or the key, is another's whom the order does not attach to.

    Another's is what is committed, or was started in this very transaction.
    """
    (start,) = ordered.unit.children
    if row is None:
        return verbs.Begun(start.id)
    if row.id == start.id and not once.waits_anew(order, row):
        await verbs.attach(ordered.line, order, row)
    else:
        await once.resolve(ordered.line, order, row, verbs.cancel)
    return verbs.Begun(row.id)


def check_delivered(ordered: Ordered, verdict: Verdict) -> None:
    """Raises ``WorkflowNotFound`` or ``WorkflowClosed`` for a message that nobody will receive."""
    for mid, status in verdict.undelivered.items():
        dest = next(send.dest for send in ordered.unit.sends if send.mid == mid)
        closed: Status | None = status
        raise verbs.undelivered(dest, closed, ordered.line.app)
