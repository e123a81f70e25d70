"""Schedules: fired, declared by the code, and changed by people. Each is one compare-and-set of the schedule's row.

What is refused because somebody else was quicker is read again and tried again; what was done by a first try whose
answer was lost is recognised. Starts are made here and nowhere else: queued rows, of the version that routing gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

import msgspec

from perdure.errors import DefinitionError, ScheduleConflict, ScheduleNotFound
from perdure.model.ids import TokenMaker
from perdure.model.info import to_datetime
from perdure.model.schedules import Firing, Reschedule, Schedule, Spec, State, Which
from perdure.model.text import NEEDED, is_kept
from perdure.model.writes import Start
from perdure.schedules.judge import BATCH, judge, left_out, workflow_id
from perdure.schedules.times import check, local, times_of
from perdure.serde.fingerprint import fingerprint_data
from perdure.serde.values import ArgsShape
from perdure.store.base import Store

Route = Callable[[str], str]
"""The version that a new workflow of an id takes; "" for that of whoever claims it."""

BACKFILL_MAX = 10_000
KEPT = 30 * 86_400 * 1_000_000  # firings older than a month are forgotten, but for the latest thousand
FORGET_EVERY = 100  # writes
_args = ArgsShape.of(lambda *_due: None)  # the code need not be here: by their own types


class Hand(msgspec.Struct, frozen=True):
    """What makes starts: tokens, and where new work goes."""

    new_token: TokenMaker
    route: Route


async def now_of(store: Store) -> int:
    """The database's time."""
    return (await store.poll(None, None)).now


async def one(store: Store, name: str) -> Schedule:
    """A schedule. Raises ``ScheduleNotFound``."""
    if found := await store.schedules([name]):
        return found[0]
    known = ", ".join(row.name for row in await store.schedules()) or "none"
    raise ScheduleNotFound(f"app {store.app!r} has no schedule {name!r}; it has: {known}")


# -- firing


async def fire(store: Store, row: Schedule, now: int, hand: Hand, stamp: int | None = None) -> bool:
    """Do what is due of a schedule as it was seen; False if somebody else was quicker, or nothing was left to do."""
    firings: list[Firing] = []
    after = row
    if row.waiting and not row.busy:
        which = Which(schedule=row.name, state=State.WAITING, limit=1, oldest_first=True)
        for first in await store.firings(which):
            firings.append(msgspec.structs.replace(first, state=State.STARTED, noted=now))
            after = msgspec.structs.replace(row, last=first.workflow, busy=True, waiting=row.waiting - 1)
    if after.next is not None and after.next <= now:
        judged = judge(after, now)
        firings, after = [*firings, *judged.firings], judged.after
    if not firings:
        return False
    return await _write(store, row, after, now, firings, hand, stamp)


async def _write(
    store: Store,
    seen: Schedule | None,
    after: Schedule,
    now: int,
    firings: Iterable[Firing] = (),
    hand: Hand | None = None,
    stamp: int | None = None,
) -> bool:
    """One compare-and-set, with the starts of what is started in it."""
    firings = tuple(firings)
    # Counted from the time: who has seen one that was deleted since does not take the next of its name for that.
    after = msgspec.structs.replace(after, revision=now if seen is None else seen.revision + 1, changed=now)
    starts = [one for one in firings if one.state is State.STARTED]
    assert hand is not None or not starts, "only who has a hand starts"
    span = after.spec.catch_up_span or 0
    order = Reschedule(
        name=after.name,
        before=0 if seen is None else seen.revision,
        after=after,
        firings=firings,
        starts=() if hand is None else tuple(_start(after, one.at, hand) for one in starts),
        forget=now - max(KEPT, span) if after.revision % FORGET_EVERY == 0 else None,
    )
    return await store.change_schedule(order, now=stamp)


def _start(row: Schedule, at: int, hand: Hand) -> Start:
    """The start of a nominal time, for whoever claims it."""
    spec, id = row.spec, workflow_id(row.name, at)
    input = _args.encode((local(at, spec.tz),) if spec.takes_due else (), {})
    return Start(
        id=id,
        lineage=hand.new_token(),
        name=spec.workflow,
        version=hand.route(id),
        input=input,
        fingerprint=fingerprint_data(spec.workflow, input),
        nonce=hand.new_token(),
        queue=spec.queue,
    )


# -- declared


async def declare(store: Store, declared: Mapping[str, Spec], version: str, now: int, stamp: int | None = None) -> None:
    """Make the rows say what the code of the current version declares; what people changed stays changed."""
    for row in await store.schedules():
        if row.declared is not None and row.name not in declared and row.gone is None:
            gone = msgspec.structs.replace(row, gone=f"version {version} of the code does not declare it")
            await _write(store, row, gone, now, stamp=stamp)  # refused: another launch has just seen to it
    for name, spec in declared.items():
        while not await _declare(store, name, spec, now, stamp):
            pass


