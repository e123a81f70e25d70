"""Many interrupted workflows, one fresh executor: ``python -m bench.interrupted [--store postgres] [--n 10000]``.

Each has 5 recorded steps and 3 to go when the process that ran all of them is killed. Measured by the fresh one: from
its first claim to the last end, its memory, and how long new work took meanwhile. One JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from typing import Any

from bench.takeover import database
from perdure import App
from perdure.runtime.executor import Executor

DONE, LEFT = 5, 3
PINGS_EVERY = 0.1
app = App("interrupted", lease=60)
blocked: set[str] = set()
hang = False


@app.step
async def work(id: str, n: int) -> int:
    if hang and n == DONE:
        blocked.add(id)
        await asyncio.Event().wait()
    return n


@app.workflow
async def job(id: str) -> int:
    return sum([await work(id, n) for n in range(DONE + LEFT)])


@app.step
async def pong() -> float:
    return time.time()


@app.workflow
async def ping() -> float:
    return await pong()


async def prepare(n: int) -> None:
    """Bring all to where they are interrupted, then say so and wait to be killed."""
    global hang
    hang = True
    async with app:
        for first in range(0, n, 500):
            many = [job.options(id=f"w{i}").start(f"w{i}") for i in range(first, min(n, first + 500))]
            await asyncio.gather(*many)
        while len(blocked) < n:
            await asyncio.sleep(0.05)
        await app._home.engine().line.journal.drained()
        print("ready", flush=True)
        await asyncio.Event().wait()


async def recover(n: int) -> None:
    ends: list[float] = []
    claims: list[float] = []
    over = asyncio.Event()
    closed = Executor.closed

    def count(self: Executor, execution: Any, close: Any) -> None:
        closed(self, execution, close)
        if execution.row.name == "job":
            ends.append(time.perf_counter())
            if len(ends) == n:
                over.set()

    Executor.closed = count  # type: ignore[method-assign]
    make = app._home.make_store

    def timed(*given: Any) -> Any:
        store: Any = make(*given)
        adopt = store.adopt

        async def adopted(*args: Any, **kwargs: Any) -> Any:
            claims.append(time.perf_counter())
            return await adopt(*args, **kwargs)

        store.adopt = adopted
        return store

    app._home.make_store = timed
    pings: list[float] = []

    async def new_work() -> None:
        while not over.is_set():
            began = time.perf_counter()
            await ping()
            pings.append((time.perf_counter() - began) * 1e3)
            await asyncio.sleep(PINGS_EVERY)

    async def opened() -> None:
        while not app._home.is_open or app._home.engine().line.work is None:
            await asyncio.sleep(0.005)
        await new_work()

    others = asyncio.create_task(opened())
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with app:
        await over.wait()
        await others
        result = {
            "seconds": round(ends[-1] - claims[0], 2),
            "first_end": round(ends[0] - claims[0], 3),
            "per_second": round(n / (ends[-1] - claims[0])),
            "new_work_ms_p50": round(statistics.median(pings), 1) if pings else None,
            "new_work_ms_max": round(max(pings), 1) if pings else None,
            "new_work": len(pings),
            "cpu_seconds": round(sum(os.times()[:2]), 2),
            "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "rss_mb_before": base // 1024,
        }
    print(json.dumps(result), flush=True)


def child(role: str, url: str, n: int, **more: Any) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-m", "bench.interrupted", "--role", role, "--n", str(n)]
    environment = {**os.environ, "PERDURE_DATABASE_URL": url}
    return subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, text=True, **more)


def main() -> None:
    parser = argparse.ArgumentParser("python -m bench.interrupted", description=__doc__)
    parser.add_argument("--store", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--role", choices=["prepare", "recover"], help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.role is not None:
        asyncio.run((prepare if a.role == "prepare" else recover)(a.n))
        return
    with ExitStack() as stack:
        url = stack.enter_context(database(a.store, stack.enter_context(tempfile.TemporaryDirectory())))
        first = stack.enter_context(child("prepare", url, a.n))
        assert first.stdout is not None
        said = first.stdout.readline()
        first.send_signal(signal.SIGKILL)
        assert said == "ready\n", said
        first.wait()
        second = stack.enter_context(child("recover", url, a.n))
        out, _ = second.communicate(timeout=600)
    print(json.dumps({"bench": "interrupted", "store": a.store, "n": a.n, **json.loads(out.splitlines()[-1])}))


if __name__ == "__main__":
    main()
