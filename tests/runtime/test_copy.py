"""``db copy``: an app moves to another database with its work in flight, and everything ends there as it would have."""

# waits: `until` looks again until a workflow stands where it is wanted.

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perdure import App, Codec, Event, Rate, Topic, current, recv, set_event, sleep, write_stream
from perdure.errors import ConfigError, DatabaseTrouble, WorkflowTimedOut
from perdure.model.ids import RunKey
from perdure.model.retention import Rules, read_retention
from perdure.model.states import Reason
from perdure.operations.copy import copy, undo
from perdure.operations.retention import purge
from perdure.store.base import Store
from perdure.store.open import open_store
from tests.runtime.support import Ledger, crash, history, row, status, until
from tests.store.build import start

word, seen = Topic[str]("word"), Event[int]("seen")


def shop_of(database: str, ledger: Ledger, **settings: Any) -> App:
    app = App("shop", database=database, lease=5, version="v1", **settings)

    @app.step(name="act")
    async def act(n: int) -> int:
        ledger.note(f"{current().id} {n} {current().idempotency_key}")
        return n

    @app.step(name="stall")
    async def stall() -> str:
        ledger.note("stall")
        if ledger.count("stall") == 1:
            await asyncio.Event().wait()
        return "went on"

    @app.workflow(name="parcel")
    async def parcel(n: int) -> list[Any]:
        first = await act(n)
        await set_event(seen, n)
        return [first, await recv(word), await act(n + 1)]

    @app.workflow(name="stalled")
    async def stalled() -> list[Any]:
        return [await act(1), await stall()]

    @app.workflow(name="parent")
    async def parent() -> list[Any]:
        return [await act(1), await parcel(5), await act(9)]

    @app.workflow(name="quick")
    async def quick(n: int) -> int:
        if n > 100:
            await quick.continue_as_new(n - 100)
        return n

    @app.workflow(name="sleeper")
    async def sleeper() -> str:
        await sleep(3)
        return "woke"

    return app


def flow(app: App, name: str, id: str) -> Any:
    return app.client.workflow(name, returns=object).options(id=id)


