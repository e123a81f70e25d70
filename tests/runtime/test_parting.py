"""A drain while the database takes no writes: it ends, and says what it could not hand back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from perdure import App
from perdure.errors import DatabaseTrouble
from perdure.model.writes import Receipt, Unit
from perdure.runtime import parting
from tests.runtime.support import executor, until


@pytest.mark.parametrize("hurried", [False, True], ids=["in time", "hurried"])
@pytest.mark.parametrize("how", ["trouble", "silence"])
async def test_a_drain_ends_without_the_database(
    database: str, how: str, hurried: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(parting, "STILL_SECONDS", 0.1)
    app = App("shop", database=database)
    started = asyncio.Event()

    @app.step
    async def stall() -> None:
        started.set()
        await asyncio.Event().wait()

    @app.workflow(name="order")
    async def order() -> None:
        await stall()

    await app.open()
    await order.options(id="o").start()
    await started.wait()
    engine: Any = app._home.engine()
    who = executor(app)

    async def takes_nothing(batch: Sequence[Unit], *, now: int | None = None) -> Receipt:
        if how == "silence":
            await asyncio.Event().wait()
        raise DatabaseTrouble("it is away")

    monkeypatch.setattr(engine.line.store, "commit", takes_nothing)
    closing = asyncio.create_task(engine.close(drain=600 if hurried else 0.1))
    if hurried:
        await until(lambda: who.draining)
        engine.hurry()
    await asyncio.wait_for(closing, 60)
    assert not who.handed_back
    assert "1 workflow was not handed back" in caplog.text
    app._home.opened(None)


async def test_a_drain_waits_for_a_database_that_writes(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However late: it is asked for more until all is handed back."""
    monkeypatch.setattr(parting, "STILL_SECONDS", 60)
    app = App("shop", database=database)

    @app.workflow(name="order")
    async def order() -> None:
        await asyncio.sleep(3600)

    await app.open()
    for n in range(3):
        await order.options(id=f"o-{n}").start()
    engine, who = app._home.engine(), executor(app)
    engine.hurry()
    await engine.close(drain=0)
    assert who.handed_back
    app._home.opened(None)
