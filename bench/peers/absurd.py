"""Absurd's workloads: `.venv-peers/absurd/bin/python -m bench.peers.absurd --db URL --workload burst`. One JSON line.

It has only a queue, which is polled: every 10 ms here (its default is 250 ms), by an async worker in this process.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
from absurd_sdk import Absurd, AsyncAbsurd

from bench.meter import Meter, contender_arguments, emit, latencies, quiet, rates

QUEUE = "q"
POLL = 0.01


def register(app: AsyncAbsurd) -> None:
    async def value() -> int:
        return 1

    @app.register_task("work", queue=QUEUE)
    async def work(parameters: dict[str, Any], context: Any) -> int:
        for i in range(parameters["k"]):
            await context.step(f"s{i}", value)
        return int(parameters["k"])


def worker(a: argparse.Namespace) -> None:
    async def serve() -> None:
        app = AsyncAbsurd(a.db, queue_name=QUEUE)
        register(app)
        concurrency = min(100, a.n) if a.k > 1 else 10
        await app.start_worker(concurrency=concurrency, poll_interval=POLL, claim_timeout=120)

    threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()


def until_done(connection: psycopg.Connection[Any], count: int) -> None:
    while True:
        row = connection.execute("select count(*) from absurd.t_q where state = 'completed'").fetchone()
        assert row is not None
        if row[0] >= count:
            return
        time.sleep(0.02)


def main() -> None:
    a = contender_arguments(__doc__, ["latency", "burst", "sequential"]).parse_args()
    control = Path(sys.executable).with_name("absurdctl")
    subprocess.run([control, "init", "-d", a.db], check=True, stdout=subprocess.DEVNULL)
    client = Absurd(a.db, queue_name=QUEUE)
    client.create_queue(QUEUE)
    client.register_task("work", queue=QUEUE)(lambda *_: None)
    worker(a)
    for _ in range(5):
        client.await_task_result(client.spawn("work", {"k": 1})["task_id"], timeout=30)
    connection = psycopg.connect(a.db, autocommit=True)
    quiet(a.quiet)
    meter = Meter(a.server_pid).start()
    if a.workload == "latency":
        times = []
        for _ in range(a.n):
            began = time.perf_counter()
            client.await_task_result(client.spawn("work", {"k": 1})["task_id"], timeout=30)
            times.append(time.perf_counter() - began)
        result = {**latencies(times), **rates(meter.stop(), a.n, 1)}
    else:
        workflows, steps = (1, a.n) if a.workload == "sequential" else (a.n, a.k)
        for _ in range(workflows):
            client.spawn("work", {"k": steps})
        until_done(connection, workflows + 5)
        result = rates(meter.stop(), workflows, steps)
    emit(result)
    os._exit(0)


if __name__ == "__main__":
    main()
