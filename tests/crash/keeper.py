"""Programs to be killed at a chosen statement: a purge, and a copy to another database.

    python -m tests.crash.keeper purge URL STEP
    python -m tests.crash.keeper copy SOURCE TARGET STEP

Forks a child for each try: the n-th is killed with SIGKILL right before its n-th statement reaches the database (or,
with STEP, each so manyth is tried), until one gets to the end alive. After each kill another child checks what is left,
and serves new work. Prints ``killed N`` at the end, ``wrong …`` and exit code 1 if anything is.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from perdure.errors import ConfigError
from perdure.model.ids import RunKey
from perdure.model.queues import QueueChange
from perdure.model.retention import Rules, read_retention
from perdure.operations.copy import copy, refuse_moved, undo
from perdure.operations.retention import purge
from perdure.store.base import Store
from perdure.store.lines import Deduplicated, LineRequest
from perdure.store.open import open_store
from perdure.store.postgres.connection import Link, Transaction
from perdure.store.sqlite import driver
from perdure.store.tables import TABLES
from perdure.store.upkeep import Weight
from tests.store.build import close, one, outside, queued, running, start, tok, unit
from tests.store.test_upkeep import full_life

APP = "kept"
LET_IN = LineRequest(queue="line", owner=b"o" * 16, token=b"t" * 16, version="v1", limit=10)
LATER = 4_000_000_000_000_000


left: list[int] = []  # so many statements until death, once that was ordered


def count(*_: Any) -> bool:
    if left:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return True


def count_statements() -> None:
    """Hear of every statement of either dialect, right before it is sent."""

    def counted(owner: Any, name: str) -> None:
        before = getattr(owner, name)

        async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            count()
            return await before(self, *args, **kwargs)

        setattr(owner, name, call)

    for owner, names in ((Transaction, ("execute", "fetch", "fetch_many")), (Link, ("fetch", "fetchrow"))):
        for name in names:
            counted(owner, name)
    connect = driver.connect

    def traced(path: Any) -> Any:
        conn: Any = connect(path)
        conn.exec_trace = count
        return conn

    driver.connect = traced


def child(*works: Callable[[], Awaitable[None]], point: int | None = None) -> int:
    """Run it in a process of its own, to be killed at a statement of the work; its exit code, negative for a signal."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if point is not None:
                count_statements()
                at.append(point)
            for work in works:
                asyncio.run(work())
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


at: list[int] = []


def arm() -> None:
    """From here on statements count."""
    left.extend(at)


async def opened(url: str) -> Store:
    store = open_store(url, APP)
    await store.open()
    await store.migrate()
    return store


# -- purge


async def fill(store: Store, ids: list[str]) -> None:
    """Closed workflows with something in every table, one that is open, and one with an earlier run."""
    for id in ids:
        if id not in await store.rows([id]):
            await full_life(store, id)
    if not await store.rows(["open"]):
        await running(store, "open")


async def serves(store: Store, n: int) -> None:
    """New work is taken and ended; and it does not add to what is to be purged at the next try."""
    id = f"new-{n}"
    claim = await running(store, id)
    assert (await one(store, unit(id, claim, change=close()))).applied
    assert await store.upkeep.purge([RunKey(id, 1)]) == [id]


def purge_killed(url: str, step: int) -> int:
    ids = [f"w{n}" for n in range(3)]
    rules = Rules({"flow": read_retention({"completed": 0})})
    size = [0]

    async def prepare() -> None:
        store = await opened(url)
        await fill(store, ids)
        assert len({weight.rows for weight in (await store.upkeep.weigh(ids)).values()}) == 1
        await store.close()

    async def work() -> None:
        store = await opened(url)
        arm()
        await purge(store.upkeep, rules, now=LATER)
        await store.close()

    async def check() -> None:
        store = await opened(url)
        rows = await store.rows(ids)
        full = {weight.rows for id, weight in (await store.upkeep.weigh(ids)).items() if id in rows}
        gone = [weight for id, weight in (await store.upkeep.weigh(ids)).items() if id not in rows]
        assert len(full) <= 1, f"half a workflow: {full}"
        assert set(gone) <= {Weight()}, f"something is left: {gone}"
        assert (await store.rows(["open"]))["open"].status.open
        await serves(store, size[0])
        await store.close()

    return until_alive(prepare, work, check, step, size)


