"""Real processes that transfer money, killed with SIGKILL, cut off at their commits.

The sum is exact at every snapshot, and each transfer is applied once.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from perdure import App
from tests.faults.conftest import proxied_url
from tests.transactions.banks import ACCOUNTS, CENTS, Bank
from tests.transactions.conftest import AWAY, HOME, Where, places
from tests.transactions.teller import TRANSFERS

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.sampled(2)]

SEED = int(os.environ.get("PERDURE_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
ROOT = Path(__file__).resolve().parents[2]
COUNT = 6
KINDS = ("apsw", "asyncpg", "psycopg", "psycopg_async", "sqlalchemy_async", "sqlalchemy")
PLACES = [
    *[where for where in HOME if where.kind in KINDS],
    *[where for where in AWAY if where.app == "sqlite" and where.kind in ("sqlite3", "asyncpg", "sqlalchemy_sqlite")],
    *[where for where in AWAY if where.app == "postgres" and where.kind in ("apsw", "psycopg")],
]


@asynccontextmanager
async def teller(database: str, money: Bank, *order: object, url: str = "") -> AsyncIterator[Any]:
    arguments = [database, money.kind, url or money.url, str(COUNT), *map(str, order)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.transactions.teller", *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def until(process: Any, marker: str, times: int = 1) -> str:
    """Wait for a marker; "" if the process ended before."""
    while said := (await process.stdout.readline()).decode().strip():
        times -= said.startswith(marker)
        if not times:
            return str(said)
    return ""


async def watch(money: Bank) -> None:
    """Every snapshot has the same sum."""
    while True:
        assert await money.total() == ACCOUNTS * CENTS
        await asyncio.sleep(0.01)  # waits: to look again, while others write


async def check(database: str, money: Bank, said: str) -> None:
    assert said, "ended without a result"
    expected = [sum(w + n + n for n in range(TRANSFERS)) for w in range(COUNT)]
    assert json.loads(said.removeprefix("result ")) == expected
    rows = await money.read("select id from transfer")
    assert sorted(rows) == sorted((f"w{w}-{n}",) for w in range(COUNT) for n in range(TRANSFERS))
    assert await money.total() == ACCOUNTS * CENTS
    app = App("teller", database=database)
    async with app.connect():
        store = app._home.engine().line.store  # pyright: ignore[reportPrivateUsage]
        found = await store.rows([f"w{w}" for w in range(COUNT)])
        for records in (await store.histories([row.key for row in found.values()])).values():
            assert [record.seq for record in records] == list(range(1, len(records) + 1))


@places(*PLACES)
async def test_killed_at_random(database: str, money: Bank) -> None:
    rng = random.Random(SEED)
    watching = asyncio.create_task(watch(money))
    killed = 0
    for _ in range(3):
        async with teller(database, money) as process:
            if await until(process, "body", rng.randint(1, COUNT)):
                process.send_signal(signal.SIGKILL)
                killed += 1
    async with teller(database, money) as process:
        await check(database, money, await until(process, "result"))
    assert not watching.done(), watching.exception()
    watching.cancel()
    assert killed == 3
    print(f"\nkilled {killed} times, seed {SEED}")


@places(*PLACES)
async def test_killed_at_commits(database: str, money: Bank) -> None:
    """Before the commit, and between the commit and its answer."""
    rng = random.Random(SEED)
    watching = asyncio.create_task(watch(money))
    killed = 0
    for mode in ("answer", "before", "answer", "answer"):
        async with teller(database, money, rng.randint(1, 4), mode) as process:
            killed += not await until(process, "result")
    async with teller(database, money) as process:
        await check(database, money, await until(process, "result"))
    assert not watching.done(), watching.exception()
    watching.cancel()
    assert killed >= 3
    print(f"\nkilled {killed} times at commits, seed {SEED}")


@places(
    *[where for where in HOME if where.kind in ("asyncpg", "psycopg", "sqlalchemy_async", "sqlalchemy_begin")],
    *[Where(kind, False, "sqlite") for kind in ("asyncpg_connect", "psycopg_async", "sqlalchemy")],
)
async def test_cut_at_commits(database: str, money: Bank) -> None:
    """The proxy between the tellers and the bank loses the answers to commits, one after the other."""
    proxied = await proxied_url(money.url)
    watching = asyncio.create_task(watch(money))

    async def cut() -> None:
        while True:
            await proxied.proxy.lose_answer("^commit")

    cutting = asyncio.create_task(cut())
    try:
        async with teller(database, money, url=proxied.url) as process:
            await check(database, money, await until(process, "result"))
    finally:
        cutting.cancel()
        await proxied.proxy.close()
    assert not watching.done(), watching.exception()
    watching.cancel()
    assert len(proxied.proxy.lost) >= COUNT
    print(f"\n{len(proxied.proxy.lost)} answers lost")
