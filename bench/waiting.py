"""What a waiting workflow costs in memory: ``python -m bench.waiting --n 100000 --db URL``, on an empty database.

One executor; a client in another process starts n workflows, of which every other one sleeps and the rest wait for a
message. When all are evicted the client sends the messages, and the sleepers wake by the clock. The client's process
is not measured. ``--warm`` workflows went the same way before, and were all in memory at once, as many as may be at any
time: what the allocator keeps of those, whatever n is, is not the account of whoever waits.

Prints one JSON line: starts/s, wakes/s, resident memory before, with all asleep, and at the end, and bytes for each;
also without the pages that SQLite keeps, which are bounded; and blocks of memory in use, which no allocator blurs.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import apsw

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
        ended = 0
        for name, count in (("warm", a.warm), ("w", a.n)):
            until = float(await asyncio.to_thread(sys.stdin.readline))
            ids = [f"{name}{i}" for i in range(count)]
            for first in range(0, count, CHUNK):
                jobs = [(id, until if n % 2 else 0.0) for n, id in enumerate(ids[first : first + CHUNK])]
                await app.wait.start_many(jobs, id=lambda job: job[0])
            print("STARTED", flush=True)
            await counted(app, Status.WAITING, count)
            print("WAIT", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
            for first in range(0, count, SENDERS * 2):
                some = ids[first : first + SENDERS * 2 : 2]
                await asyncio.gather(*(app.client.handle(id).send(1, word) for id in some))
            ended += count
            await counted(app, Status.COMPLETED, ended)
            print("ENDED", flush=True)


async def counted(app: Any, status: Status, count: int) -> None:
    """Until so many workflows have that status."""
    upkeep = app._home.engine().line.store.upkeep
    while sum(kind.count for kind in (await upkeep.sizes()).kinds if kind.status is status) < count:
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
    """Bytes of this process that are in memory, without what only waits for the collector."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def page_cache() -> int:
    """Bytes that SQLite has for itself: pages of the file, nearly all of it, at most 32 MB for a connection."""
    return int(apsw.memory_used())


async def through(app: Any, other: Other, count: int, asleep: float) -> dict[str, Any]:
    """All of them there and back."""
    before, cached, blocks = resident(), page_cache(), sys.getallocatedblocks()
    until = time.time() + asleep
    began = time.perf_counter()
    other.tell(until)
    started = await other.says("STARTED") - began
    parked = await other.says("WAIT") - began
    waiting, cached, blocks = resident(), page_cache() - cached, sys.getallocatedblocks() - blocks
    held = len(app._home.engine().executor.executions)
    late = max(0.0, time.time() - until)
    await asyncio.sleep(until - time.time())
    woken = time.perf_counter()
    other.tell("wake")
    woken = await other.says("ENDED") - woken
    after = resident()
    return {
        "n": count, "starts_per_s": round(count / started), "start_and_evict_s": round(parked, 1), "held": held,
        "rss_before_mb": round(before / 1e6, 1), "rss_waiting_mb": round(waiting / 1e6, 1),
        "rss_after_mb": round(after / 1e6, 1), "bytes_each_waiting": round((waiting - before) / count),
        "without_page_cache": round((waiting - before - cached) / count),
        "bytes_each_after": round((after - before) / count), "blocks_each_waiting": round(blocks / count, 3),
        "wakes_per_s": round(count / woken),
        **({"slept_too_short_s": round(late, 1)} if late else {}),
    }  # fmt: skip


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
        await through(app, other, a.warm, a.sleep or 20 + a.warm / 400)
        await filled
        await asyncio.sleep(1)
        emit(
            await through(app, other, a.n, a.sleep or 20 + a.n / 400) | {"load": [round(n, 1) for n in os.getloadavg()]}
        )


def main() -> None:
    logging.getLogger("perdure").setLevel(logging.ERROR)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--db", required=True, help="URL of an empty database")
    parser.add_argument("--n", type=int, default=10_000, help="workflows")
    parser.add_argument("--warm", type=int, default=20_000, help="workflows before them")
    parser.add_argument("--sleep", type=float, default=0.0, help="seconds that the sleepers sleep (default 20 + n/400)")
    parser.add_argument("--role", help=argparse.SUPPRESS)
    a = parser.parse_args()
    asyncio.run(client(a) if a.role else executes(a))


if __name__ == "__main__":
    main()
