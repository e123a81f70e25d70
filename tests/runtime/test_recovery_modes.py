"""Whose work a launch takes over: fleet, own, single, manual."""

from __future__ import annotations

from typing import Any

import pytest

import perdure
from perdure.errors import ConfigError
from tests.runtime.support import executor, in_memory, row, until


def build(database: str, **settings: Any) -> tuple[perdure.App, Any]:
    app = perdure.App("shop", database=database, **settings)

    @app.workflow(name="order")
    async def order() -> str:
        return str(await perdure.recv("go"))

    return app, order


async def leave_behind(database: str, executor_id: str) -> None:
    """A workflow whose executor died: its incarnation is buried, as a reaper would find it."""
    app, order = build(database, executor_id=executor_id)
    await app.open()
    engine = app._home.engine()
    await order.options(id="left").start()
    executor = engine.executor
    assert executor is not None
    me = executor.me.id
    engine.crash()
    app._home.opened(None)
    await engine.line.store.bury([me], expired_only=False)
    await engine.line.store.close()


async def finishes(app: perdure.App, order: Any) -> bool:
    """Whether this launch goes on with what was left."""
    async with app:
        executor = app._home.engine().executor
        assert executor is not None
        taken: bool = executor.has("left")
        if taken:
            await order.handle("left").send("on", "go")
            assert await order.handle("left").result(timeout=15) == "on"
        else:
            assert await order.handle("left").status() == "running"
        return taken


@pytest.mark.parametrize(
    ("recovery", "executor_id", "taken"),
    [("fleet", "b", True), ("own", "b", False), ("own", "a", True), ("manual", "a", False), ("single", "b", True)],
)
async def test_whose_work_a_launch_takes_over(database: str, recovery: Any, executor_id: str, taken: bool) -> None:
    await leave_behind(database, "a")
    app, order = build(database, recovery=recovery, executor_id=executor_id)
    assert await finishes(app, order) is taken


async def test_single_refuses_to_start_beside_a_live_executor(database: str) -> None:
    app, _ = build(database, executor_id="first")
    other, _ = build(database, executor_id="second", recovery="single")
    async with app:
        with pytest.raises(ConfigError, match=r"executor 'first' \(pid \d+ on .*\) is alive; stop it first"):
            await other.open()
        assert not other._home.is_open
    async with other:  # alone it may
        await until(lambda: True)


async def bury(app: perdure.App) -> Any:
    """Declare it dead, unheard; the engine, that looks around often from now on."""
    engine = app._home.engine()
    await engine.line.store.bury([executor(app).me.id], expired_only=False)
    executor(app).reaper._round = 0.05
    return engine


def hear(engine: Any) -> None:
    """Of its death, as from its next heartbeat."""
    assert engine.lease is not None
    engine.lease.dead = True
    engine.lease.end()
    engine._begin_anew()


async def serving(engine: Any) -> list[str]:
    return [who.executor for who in await engine.line.store.incarnations() if who.serving]


async def test_single_does_not_rejoin_beside_a_newer_one(database: str, caplog: pytest.LogCaptureFixture) -> None:
    """Cut off for longer than its lease, it was declared dead, and its successor was started: one of them works."""
    old, order = build(database, executor_id="old", recovery="single", lease=60)
    new, _ = build(database, executor_id="new", recovery="single", lease=60)
    async with old:
        await order.options(id="left").start()
        engine, was = await bury(old), executor(old).me.id
        async with new:
            await until(lambda: in_memory(new, "left"))
            hear(engine)
            await until(lambda: "this one runs nothing until that is gone" in caplog.text)
            assert "recovery='single': executor 'new' (pid " in caplog.text
            await order.options(id="more").start()  # as a client's: it is the other's to run
            await until(lambda: in_memory(new, "more"))
            assert await serving(engine) == ["new"]
            assert executor(old).me.id == was
            assert not executor(old).executions
        await until(lambda: executor(old).me.id != was)
        for id in ("left", "more"):  # alone again, it goes on
            await order.handle(id).send("on", "go")
            assert await order.handle(id).result(timeout=15) == "on"


async def test_single_that_the_database_does_not_know_any_more_takes_nothing(database: str) -> None:
    """A failover may lose a registration; who comes then sees itself alone, and this one hears of it a beat later."""
    app, order = build(database, executor_id="old", recovery="single", lease=60)
    async with app, perdure.Client(database, app=app.name) as client:
        engine = await bury(app)
        await client.workflow(order.name, returns=str).options(id="more").start()
        looks = executor(app).looks
        for n in range(2, 5):
            executor(app).look()
            await until(lambda n=n: executor(app).looks >= looks + n)
        assert (await row(app, "more")).status == "queued"
        hear(engine)
        await until(lambda: in_memory(app, "more"))


async def test_single_that_is_alone_rejoins(database: str, caplog: pytest.LogCaptureFixture) -> None:
    app, order = build(database, executor_id="old", recovery="single", lease=60)
    async with app:
        await order.options(id="left").start()
        was = executor(app).me.id
        hear(await bury(app))
        await until(lambda: executor(app).me.id != was and in_memory(app, "left"))
    assert "runs nothing until" not in caplog.text


async def test_single_that_meets_another_at_its_registration_steps_back(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have looked and seen nobody, and both register: who comes second sees the first."""
    old, _ = build(database, executor_id="old", recovery="single", lease=60)
    new, _ = build(database, executor_id="new", recovery="manual", lease=60)
    async with old:
        engine, was = await bury(old), executor(old).me.id
        register, leave = engine._register, engine.line.store.leave
        met: list[list[str]] = []

        async def late() -> Any:
            if not met:
                await new.open()
            return await register()

        async def left(id: bytes) -> None:
            met.append(await serving(engine))
            await leave(id)
            met.append(await serving(engine))

        monkeypatch.setattr(engine, "_register", late)
        monkeypatch.setattr(engine.line.store, "leave", left)
        hear(engine)
        await until(lambda: len(met) == 2)
        assert [sorted(who) for who in met] == [["new", "old"], ["new"]]
        assert executor(old).me.id == was
        await new.close()
        await until(lambda: executor(old).me.id != was)
        assert await serving(engine) == ["old"]
