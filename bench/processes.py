"""Processes after a crash, and their timers: ``python -m bench.processes decisions|timers [--n N] [--db URL]``.

``decisions``: one executor runs N processes (10,000), each in the middle of an action, and is killed. A fresh one
decides about each by default (Error); meanwhile somebody starts new ones. Counted from its launch to the last decision.

``timers``: N processes (50,000) whose timers come due within a minute (``--seconds``), one executor. Each fires once,
or this fails; how late, as their histories tell.

Without --db: a Postgres that is found and started; ``--db sqlite``: a file. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import time
from typing import Any

from bench.places import database
from perdure import App
from perdure.process import Process, State

AT_ONCE = 500
PING_SECONDS = 0.1
LEAD_SECONDS = 5.0  # between the last start and the first timer that is due
app = App("bench", lease=60)
hang = False
inside: set[int] = set()


@app.step
async def work(n: int) -> None:
    if hang:
        inside.add(n)
        await asyncio.Event().wait()


@app.process
class Job(Process):
    n: int
    ready = State(initial=True)
    working = State()
    done = State(final=True)
    go = ready.to(working)
    finish = working.to(done)

    async def on_enter_working(self) -> None:
        await work(self.n)


@app.process
class Alarm(Process):
    after: float
    waiting = State(initial=True)
    over = State(final=True)
    ring = waiting.to(over, at="after")


async def until(text: str, n: int) -> None:
    """So many are counted by a query."""
    while await app.client.count(text) < n:
        await asyncio.sleep(0.5)  # counting is work, too


def chunks(n: int) -> list[range]:
    return [range(first, min(n, first + AT_ONCE)) for first in range(0, n, AT_ONCE)]


# -- decisions


async def interrupted(n: int) -> None:
    """Bring all into the middle of an action, say so, and wait to be killed."""
    global hang
    hang = True
    async with app:
        for some in chunks(n):
            await asyncio.gather(*(Job.options(id=f"j{i}").start(n=i) for i in some))
        await until("type = 'Job' AND status = waiting", n)
        orders = [asyncio.ensure_future(Job.handle(f"j{i}").execute("go")) for i in range(n)]
        while len(inside) < n:
            await asyncio.sleep(0.05)
        await app._home.engine().line.journal.drained()
        print("REACHED", flush=True)
        await asyncio.gather(*orders)


async def recovered(n: int) -> dict[str, Any]:
    """Decide about all of them, beside new work."""
    pings: list[float] = []
    over = asyncio.Event()

    async def others() -> None:
        while not over.is_set():
            began = time.perf_counter()
            await (await Job.start(n=-1)).execute("go")
            pings.append((time.perf_counter() - began) * 1e3)
            await asyncio.sleep(PING_SECONDS)

    launched = time.perf_counter()
    async with app:
        opened = time.perf_counter()
        new_work = asyncio.create_task(others())
        await until("type = 'Job' AND attributes.status = 'Error'", n)
        seconds = time.perf_counter() - launched
        over.set()
        await new_work
    pings.sort()
    return {
        "decisions": n, "seconds": round(seconds, 2), "per_second": round(n / seconds),
        "open_seconds": round(opened - launched, 2), "new_work": len(pings),
        "new_work_p50_ms": round(pings[len(pings) // 2], 1), "new_work_max_ms": round(pings[-1], 1),
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }  # fmt: skip


def decisions(n: int, url: str) -> dict[str, Any]:
    """Two lives of one program."""
    environment = {**os.environ, "PERDURE_DATABASE_URL": url}
    command = [sys.executable, "-m", "bench.processes", "decisions", "--n", str(n)]
    first = subprocess.Popen([*command, "--role", "first"], env=environment, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    assert "REACHED" in first.stdout.readline()
    first.send_signal(signal.SIGKILL)
    first.wait()
    second = subprocess.run([*command, "--role", "second"], env=environment, stdout=subprocess.PIPE, check=True)
    told: dict[str, Any] = json.loads(second.stdout)
    return told


# -- timers


async def timers(n: int, seconds: float, lead: float) -> dict[str, Any]:
    """Start them, let them ring, and ask each how late it was."""
    async with app:
        began = time.perf_counter()
        for some in chunks(n):
            gone = time.perf_counter() - began
            assert gone < lead, "starting them took longer than it may: give --lead more, or --n less"
            await asyncio.gather(*(Alarm.options(id=f"a{i}").start(after=lead + i * seconds / n - gone) for i in some))
        started = time.perf_counter() - began
        await until("type = 'Alarm' AND status = completed", n)
        ended = time.perf_counter() - began
        late: list[float] = []
        for some in chunks(n):
            for history in await asyncio.gather(*(Alarm.handle(f"a{i}").history() for i in some)):
                [rung] = [step for step in history if step.trigger == "timer"]
                late.append(rung.late.total_seconds())
    late.sort()
    return {
        "timers": n, "within_seconds": seconds, "started_per_second": round(n / started),
        "last_ended_after_due_seconds": round(ended - lead - seconds, 2), "late_p50_ms": round(late[n // 2] * 1e3),
        "late_p99_ms": round(late[n * 99 // 100] * 1e3), "late_max_ms": round(late[-1] * 1e3),
    }  # fmt: skip


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["decisions", "timers"])
    parser.add_argument("--n", type=int)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--lead", type=float, help="seconds for starting them (default: 5 and one for each 500)")
    parser.add_argument("--db", default="postgres")
    parser.add_argument("--role", choices=["first", "second"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    n = given.n or {"decisions": 10_000, "timers": 50_000}[given.what]
    if given.role == "first":
        return asyncio.run(interrupted(n))
    if given.role == "second":
        return print(json.dumps(asyncio.run(recovered(n))))
    with database(given.db) as url:
        os.environ["PERDURE_DATABASE_URL"] = url
        lead = given.lead or LEAD_SECONDS + n / 500
        told = decisions(n, url) if given.what == "decisions" else asyncio.run(timers(n, given.seconds, lead))
        print(json.dumps({"database": url.partition(":")[0], **told}))
    return None


if __name__ == "__main__":
    main()
