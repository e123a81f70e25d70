"""Real processes: killed with SIGKILL anywhere, their database stopped or locked under them.

Nothing is lost, nothing fails, and while a process lives nothing needs a restart.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Self

import apsw
import pytest

from perdure.testing.crash import CRASHES
from tests.crash.victim import STEPS
from tests.effort import by_effort
from tests.postgres import Cluster

pytestmark = [pytest.mark.crash, pytest.mark.slow]

SEED = int(os.environ.get("PERDURE_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
COUNT = 6
LOCKED_SECONDS = 31.0
EFFECTS = STEPS + 3  # of each job and its end
ROOT = Path(__file__).resolve().parents[2]


class Victim:
    """A run of ``tests.crash.victim``."""

    def __init__(self, url: str, ledger: Path, *order: object) -> None:
        self.arguments = [url, str(ledger), str(COUNT), *map(str, order)]
        self.seen: list[str] = []

    async def __aenter__(self) -> Self:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.crash.victim", *self.arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.communicate()

    async def line(self) -> str:
        """The next marker; "" when the process has ended."""
        assert self.process.stdout is not None
        said = (await self.process.stdout.readline()).decode().strip()
        self.seen.append(said)
        return said

    async def until(self, marker: str, times: int = 1) -> str:
        """Wait for a marker; "" if the process ended before."""
        while said := await self.line():
            times -= said.startswith(marker)
            if not times:
                return said
        return ""

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)


def check(result: str, ledger: Path, kills: int) -> None:
    """The result is that of an undisturbed run, and each effect happened at least once, and not for every kill."""
    ids = [f"j{i}" for i in range(COUNT)]
    jobs = [{"id": id, "total": sum(range(STEPS)), "both": [10, 20]} for id in ids]
    assert json.loads(result.removeprefix("result ")) == [*jobs, *([f"{id} is done", None] for id in ids)]
    done = [line.split() for line in ledger.read_text().splitlines()]
    assert {(id, int(n)) for id, n, _ in done} == {(id, n) for id in ids for n in (*range(STEPS), 10, 20, 100)}
    keys = Counter(key for _, _, key in done)
    assert len(keys) == COUNT * EFFECTS, "an effect was repeated under another key"
    assert max(keys.values()) <= 1 + kills
    # A kill can hit what is in flight, at most two effects of each job: what was recorded is not done again.
    assert len(done) <= COUNT * EFFECTS + kills * COUNT * 2


async def run_to_the_end(url: str, ledger: Path) -> str:
    async with Victim(url, ledger) as victim:
        result = await victim.until("result")
        assert result, f"ended without a result: {victim.seen[-5:]}"
        assert await victim.process.wait() == 0
        return result


async def killed_at_random(url: str, ledger: Path, kills: int) -> None:
    rng = random.Random(SEED)
    killed = 0
    for _ in range(kills):
        async with Victim(url, ledger) as victim:
            if not await victim.until("effect", rng.randint(1, COUNT * 2)):
                break
            victim.kill()
            killed += 1
    check(await run_to_the_end(url, ledger), ledger, killed)
    assert killed >= 2
    print(f"\nkilled {killed} times, seed {SEED}")


async def killed_at_points(url: str, ledger: Path, points: int) -> None:
    rng = random.Random(SEED)
    killed = 0
    for _ in range(points):
        async with Victim(url, ledger, rng.randint(2, 12), rng.choice(CRASHES).name) as victim:
            result = await victim.until("result")
            if result:
                break
            assert await victim.process.wait() == -signal.SIGKILL
            killed += 1
    check(await run_to_the_end(url, ledger), ledger, killed)
    assert killed >= 2
    print(f"\nkilled itself {killed} times, seed {SEED}")


def sqlite(folder: Path) -> str:
    return f"sqlite:///{folder / 'victim.db'}"


async def test_sqlite_killed_at_random(tmp_path: Path) -> None:
    await killed_at_random(sqlite(tmp_path), tmp_path / "ledger", by_effort(2, 5, 20))


async def test_sqlite_killed_at_points(tmp_path: Path) -> None:
    await killed_at_points(sqlite(tmp_path), tmp_path / "ledger", by_effort(2, 5, 20))


@pytest.mark.postgres
async def test_postgres_killed_at_random(postgres_url: str, tmp_path: Path) -> None:
    await killed_at_random(postgres_url, tmp_path / "ledger", by_effort(2, 4, 20))


@pytest.mark.postgres
async def test_postgres_killed_at_points(postgres_url: str, tmp_path: Path) -> None:
    await killed_at_points(postgres_url, tmp_path / "ledger", by_effort(2, 4, 20))


@pytest.mark.postgres
@pytest.mark.parametrize("how", ["fast", "immediate"])
async def test_postgres_stopped_and_started_in_mid_run(cluster: Cluster, how: str, tmp_path: Path) -> None:
    name = cluster.create_database()
    async with Victim(cluster.url(name), tmp_path / "ledger") as victim:
        assert await victim.until("effect", 3)
        cluster.stop(how)
        assert await victim.until("trouble"), f"never noticed: {victim.seen[-5:]}"
        assert victim.process.returncode is None
        cluster.start()  # by this thread: the server ends with the one that started it
        result = await victim.until("result")
        assert result, f"ended without a result: {victim.seen[-5:]}"
        assert await victim.process.wait() == 0
    check(result, tmp_path / "ledger", 0)


async def test_sqlite_locked_for_half_a_minute(tmp_path: Path) -> None:
    """Longer than the victim's lease, and many times the store's patience."""
    url = sqlite(tmp_path)
    async with Victim(url, tmp_path / "ledger") as victim:
        assert await victim.until("effect", 3)
        conn: Any = apsw.Connection(str(tmp_path / "victim.db"))
        conn.set_busy_timeout(10_000)
        await asyncio.to_thread(conn.execute, "begin immediate")
        began = time.monotonic()
        assert await victim.until("trouble"), f"never noticed: {victim.seen[-5:]}"
        await asyncio.sleep(LOCKED_SECONDS - (time.monotonic() - began))  # waits: a lock of this length is the point
        assert victim.process.returncode is None
        conn.execute("rollback")
        conn.close()
        result = await victim.until("result")
        assert result, f"ended without a result: {victim.seen[-5:]}"
        assert await victim.process.wait() == 0
    check(result, tmp_path / "ledger", 0)
