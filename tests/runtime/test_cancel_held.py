"""A cancel of what is held: it undoes what it has done wherever its code is there, and what is told where it is not."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest

from perdure import App, Router
from perdure.batches import Cancel
from perdure.errors import WorkflowCancelled
from perdure.recovery import Decision, Hold, Incident
from perdure.testing import Harness, harness
from tests.runtime.support import Ledger, crash, row, status, until


class Sale:
    """Charges, then is in a step at which its executors die; a cancel refunds."""

    def __init__(self, on: Router, ledger: Ledger, **options: Any) -> None:
        self.ledger = ledger
        self.inside = asyncio.Event()

        @on.step
        async def charge() -> None:
            ledger.note("charge")

        @on.step
        async def refund() -> None:
            ledger.note("refund")

        @on.step
        async def deadly() -> None:
            ledger.note("deadly")
            self.inside.set()
            await asyncio.Event().wait()

        @on.workflow(**options)
        async def sale() -> None:
            async with AsyncExitStack() as undo:
                await charge()
                undo.push_async_callback(refund)
                await deadly()

        self.workflow = sale

    async def held(self, app: App) -> None:
        """Let its executors die until it is held; open the app again."""
        async with app.connect():
            await self.workflow.options(id="a").start()
        while True:
            await app.open()
            await until(partial(self.stands, app))
            if not self.inside.is_set():
                return
            self.inside.clear()
            await crash(app)

    async def stands(self, app: App) -> bool:
        """Whether it is in the step that kills, or held."""
        return self.inside.is_set() or await status(app, "a") == "held"


@pytest.mark.parametrize("queue", [None, "line"])
async def test_past_its_deaths_it_undoes_what_it_did(app: App, ledger: Ledger, queue: str | None) -> None:
    """The step in flight is not run again: it is what kills."""
    sale = Sale(app, ledger, max_deaths=1, queue=None if queue is None else app.queue(queue, concurrency=1))
    await sale.held(app)
    assert ledger == ["charge", "deadly", "deadly"]
    assert await sale.workflow.handle("a").cancel(reason="enough") == "cancelled"
    assert ledger == ["charge", "deadly", "deadly", "refund"]
    with pytest.raises(WorkflowCancelled, match="enough"):
        await sale.workflow.handle("a").result()
    await app.close()


async def test_a_batch_does_the_same(app: App, ledger: Ledger) -> None:
    sale = Sale(app, ledger, max_deaths=1)
    await sale.held(app)
    info = await app.client.batch(Cancel(), "status = held", reason="enough").apply()
    assert info.done == 1
    async for target in app.client.batch_handle(info.key).targets():
        assert target.detail == "told to cancel"
    await until(lambda: "refund" in ledger)
    with pytest.raises(WorkflowCancelled, match="enough"):
        await sale.workflow.handle("a").result()
    await app.close()


async def test_with_nobody_there_it_waits_for_who_can_undo_it(app: App, ledger: Ledger) -> None:
    sale = Sale(app, ledger, max_deaths=1)
    await sale.held(app)
    await app.close()
    async with app.connect():
        line = app._home.engine().line
        await line.store.cancel("a", "enough", line.new_token())
        assert await status(app, "a") == "queued"
    async with app:
        with pytest.raises(WorkflowCancelled):
            await sale.workflow.handle("a").result(timeout=20)
    assert ledger[-1] == "refund"


async def test_one_that_a_policy_holds_undoes_what_it_did(ledger: Ledger) -> None:
    """The policy is not asked again."""
    app = App("shop")
    sale = Sale(app, ledger)

    @app.recovery_policy(sale.workflow)
    async def look(_: Incident) -> Decision:
        return Hold(because="look at it")

    async with harness(app) as h:
        await in_flight(sale, h)
        assert (await row(app, "a")).reason == "policy"
        assert await sale.workflow.handle("a").cancel() == "cancelled"
        assert ledger == ["charge", "deadly", "refund"]


async def in_flight(sale: Sale, h: Harness) -> None:
    await sale.workflow.options(id="a").start()
    await sale.inside.wait()
    await h.crash()
    await h.settle()
