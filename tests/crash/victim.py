"""A program to be killed: runs workflows over a database, writes each effect to a file, and prints markers.

    python -m tests.crash.victim URL LEDGER COUNT [POINT MODE]

Started again with the same arguments it goes on where it was. With POINT and MODE it kills itself there (SIGKILL).
Markers: ``effect …`` when a step has had its effect, ``trouble`` when the database is, ``result JSON`` at the end.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from typing import Any, cast

from perdure import App, Topic, current, recv, sleep
from perdure.store.base import Store
from perdure.testing.crash import CrashStore, Mode, Plan

STEPS = 4
app = App("victim", lease=30)
word = Topic[str]("word")
ledger: list[int] = []  # the file that effects are written to


def say(*what: object) -> None:
    os.write(1, f"{' '.join(map(str, what))}\n".encode())  # whole lines, whichever thread speaks


@app.step
async def effect(id: str, n: int) -> int:
    os.write(ledger[0], f"{id} {n} {current().idempotency_key}\n".encode())  # one write: whole or not at all
    say("effect", id, n)
    return n


@app.step
def blocking_effect(id: str, n: int) -> int:
    os.write(ledger[0], f"{id} {n} {current().idempotency_key}\n".encode())
    say("effect", id, n)
    return n


@app.workflow(max_deaths=100)  # it is killed more often than a workflow may die by itself
async def job(id: str) -> dict[str, Any]:
    total = 0
    for n in range(STEPS):
        total += await (blocking_effect if n % 2 else effect)(id, n)
        await sleep(0.01)
    both = await asyncio.gather(effect(id, 10), effect(id, 20))
    await job_end.handle(f"end-{id}").send(f"{id} is done", word)
    return {"id": id, "total": total, "both": both}


@app.workflow(max_deaths=100)  # it is killed more often than a workflow may die by itself
async def job_end(id: str) -> list[str | None]:
    first = await recv(word)
    await effect(id, 100)
    return [first, await recv(word, timeout=0.2)]


class Trouble(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if "is in trouble, writes wait" in record.getMessage():
            say("trouble")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def main(url: str, path: str, count: int, orders: dict[int, Mode]) -> None:
    ledger.append(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
    logging.getLogger("perdure").addHandler(Trouble())
    home = app._home
    home.arguments["database"] = url
    if orders:
        plan = Plan(orders)
        plan.counting = True
        make = home.make_store
        home.make_store = lambda *given: cast(Store, CrashStore(make(*given), plan, die))
    ids = [f"j{i}" for i in range(count)]
    async with app:
        ends = [await job_end.options(id=f"end-{id}").start(id) for id in ids]
        jobs = [await job.options(id=id).start(id) for id in ids]
        results = [await handle.result() for handle in (*jobs, *ends)]
    say("result", json.dumps(results))


if __name__ == "__main__":
    url, path, count, *order = sys.argv[1:]
    asyncio.run(main(url, path, int(count), {int(order[0]): Mode[order[1]]} if order else {}))
