"""Nightly billing: one child per customer, and a poll that continues as new."""

import asyncio
from datetime import date, datetime, timedelta
from decimal import Decimal

from perdure import App, Router, sleep

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


@billing.schedule(every=timedelta(seconds=30))
@billing.workflow
async def poll() -> None:
    await sleep(3)
    poll.continue_as_new()


shop = App("shop")
shop.include(billing)