@pytest.fixture(params=["sqlite-postgres", "postgres-sqlite", "sqlite-sqlite"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """Source and target."""
    kinds = request.param.split("-")
    made = [
        str(request.getfixturevalue("postgres_url")) if kind == "postgres" else f"sqlite:///{tmp_path}/{n}.db"
        for n, kind in enumerate(kinds)
    ]
    return made[0], made[1]


@pytest.fixture
async def stores(pair: tuple[str, str]) -> AsyncIterator[tuple[Store, Store]]:
    made: list[Store] = []
    for url in pair:
        store = open_store(url, "shop")
        await store.open()
        await store.migrate()
        made.append(store)
    yield made[0], made[1]
    for store in made:
        await store.upkeep.unfence({})  # the database is used again
        await store.close()


async def in_flight(app: App) -> None:
    """Work that runs, waits, is held, queued, scheduled, has ended, in a run of its own, or under a parent."""
    await (await flow(app, "quick", "done").start(207)).result()
    await flow(app, "parcel", "waits").start(1)
    await flow(app, "parcel", "holds").start(20)
    await flow(app, "parent", "parent").start()
    await flow(app, "stalled", "runs").start()
    await flow(app, "sleeper", "sleeps").start()
    await flow(app, "quick", "later").options(delay=timedelta(seconds=2)).start(3)
    await flow(app, "quick", "queued").options(version="v2").start(4)
    executor: Any = app._home.engine().executor
    await until(lambda: ran(app, "runs", "parent", "waits", "holds"))
    rest = ("holds", "waits", "parent:2")  # what they have done is recorded, and they do nothing more
    await until(lambda: all(id in executor.executions and executor.executions[id].waiting for id in rest))
    await app._home.engine().line.journal.drained()
    executor.executions["holds"].hold(Reason.POLICY, "by hand")
    await until(lambda: is_status(app, "holds", "held"))
    await app.client.handle("holds").send("h", word, key="k")  # not taken before the move


async def is_status(app: App, id: str, wanted: str) -> bool:
    return await status(app, id) == wanted


async def ran(app: App, *ids: str) -> bool:
    """Whether each has recorded something."""
    return all([await history(app, id) for id in ids])


async def test_work_in_flight_ends_on_the_other_side_with_the_same_results(
    pair: tuple[str, str], stores: tuple[Store, Store], ledger: Ledger
) -> None:
    app = shop_of(pair[0], ledger)
    await app.open()
    await in_flight(app)
    rows = {id: await row(app, id) for id in ("done", "runs", "holds")}
    kept = await history(app, "done")
    await crash(app)
    done = await copy(*stores, "a copy")
    assert done.running >= 1
    assert done.rows["workflow"] == 9
    assert done.rows["past_run"] == 2
    moved = await stores[1].rows(["done", "runs", "holds"])
    assert moved["done"] == rows["done"]
    assert moved["holds"] == rows["holds"]
    assert (moved["runs"].status, moved["runs"].owner, moved["runs"].claim) == ("queued", None, None)
    assert (moved["runs"].attempts, moved["runs"].cause) == (1, "crash")
    other = shop_of(pair[1], ledger)
    async with other:
        assert await history(other, "done") == kept
        await other.client.handle("waits").send("mail", word)
        assert await other.client.handle("waits").result(timeout=20) == [1, "mail", 2]
        assert await other.client.handle("holds").resume() == "queued"
        await other.client.handle("holds").send("never", word, key="k")  # the key has come along, too
        await other.client.handle("parent:2").send("p", word)
        assert await other.client.handle("holds").result(timeout=20) == [20, "h", 21]
        assert await other.client.handle("parent").result(timeout=20) == [1, [5, "p", 6], 9]
        assert await other.client.handle("runs").result(timeout=20) == [1, "went on"]
        assert await other.client.handle("sleeps").result(timeout=20) == "woke"
        assert await other.client.handle("later").result(timeout=20) == 3
        assert await other.client.handle("done").get_event(seen, timeout=0.01) is None
        assert await other.client.handle("waits").get_event(seen) == 1
        assert await status(other, "queued") == "queued", "of a version that nobody runs"
    effects = [line for line in ledger if line != "stall"]
    assert len(effects) == len(set(effects)), "no recorded step ran again"


async def test_lines_schedules_and_streams_go_on_over_there(
    pair: tuple[str, str], stores: tuple[Store, Store], ledger: Ledger
) -> None:
    def lined(database: str) -> App:
        app = App("shop", database=database, lease=5, version="v1")
        queue = app.queue("q", concurrency=1)

        @app.workflow(name="item", queue=queue)
        async def item(n: int) -> int:
            ledger.note(n)
            await write_stream("words", n)
            await recv(word)
            await write_stream("words", n + 100)
            return n

        @app.workflow(name="tick")
        async def tick() -> None: ...

        app.schedule("0 2 * * *", name="nightly")(tick)
        return app

    async def has_begun(app: App, id: str) -> bool:
        return [record.kind.name for record in await history(app, id)] == ["STREAM"]

    app = lined(pair[0])
    await app.open()
    item: Any = flow(app, "item", "a")
    await item.options(dedup="k", queue="q").start(1)
    await until(lambda: ledger)
    for n, more in enumerate(({"priority": 5}, {"priority": 1}, {"expires": 0.2}, {"delay": 0.5}), start=2):
        await item.options(id=f"i{n}", queue="q", **more).start(n)
    await app.client.schedule("nightly").set(cron="0 3 * * *")
    await app.client.schedule("nightly").pause(because="the ledger is closed")
    triggered = await app.client.schedule("nightly").trigger()
    await app.client.handle(triggered).result(timeout=20)
    await app.client.set_queue("q", rate=Rate(1000, per=1))
    await app.client.handle("i3").pause(reason="a look")
    told = await app.client.schedule("nightly").firings()
    await until(lambda: has_begun(app, "a"))
    await crash(app)
    await copy(*stores, "a copy")
    async with lined(pair[1]) as other:
        client = other.client
        nightly = await client.schedule("nightly").info()
        assert (nightly.paused, nightly.cron) == ("the ledger is closed", "0 3 * * *")
        assert await client.schedule("nightly").firings() == told
        [info] = await client.queues()
        assert (info.concurrency, info.rate, info.live) == (1, Rate(1000, per=1), ("rate",))
        assert (await flow(other, "item", "z").options(dedup="k", queue="q").start(9)).id == "a"
        with pytest.raises(WorkflowTimedOut, match="stood in line of queue q"):
            await client.handle("i4").result(timeout=20)
        reader = client.handle("a").read_stream("words")
        assert await anext(reader) == 1
        assert [await status(other, id) for id in ("i2", "i3")] == ["queued", "held"]
        await client.handle("i3").unpause()
        for id in ("a", "i3", "i2", "i5"):  # a has its place yet; then by priority
            await client.handle(id).send("go", word)
        assert [await client.handle(id).result(timeout=20) for id in ("a", "i3", "i2", "i5")] == [1, 3, 2, 5]
        assert [value async for value in reader] == [101]
    assert ledger.index("3") < ledger.index("2"), "the smaller priority first"


async def test_nobody_works_in_the_source_any_more(
    pair: tuple[str, str], stores: tuple[Store, Store], ledger: Ledger
) -> None:
    source, target = stores
    app = shop_of(pair[0], ledger)
    async with app:
        await (await flow(app, "quick", "a").start(1)).result()
        with pytest.raises(ConfigError, match=r"executors of app 'shop' serve .*pid \d+.*Stop them first"):
            await copy(source, target, "x")
        await (await flow(app, "quick", "b").start(2)).result()  # it was not disturbed
    async with shop_of(pair[0], ledger).connect() as client:
        engine: Any = client._home.engine()
        await copy(source, target, "x")
        with pytest.raises(DatabaseTrouble, match="this app was moved"):
            await engine.line.store.replace(RunKey("a", 1), start("a", run=2), b"n" * 16)
    for late in (shop_of(pair[0], ledger).open(), shop_of(pair[0], ledger).connect().open()):
        with pytest.raises(ConfigError, match=r"was moved from .* to .*--undo .* --force"):
            await late
    other = App("other", database=pair[0])  # of another app nothing was moved
    async with other.connect() as client:
        await client.workflow("x", returns=int).options(id="x").start()
    assert (await copy(source, target, "again")).rows["workflow"] == 2, "asked for again, it is done"
    with pytest.raises(ConfigError, match=r"lives in .* by now"):
        await undo(source, force=False)
    assert await undo(source, force=True) == target.url
    async with shop_of(pair[0], ledger) as app:
        assert await (await flow(app, "quick", "c").start(3)).result() == 3
    with pytest.raises(ConfigError, match=r"lives in .* already"):
        await copy(source, target, "y")


async def test_a_copy_that_was_given_up_begins_anew(
    pair: tuple[str, str], stores: tuple[Store, Store], ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = stores
    app = shop_of(pair[0], ledger)
    async with app:
        for n in range(5):
            await (await flow(app, "quick", f"q{n}").start(n)).result()

    class Enough(Exception):
        pass

    def stop(name: str, _rows: int) -> None:
        if name in ("history", "workflow"):
            raise Enough

    with pytest.raises(Enough):
        await copy(source, target, "first", progress=stop)
    with pytest.raises(ConfigError, match=r"being copied to .* not finished"):
        await shop_of(pair[1], ledger).open()
    with pytest.raises(ConfigError, match="not finished: run perdure db copy again"):
        await shop_of(pair[0], ledger).open()
    await undo(source, force=False)
    async with app:
        await purge(app._home.engine().line.store.upkeep, Rules({}, read_retention(0)))
        await (await flow(app, "quick", "new").start(1)).result()
    done = await copy(source, target, "second")
    assert done.rows["workflow"] == 1
    async with shop_of(pair[1], ledger) as other:
        assert [i.id async for i in other.client.list()] == ["new"]


async def test_force_fences_executors_that_live(
    pair: tuple[str, str], stores: tuple[Store, Store], ledger: Ledger
) -> None:
    app = shop_of(pair[0], ledger)
    await app.open()
    try:
        await flow(app, "stalled", "runs").start()
        await until(lambda: "stall" in ledger)
        assert (await copy(*stores, "x", force=True)).running == 1
        async with shop_of(pair[1], ledger) as other:
            assert await other.client.handle("runs").result(timeout=20) == [1, "went on"]
            engine: Any = app._home.engine()
            me = engine.executor.me
            assert await engine.line.store.heartbeat(me.id, 1_000_000) is None, "it is declared dead"
            with pytest.raises(DatabaseTrouble, match="this app was moved"):
                await engine.line.store.register(msgspec.structs.replace(me, id=b"n" * 16), 1_000_000)
    finally:
        engine = app._home.engine()
        engine.crash()
        app._home.opened(None)
        await engine.line.store.close()


async def test_coded_values_are_copied_as_they_are(
    pair: tuple[str, str], stores: tuple[Store, Store], ledger: Ledger
) -> None:
    codec = Codec(encode=lambda b: b[::-1], decode=lambda b: b[::-1])
    async with shop_of(pair[0], ledger, codec=codec) as app:
        assert await (await flow(app, "quick", "q").start(77)).result() == 77
    await copy(*stores, "x")
    key = (await stores[1].rows(["q"]))["q"].key
    assert await stores[0].inputs([key]) == await stores[1].inputs([key])
    assert b"$coded" in (await stores[1].inputs([key]))[key]
    async with shop_of(pair[1], ledger, codec=codec) as other:
        assert await other.client.handle("q").result() == 77
