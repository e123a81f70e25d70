"""What an executor costs that has nothing to do, and how soon it wakes: ``python -m bench.idle [--db URL]``.

20 queues, 20 schedules that are not due, 10,000 workflows that wait for a message and have been evicted. Then, for
``--seconds``, statements a second and CPU of the executor (and of its database's server, with --server-pid). Then
``--wakes`` messages from another process, one at a time at any moment: from the call that sends until the workflow has
the message, with notifications and (in a second executor) by the poll alone, held at its slowest. One JSON line.

Without --db: an empty database of a Postgres that is found and started.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from typing import Any

from bench.meter import Meter, emit, latencies, wait_line
from perdure import App, Topic, recv
from perdure.runtime import executor as executor_module
from perdure.store.postgres import PostgresStore
from perdure.store.postgres.connection import Link
from perdure.store.sqlite.connection import Lane
from perdure.store.sqlite.store import SQLiteStore
from tests.postgres import Cluster

NOUNS = 20  # queues, and as many schedules
word = Topic[float]("word")
sent = 0


def idle_app(database: str) -> Any:
    """The app; who is woken says how long it took."""
    app = App("idle", database=database)
    for n in range(NOUNS):
        app.queue(f"queue-{n}", concurrency=1 + n)

        @app.schedule(every=timedelta(days=30 + n), name=f"schedule-{n}")
        @app.workflow(name=f"at-{n}")
        async def at() -> None: ...

    @app.workflow
    async def wait(id: str) -> None:
        print(f"WOKE {time.monotonic() - await recv(word):.6f}", flush=True)

    app.wait = wait  # type: ignore[attr-defined]
    return app


# -- the executor's process


def count_statements() -> None:
    """Of Postgres each statement, of SQLite each job of the threads that speak to it."""

    def counted(plain: Any) -> Any:
        def call(*args: Any, **more: Any) -> Any:
            global sent
            sent += 1
            return plain(*args, **more)

        return call

    Link.prepare = counted(Link.prepare)  # type: ignore[method-assign]
    Lane.submit = counted(Lane.submit)  # type: ignore[method-assign]


async def executor(a: argparse.Namespace) -> None:
    """Start what waits, measure, and serve until killed. Without hints, the poll is as slow as it ever gets."""
    global sent
    if a.role == "deaf":
        executor_module.POLL_SECONDS_MIN = executor_module.POLL_SECONDS_MAX
        for store in (PostgresStore, SQLiteStore):
            store.on_hint = lambda _self, _callback: None  # type: ignore[method-assign]
    count_statements()
    app = idle_app(a.db)
    async with app:
        if a.role == "works":
            await app.wait.start_many([f"w{n}" for n in range(a.waiting)], id=str)
        host = app._home.engine().executor
        while host.executions:
            await asyncio.sleep(0.2)
        await asyncio.sleep(10)  # until the poll has slowed down
        print("SERVES", flush=True)
        if a.role == "works":
            meter, sent = Meter(a.server_pid).start(), 0
            await asyncio.sleep(a.seconds)
            found = meter.stop()
            server = {"server_cpu_percent": percent(found["server_cpu_s"], found)} if a.server_pid else {}
            emit({
                "statements_per_s": round(sent / found["wall_s"], 3),
                "cpu_percent": percent(found["client_cpu_s"], found), **server,
                "foreign_cpu_percent": percent(found.get("foreign_cpu_s", 0.0), found),
            })  # fmt: skip
        await asyncio.Event().wait()


def percent(seconds: float, found: dict[str, Any]) -> float:
    """Of one core."""
    return round(100 * seconds / found["wall_s"], 2)


# -- who measures


def begun(a: argparse.Namespace, role: str) -> subprocess.Popen[str]:
    options = [f"--db={a.db}", f"--waiting={a.waiting}", f"--seconds={a.seconds}", f"--server-pid={a.server_pid}"]
    return subprocess.Popen(
        [sys.executable, "-m", "bench.idle", *options, f"--role={role}"], stdout=subprocess.PIPE, text=True, bufsize=1
    )


async def woken(a: argparse.Namespace, process: subprocess.Popen[str], ids: list[str]) -> list[float]:
    """How long each of them took to wake."""
    rng, took = random.Random(a.waiting), []
    async with idle_app(a.db).connect() as client:
        for id in ids:
            await asyncio.sleep(rng.uniform(0.1, 1.2))
            await client.handle(id).send(time.monotonic(), word)
            took.append(float((await asyncio.to_thread(wait_line, process, "WOKE")).split()[1]))
    return took


async def measure(a: argparse.Namespace) -> dict[str, Any]:
    result: dict[str, Any] = {"db": a.db.partition(":")[0], "waiting": a.waiting, "load": os.getloadavg()[0]}
    for role in ("works", "deaf"):
        process = begun(a, role)
        try:
            await asyncio.to_thread(wait_line, process, "SERVES")
            if role == "works":
                result |= json.loads(await asyncio.to_thread(wait_line, process, "{"))
            ids = [f"w{n}" for n in range(a.wakes)]
            took = await woken(a, process, ids if role == "works" else [f"w{n + a.wakes}" for n in range(a.wakes)])
            result |= latencies(took, "notified_" if role == "works" else "polled_")
        finally:
            process.kill()
            process.wait()
    return result | {"load_after": os.getloadavg()[0]}


def main() -> None:
    logging.getLogger("perdure").setLevel(logging.ERROR)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--db", default="", help="URL of an empty database; `sqlite` for a new file")
    parser.add_argument("--waiting", type=int, default=10_000, help="workflows that wait")
    parser.add_argument("--seconds", type=float, default=60.0, help="to measure for")
    parser.add_argument("--wakes", type=int, default=100, help="messages, with notifications and without")
    parser.add_argument("--server-pid", type=int, default=0, help="the database server's root process, for its CPU")
    parser.add_argument("--role", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.role:
        asyncio.run(executor(a))
    elif a.db == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            a.db = f"sqlite:///{folder}/idle.db"
            emit(asyncio.run(measure(a)))
    elif a.db:
        emit(asyncio.run(measure(a)))
    else:
        with Cluster() as cluster:
            assert cluster.process is not None
            a.db, a.server_pid = cluster.url(cluster.create_database()), cluster.process.pid
            emit(asyncio.run(measure(a)))


if __name__ == "__main__":
    main()
