"""What a waiting workflow costs in memory: ``python -m bench.waiting --n 100000 --db URL``, on an empty database.

One executor; a client in another process starts n workflows, of which every other one sleeps and the rest wait for a
message. When all are evicted the client sends the messages, and the sleepers wake by the clock. The client's process
is not measured. ``--warm`` workflows are asleep before, and were in memory at once, as many as may be at any time: what
the allocator keeps of those, whatever n is, is not the account of whoever waits.

Prints one JSON line: starts/s, wakes/s, resident memory before, with all asleep, and at the end, and bytes for each;
and blocks of memory that are in use for each, which no allocator blurs.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.meter import emit, wait_line
from perdure import App, Topic, now, recv, sleep
from perdure.model.states import Status
from perdure.runtime import executor

CHUNK = 1000
SENDERS = 200
word = Topic[int]("word")


def waiting_app(database: str) -> Any:
    """The app: one workflow that waits once, by the clock or for a message."""
    app = App("waiting", database=database)

    @app.workflow
    async def wait(job: tuple[str, float]) -> int:
        _, until = job
        if until:
            await sleep(max(0.0, until - now().timestamp()))
            return 0
        return await recv(word)

    app.wait = wait  # type: ignore[attr-defined]
    return app


# -- the client's process


async def client(a: argparse.Namespace) -> None:
    """Start and send when told to; say when all wait, and when all have ended."""
    app = waiting_app(a.db)
    async with app.connect():
        asleep: list[str] = []
        for name, count in (("warm", a.warm), ("w", a.n)):
            until = float(await asyncio.to_thread(sys.stdin.readline))
            ids = [f"{name}{i}" for i in range(count)]
            for first in range(0, count, CHUNK):
                jobs = [(id, until if n % 2 else 0.0) for n, id in enumerate(ids[first : first + CHUNK])]
                await app.wait.start_many(jobs, id=lambda job: job[0])
            print("STARTED", flush=True)
            asleep += ids
            await counted(app, (Status.WAITING, Status.COMPLETED), len(asleep))
            print("WAIT", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        for first in range(0, len(asleep), SENDERS * 2):
            some = asleep[first : first + SENDERS * 2 : 2]
            await asyncio.gather(*(app.client.handle(id).send(1, word) for id in some))
        await counted(app, (Status.COMPLETED,), len(asleep))
        print("ENDED", flush=True)


async def counted(app: Any, statuses: tuple[Status, ...], count: int) -> None:
    """Until so many workflows have one of these."""
    upkeep = app._home.engine().line.store.upkeep
    while sum(kind.count for kind in (await upkeep.sizes()).kinds if kind.status in statuses) < count:
        await asyncio.sleep(0.25 if count < 50_000 else 1.0)


class Other:
    """The client's process, and what it is told."""

    def __init__(self, a: argparse.Namespace) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.waiting", f"--db={a.db}", f"--n={a.n}", f"--warm={a.warm}", "--role=client"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip

    async def says(self, word: str) -> float:
        """When it has said so."""
        await asyncio.to_thread(wait_line, self._process, word)
        return time.perf_counter()

    def tell(self, what: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()


# -- the executor's


def resident() -> int:
    """Bytes of this process that are in memory, without what only waits for the collector, or in the allocator.

    glibc gives memory back when the end of its heap happens to be free: up to 25 MB of what is free are there or not,
    by chance, so it is told to give back what it can.
    """
    gc.collect()
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def asleep(other: Other, until: float) -> tuple[float, float]:
    """So many more are started, and evicted; after how many seconds each."""
    began = time.perf_counter()
    other.tell(until)
    return await other.says("STARTED") - began, await other.says("WAIT") - began


async def fill(app: Any, count: int) -> None:
    """Nobody is evicted for waiting long enough, until so many are in memory."""
    plain, executor.evict_if_idle = executor.evict_if_idle, lambda *_: None
    while len(app._home.engine().executor.executions) < count:
        await asyncio.sleep(0.05)
    executor.evict_if_idle = plain


async def executes(a: argparse.Namespace) -> None:
    app = waiting_app(a.db)
    async with app:
        other, filled = Other(a), asyncio.create_task(fill(app, min(a.warm, executor.LIVE_MAX)))
        until = time.time() + (a.sleep or 30 + (a.warm + a.n) / 400)
        await asleep(other, until)
        await filled
        before, blocks = resident(), sys.getallocatedblocks()
        started, parked = await asleep(other, until)
        waiting, blocks = resident(), sys.getallocatedblocks() - blocks
        late = max(0.0, time.time() - until)
        await asyncio.sleep(max(0.0, until - time.time()))
        began = time.perf_counter()
        other.tell("wake")
        woken = await other.says("ENDED") - began
        after = resident()
        emit({
            "n": a.n, "starts_per_s": round(a.n / started), "start_and_evict_s": round(parked, 1),
            "rss_before_mb": round(before / 1e6, 1), "rss_waiting_mb": round(waiting / 1e6, 1),
            "rss_after_mb": round(after / 1e6, 1), "bytes_each_waiting": round((waiting - before) / a.n),
            "blocks_each_waiting": round(blocks / a.n, 3), "wakes_per_s": round((a.warm + a.n) / woken),
            "load": [round(n, 1) for n in os.getloadavg()], **({"slept_too_short_s": round(late, 1)} if late else {}),
        })  # fmt: skip


def main() -> None:
    logging.getLogger("perdure").setLevel(logging.ERROR)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--db", required=True, help="URL of an empty database")
    parser.add_argument("--n", type=int, default=10_000, help="workflows")
    parser.add_argument("--warm", type=int, default=20_000, help="workflows before them")
    parser.add_argument(
        "--sleep", type=float, default=0.0, help="seconds that the sleepers sleep (default 30 + all/400)"
    )
    parser.add_argument("--role", help=argparse.SUPPRESS)
    a = parser.parse_args()
    asyncio.run(client(a) if a.role else executes(a))


if __name__ == "__main__":
    main()
