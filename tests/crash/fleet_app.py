"""The app that a fleet of real processes runs: ``perdure run tests.crash.fleet_app:app``.

Each effect is a line of the file ``PERDURE_TEST_LEDGER``, written in one piece as the step begins, and as it ends:
``begin|end WORKFLOW STEP PID INCARNATION NANOSECONDS`` (of a clock that counts suspension).
"""

# waits: steps that take a while, or block, so that a process can be killed in one; another opens the gate by a file.

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

from perdure import App, Rate, Topic, recv
from perdure.runtime import leases
from perdure.runtime.machine import elapsed

if boot := os.environ.get("PERDURE_TEST_BOOT"):  # on a host of its own, where its pid means nothing to others
    leases.boot_id = lambda: boot

app = App("fleet")
go = Topic[str]("go")
narrow = app.queue("narrow", concurrency=4, worker_concurrency=2, partition_concurrency=3)
paced = app.queue("paced", concurrency=8, rate=Rate(20, per=1), partition_rate=Rate(9, per=1))


def note(what: str, id: str, n: int) -> None:
    executor = app._home.engine().executor
    me = executor.me.id.hex() if executor is not None else "-"
    line = f"{what} {id} {n} {os.getpid()} {me} {int(elapsed() * 1e9)}\n"
    ledger = os.open(os.environ["PERDURE_TEST_LEDGER"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(ledger, line.encode())
    os.close(ledger)


@app.step
async def effect(id: str, n: int, seconds: float) -> int:
    note("begin", id, n)
    await asyncio.sleep(seconds)
    note("end", id, n)
    return n


@app.step
async def at_gate(id: str) -> int:
    """Ends once the gate is open: the file beside the ledger."""
    note("begin", id, 1)
    gate = Path(os.environ["PERDURE_TEST_LEDGER"] + ".gate")
    while not gate.exists():  # noqa: ASYNC110, ASYNC240  another process opens it
        await asyncio.sleep(0.02)
    note("end", id, 1)
    return 1


@app.step
async def die(id: str, how: str) -> None:
    note("begin", id, 0)
    if how == "exit":
        os._exit(1)
    os.kill(os.getpid(), signal.SIGKILL)


@app.step
async def block(id: str) -> int:
    """Stands in the way of everything else of its process until the gate is open, at its first try only."""
    note("begin", id, 1)
    mark, gate = Path(os.environ["PERDURE_TEST_LEDGER"] + ".blocked"), Path(os.environ["PERDURE_TEST_LEDGER"] + ".gate")
    if not mark.exists():  # noqa: ASYNC240  that is the point
        mark.touch()  # noqa: ASYNC240
        while not gate.exists():  # noqa: ASYNC240
            time.sleep(0.02)  # noqa: ASYNC251
    note("end", id, 1)
    return 1


@app.workflow
async def blocking(id: str) -> int:
    return await block(id) + await effect(id, 2, 0)


@app.workflow(max_deaths=3)
async def poison(id: str, how: str) -> None:
    await die(id, how)


@app.workflow(max_deaths=3)
async def job(id: str, steps: int = 3, seconds: float = 0.05) -> int:
    """So many steps of so many seconds: the first of a step is in flight as soon as it is claimed."""
    total = 0
    for n in range(1, steps + 1):
        total += await effect(id, n, seconds)
    return total


@app.workflow(max_deaths=1000)
async def queued(id: str) -> int:
    """An item of a queue: two short steps."""
    return await effect(id, 1, 0.02) + await effect(id, 2, 0.01)


@app.workflow
async def gated(id: str) -> int:
    """A step that is under way until the gate is open, and another."""
    return await at_gate(id) + await effect(id, 2, 0)


@app.workflow
async def patient(id: str) -> str:
    """One step, then a wait in memory."""
    await effect(id, 1, 0)
    return str(await recv(go))