def until_alive(
    prepare: Callable[[], Awaitable[None]],
    work: Callable[[], Awaitable[None]],
    check: Callable[[], Awaitable[None]],
    step: int,
    size: list[int],
) -> int:
    """Prepare, kill at a statement, check; at the next one; how often it was killed."""
    kills, point = 0, 1
    must(child(prepare), "prepare")
    while True:
        size[0] = point
        code = child(work, point=point)
        if code not in (0, -signal.SIGKILL):
            must(code, f"killed at {point}")
        must(child(check, prepare), f"check after a kill at {point}")
        if code == 0:
            return kills
        kills, point = kills + 1, point + step


def must(code: int, what: str) -> None:
    if code:
        print(f"wrong: {what}: exit {code}", flush=True)
        os._exit(1)


# -- copy


def copy_killed(source_url: str, target_url: str, step: int) -> int:
    async def prepare() -> None:
        source = await opened(source_url)
        await fill(source, ["a", "b"])
        if not await source.rows(["q"]):
            await queued(source, "q")
            await one(source, outside(children=[start("s", delay=10**12, nonce=tok("s"))]))
            await stand_in_line(source)
        await source.close()

    async def work() -> None:
        source, target = await opened(source_url), await opened(target_url)
        arm()
        await copy(source, target, os.urandom(8).hex())
        await source.close()
        await target.close()

    async def check() -> None:
        """At most one of the two serves; the same command again ends it; then everything is there."""
        source, target = await opened(source_url), await opened(target_url)
        homes = [await lives(store) for store in (source, target)]
        has = bool(await target.upkeep.page(TABLES[-1], ["id"], None, 1))
        assert not (homes[0] and has), "rows of the app in the target, and the source goes on"
        assert not (homes[0] and homes[1] and has), "both serve"
        await copy(source, target, os.urandom(8).hex())
        assert (await lives(source), await lives(target)) == (False, True)
        rows = await target.rows(["a", "b", "open", "q", "s", *LINE])
        assert {id: str(row.status) for id, row in rows.items()} == {
            "a": "completed", "b": "completed", "open": "queued", "q": "queued", "s": "queued",
            "first": "queued", "second": "queued",
        }  # fmt: skip
        await holds_the_line(target)
        weights = [await store.upkeep.weigh(list(rows)) for store in (source, target)]
        assert {id: w.rows for id, w in weights[0].items()} == {id: w.rows for id, w in weights[1].items()}
        await serves(target, 0)
        # As before, for the next try.
        await undo(source, force=True)
        for table in TABLES:
            while await target.upkeep.clear(table, 1000):
                pass
        await source.close()
        await target.close()

    return until_alive(prepare, work, check, step, [0])


LINE = ("first", "second")


async def stand_in_line(store: Store) -> None:
    """Two of one queue, of which one was let through: its limit, a slot, a key, a time to expire."""
    await store.make_queues(["line"])
    await store.change_queue("line", QueueChange(limits={"concurrency": 1}))
    for id in LINE:
        assert await store.start_once(start(id, queue="line", expires=LATER), Deduplicated(key=id)) is None
    assert len((await store.claim_line(LET_IN)).claimed) == 1


async def holds_the_line(store: Store) -> None:
    """The one that was let through has its slot yet, so nobody else is; and both have their keys."""
    assert (await store.claim_line(LET_IN)).claimed == []
    for id in LINE:
        holder = await store.start_once(start("late", queue="line"), Deduplicated(key=id))
        assert holder is not None
        assert holder.id == id


async def lives(store: Store) -> bool:
    try:
        await refuse_moved(store)
    except ConfigError:
        return False
    return True


if __name__ == "__main__":
    what, *urls, stride = sys.argv[1:]
    kills = purge_killed(urls[0], int(stride)) if what == "purge" else copy_killed(urls[0], urls[1], int(stride))
    print("killed", kills, flush=True)
