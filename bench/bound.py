"""The bound: the least that durability needs, in Python, with group commit. Not a library.

No recovery, no retries, no arguments checked, no history to look at. Each workflow is one asyncio task that durably
inserts its row, durably records each step's output before the next step runs, and durably sets its result; one flusher
merges everything that waits into one statement. What a durable library does beyond this is what it costs.

    python -m bench.bound --db postgresql://…|sqlite:///path --workload latency|burst|sequential --n 2000 --k 1

Like Perdure's, its last step's record and its result may be sent together (2 commits, not 3, in a row).
"""

from __future__ import annotations

import argparse
import asyncio
import contextvars
import json
import os
import queue
import threading
import time
import uuid
from typing import Any

from bench.meter import Meter, contender_arguments, emit, latencies, quiet, rates

BATCH = 1000
POSTGRES = """
create table wf (id uuid primary key, name text not null, status smallint not null default 0, input text, output text,
  created timestamptz not null default now(), updated timestamptz not null default now(), executor text);
create index wf_pending on wf (executor) where status = 0;
create table step (wf uuid not null, seq int not null, name text not null, output text,
  at timestamptz not null default now(), primary key (wf, seq));
"""
FLUSH = """
with i as (insert into wf (id, name, input, executor)
             select * from unnest($1::uuid[], $2::text[], $3::text[], $4::text[])),
     s as (insert into step (wf, seq, name, output)
             select * from unnest($5::uuid[], $6::int[], $7::text[], $8::text[])),
     u as (update wf set status = 1, output = d.output, updated = now() from unnest($9::uuid[], $10::text[])
             as d (id, output) where wf.id = d.id)
select 1"""
ONE_START = "insert into wf (id, name, input, executor) values ($1, $2, $3, 'e')"
ONE_STEP = "insert into step (wf, seq, name, output) values ($1, $2, $3, $4)"
SQLITE = """
create table wf (id text primary key, name text not null, status int not null default 0, input text, output text,
  created real, updated real, executor text) without rowid;
create table step (wf text not null, seq int not null, name text not null, output text, at real, primary key (wf, seq))
  without rowid;
"""
Op = tuple[Any, ...]  # ("i", id, name, input), ("s", id, seq, name, output), ("u", id, output)
current: contextvars.ContextVar[Workflow] = contextvars.ContextVar("current")


class Workflow:
    __slots__ = ("id", "seq")

    def __init__(self) -> None:
        self.id = uuid.uuid4()
        self.seq = 0


class Store:
    """What waits to be written; each with the future of who waits for it."""

    def __init__(self) -> None:
        self.pending: list[tuple[Op, asyncio.Future[None]]] = []
        self.wake = asyncio.Event()
        self.loop = asyncio.get_running_loop()

    def put(self, op: Op) -> asyncio.Future[None]:
        future = self.loop.create_future()
        self.pending.append((op, future))
        self.wake.set()
        return future

    async def take(self) -> list[tuple[Op, asyncio.Future[None]]]:
        while not self.pending:
            self.wake.clear()
            await self.wake.wait()
        batch, self.pending = self.pending[:BATCH], self.pending[BATCH:]
        return batch


async def postgres_flusher(store: Store, url: str) -> None:
    import asyncpg

    conn = await asyncpg.connect(url)
    await conn.execute(POSTGRES)
    many = await conn.prepare(FLUSH)
    alone = {"i": await conn.prepare(ONE_START), "s": await conn.prepare(ONE_STEP)}
    while True:
        batch = await store.take()
        if len(batch) == 1 and batch[0][0][0] in alone:
            await alone[batch[0][0][0]].fetch(*batch[0][0][1:])
        else:
            i = [op for op, _ in batch if op[0] == "i"]
            s = [op for op, _ in batch if op[0] == "s"]
            u = [op for op, _ in batch if op[0] == "u"]
            await many.fetch(
                *([op[n] for op in i] for n in (1, 2, 3)), ["e"] * len(i),
                *([op[n] for op in s] for n in (1, 2, 3, 4)), *([op[n] for op in u] for n in (1, 2)),
            )  # fmt: skip
        for _, future in batch:
            future.set_result(None)


def sqlite_writer(path: str, loop: asyncio.AbstractEventLoop, work: queue.SimpleQueue[Any]) -> None:
    """Commits in a thread of its own, so that the loop goes on meanwhile. Durable at power loss."""
    import apsw

    db = apsw.Connection(path)
    db.execute("pragma journal_mode = wal")
    db.execute("pragma synchronous = full")
    db.execute(SQLITE)
    while True:
        batch, future = work.get()
        now = time.time()
        i = [(str(op[1]), *op[2:], now) for op, _ in batch if op[0] == "i"]
        s = [(str(op[1]), *op[2:], now) for op, _ in batch if op[0] == "s"]
        u = [(op[2], now, str(op[1])) for op, _ in batch if op[0] == "u"]
        db.execute("begin immediate")
        db.executemany("insert into wf (id, name, input, created) values (?, ?, ?, ?)", i)
        db.executemany("insert into step (wf, seq, name, output, at) values (?, ?, ?, ?, ?)", s)
        db.executemany("update wf set output = ?, status = 1, updated = ? where id = ?", u)
        db.execute("commit")
        loop.call_soon_threadsafe(future.set_result, None)


async def sqlite_flusher(store: Store, path: str) -> None:
    work: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=sqlite_writer, args=(path, store.loop, work), daemon=True).start()
    while True:
        batch = await store.take()
        done = store.loop.create_future()
        work.put((batch, done))
        await done
        for _, future in batch:
            future.set_result(None)


async def one(i: int) -> int:
    return i


async def step(store: Store, last: bool, i: int) -> int:
    workflow = current.get()
    workflow.seq += 1
    result = await one(i)
    recorded = store.put(("s", workflow.id, workflow.seq, "one", json.dumps(result)))
    if not last:  # the last record goes with the result
        await recorded
    return result


async def run_one(store: Store, k: int) -> int:
    workflow = Workflow()
    await store.put(("i", workflow.id, "work", json.dumps([k])))
    current.set(workflow)
    for i in range(k):
        await step(store, i == k - 1, i)
    await store.put(("u", workflow.id, json.dumps(k)))
    return k


async def run(a: argparse.Namespace) -> dict[str, Any]:
    store = Store()
    if a.db.startswith("sqlite"):
        flusher = asyncio.create_task(sqlite_flusher(store, a.db.split("///", 1)[1]))
    else:
        flusher = asyncio.create_task(postgres_flusher(store, a.db))
    for _ in range(100):
        await run_one(store, 1)
    await asyncio.gather(*(asyncio.create_task(run_one(store, 1)) for _ in range(300)))
    await asyncio.to_thread(quiet, a.quiet)
    meter, times, workflows, steps = Meter(a.server_pid).start(), [], a.n, a.k
    if a.workload == "latency":
        for _ in range(a.n):
            began = time.perf_counter()
            await run_one(store, 1)
            times.append(time.perf_counter() - began)
    elif a.workload == "sequential":
        workflows, steps = 1, a.n
        await run_one(store, steps)
    else:
        await asyncio.gather(*(asyncio.create_task(run_one(store, steps)) for _ in range(workflows)))
    result = meter.stop()
    flusher.cancel()
    return {**(latencies(times) if times else {}), **rates(result, workflows, steps)}


def main() -> None:
    a = contender_arguments(__doc__, ["latency", "burst", "sequential"]).parse_args()
    emit(asyncio.run(run(a)))
    os._exit(0)


if __name__ == "__main__":
    main()
