"""What a body leaves behind: tasks that outlive it, outcomes that come while it computes, exceptions nobody takes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure import App
from perdure.model.records import Kind
from perdure.runtime.execution import Execution
from tests.runtime.support import Ledger, history, status, until


async def ended(app: App) -> bool:
    return await status(app, "a") == "completed"


async def test_what_comes_while_a_burst_is_interrupted_is_handed_over_in_its_order(
    app: App, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds at once: each begins a burst of its own."""
    many = 600
    free = asyncio.Event()
    came = 0
    real = Execution.step_done

    def step_done(self: Execution, *args: Any) -> None:
        nonlocal came
        real(self, *args)
        came += 1

    monkeypatch.setattr(Execution, "step_done", step_done)

    @app.step
    async def one(n: int) -> int:
        if n:
            await free.wait()
        ledger.note(n)
        return n

    @app.workflow
    async def body() -> int:
        async def spin() -> int:
            await one(0)
            free.set()
            while came < many - 1:  # noqa: ASYNC110  turns of the body's own loop
                await asyncio.sleep(0)
            return 0

        return sum(await asyncio.gather(spin(), *(one(n) for n in range(1, many))))

    async with app:
        handle = await body.options(id="a").start()
        await until(lambda: ended(app))
        assert await handle.result() == sum(range(many))
        steps = [record.path for record in await history(app, "a") if record.kind is Kind.STEP]
    assert [0 if "." in path else int(path) for path in steps] == [int(n) for n in ledger]
