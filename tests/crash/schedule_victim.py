"""A program to be killed: an executor whose schedules fire every second.

    python -m tests.crash.schedule_victim URL LEDGER [POINT MODE]

Works until it is killed. With POINT and MODE it kills itself (SIGKILL) at the POINT-th write of a schedule. Each run of
a workflow is a line of the ledger: schedule, nominal time, idempotency key. Markers: ``open``, ``ran …``, ``trouble``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from datetime import datetime
from typing import cast

from perdure import App, current
from perdure.store.base import Store
from perdure.testing.crash import CrashStore, Mode, Plan
from tests.crash.victim import Trouble, die, say

app = App("schedules", lease=3)
ledger: list[int] = []


@app.step
async def ran(what: str, due: datetime) -> None:
    os.write(ledger[0], f"{what} {due.isoformat()} {current().idempotency_key}\n".encode())
    say("ran", what, due.isoformat())


@app.schedule(every=1, missed="all", catch_up=1000)
@app.workflow(name="each")
async def each(due: datetime) -> None:
    await ran("each", due)


@app.schedule("* * * * * *", tz="Europe/Berlin", missed="all", overlap="queue", catch_up=1000)
@app.workflow(name="row")
async def row(due: datetime) -> None:
    await ran("row", due)


@app.schedule(every=1, missed="once")
@app.workflow(name="latest")
async def latest(due: datetime) -> None:
    await ran("latest", due)


async def main(url: str, path: str, orders: dict[int, Mode]) -> None:
    ledger.append(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
    logging.getLogger("perdure").addHandler(Trouble())
    home = app._home
    home.arguments["database"] = url
    if orders:
        plan = Plan(orders, {"change_schedule"})
        plan.counting = True
        make = home.make_store
        home.make_store = lambda *given: cast(Store, CrashStore(make(*given), plan, die))
    async with app:
        say("open")
        await asyncio.Event().wait()


if __name__ == "__main__":
    url, path, *order = sys.argv[1:]
    asyncio.run(main(url, path, {int(order[0]): Mode[order[1]]} if order else {}))
