"""An operator's orders that meet a holder, or each other, on Postgres; and how many statements many of them cost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure.model.orders import Answer
from perdure.model.states import Status
from perdure.store.postgres.connection import Transaction
from tests.store.build import close, one, queued, record, running, unit
from tests.store.test_orders import order as moving
from tests.store.test_postgres_races import Make, Third, make, third  # noqa: F401  fixtures
from tests.store.test_resets import LATER
from tests.store.test_resets import order as resetting

pytestmark = pytest.mark.postgres


@pytest.mark.parametrize("verb", ["move", "reset"])
async def test_an_order_that_waits_for_the_holders_write_sees_it(make: Make, third: Third, verb: str) -> None:  # noqa: F811
    store, other = await make(), await make()
    claim = await running(store, "w")
    await third.hold("w")
    write = asyncio.create_task(one(store, unit("w", claim, records=[record(1)], change=close())))
    await third.waiting()
    order = other.move([moving()]) if verb == "move" else other.reset([resetting("last")], now=LATER)
    ordered = asyncio.ensure_future(order)
    await third.waiting(2)
    await third.let_go()
    assert (await write).applied, "it was first in the queue for the row"
    [answered] = await ordered
    if verb == "move":
        assert (answered.answer, answered.status) == (Answer.REFUSED, Status.COMPLETED)
    else:
        assert answered.answer is Answer.DONE
        assert "0 records of run 1" in answered.words
        assert not (await one(store, unit("w", claim, records=[record(2)]))).applied


async def test_the_same_reset_from_two_operators_is_one(make: Make, third: Third) -> None:  # noqa: F811
    stores = [await make(), await make()]
    claim = await running(stores[0], "w")
    await one(stores[0], unit("w", claim, records=[record(1)], change=close()))
    await third.hold("w")
    both = [asyncio.create_task(store.reset([resetting()], now=LATER)) for store in stores]
    await third.waiting(2)
    await third.let_go()
    answers = [(await task)[0].answer for task in both]
    assert sorted(answers) == [Answer.ALREADY, Answer.DONE]
    assert (await stores[0].rows(["w"]))["w"].run == 2


async def test_orders_about_the_same_in_opposite_order_do_not_deadlock(make: Make) -> None:  # noqa: F811
    stores = [await make(), await make()]
    ids = [f"w{n}" for n in range(20)]
    await queued(stores[0], *ids)
    one_way, other_way = [moving(id) for id in ids], [moving(id) for id in reversed(ids)]
    found = await asyncio.gather(stores[0].move(one_way), stores[1].move(other_way))
    answers = [answered.answer for answers in found for answered in answers]
    assert (answers.count(Answer.DONE), answers.count(Answer.ALREADY)) == (20, 20)


async def test_many_cost_no_more_statements_than_two(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    store = await make()
    sent = 0
    fetch = Transaction.fetch

    async def counted(tx: Transaction, *args: Any) -> Any:
        nonlocal sent
        sent += 1
        return await fetch(tx, *args)

    monkeypatch.setattr(Transaction, "fetch", counted)
    cost: dict[tuple[str, int], int] = {}
    for count in (2, 100):
        ids = [f"{count}-{n:03d}" for n in range(count)]
        claim = await running(store, *ids)
        for id in ids:
            await one(store, unit(id, claim, records=[record(1)]))
        sent = 0
        await store.move([moving(id) for id in ids])
        cost["move", count] = sent
        sent = 0
        await store.reset([resetting(id=id) for id in ids], now=LATER)
        cost["reset", count] = sent
    assert cost["move", 2] == cost["move", 100] <= 5
    assert cost["reset", 2] == cost["reset", 100] <= 15
