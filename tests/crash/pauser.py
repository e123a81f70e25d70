"""A program to be killed while a workflow is paused, or unpaused, and one that works.

    python -m tests.crash.pauser URL LEDGER begin|work|pause|unpause [POINT MODE]

``begin`` starts them. ``work`` runs until all have ended: those that work do so once LEDGER.end is there. With POINT
and MODE the orders kill themselves (SIGKILL) at such a write of theirs. Markers: ``begins …`` and ``effect …`` (of a
step), ``done …`` (at the end).
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any, cast

from perdure import App, Topic, current, recv, sleep
from perdure.store.base import Store
from perdure.testing.crash import CrashStore, Mode, Plan
from tests.crash.victim import die, say

IDS = ("works", "waits", "sleeps", "later", "lined")
app = App("pauser", lease=5)
word = Topic[str]("word")
line = app.queue("line", concurrency=1)
ledger: list[int] = []


@app.step(name="act")
async def act(n: int) -> int:
    me = current()
    say("begins", me.id, n)
    await asyncio.sleep(0.05)  # waits: long enough to be told, or killed, in the middle
    os.write(ledger[0], f"{me.id} {n} {me.idempotency_key}\n".encode())  # one write: whole or not at all
    say("effect", me.id, n)
    return n


@app.step(name="over")
def over() -> bool:
    return Path(f"{sys.argv[2]}.end").exists()


@app.workflow(name="works", queue=line)
async def works() -> int:
    n = 0
    while not await over():
        await act(n)
        n += 1
    return n


@app.workflow(name="waits")
async def waits() -> list[Any]:
    return [await act(0), await recv(word), await act(1)]


@app.workflow(name="sleeps")
async def sleeps() -> int:
    await sleep(0.5)
    return await act(0)


async def begin() -> None:
    async with app.connect():
        await works.options(id="works").start()
        await waits.options(id="waits").start()
        await sleeps.options(id="sleeps").start()
        await sleeps.options(id="later", delay=0.5).start()
        await works.options(id="lined").start()
        await waits.handle("waits").send("go", word, key="go")


async def work() -> None:
    async with app:
        for id in IDS:
            say("done", id, await app.client.handle(id).result())


async def order(verb: str) -> None:
    async with app.connect():
        for id in IDS:
            handle = app.client.handle(id)
            say("done", id, await (handle.pause(reason="by tests") if verb == "pause" else handle.unpause()))


async def main(url: str, path: str, what: str, point: str | None, mode: str | None) -> None:
    ledger.append(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
    home = app._home
    home.arguments["database"] = url
    if point is not None and mode is not None:
        plan = Plan({int(point): Mode[mode]})
        plan.counting = True
        make = home.make_store
        home.make_store = lambda *given: cast(Store, CrashStore(make(*given), plan, die))
    await {"begin": begin, "work": work}.get(what, lambda: order(what))()


if __name__ == "__main__":
    url, path, what, *rest = sys.argv[1:]
    asyncio.run(main(url, path, what, *(rest or (None, None))))
