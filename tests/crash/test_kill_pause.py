"""Killed with SIGKILL while workflows are paused and unpaused: at writes of the orders, and executors at any time."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from perdure.model.ids import RunKey
from perdure.model.records import Kind
from perdure.model.states import Reason, Status
from perdure.store.base import Store
from perdure.store.open import open_store
from perdure.testing.crash import CRASHES
from tests.crash.pauser import IDS

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.sampled(1)]

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 3


async def pauser(url: str, ledger: Path, *what: str) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.crash.pauser", url, str(ledger), *what, cwd=ROOT, stdout=PIPE
    )


async def heard(process: Process, marker: str) -> None:
    """Wait until it says this."""
    assert process.stdout is not None
    while (line := (await process.stdout.readline()).decode()) and not line.startswith(marker):
        pass


async def killed(process: Process) -> int:
    process.kill()
    assert process.stdout is not None
    await process.stdout.read()
    return await process.wait()


async def order(url: str, ledger: Path, verb: str, seed: random.Random) -> None:
    """Killed at one of its writes; then done."""
    mode = seed.choice(CRASHES)
    process = await pauser(url, ledger, verb, str(seed.randrange(1, 6)), mode.name)
    out, _ = await process.communicate()
    assert process.returncode == -signal.SIGKILL or out.count(b"done") == len(IDS), (verb, mode, out)
    process = await pauser(url, ledger, verb)
    await process.communicate()
    assert process.returncode == 0


@asynccontextmanager
async def looking(url: str) -> AsyncIterator[Store]:
    store = open_store(url, "pauser")
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def paused_and_killed(url: str, ledger: Path) -> None:
    seed = random.Random(number := random.SystemRandom().randrange(10**6))
    print(f"seed {number}")
    assert await (await pauser(url, ledger, "begin")).wait() == 0
    kills = 0
    for _ in range(ROUNDS):
        worker = await pauser(url, ledger, "work")
        await heard(worker, f"{seed.choice(['begins', 'effect'])} ")
        ordering = asyncio.ensure_future(order(url, ledger, "pause", seed))
        await asyncio.sleep(seed.random())  # waits: killed at any time
        await killed(worker)
        kills += 1
        second = await pauser(url, ledger, "work")  # it is told, or finds what was told
        await ordering
        before = await asyncio.to_thread(ledger.read_text)
        async with looking(url) as store:
            rows = await store.rows(IDS)
            for row in rows.values():
                assert row.reason is Reason.PAUSED or not row.status.open, row
        await killed(second)
        kills += 1
        third = await pauser(url, ledger, "work")
        await asyncio.sleep(0.7)  # waits: time enough for a timer to fire, and for a poll to claim
        await killed(third)
        kills += 1
        assert await asyncio.to_thread(ledger.read_text) == before, "nothing runs while it is paused"
        await order(url, ledger, "unpause", seed)
    await asyncio.to_thread(Path(f"{ledger}.end").touch)
    worker = await pauser(url, ledger, "work")
    out, _ = await worker.communicate()
    assert worker.returncode == 0
    assert out.count(b"done") == len(IDS)
    async with looking(url) as store:
        await check(store, (await asyncio.to_thread(ledger.read_text)).splitlines(), kills)


async def check(store: Store, lines: list[str], kills: int) -> None:
    """Each step was done, and never again once it was recorded."""
    done = Counter(tuple(line.split()[:2]) for line in lines)
    for id in IDS:
        numbers = sorted(int(n) for who, n in done if who == id)
        assert numbers == list(range(len(numbers))), (id, numbers)
        assert len(numbers) == {"waits": 2, "sleeps": 1, "later": 1}.get(id, len(numbers))
    again = sum(done.values()) - len(done)
    assert again <= kills * len(IDS), "at each kill one step of each may have been done, and not been recorded"
    rows = await store.rows(IDS)
    assert {row.status for row in rows.values()} == {Status.COMPLETED}
    for row in rows.values():
        assert (row.run, row.reason) == (
            1,
            None,
        )  # what it was told stays in the row of one that ended at its last step
        history = (await store.histories([RunKey(row.id, 1)]))[row.key]
        assert [record.seq for record in history] == list(range(1, len(history) + 1))
        verbs = [record.name for record in history if record.kind is Kind.DECISION]
        assert verbs == ["pause", "unpause"] * (len(verbs) // 2), (row.id, verbs)


async def test_sqlite(tmp_path: Path) -> None:
    await paused_and_killed(f"sqlite:///{tmp_path / 'pauser.db'}", tmp_path / "ledger")


@pytest.mark.postgres
async def test_postgres(postgres_url: str, tmp_path: Path) -> None:
    await paused_and_killed(postgres_url, tmp_path / "ledger")
