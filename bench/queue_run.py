"""Perdure's queues, measured from a process that runs nothing; executors are processes of their own.

queue           n tasks of one step wait in line; k executors are let at them all at once
queue_among     the same, one executor, among k thousand workflows that are finished (Postgres)
enqueue         n starts by one client, one by one, 200 in flight
enqueue_many    n starts by one client, in bulk
queue_start     n starts, one after the other: from the call until the step begins on another process
queue_idle      k queues, an executor that has nothing to do for n seconds: statements a second (Postgres)
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from bench.meter import Meter, again, latencies, rates, wait_line
from perdure import App
from perdure.store.postgres.connection import Link

IN_FLIGHT = 200
FINISHED = """
insert into perdure.workflow (app, id, run, lineage, name, version, status, claim, epoch, last_seq, created, updated,
    started, closed, fingerprint, nonce, queue)
select 'bench', 'done-' || i, 1, '', 'work', 'v', 5, '\\x00', 1, 1, i, i, i, i, '', '', 'tasks'
from generate_series($1::int, $2::int) i"""
FINISHED_PAYLOAD = """
insert into perdure.payload (app, id, run, input, outcome, output)
select 'bench', 'done-' || i, 1, '{"args":[1]}', 1, '1' from generate_series($1::int, $2::int) i"""
FINISHED_HISTORY = """
insert into perdure.history (app, id, run, seq, path, kind, name, at, fingerprint, outcome, data, attempt, shown,
    version, nonce)
select 'bench', 'done-' || i, 1, 1, '1', 1, 'step', i, '', 1, '1', 1, '', 'v', ''
from generate_series($1::int, $2::int) i"""


def queued_app(database: str, queues: int = 1) -> Any:
    """The app: one workflow of one step, which says when it began."""
    app = App("bench", database=database)
    tasks = app.queue("tasks")
    for n in range(1, queues):
        app.queue(f"tasks-{n}", concurrency=5)

    @app.step
    async def step(i: int) -> float:
        return time.perf_counter()

    @app.workflow(queue=tasks)
    async def work(i: int) -> float:
        return await step(i)

    app.work = work  # type: ignore[attr-defined]
    return app


async def executor(a: argparse.Namespace) -> None:
    """Serve until killed; says how many statements it sent in the last second."""
    sent = 0
    prepare = Link.prepare

    async def counted(link: Link, sql: str) -> Any:
        nonlocal sent
        sent += 1
        return await prepare(link, sql)

    Link.prepare = counted  # type: ignore[method-assign]
    async with queued_app(a.db, a.k if a.workload == "queue_idle" else 1):
        print("SERVES", flush=True)
        await asyncio.sleep(10 if a.workload == "queue_idle" else 0)  # until the poll has slowed down
        sent, cpu = 0, time.process_time()
        await asyncio.sleep(a.n if a.workload == "queue_idle" else 3600)
        idle = {"statements_per_s": round(sent / a.n, 3), "cpu_share": round((time.process_time() - cpu) / a.n, 4)}
        print(json.dumps(idle), flush=True)


async def drained(app: Any, total: int) -> None:
    """Until nothing stands in line or is in progress."""
    while any(q.in_line or q.in_progress for q in await app.client.queues()):
        await asyncio.sleep(0.05 if total < 10_000 else 0.2)


async def queue(a: argparse.Namespace, executors: int) -> dict[str, Any]:
    app = queued_app(a.db)
    async with app:
        for handle in await app.work.start_many(range(300)):
            await handle.result()
    async with app.connect():
        await app.client.pause_queue("tasks")
        await app.work.start_many(range(a.n))
        if a.workload == "queue_among":
            await fill(a.db, a.k * 1000)
        processes = [again("bench.perdure_run", a, "first") for _ in range(executors)]
        for process in processes:
            await asyncio.to_thread(wait_line, process, "SERVES")
        meter = Meter(a.server_pid).start()
        await app.client.resume_queue("tasks")
        await drained(app, a.n)
        result = rates(meter.stop(), a.n, 1)
        for process in processes:
            process.kill()
    return result


async def fill(database: str, count: int) -> None:
    """So many finished workflows, of one step each."""
    connection = await import_module("asyncpg").connect(database)
    try:
        for first in range(1, count + 1, 100_000):
            last = min(count, first + 99_999)
            for sql in (FINISHED, FINISHED_PAYLOAD, FINISHED_HISTORY):
                await connection.execute(sql, first, last, timeout=600)
        await connection.execute("analyze", timeout=600)
        await connection.execute("checkpoint", timeout=600)
    finally:
        await connection.close()


async def enqueue(a: argparse.Namespace) -> dict[str, Any]:
    app = queued_app(a.db)
    async with app.connect():
        await app.work.start_many(range(100))
        room = asyncio.Semaphore(IN_FLIGHT)

        async def one(i: int) -> None:
            async with room:
                await app.work.start(i)

        meter = Meter(a.server_pid).start()
        await asyncio.gather(*(one(i) for i in range(a.n)))
        return rates(meter.stop(), a.n, 1)


async def enqueue_many(a: argparse.Namespace) -> dict[str, Any]:
    app = queued_app(a.db)
    async with app.connect():
        await app.work.start_many(range(100))
        meter = Meter(a.server_pid).start()
        await app.work.start_many(range(a.n))
        return rates(meter.stop(), a.n, 1)


async def queue_start(a: argparse.Namespace) -> dict[str, Any]:
    process = again("bench.perdure_run", a, "first")
    await asyncio.to_thread(wait_line, process, "SERVES")
    app, times = queued_app(a.db), []
    async with app.connect():
        for i in range(a.n):
            await asyncio.sleep(0.03)
            began = time.perf_counter()
            handle = await app.work.start(i)
            times.append(await handle.result() - began)
    process.kill()
    return latencies(times)


async def queue_idle(a: argparse.Namespace) -> dict[str, Any]:
    process = again("bench.perdure_run", a, "first")
    result: dict[str, Any] = json.loads(await asyncio.to_thread(wait_line, process, "{"))
    process.kill()
    return result


QUEUES: dict[str, Callable[[argparse.Namespace], Any]] = {
    "queue": lambda a: queue(a, a.k),
    "queue_among": lambda a: queue(a, 1),
    "enqueue": enqueue,
    "enqueue_many": enqueue_many,
    "queue_start": queue_start,
    "queue_idle": queue_idle,
}