async def _declare(store: Store, name: str, spec: Spec, now: int, stamp: int | None) -> bool:
    row = next(iter(await store.schedules([name])), None)
    if row is None:
        return await _write(store, None, _new(name, spec, now, declared=spec), now, stamp=stamp)
    live = dict(row.live)
    if row.declared is None:  # made at run time before: what it has then counts as changed
        live = {key: value for key, value in _fields(row.spec).items() if value != getattr(spec, key)}
        live.pop("takes_due", None)
    elif row.declared == spec and row.gone is None:
        return True
    base = msgspec.structs.replace(row, declared=spec, live=live, gone=None)
    after, left = _retimed(base, _over(spec, live), row, now)
    return await _write(store, row, after, now, left, stamp=stamp)


def _fields(spec: Spec) -> dict[str, Any]:
    return {key: getattr(spec, key) for key in spec.__struct_fields__}


def _over(spec: Spec, live: Mapping[str, Any]) -> Spec:
    """A declared spec with what people changed."""
    return msgspec.structs.replace(spec, **live)


def _new(name: str, spec: Spec, now: int, *, declared: Spec | None) -> Schedule:
    first = times_of(spec, now).after(now)
    return Schedule(name=name, spec=spec, next=first, anchor=now, declared=declared, created=now)


def _retimed(after: Schedule, spec: Spec, seen: Schedule, now: int) -> tuple[Schedule, tuple[Firing, ...]]:
    """A schedule with another spec; the times left out, if other times are due from now on or it was paused."""
    if spec.timing == seen.spec.timing and seen.active:
        return msgspec.structs.replace(after, spec=spec), ()
    anchor = now if spec.every != seen.spec.every else seen.anchor
    first = times_of(spec, anchor).after(now)
    after = msgspec.structs.replace(after, spec=spec, anchor=anchor, next=first)
    return after, left_out(seen, now, *_why_not(seen))


def _why_not(row: Schedule) -> tuple[str, str]:
    """Why the times up to now were not fired."""
    if row.gone is not None:
        return "gone", row.gone
    if row.paused is not None:
        return "paused", row.paused
    return "changed", "the schedule was changed before they were fired"


# -- changed by people


async def create(store: Store, name: str, spec: Spec) -> Schedule:
    """Make a schedule at run time. Raises ``DefinitionError``, ``ScheduleConflict`` if its name is taken by another."""
    check_name(name)
    check(spec)
    while True:
        if rows := await store.schedules([name]):
            if rows[0].declared is None and rows[0].spec == spec:
                return rows[0]
            raise ScheduleConflict(
                f"there is a schedule {name!r} already ({_timing(rows[0].spec)}, for {rows[0].spec.workflow}); choose "
                f"another name, or change that one: perdure schedule set {name}"
            )
        now = await now_of(store)
        await _write(store, None, _new(name, spec, now, declared=None), now)


async def change(store: Store, name: str, changes: Mapping[str, Any]) -> Schedule:
    """Change fields of its spec; over what the code declares until ``reset``. Raises ``DefinitionError``."""
    while True:
        row = await one(store, name)
        spec = _over(row.spec, changes)
        check(spec)
        if spec == row.spec:
            return row
        live = {**row.live, **changes} if row.declared is not None else {}
        now = await now_of(store)
        after, left = _retimed(msgspec.structs.replace(row, live=live), spec, row, now)
        if await _write(store, row, after, now, left):
            return await one(store, name)


async def reset(store: Store, name: str) -> Schedule:
    """Take back what people changed of a declared schedule. Raises ``ScheduleConflict`` if the code declares none."""
    while True:
        row = await one(store, name)
        if row.declared is None:
            raise ScheduleConflict(
                f"schedule {name!r} was made at run time: there is nothing that the code declares to go back to"
            )
        if not row.live and row.paused is None:
            return row
        now = await now_of(store)
        base = msgspec.structs.replace(row, live={}, paused=None)
        after, left = _retimed(base, row.declared, row, now)
        if await _write(store, row, after, now, left):
            return await one(store, name)


async def pause(store: Store, name: str, because: str = "") -> Schedule:
    """Fire no more until it is resumed. Done already: nothing changes."""
    while True:
        row = await one(store, name)
        if row.paused is not None:
            return row
        after = msgspec.structs.replace(row, paused=because or "paused by hand")
        if await _write(store, row, after, await now_of(store)):
            return await one(store, name)


async def resume(store: Store, name: str) -> Schedule:
    """Fire again, from the next time on. Raises ``ScheduleConflict`` for one that is gone from the code."""
    while True:
        row = await one(store, name)
        if row.gone is not None:
            raise ScheduleConflict(
                f"schedule {name!r} is paused because {row.gone}; deploy code that does, or make it one of your own: "
                f"perdure schedule delete {name}, then perdure schedule create"
            )
        if row.paused is None:
            return row
        now = await now_of(store)
        after, left = _retimed(msgspec.structs.replace(row, paused=None), row.spec, row, now)
        if await _write(store, row, after, now, left):
            return await one(store, name)


