"""Thousands of interrupted workflows and one fresh executor: ``python -m bench --only interrupted``.

Each has 5 recorded steps and 3 to go when the process that ran all of them is killed. Measured in the fresh one, from
its first claim to the last end; meanwhile somebody else asks for new work, ten times a second.
"""

from __future__ import annotations

import asyncio
import os
import resource
import statistics
import time
from typing import Any

from bench.meter import Meter, contender_arguments, emit, two_lives
from perdure import App
from perdure.runtime.executor import Executor

DONE, LEFT = 5, 3
START_AT_ONCE = 500
PINGS_EVERY = 0.1  # seconds
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


async def first(n: int) -> None:
    """Bring all to where they are interrupted, then say so and wait to be killed."""
    global hang
    hang = True
    async with app:
        for begin in range(0, n, START_AT_ONCE):
            many = [job.options(id=f"w{i}").start(f"w{i}") for i in range(begin, min(n, begin + START_AT_ONCE))]
            await asyncio.gather(*many)
        while len(blocked) < n:
            await asyncio.sleep(0.05)
        await app._home.engine().line.journal.drained()
        print("REACHED", flush=True)
        await asyncio.Event().wait()


class Watch:
    """Notes the first claim and every end, without a wait of its own."""

    def __init__(self, n: int, meter: Meter) -> None:
        self.n = n
        self.meter = meter
        self.ends: list[float] = []
        self.over = asyncio.Event()
        self.rss = 0
        closed, make = Executor.closed, app._home.make_store

        def end(executor: Executor, execution: Any, close: Any) -> None:
            closed(executor, execution, close)
            if execution.row.name == "job":
                self.ends.append(time.perf_counter())
                if len(self.ends) == n:
                    self.result = meter.stop()
                    self.over.set()

        def store(*given: Any) -> Any:
            made: Any = make(*given)
            adopt = made.adopt

            async def adopted(*args: Any, **kwargs: Any) -> Any:
                if not meter.began:
                    self.rss = rss_mb()
                    meter.start()
                return await adopt(*args, **kwargs)

            made.adopt = adopted
            return made

        Executor.closed = end  # type: ignore[method-assign]
        app._home.make_store = store


def rss_mb() -> int:
    """The most memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


async def second(n: int, server_pid: int) -> None:
    watch = Watch(n, Meter(server_pid))
    pings: list[float] = []

    async def others() -> None:
        while not watch.over.is_set():
            began = time.perf_counter()
            await ping()
            pings.append((time.perf_counter() - began) * 1e3)
            await asyncio.sleep(PINGS_EVERY)

    launched = time.perf_counter()
    async with app:
        opened = time.perf_counter()
        new_work = asyncio.create_task(others())
        await watch.over.wait()
        await new_work
    began = watch.meter.began
    emit({
        **watch.result,
        "claim_to_all_s": watch.result["wall_s"],
        "launch_to_all_s": round(watch.ends[-1] - launched, 3),
        "claim_to_first_end_s": round(watch.ends[0] - began, 3),
        "claim_to_open_s": round(opened - began, 3),
        "wf_per_s": round(n / (watch.ends[-1] - began)),
        "cpu_s_per_1000": round((watch.result["client_cpu_s"] + watch.result.get("server_cpu_s", 0)) / n * 1000, 4),
        "new_work": len(pings),
        "new_work_p50_ms": round(statistics.median(pings), 1) if pings else None,
        "new_work_max_ms": round(max(pings), 1) if pings else None,
        "rss_mb_before": watch.rss,
        "rss_mb": rss_mb(),
    })  # fmt: skip


def main() -> None:
    a = contender_arguments(__doc__, ["interrupted"]).parse_args()
    os.environ["PERDURE_DATABASE_URL"] = a.db
    if a.role:
        asyncio.run(first(a.n) if a.role == "first" else second(a.n, a.server_pid))
        return
    emit(two_lives("bench.interrupted", a))


if __name__ == "__main__":
    main()
