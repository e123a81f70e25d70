"""Batches whose operators die, meet, or are slow; targets that change meanwhile; the rate."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from perdure import App, Client
from perdure.batches import Cancel, Resume
from perdure.errors import LostAnswer
from perdure.model.batches import LEASE, Applied
from perdure.model.writes import Reopen
from perdure.operations import batches
from perdure.operations.batches import LOOKS_MAX, Work
from perdure.operations.look import Order
from perdure.store.base import Store
from perdure.testing.crash import Crashed
from tests.runtime.batching import (
    IDS,
    NOW,
    WHY,
    Clocked,
    audited,
    begun,
    held,
    queued,
    row_of,
    statuses,
    to_the_end,
    token,
    told,
)
from tests.runtime.moving import store_of
from tests.store.build import close, record, running, unit

# -- whoever dies


class Dying:
    """Batches of a store, of which one write is the last of its process: before it is sent, or before its answer."""

    def __init__(self, store: Store, at: int, *, sent: bool, error: type[BaseException] = Crashed) -> None:
        self.app = store.app
        self.writes = 0
        self._store = store
        self._at = at
        self._sent = sent
        self._error = error

    @property
    def batches(self) -> Any:
        return self

    def __getattr__(self, name: str) -> Any:
        if name not in ("create", "apply", "change"):
            return getattr(
                self._store.batches if name in ("get", "targets", "audits", "listing") else self._store, name
            )
        method = getattr(self._store.batches, name)

        async def write(*args: Any, **named: Any) -> Any:
            self.writes += 1
            if self.writes == self._at and not self._sent:
                raise self._error("before it was sent")
            answer = await method(*args, **named)
            if self.writes == self._at:
                raise self._error("before the answer")
            return answer

        return write


WRITES = 4  # of a batch of eight in chunks of three: it is ordered, three chunks


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("sent", [False, True], ids=["before", "unanswered"])
@pytest.mark.parametrize("at", range(1, WRITES + 1))
async def test_whoever_dies_at_any_write_the_same_order_goes_on(
    client: Client, store: Store, at: int, sent: bool
) -> None:
    await queued(store, *IDS)
    dying = Dying(store, at, sent=sent)
    with pytest.raises(Crashed):
        await to_the_end(await begun(cast("Store", dying), b"dead" * 4))
    await queued(store, "late")
    work = await begun(store, b"next" * 4)
    work.row = await batches.take(store, "k", Order(by="bob"), token, b"next" * 4)  # it need not wait for the dead
    done = await to_the_end(work)
    frozen = IDS if at > 1 or sent else (*IDS, "late")
    assert (done.total, done.done, done.waiting) == (len(frozen), len(frozen), 0)
    assert await audited(store, "k", *frozen) == dict.fromkeys(frozen, 1)
    assert set(await statuses(store, *frozen)) == {"cancelled"}


@pytest.mark.usefixtures("small")
async def test_there_are_no_more_writes_than_are_struck(client: Client, store: Store) -> None:
    await queued(store, *IDS)
    counting = Dying(store, 0, sent=False)
    await to_the_end(await begun(cast("Store", counting), b"o" * 16))
    assert counting.writes == WRITES


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("at", range(1, WRITES + 1))
async def test_an_answer_that_is_lost_costs_nothing(client: Client, store: Store, at: int) -> None:
    """As a patient store does it: the same call again."""
    await queued(store, *IDS)
    losing = Dying(store, at, sent=True, error=LostAnswer)

    class Again:
        app = store.app

        @property
        def batches(self) -> Any:
            return self

        def __getattr__(self, name: str) -> Any:
            method = getattr(losing, name)

            async def call(*args: Any, **named: Any) -> Any:
                try:
                    return await method(*args, **named)
                except LostAnswer:
                    return await method(*args, **named)

            return call

    done = await to_the_end(await begun(cast("Store", Again()), b"o" * 16))
    assert (done.total, done.done) == (8, 8)
    assert await audited(store, "k", *IDS, "") == {**dict.fromkeys(IDS, 1), "": 0}


async def test_who_orders_the_same_meanwhile_follows_and_takes_over_when_nothing_is_heard(
    client: Client, store: Store
) -> None:
    await queued(store, *IDS)
    clock = Clocked(store, NOW)
    await clock.begun(b"dead" * 4)
    work = await clock.begun(b"next" * 4)
    assert (await work.step()).done == 0, "it is another's for some seconds"
    assert (await to_the_end(work)).done == 8
    assert (clock.slept, clock.now) == ([1.0] * 5, NOW + LEASE)


@pytest.mark.usefixtures("small")
async def test_two_operators_at_once_act_on_each_target_once(database: str, app: App) -> None:
    async with app.connect(), Client(database, app="shop") as second:
        await queued(store_of(app), *(f"w{n:02}" for n in range(60)))
        both = [
            app.client.batch(Cancel(), "status = open", reason=WHY),
            second.batch(Cancel(), "status = open", reason=WHY),
        ]
        first, other = await asyncio.gather(*(batch.apply() for batch in both))
        assert first == other
        assert first.done == first.total == 60
        ids = [f"w{n:02}" for n in range(60)]
        assert await audited(store_of(app), first.key, *ids) == dict.fromkeys(ids, 1)


@pytest.mark.usefixtures("small")
async def test_who_was_taken_over_from_carries_out_nothing_more(client: Client, store: Store) -> None:
    await queued(store, *IDS)
    first = await begun(store, b"first".ljust(16))
    await first.step()
    row = await batches.take(store, "k", Order(by="bob"), token, b"second".ljust(16))
    second = Work(store, row, b"second".ljust(16), token)

    async def sleep(_seconds: float) -> None:
        await second.step()

    first._sleep = sleep
    assert (await to_the_end(first)).done == 8
    assert second.finished or (await second.step()).done == 8
    assert await audited(store, "k", *IDS) == dict.fromkeys(IDS, 1)


# -- targets that change meanwhile


async def test_a_target_that_vanishes_or_closes_meanwhile_is_skipped(client: Client, store: Store) -> None:
    claim = await running(store, "closes", "vanishes")
    await queued(store, "stays")
    work = await begun(store, b"o" * 16)
    await store.commit([unit(id, claim, records=[record(1)], change=close()) for id in ("closes", "vanishes")])
    await store.upkeep.purge([(await row_of(store, "vanishes")).key])
    assert (await to_the_end(work)).skipped == 2
    assert await told(client, "k") == {
        "closes": "skipped: it is completed", "vanishes": "skipped: no workflow has this id any more",
        "stays": "done: cancelled",
    }  # fmt: skip


async def test_a_target_that_changes_between_look_and_act_is_looked_at_again(client: Client, store: Store) -> None:
    await held(store, "h")
    meddling = Meddling(store, times=2)
    work = await begun(cast("Store", meddling), b"o" * 16, verb=Resume())
    assert (await to_the_end(work)).done == 1
    assert meddling.applied == 3


async def test_a_target_that_changes_each_time_has_failed_and_the_others_are_done(client: Client, store: Store) -> None:
    await held(store, "calm", "h")
    meddling = Meddling(store, times=99)
    work = await begun(cast("Store", meddling), b"o" * 16, verb=Resume())
    done = await to_the_end(work)
    assert (done.done, done.failed) == (1, 1)
    assert meddling.applied == LOOKS_MAX + 1
    assert "it was another each of the 5 times" in (await told(client, "k"))["h"]


class Meddling:
    """A store in which somebody is quicker: before each chunk, ``h`` gets another token."""

    def __init__(self, store: Store, times: int) -> None:
        self.app = store.app
        self.applied = 0
        self._store = store
        self._times = times

    @property
    def batches(self) -> Any:
        return self

    async def apply(self, *args: Any) -> Applied:
        self.applied += 1
        if self.applied <= self._times:
            other = Reopen(nonce=token(), verb="meddle", shown="by bob", at=0)
            assert await self._store.reopen(await row_of(self._store, "h"), other)
        return await self._store.batches.apply(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store.batches if name in ("create", "get", "targets", "change") else self._store, name)


# -- the rate


async def test_the_rate_holds_by_the_databases_clock_and_across_a_resumption(client: Client, store: Store) -> None:
    """25 a second: chunks of two. What a window of a second saw is never more than the rate and one chunk."""
    await queued(store, *(f"w{n:03}" for n in range(100)))
    clock = Clocked(store, NOW)
    work = await clock.begun(b"1" * 16, rate=25.0)
    when: list[tuple[int, int]] = []
    while not work.finished:
        if work.row.done == 50 and work.row.owner == b"1" * 16:  # its process dies; another goes on at once
            row = await batches.take(cast("Store", clock), "k", Order(by="bob"), token, b"2" * 16)
            work = clock.work(row, b"2" * 16)
        before = work.row.done
        await work.step()
        if work.row.done > before:
            when.append((clock.now, work.row.done - before))
    assert sum(count for _, count in when) == 100
    assert {count for _, count in when} == {2}
    for at, _ in when:
        assert sum(count for other, count in when if at <= other < at + 1_000_000) <= 25 + 2
    assert when[-1][0] - NOW >= 49 * 80_000


async def test_a_rate_below_one(client: Client, store: Store) -> None:
    await queued(store, "a", "b")
    clock = Clocked(store, NOW)
    await to_the_end(await clock.begun(b"1" * 16, rate=0.25))
    assert clock.slept == [1.0] * 4
