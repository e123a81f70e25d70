"""A workflow that is deleted while others wait for it: they are told at once, wherever they are."""

from __future__ import annotations

import asyncio

import pytest

from perdure import App, Client
from perdure.errors import WorkflowNotFound
from perdure.recovery import Decision, Delete, Incident
from perdure.testing import Harness
from tests.runtime.interrupted import Shop, always
from tests.runtime.support import crash, in_memory, kinds, status, until

SOON = 3  # seconds: long before the times that are given to wait


@pytest.mark.parametrize("what", ["result", "event"])
async def test_who_waits_in_another_process_is_told_at_once(shop: Shop, h: Harness, database: str, what: str) -> None:
    always(shop, Delete(because="a test order"))
    async with Client(database, app=h.store.app) as client:
        await shop.order.options(id="a").start("sku", 5)
        handle = client.handle("a")
        wait = handle.result(timeout=60) if what == "result" else handle.get_event("receipt", timeout=60)
        waiting = asyncio.ensure_future(wait)
        await asyncio.wait_for(shop.inside.wait(), 10)
        await h.crash()
        with pytest.raises(WorkflowNotFound, match=r"'a' was deleted at .* by policy .*policy: a test order"):
            await asyncio.wait_for(waiting, SOON)
        with pytest.raises(WorkflowNotFound, match="was deleted"):  # and who asks later
            await handle.result()


async def test_who_waits_in_the_process_of_the_deciding_executor_is_told(shop: Shop, h: Harness) -> None:
    always(shop, Delete())
    await shop.interrupt(h)
    with pytest.raises(WorkflowNotFound, match="was deleted"):
        await shop.order.handle("a").result(timeout=60)


@pytest.mark.parametrize("asleep", [False, True], ids=["awake", "parked"])
@pytest.mark.parametrize("what", ["result", "event"])
async def test_a_workflow_that_waits_for_it_gets_the_error_and_keeps_it(
    app: App, database: str, monkeypatch: pytest.MonkeyPatch, asleep: bool, what: str
) -> None:
    monkeypatch.setenv("PERDURE_GRACE", "0.05" if asleep else "60")
    inside, told = asyncio.Event(), asyncio.Event()
    other = App("shop", database=database, version="of the waiter")

    @app.step
    async def work() -> None:
        inside.set()
        await asyncio.Event().wait()

    @app.workflow(name="target")
    async def target() -> None:
        await work()

    @app.recovery_policy("target")
    async def policy(incident: Incident) -> Decision:
        return Delete()

    @other.workflow(name="waiter")
    async def waiter() -> str:
        there = other.client.handle("target")
        try:
            await (there.result() if what == "result" else there.get_event("receipt"))
        except WorkflowNotFound as error:
            told.set()
            return str(error)
        return "an answer"

    async with other:
        await app.open()
        await target.options(id="target").start()
        await asyncio.wait_for(inside.wait(), 10)
        handle = await waiter.options(id="waiter").start()
        await until(lambda: in_memory(other, "waiter") != asleep)
        await crash(app)
        await app.open()
        assert "was deleted" in await asyncio.wait_for(handle.result(), 30)
        assert told.is_set()
        assert [line.rsplit(" ", 1)[1] for line in await kinds(other, "waiter")] == ["ERROR"]
        assert await status(other, "waiter") == "completed"