async def delete(store: Store, name: str) -> None:
    """Forget a schedule; its workflows stay. Raises ``ScheduleConflict`` for one that the code declares."""
    row = await one(store, name)
    while True:
        if row.declared is not None and row.gone is None:
            raise ScheduleConflict(
                f"schedule {name!r} is declared by the code, and the next launch would make it again; pause it "
                f"(perdure schedule pause {name}), or take it out of the code"
            )
        if await store.change_schedule(Reschedule(name=name, before=row.revision, after=None)):
            return
        rows = await store.schedules([name])
        if not rows:
            return  # by a first try, or by somebody else
        row = rows[0]


async def trigger(store: Store, name: str, hand: Hand) -> str:
    """Fire now, paused or not; the workflow's id.

    Its nominal time is now. With ``overlap="queue"`` it starts when the one before has ended. Raises
    ``ScheduleConflict`` with ``overlap="skip"`` while that is open.
    """
    at = await now_of(store)
    id = workflow_id(name, at)
    while True:
        row = await one(store, name)
        if any(one.state is not State.SKIPPED for one in await _noted(store, name, at, at)):
            return id  # by a first try
        busy = row.busy or row.waiting > 0
        if busy and row.spec.overlap == "skip":
            open_one = f"{row.last} is still open; wait for its end, or cancel it: perdure workflow cancel {row.last}"
            raise ScheduleConflict(
                f"schedule {name!r} does not overlap, and "
                + (open_one if row.busy else f"{row.waiting} of its times wait to start")
            )
        waits = busy and row.spec.overlap == "queue"
        state = State.WAITING if waits else State.STARTED
        after = msgspec.structs.replace(row, last=row.last if waits else id, waiting=row.waiting + waits)
        firing = Firing(at=at, until=at, state=state, workflow=id, detail="triggered by hand", noted=at)
        if await _write(store, row, after, at, [firing], hand):
            return id


async def backfill_plan(store: Store, name: str, since: int, until: int) -> list[int]:
    """The nominal times from ``since`` to ``until`` that were not started and are not to come.

    Raises ``DefinitionError`` for a span that is empty, not past, or holds more than can be done at once.
    """
    row = await one(store, name)
    now = await now_of(store)
    if since > until or since > now:
        raise DefinitionError(
            f"there is nothing to backfill from {to_datetime(since)} to {to_datetime(until)}: give a span of the past"
        )
    end = min(until, now)
    if row.active and row.next is not None:
        end = min(end, row.next - 1)
    times = list(islice(times_of(row.spec, row.anchor).within(since, end), BACKFILL_MAX + 1))
    if len(times) > BACKFILL_MAX:
        raise DefinitionError(
            f"schedule {name!r} has more than {BACKFILL_MAX:,} times from {to_datetime(since)} to "
            f"{to_datetime(until)}; take a part at a time, the first up to {to_datetime(times[BACKFILL_MAX - 1])}"
        )
    done = {one.at for one in await _noted(store, name, since, end) if one.state is not State.SKIPPED}
    return [at for at in times if at not in done]


async def backfill(store: Store, name: str, since: int, until: int, hand: Hand) -> list[str]:
    """Fire the nominal times of the past that were not started; the workflows' ids.

    All at once with ``overlap="allow"``, else one after the other. Repeated, it does what is left.
    """
    planned = await backfill_plan(store, name, since, until)
    for begin in range(0, len(planned), BATCH):
        await _backfill(store, name, planned[begin : begin + BATCH], hand)
    return [workflow_id(name, at) for at in planned]


async def _backfill(store: Store, name: str, batch: list[int], hand: Hand) -> None:
    """Fire these in one commit, but for those that were started meanwhile."""
    while True:
        done = {one.at for one in await _noted(store, name, batch[0], batch[-1]) if one.state is not State.SKIPPED}
        times = [at for at in batch if at not in done]
        if not times:
            return
        row, now = await one(store, name), await now_of(store)
        waits = row.spec.overlap != "allow"
        state = State.WAITING if waits else State.STARTED
        firings = [
            Firing(at=at, until=at, state=state, workflow=workflow_id(name, at), detail="backfilled", noted=now)
            for at in times
        ]
        waiting = row.waiting + (len(times) if waits else 0)
        if await _write(store, row, msgspec.structs.replace(row, waiting=waiting), now, firings, hand):
            return


async def _noted(store: Store, name: str, since: int, until: int) -> list[Firing]:
    return await store.firings(Which(schedule=name, since=since, until=until, limit=2 * BACKFILL_MAX))


def check_name(name: str) -> str:
    """A schedule's name. Raises ``DefinitionError``."""
    if not name or not is_kept(name, 400):
        raise DefinitionError(f"schedule name {name!r} cannot be used: non-empty text of at most 400 bytes, {NEEDED}")
    return name


def _timing(spec: Spec) -> str:
    return repr(spec.cron) if spec.every is None else f"every {spec.every / 1e6:g} s"
