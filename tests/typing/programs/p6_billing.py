"""Nightly billing: one child per customer, and a poll that continues as new."""

import asyncio
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import assert_type

from perdure import App, Handle, Router, sleep

billing = Router(prefix="billing.")


@billing.step
async def customers(due: datetime) -> list[str]:
    return []


@billing.workflow(versioning="auto_upgrade")
async def invoice(customer: str, day: date) -> Decimal:
    return Decimal(1)


@billing.schedule("0 2 * * *", tz="Europe/Berlin", missed="all", name="nightly")
@billing.workflow
async def nightly(due: datetime) -> int:
    names = await customers(due)
    results = await asyncio.gather(
        *(invoice.options(id=f"inv-{n}-{due:%F}")(n, due.date()) for n in names), return_exceptions=True
    )
    return sum(not isinstance(r, BaseException) for r in results)


@billing.workflow
async def yearly(customer: str, due: datetime) -> Decimal:
    names, cents = await asyncio.gather(customers(due), invoice(customer, due.date()))
    assert_type((names, cents), tuple[list[str], Decimal])
    first, second = await asyncio.gather(invoice.start(customer, due.date()), nightly.start(due))
    assert_type((first, second), tuple[Handle[Decimal], Handle[int]])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(invoice(customer, due.date()))
    assert_type(task.result(), Decimal)
    return cents


@billing.schedule(every=timedelta(seconds=30))
@billing.workflow
async def poll() -> None:
    await sleep(3)
    poll.continue_as_new()


shop = App("shop")
shop.include(billing)
