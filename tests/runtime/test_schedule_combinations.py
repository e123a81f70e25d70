"""Schedules where several of their rules meet: clocks that change during an outage, overlap, a queue, a client."""

# waits: `until` looks again until a workflow stands where it is wanted.

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import perdure.sync
from perdure import App, Client, recv
from perdure.errors import WorkflowTimedOut
from perdure.model.info import from_datetime, to_datetime
from perdure.schedules.times import Times
from perdure.testing import Harness, harness
from tests.runtime.support import Ledger, until
from tests.runtime.test_schedules import away

BERLIN = "Europe/Berlin"
CHANGES = {"gap": datetime(2030, 3, 30, 12, tzinfo=UTC), "fold": datetime(2030, 10, 26, 12, tzinfo=UTC)}


@pytest.fixture
async def h(app: App, database: str, ledger: Ledger) -> AsyncIterator[Harness]:
    @app.step
    async def note(what: str) -> None:
        ledger.note(what)

    @app.workflow(name="work")
    async def work(due: datetime) -> None:
        await note(f"{due.astimezone(UTC):%d %H:%M}")

    async with harness(app, database=database) as h:
        yield h


def nominal(cron: str, first: datetime, last: datetime) -> list[datetime]:
    times = Times(cron, None, BERLIN, 0)
    return [to_datetime(at) for at in times.within(from_datetime(first), from_datetime(last))]


@pytest.mark.parametrize("change", ["gap", "fold"])
@pytest.mark.parametrize("overlap", ["allow", "queue"])
async def test_clocks_that_change_while_nobody_is_there(
    app: App, h: Harness, ledger: Ledger, change: str, overlap: Any
) -> None:
    """All that was missed fires, each nominal time once, and backfill finds nothing left to do."""
    begin = CHANGES[change]
    h.clock.advance((begin - to_datetime(h.clock.now())) // timedelta(microseconds=1))
    crons = {"daily": "30 2 * * *", "often": "*/30 * * * *", "hours": "0 1,2,3 * * *"}
    for name, cron in crons.items():
        await app.client.create_schedule(name, "work", cron, tz=BERLIN, missed="all", overlap=overlap)
    await away(h, timedelta(hours=30))
    end = begin + timedelta(hours=30)
    want: Counter[str] = Counter()
    for name, cron in crons.items():
        times = nominal(cron, begin + timedelta(microseconds=1), end)
        handle = app.client.schedule(name)
        firings = await handle.firings(limit=1000)
        assert [(one.at, one.state) for one in firings[::-1]] == [(at, "started") for at in times], name
        assert await handle.backfill(begin + timedelta(seconds=1), end) == []
        want.update(f"{at:%d %H:%M}" for at in times)
    assert Counter(ledger) == want


@pytest.mark.parametrize("change", ["gap", "fold"])
async def test_a_backfill_over_clocks_that_change(app: App, h: Harness, ledger: Ledger, change: str) -> None:
    begin = CHANGES[change]
    h.clock.advance((begin + timedelta(days=3) - to_datetime(h.clock.now())) // timedelta(microseconds=1))
    handle = await app.client.create_schedule("daily", "work", "0,30 2 * * *", tz=BERLIN)
    end = begin + timedelta(days=2)
    ids = await handle.backfill(begin, end)
    await h.settle()
    times = nominal("0,30 2 * * *", begin, end)
    assert ids == [f"daily@{at:%Y-%m-%dT%H:%M:%SZ}" for at in times]
    assert Counter(ledger) == Counter(f"{at:%d %H:%M}" for at in times)


@pytest.mark.parametrize(
    ("missed", "overlap", "told"),
    [
        ("once", "skip", ["skipped missed", "skipped missed", "skipped overlap"]),
        ("once", "queue", ["skipped missed", "skipped missed", "waiting"]),
        ("all", "skip", ["skipped overlap"] * 3),
        ("all", "queue", ["waiting"] * 3),
        ("skip", "queue", ["skipped missed"] * 3),
    ],
)
async def test_missed_while_the_one_before_is_open(
    app: App, database: str, missed: Any, overlap: Any, told: list[str]
) -> None:
    @app.workflow(name="slow")
    async def slow() -> None:
        await recv("go")

    async with harness(app, database=database) as h:
        handle = await app.client.create_schedule("s", "slow", every=3600, missed=missed, overlap=overlap)
        await h.advance(timedelta(hours=1))
        await away(h, timedelta(hours=3.5))
        firings = (await handle.firings())[::-1]
        assert firings[0].state == "started"
        assert [f"{one.state} {one.reason}".strip() for one in firings[1:]] == told


async def test_paused_over_an_outage_nothing_is_caught_up(app: App, h: Harness, ledger: Ledger) -> None:
    handle = await app.client.create_schedule("s", "work", every=3600, missed="all")
    await handle.pause(because="the ledger is closed")
    await away(h, timedelta(hours=3.5))
    await handle.resume()
    await h.advance(timedelta(hours=1))
    firings = (await handle.firings())[::-1]
    assert [(f.state, f.reason) for f in firings] == [("skipped", "paused"), ("started", "")]
    assert len(ledger) == 1


@pytest.mark.parametrize("made", ["declared", "by a client without the code"])
async def test_its_workflows_have_the_queue_and_the_timeout_of_their_code(
    app: App, database: str, ledger: Ledger, made: str
) -> None:
    @app.workflow(name="tick", queue=app.queue("q", concurrency=1), timeout=0.4)
    async def tick(due: datetime) -> None:
        ledger.note(due)
        await recv("go")

    if made == "declared":
        app.schedule(every=1, missed="all", name="tick")(tick)
    async with app, Client(database, app="shop") as client:
        if made != "declared":
            await client.create_schedule("tick", "tick", every=1, takes_due=True)
        await until(lambda: ledger)
        handle = client.handle((await client.schedule("tick").info()).last or "")
        await client.schedule("tick").pause()
        with pytest.raises(WorkflowTimedOut):
            await handle.result(timeout=20)
        assert (await handle.info()).queue == "q"


def test_a_sync_client_does_all_of_it(sync_app: perdure.sync.App, database: str) -> None:
    ran: list[datetime] = []

    @sync_app.workflow(name="tick")
    def tick(due: datetime) -> None:
        ran.append(due)

    with sync_app, perdure.sync.Client(database, app="shop") as client:
        handle = client.create_schedule("t", "tick", "0 2 * * *", tz=BERLIN, takes_due=True)
        ids = handle.backfill(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC))
        assert len(ids) == 2
        for id in [*ids, handle.trigger()]:
            client.handle(id).result(timeout=20)
        assert handle.set(missed="all").missed == "all"
        assert handle.pause(because="x").paused == "x"
        assert handle.resume().paused is None
        assert len(handle.firings()) == 3
        assert handle.info().cron == "0 2 * * *"
        handle.delete()
        assert client.schedules() == ()
    assert len(ran) == 3


async def test_launched_at_once_with_the_same_declarations(app: App, database: str) -> None:
    apps = [App("shop", database=database, executor_id=f"e{n}", version="v1") for n in range(4)]
    for one in apps:

        @one.schedule("0 2 * * *", name="nightly")
        @one.workflow(name="work")
        async def work() -> None: ...

    await asyncio.gather(*(one.open() for one in apps))
    try:
        [info] = await apps[0].client.schedules()
        assert (info.name, info.declared) == ("nightly", True)
    finally:
        await asyncio.gather(*(one.close() for one in apps))
