"""A body that is ended by what one of its steps does, while a transaction of it is under way."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from perdure import App
from perdure.model.states import Reason
from perdure.runtime.lending import Lending
from tests.runtime.support import executor, row, until
from tests.transactions.banks import Bank
from tests.transactions.conftest import HOME, places
from tests.transactions.test_transactions import Flow, kinds


@places(*HOME)
@pytest.mark.parametrize("how", ["crashes", "touches"])
async def test_the_end_is_written_and_the_transaction_is_not(app: App, money: Bank, how: str) -> None:
    began, free = threading.Event(), threading.Event()
    events: list[asyncio.Event] = []

    def book(_db: Any) -> Flow:
        began.set()
        while not free.is_set():
            yield "select 1"
        yield "insert into transfer values ('booked', null)"

    move = app.transaction(money.source)(money.do(book))

    @app.step(name="charge")
    async def charge() -> None:
        await until(began.is_set)
        if how == "crashes":
            raise MemoryError
        events[0].set()

    @app.workflow
    async def body() -> None:
        events.append(asyncio.Event())
        await asyncio.gather(events[0].wait(), move(), charge())

    await app.open()
    await body.options(id="w").start()
    await until(lambda: "w" not in executor(app).executions or executor(app).executions["w"].gone)
    free.set()

    async def is_over() -> bool:
        return (await row(app, "w")).status in ("held", "failed")

    await until(is_over)
    assert await money.read("select id from transfer") == []


@places(*HOME)
async def test_an_end_that_comes_between_a_commit_and_its_news_stands_behind_the_record(
    app: App, money: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Lending.record_written

    def record_written(self: Lending, *args: Any) -> None:
        self.hold(Reason.CRASHED, "meanwhile")  # type: ignore[attr-defined]
        real(self, *args)

    monkeypatch.setattr(Lending, "record_written", record_written)

    def book(_db: Any) -> Flow:
        yield "insert into transfer values ('booked', null)"

    move = app.transaction(money.source)(money.do(book))

    @app.workflow
    async def body() -> None:
        await move()

    await app.open()
    await body.options(id="w").start()

    async def is_over() -> bool:
        return (await row(app, "w")).status == "held"

    await until(is_over)
    assert [line.split()[:2] for line in await kinds(app, "w")] == [["STEP", "book"]]
    assert await money.read("select id from transfer") == [("booked",)]
