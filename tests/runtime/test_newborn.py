"""A child whose start waits for its parent's unit, and that goes on meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from perdure import App, sleep
from perdure.model.writes import Receipt, Unit
from tests.runtime.support import Ledger, crash, until


async def test_a_step_behind_a_timer_waits_for_the_timers_record(
    app: App, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step's intent went with the start, and the timer before it did not: with a crash between, it was held."""

    @app.step
    async def act() -> str:
        ledger.note("effect")
        return "done"

    @app.workflow
    async def child() -> str:
        await sleep(0.01)
        ledger.note("awake")
        return await act()

    @app.workflow
    async def parent() -> str:
        return await (await child.start()).result()

    @app.workflow
    async def other() -> None: ...

    async with app:
        store: Any = app._home.engine().line.store
        commit, busy, ends, over = store.commit, asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def slowly(batch: Sequence[Unit], *, now: int | None = None) -> Receipt:
            if any(unit.key.id == "other" for unit in batch):
                await busy.wait()
            if any(unit.key.id == "p:1" for unit in batch):
                ends.set()
                await over.wait()  # the crash comes first
            receipt: Receipt = await commit(batch, now=now)
            return receipt

        monkeypatch.setattr(store, "commit", slowly)
        calls = [asyncio.create_task(other.options(id="other").start())]
        await asyncio.sleep(0)
        calls.append(asyncio.create_task(parent.options(id="p").start()))
        await until(lambda: ledger == ["awake"])
        busy.set()
        await ends.wait()
        before = list(ledger)
        await crash(app)
        over.set()
        for call in calls:  # nobody answers them any more
            call.cancel()
    assert before == ["awake"], "the step began before the record of the timer was durable"
    async with app:
        assert await parent.handle("p").result(timeout=15) == "done"
    assert ledger == ["awake", "awake", "effect"]
