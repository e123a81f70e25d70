"""Schedules under SIGKILL and outages: no nominal time fires twice, none is unaccounted for; on both databases.

And at every write of their own, on a clock of the test's, with every thing that can go wrong there.
"""

# waits: processes tell of themselves by markers; the end is looked for until it is so, and an outage has its length.

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest

from perdure import App, Client
from perdure.model.schedules import Firing, State, Which
from perdure.query.conditions import where
from perdure.schedules.times import Times
from perdure.store.base import Store
from perdure.store.open import open_store
from perdure.testing import Harness, harness
from perdure.testing.crash import CRASHES
from perdure.testing.crash_everywhere import crash_everywhere
from perdure.testing.histcheck import Evidence, check, install_audit, read_audit
from tests.crash.test_kill import Victim as JobVictim
from tests.postgres import Cluster

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.sampled(2)]

SEED = int(os.environ.get("PERDURE_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
ROOT = Path(__file__).resolve().parents[2]
NAMES = ("each", "latest", "row")
OUTAGE_SECONDS = 4.0  # several nominal times


class Victim(JobVictim):
    """A run of ``tests.crash.schedule_victim``."""

    def __init__(self, url: str, ledger: Path, *order: object) -> None:
        self.arguments = [url, str(ledger), *map(str, order)]
        self.seen: list[str] = []

    async def __aenter__(self) -> Any:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.crash.schedule_victim", *self.arguments, cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        return self


@asynccontextmanager
async def store_of(url: str) -> AsyncIterator[Store]:
    store = open_store(url, "schedules")
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def settled(url: str) -> dict[str, list[Firing]]:
    """Pause all schedules and wait until nothing waits and all workflows have ended; what became of each time."""
    async with Client(url, app="schedules") as client, store_of(url) as store:
        end = time.monotonic() + 90
        while any(row.next is not None and row.next <= time.time() * 1e6 for row in await store.schedules()):
            assert time.monotonic() < end, "whoever lives is still behind"
            await asyncio.sleep(0.05)
        for name in NAMES[:2]:
            await client.schedule(name).pause()
        await client.schedule("row").set(cron="0 0 0 1 1 *")  # what waits is to start still
        end = time.monotonic() + 90
        while True:
            rows = await store.schedules()
            open_ones = [row for row in (await store.list(where(), limit=10_000)).rows if row.status.open]
            if not open_ones and not any(row.waiting for row in rows):
                break
            assert time.monotonic() < end, f"not at an end: {open_ones[:3]}"
            await asyncio.sleep(0.05)
        return {name: await store.firings(Which(schedule=name, limit=10_000, oldest_first=True)) for name in NAMES}


def lines_of(ledger: Path) -> list[list[str]]:
    return [line.split() for line in ledger.read_text().splitlines()]


async def judge(url: str, ledger: Path, kills: int) -> None:
    """The rows, the ledger and the audit tell the same: each time once."""
    firings = await settled(url)
    ran = Counter((what, datetime.fromisoformat(due).timestamp(), key) for what, due, key in lines_of(ledger))
    assert max(ran.values()) <= 1 + kills
    for name, found in firings.items():
        started = [one.at / 1e6 for one in found if one.state is State.STARTED]
        assert sorted(due for what, due, _ in ran if what == name) == started, f"{name}: started and run differ"
        assert all(one.state is not State.WAITING for one in found)
        times = Times(*(("* * * * * *", None) if name == "row" else (None, 1_000_000)), "UTC", found[0].at)
        covered = sorted(at for one in found for at in times.within(one.at, one.until))
        assert covered == list(times.within(found[0].at, found[-1].until)), f"{name}: times are missing or twice"
        if name != "latest":
            assert len(started) >= len(covered) - 2, f"{name}: skipped without need: {found}"
    verdict = check(Evidence(await read_audit(url), app="schedules"), only={"I41", "I42", "I44", "I44b"})
    assert verdict.good, str(verdict)
    assert min(verdict.looked.values()) >= 3, str(verdict)
    print(f"\n{ {name: len(found) for name, found in firings.items()} } firings, {kills} kills, seed {SEED}")


async def killed(url: str, ledger: Path) -> None:
    """One lives beside one that is killed, at a write of a schedule; then both are, at any time: nobody is there."""
    await install_audit(url)
    rng = random.Random(SEED)
    kills = 0
    for _ in range(3):
        async with Victim(url, ledger) as witness:
            assert await witness.until("open"), witness.seen
            async with Victim(url, ledger, rng.randint(2, 6), rng.choice(CRASHES).name) as victim:
                assert await victim.until("open"), victim.seen
                assert await asyncio.wait_for(victim.process.wait(), 60) == -signal.SIGKILL
            async with Victim(url, ledger) as victim:
                assert await victim.until("open"), victim.seen
                await asyncio.sleep(rng.uniform(0.2, 2.5))
                victim.kill()
                witness.kill()
                await asyncio.wait({asyncio.ensure_future(one.process.wait()) for one in (victim, witness)})
        kills += 3
        await asyncio.sleep(rng.uniform(0, 2.5))
    async with Victim(url, ledger) as last:
        assert await last.until("open"), last.seen
        await judge(url, ledger, kills)


async def test_sqlite_killed_around_firings(tmp_path: Path) -> None:
    await killed(f"sqlite:///{tmp_path / 'schedules.db'}", tmp_path / "ledger")


@pytest.mark.postgres
async def test_postgres_killed_around_firings(postgres_url: str, tmp_path: Path) -> None:
    await killed(postgres_url, tmp_path / "ledger")


@pytest.mark.postgres
async def test_postgres_away_for_several_times(cluster: Cluster, tmp_path: Path) -> None:
    url = cluster.url(cluster.create_database())
    await install_audit(url)
    async with Victim(url, tmp_path / "ledger") as one, Victim(url, tmp_path / "ledger") as two:
        assert await one.until("ran", 3)
        cluster.stop("immediate")
        await asyncio.sleep(OUTAGE_SECONDS)
        cluster.start()
        assert await one.until("ran", 3), one.seen[-3:]
        assert two.process.returncode is None
        await judge(url, tmp_path / "ledger", 1)


async def test_sqlite_locked_for_several_times(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'schedules.db'}"
    await install_audit(url)
    async with Victim(url, tmp_path / "ledger") as one, Victim(url, tmp_path / "ledger") as two:
        assert await one.until("ran", 3)
        conn: Any = apsw.Connection(str(tmp_path / "schedules.db"))
        conn.set_busy_timeout(10_000)
        await asyncio.to_thread(conn.execute, "begin immediate")
        await asyncio.sleep(OUTAGE_SECONDS)
        conn.execute("rollback")
        conn.close()
        assert await one.until("ran", 3), one.seen[-3:]
        assert two.process.returncode is None
        await judge(url, tmp_path / "ledger", 1)


# -- at every write, on a virtual clock


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    return str(request.getfixturevalue("postgres_url")) if request.param == "postgres" else None


async def test_at_every_write(database: str | None) -> None:
    """A day of schedules, with a crash, a lost answer and trouble at each write in turn: the same came of each time."""
    app = App("days")
    ran: Counter[str] = Counter()

    @app.step
    async def note(what: str) -> str:
        ran[what] += 1
        return what

    @app.schedule("0 */2 * * *", tz="Europe/Berlin", missed="all")
    @app.workflow(name="plain")
    async def plain(due: datetime) -> str:
        return await note(f"plain {due:%H}")

    @app.schedule(every=timedelta(hours=1), overlap="queue", missed="all")
    @app.workflow(name="queued")
    async def queued(due: datetime) -> str:
        await asyncio.sleep(5000)
        return await note(f"queued {due:%H}")

    async def day(h: Harness) -> list[str]:
        await h.advance(timedelta(hours=2))
        await app.client.schedule("plain").pause()
        await app.client.schedule("plain").backfill(datetime.fromisoformat("2029-12-31T20:00Z"), h_now(h))
        await h.advance(timedelta(hours=1, minutes=1))
        await app.client.schedule("plain").resume()
        await app.client.schedule("queued").set(overlap="skip")
        await h.advance(timedelta(hours=2))
        told: list[str] = []
        for name in ("plain", "queued"):
            firings = await app.client.schedule(name).firings()
            told += [f"{name} {one.at:%d %H:%M} {one.until:%d %H:%M} {one.state} {one.reason}" for one in firings]
        return told

    async with harness(app, database=database) as h:
        tried = await crash_everywhere(lambda: day(h), h)
    print(f"\n{tried.runs} runs with something wrong at one of {tried.points} writes")
    assert tried.points > 20


def h_now(h: Harness) -> datetime:
    return datetime.fromisoformat("1970-01-01T00:00Z") + timedelta(microseconds=h.clock.now())
