"""A cancel that comes while a transaction and a step are under way: both end, both are cancelled where they wait."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from perdure import App, recv
from perdure.errors import WorkflowCancelled
from tests.runtime.support import Ledger, crash, executor, history, until
from tests.transactions.banks import Bank
from tests.transactions.conftest import HOME, places
from tests.transactions.test_transactions import Flow, kinds


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@places(*HOME)
@pytest.mark.parametrize("last", ["transaction", "step"])
async def test_it_is_seen_with_the_outcomes_of_both(app: App, money: Bank, ledger: Ledger, last: str) -> None:
    gates = {"transaction": threading.Event(), "step": threading.Event()}

    def book(_db: Any) -> Flow:
        while not gates["transaction"].is_set():
            yield "select 1"
        yield "insert into transfer values ('booked', null)"

    move = app.transaction(money.source)(money.do(book))

    @app.step(name="charge")
    async def charge() -> None:
        await until(gates["step"].is_set)

    @app.step(name="undo")
    async def undo(what: str) -> None:
        ledger.note(f"undone {what}")

    async def leg(name: str, call: Any) -> None:
        try:
            await call()
            ledger.note(f"{name} went on")
        finally:
            await undo(name)

    @app.workflow
    async def body() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(leg("transaction", move))
                group.create_task(leg("step", charge))
        finally:
            ledger.note("cleanup")
            await recv("more")

    await app.open()
    await body.options(id="w").start()
    await until(lambda: executor(app).executions["w"].running == 2)
    executor(app).executions["w"].cancel("enough")
    (first,) = set(gates) - {last}
    gates[first].set()
    await until(lambda: executor(app).executions["w"].running == 1)
    gates[last].set()
    await until(lambda: "cleanup" in ledger)

    async def five() -> bool:
        return len(await kinds(app, "w")) == 5

    await until(five)
    before = await history(app, "w")
    await crash(app)
    async with app:
        await body.handle("w").send(True, "more")
        with pytest.raises(WorkflowCancelled):
            await body.handle("w").result()
        assert (await history(app, "w"))[: len(before)] == before
        names = {"transaction": "book", "step": "charge"}
        told = [line.split()[:2] for line in await kinds(app, "w")][:3]
        assert told == [["STEP", names[first]], ["STEP", names[last]], ["CANCEL", "cancelled:enough"]]
    assert sorted(ledger) == ["cleanup", "cleanup", "undone step", "undone transaction"]
    assert await money.read("select id from transfer") == [("booked",)]
