"""Perdure's workloads. One JSON line a run; each begins on an empty database and warms up before it is measured.

    python -m bench.perdure_run --db postgresql://… --workload burst --n 5000

latency         one workflow of one step after another, start to result
burst           n workflows of k steps, all in flight from one loop
sequential      one workflow of n steps
wake            send -> recv, event set -> get, in one process
sync_start      n workflows of one step, started one after another by one thread of the sync face
sync_many       the same, by start_many
sync_threads    the same, by 16 threads
sync_sequential, sync_burst    as without sync_, workflows and steps written without await
greenlets_…     as sync_…, with the bodies in greenlets
recover_one     one workflow with n recorded steps, killed; launch and claim to the first new step
recover_many    n workflows with k recorded steps, killed; launch until all are complete
queue …         see queue_run.py
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import perdure.sync
from bench.meter import Meter, contender_arguments, emit, latencies, quiet, rates, two_lives
from bench.queue_run import QUEUES, executor
from perdure import App, Event, Topic, recv, set_event

THREADS = 16
marks: dict[str, float] = {}
arrived: dict[int, float] = {}
published: dict[int, float] = {}
reached = 0
second_life = False


def async_app(database: str) -> Any:
    """The app and its workflows, of the async face."""
    app = App("bench", database=database)

    @app.step
    async def step(i: int) -> int:
        return i

    @app.workflow
    async def work(k: int) -> int:
        for i in range(k):
            await step(i)
        return k

    app.work = work  # type: ignore[attr-defined]
    app.one_step = step  # type: ignore[attr-defined]
    return app


def sync_app(database: str, bodies: Literal["threads", "greenlets"]) -> Any:
    """The same of the sync face."""
    app = perdure.sync.App("bench", database=database, bodies=bodies)

    @app.step
    def step(i: int) -> int:
        return i

    @app.workflow
    def work(k: int) -> int:
        for i in range(k):
            step(i)
        return k

    app.work = work  # type: ignore[attr-defined]
    return app


# -- the async face


async def warm_up(work: Any) -> None:
    for _ in range(100):
        await work(1)
    await asyncio.gather(*(work(1) for _ in range(300)))


async def latency(app: Any, a: argparse.Namespace, meter: Meter) -> dict[str, Any]:
    times: list[float] = []
    meter.start()
    for _ in range(a.n):
        began = time.perf_counter()
        await app.work(1)
        times.append(time.perf_counter() - began)
    return {**latencies(times), **rates(meter.stop(), a.n, 1)}


async def burst(app: Any, a: argparse.Namespace, meter: Meter) -> dict[str, Any]:
    meter.start()
    await asyncio.gather(*(app.work(a.k) for _ in range(a.n)))
    return rates(meter.stop(), a.n, a.k)


async def sequential(app: Any, a: argparse.Namespace, meter: Meter) -> dict[str, Any]:
    meter.start()
    await app.work(a.n)
    return rates(meter.stop(), 1, a.n)


async def wake(app: Any, a: argparse.Namespace, meter: Meter) -> dict[str, Any]:
    """Each message and event is sent to a workflow that has been waiting for some milliseconds."""
    box, told = Topic[int]("box"), Event[int]("told")
    here: dict[int, asyncio.Event] = {i: asyncio.Event() for i in range(a.n)}

    @app.workflow
    async def taker() -> None:
        for _ in range(a.n):
            i = await recv(box)
            arrived[i] = time.perf_counter()
            here[i].set()

    @app.workflow
    async def teller(n: int) -> None:
        await recv(box)
        published[n] = time.perf_counter()
        await set_event(told, n)

    sends, events = [], []
    handle = await taker.start()
    meter.start()
    for i in range(a.n):
        await asyncio.sleep(0.01)
        began = time.perf_counter()
        await handle.send(i, box)
        await here[i].wait()
        sends.append(arrived[i] - began)
    await handle.result()
    for i in range(a.n):
        handle = await teller.start(i)
        reading = asyncio.ensure_future(handle.get_event(told))
        await asyncio.sleep(0.01)
        await handle.send(1, box)
        await reading
        events.append(time.perf_counter() - published[i])
        await handle.result()
    return {**latencies(sends, "send_recv_"), **latencies(events, "event_get_"), **meter.stop()}


ASYNC: dict[str, Callable[..., Any]] = {"latency": latency, "burst": burst, "sequential": sequential, "wake": wake}


async def run_async(a: argparse.Namespace) -> dict[str, Any]:
    app = async_app(a.db)
    async with app:
        if a.workload != "wake":
            await warm_up(app.work)
        await asyncio.to_thread(quiet, a.quiet)
        result: dict[str, Any] = await ASYNC[a.workload](app, a, Meter(a.server_pid))
        return result


# -- the sync face


def sync_start(app: Any, a: argparse.Namespace, meter: Meter) -> dict[str, Any]:
    meter.start()
    for handle in [app.work.start(a.k) for _ in range(a.n)]:
        handle.result()
    return rates(meter.stop(), a.n, a.k)


def sync_many(app: Any, a: argparse.Namespace, meter: Meter) -> dict[str, Any]:
    meter.start()
    for handle in app.work.start_many([a.k] * a.n):
        handle.result()
    return rates(meter.stop(), a.n, a.k)


def sync_threads(app: Any, a: argparse.Namespace, meter: Meter) -> dict[str, Any]:
    def share(count: int) -> None:
        for _ in range(count):
            app.work(a.k)

    with ThreadPoolExecutor(THREADS) as threads:
        meter.start()
        list(threads.map(share, [a.n // THREADS] * THREADS))
    return rates(meter.stop(), a.n // THREADS * THREADS, a.k)


def sync_sequential(app: Any, a: argparse.Namespace, meter: Meter) -> dict[str, Any]:
    meter.start()
    app.work(a.n)
    return rates(meter.stop(), 1, a.n)


SYNC: dict[str, Callable[..., Any]] = {
    "sync_start": sync_start,
    "sync_many": sync_many,
    "sync_threads": sync_threads,
    "sync_sequential": sync_sequential,
    "sync_burst": sync_many,
    "greenlets_start": sync_start,
    "greenlets_many": sync_many,
    "greenlets_sequential": sync_sequential,
    "greenlets_burst": sync_many,
}


def run_sync(a: argparse.Namespace) -> dict[str, Any]:
    app = sync_app(a.db, "greenlets" if a.workload.startswith("greenlets") else "threads")
    with app:
        for _ in range(100):
            app.work(1)
        for handle in app.work.start_many([1] * 300):
            handle.result()
        quiet(a.quiet)
        result: dict[str, Any] = SYNC[a.workload](app, a, Meter(a.server_pid))
        return result


# -- recovery: two lives


def recovering_app(database: str) -> Any:
    app = App("bench", database=database)

    @app.step
    async def step(i: int) -> int:
        return i

    @app.step
    async def first_new() -> int:
        marks.setdefault("first_new", time.perf_counter())
        return 1

    @app.workflow
    async def work(k: int) -> int:
        global reached
        for i in range(k):
            await step(i)
        reached += 1
        if not second_life:
            await recv("never")
        await first_new()
        return k

    app.work = work  # type: ignore[attr-defined]
    return app


async def first(a: argparse.Namespace) -> None:
    workflows, steps = (1, a.n) if a.workload == "recover_one" else (a.n, a.k)
    app = recovering_app(a.db)
    async with app:
        await app.work.start_many([steps] * workflows)
        while reached < workflows:
            await asyncio.sleep(0.02)
        await app._home.engine().line.journal.drained()
        print("REACHED", flush=True)
        await asyncio.Event().wait()


def note_claims() -> None:
    """Note when the first claim was committed: what this process may do begins there."""
    from perdure.runtime.executor import Executor

    take_on = Executor.take_on

    async def noted(self: Any, claimed: Any) -> None:
        if claimed:
            marks.setdefault("claimed", time.perf_counter())
        await take_on(self, claimed)

    Executor.take_on = noted  # type: ignore[method-assign]


async def second(a: argparse.Namespace) -> None:
    global second_life
    second_life = True
    workflows = 1 if a.workload == "recover_one" else a.n
    app = recovering_app(a.db)
    note_claims()
    meter = Meter(a.server_pid).start()
    began = time.perf_counter()
    async with app:
        ids = [row.id async for row in app.client.list()]
        for id in ids:
            await app.client.handle(id).result()
        ended = time.perf_counter()
        result = meter.stop()
    assert len(ids) == workflows, (len(ids), workflows)
    result |= {
        "launch_to_first_new_s": round(marks["first_new"] - began, 4),
        "claim_to_first_new_s": round(marks["first_new"] - marks["claimed"], 4),
        "launch_to_all_s": round(ended - began, 3),
    }
    print(json.dumps(result), flush=True)


RECOVERY = ("recover_one", "recover_many")


def main() -> None:
    logging.getLogger("perdure").setLevel(logging.ERROR)
    a = contender_arguments(__doc__, [*ASYNC, *SYNC, *RECOVERY, *QUEUES]).parse_args()
    if a.role and a.workload in QUEUES:
        asyncio.run(executor(a))
        return
    if a.role:
        asyncio.run(first(a) if a.role == "first" else second(a))
        return
    if a.workload in QUEUES:
        quiet(a.quiet)
        result = asyncio.run(QUEUES[a.workload](a))
    elif a.workload in RECOVERY:
        result = two_lives("bench.perdure_run", a)
    else:
        result = run_sync(a) if a.workload in SYNC else asyncio.run(run_async(a))
    emit(result)
    os._exit(0)  # what is open needs no orderly end


if __name__ == "__main__":
    main()
