"""A child whose start waits for its parent's unit, and that goes on meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from perdure import App, sleep
from perdure.errors import RowLocked
from perdure.model.writes import Receipt, Unit
from tests.runtime.support import Ledger, crash, executor, until


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


async def test_who_asks_for_a_child_whose_start_waits_behind_what_is_set_aside_waits_for_it(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its start was taken for written with what it waited for: the parent was told that no such workflow exists."""
    app.queue("later", concurrency=1)
    begun, go_on = asyncio.Event(), asyncio.Event()

    @app.step
    async def quick() -> None: ...

    @app.step
    async def slow() -> None:
        begun.set()
        await go_on.wait()

    @app.workflow
    async def child() -> None: ...

    @app.workflow
    async def parent() -> str:
        await asyncio.gather(quick(), slow())
        return await (await child.options(queue="later").start()).status()

    @app.workflow
    async def other(n: int) -> int:
        return n

    async with app:
        journal: Any = app._home.engine().line.journal
        store: Any = app._home.engine().line.store
        commit, locked = store.commit, True

        async def refuses(batch: Sequence[Unit], *, now: int | None = None) -> Receipt:
            if locked and any(unit.key.id == "p" and unit.records for unit in batch):
                raise RowLocked("another transaction has it")
            receipt: Receipt = await commit(batch, now=now)
            return receipt

        monkeypatch.setattr(store, "commit", refuses)
        handle = await parent.options(id="p").start()
        await begun.wait()
        for n in range(1000):  # others wait while it fails: so it is set aside
            if journal._aside.units:
                break
            assert await other(n) == n
        assert journal._aside.units
        go_on.set()
        await until(lambda: executor(app).executions["p"].run.children)
        assert await other(1000) == 1000
        locked = False
        assert await handle.result(timeout=15) in ("queued", "running", "completed")
