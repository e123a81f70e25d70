"""Whose work a launch takes over: fleet, own, single, manual."""

from __future__ import annotations

from typing import Any

import pytest

import perdure
from perdure.errors import ConfigError
from tests.runtime.support import until


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
