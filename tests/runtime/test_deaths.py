"""Deaths while work was in flight: how they are counted, and suspects, which run one at a time."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from perdure import App, recv, sleep
from perdure.model.records import Incarnation
from perdure.model.writes import Release, Unit
from perdure.runtime.recovery import reap
from perdure.store.asks import ClaimRequest
from tests.runtime.support import crash, executor, in_memory, row, status, until
from tests.runtime.test_fleet import LEASE, leave_behind, member, start


@pytest.mark.usefixtures("stay_in_memory")
async def test_deaths_are_counted_and_hand_backs_are_not(database: str) -> None:
    for n in range(3):
        app = member(database, "a")
        await app.open()
        if n == 0:
            await start(app, "w")
        else:
            await until(lambda app=app: in_memory(app, "w"))
        assert (await row(app, "w")).attempts == n
        await crash(app)
        if n == 1:  # started and stopped in order in between, twice
            for _ in range(2):
                app = member(database, "a")
                await app.open()
                await until(lambda app=app: in_memory(app, "w"))
                assert (await row(app, "w")).attempts == 2
                await app.close()
            app = member(database, "a")
            await app.open()
            await until(lambda app=app: in_memory(app, "w"))
            await crash(app)
            break
    app = member(database, "a")
    async with app:
        await until(lambda: in_memory(app, "w"))
        assert (await row(app, "w")).attempts == 3


async def test_an_executor_runs_one_suspect_at_a_time(database: str) -> None:
    began: list[str] = []
    go = asyncio.Event()

    def build(label: str) -> App:
        app = App("shop", database=database, executor_id=label, lease=LEASE)

        @app.step
        async def work(id: str) -> str:
            began.append(id)
            await go.wait()
            return id

        @app.workflow(name="order", max_deaths=3)
        async def order(id: str) -> str:
            return await work(id)

        return app

    ids = ["s1", "s2", "s3"]
    for label in ("a", "b"):
        app = build(label)
        await app.open()
        if label == "a":
            for id in ids:
                await app.client.workflow("order", returns=str).options(id=id).start(id)
        await until(lambda: len(began) == 3)
        began.clear()
        await crash(app)
    again = build("c")
    async with again:
        await until(lambda: began)
        calm = await again.client.workflow("order", returns=str).options(id="calm").start("calm")
        await until(lambda: "calm" in began)
        for _ in range(3):
            await reap(executor(again))
        assert len(began) == 2, "one suspect at a time, and what is no suspect beside it"
        assert (await row(again, began[0])).attempts == 2
        go.set()
        for id in ids:
            assert await again.client.handle(id).result() == id
        assert await calm.result() == "calm"
        assert [(await row(again, id)).attempts for id in ids] == [2, 2, 2]


@pytest.mark.usefixtures("stay_in_memory")
@pytest.mark.parametrize("waiting", [False, True], ids=["at work", "waiting"])
async def test_suspects_that_a_drain_handed_back_stay_suspects(database: str, waiting: bool) -> None:
    """One at a time; those that only wait follow each other soon."""
    began: list[str] = []
    go = asyncio.Event()

    def build(label: str) -> App:
        app = App("shop", database=database, executor_id=label, lease=LEASE)

        @app.step
        async def work(id: str) -> str:
            began.append(id)
            await go.wait()
            return id

        @app.workflow(name="order", max_deaths=3)
        async def order(id: str) -> str:
            if waiting:
                await recv("go")
            return await work(id)

        return app

    ids = [f"s{n}" for n in range(4)]
    for label in ("a", "b"):
        app = build(label)
        await app.open()
        if label == "a":
            for id in ids:
                await app.client.workflow("order", returns=str).options(id=id).start(id)
        await until(lambda app=app: all(in_memory(app, id) for id in ids) and (waiting or len(began) == 4))
        began.clear()
        await crash(app)
    store = build("hand")
    async with store.connect():
        line = store._home.engine().line
        gone = [who.id for who in await line.store.incarnations()]
        want = ClaimRequest(owner=b"h" * 16, token=b"t" * 16, version=(await row(store, "s0")).version, limit=9)
        hand = Incarnation(id=want.owner, executor="hand")
        await line.store.register(hand, 60_000_000)
        taken = await line.store.adopt(gone, want, suspects=True)
        await line.store.leave(hand.id)
        assert [c.row.attempts for c in taken] == [2] * 4
        for c in taken:  # what a drain writes for each
            unit = Unit(
                key=c.row.key, claim=c.row.claim, nonce=line.new_token(), version=c.row.version, change=Release()
            )
            assert (await line.store.commit([unit])).verdicts[0].applied
    again = build("c")
    async with again:
        if waiting:
            await until(lambda: all(in_memory(again, id) for id in ids))
            for id in ids:
                await again.client.handle(id).send("on", "go")
            go.set()
        else:
            await until(lambda: began)
            for _ in range(5):
                executor(again).look()
                await executor(again)._looking
            assert len(began) == 1, "one at a time"
            go.set()
        for id in ids:
            assert await again.client.handle(id).result() == id


async def test_what_only_waits_has_no_part_in_deaths(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An executor that dies soon after each of its launches takes nobody with it who did nothing."""
    monkeypatch.setenv("PERDURE_GRACE", "3600")
    app = App("shop", database=database)

    @app.workflow(max_deaths=1)
    async def waits() -> str:
        return str(await recv("go"))

    @app.workflow(max_deaths=1)
    async def sleeps() -> str:
        await sleep(3600)
        return "slept"

    await app.open()
    await waits.options(id="w").start()
    await sleeps.options(id="s").start()
    await until(lambda: executor(app).executions["w"].waiting and executor(app).executions["s"].waiting)
    await app._home.engine().line.journal.drained()
    await crash(app)
    for _ in range(4):
        await app.open()
        for id in "ws":
            await until(partial(is_waiting, app, id))
        await crash(app)
    async with app:
        await waits.handle("w").send("on", "go")
        assert await waits.handle("w").result() == "on"
        assert (await row(app, "w")).attempts == 0
        assert await status(app, "s") == "waiting"


async def is_waiting(app: App, id: str) -> bool:
    return await status(app, id) == "waiting"


@pytest.mark.usefixtures("stay_in_memory")
async def test_suspects_that_only_wait_are_soon_all_back(database: str) -> None:
    ids = [f"w{n}" for n in range(20)]
    await leave_behind(database, "a", *ids)
    second = member(database, "b")
    await second.open()
    assert all(in_memory(second, id) for id in ids)
    await crash(second)
    third = member(database, "c")
    async with third:
        await until(lambda: all(in_memory(third, id) for id in ids))
        assert {(await row(third, id)).attempts for id in ids} == {2}
