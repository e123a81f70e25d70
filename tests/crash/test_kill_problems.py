"""A rollback through SIGKILLs: what the bad version holds goes on on the old one, whenever that is killed meanwhile."""

from __future__ import annotations

import asyncio
import random
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from pathlib import Path

import pytest

from perdure import Client
from perdure.model.problems import ProblemKind
from perdure.store.open import open_store
from perdure.testing.crash import CRASHES
from tests.crash.troubled import GO, IDS
from tests.runtime.support import until

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.sampled(1)]

ROOT = Path(__file__).resolve().parents[2]
KILLS = 4


async def release(url: str, ledger: Path, *what: str) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.crash.troubled", url, str(ledger), *what, cwd=ROOT, stdout=PIPE
    )


async def heard(process: Process, marker: str) -> bool:
    """Wait until it says this; False if it died before."""
    assert process.stdout is not None
    while line := (await process.stdout.readline()).decode():
        if line.startswith(marker):
            return True
    return False


async def end(process: Process) -> None:
    if process.returncode is None:
        process.kill()
    assert process.stdout is not None
    await process.stdout.read()
    await process.wait()


async def rolled_back(url: str, ledger: Path) -> None:
    seed = random.Random(number := random.SystemRandom().randrange(10**6))
    print(f"seed {number}")
    bad = await release(url, ledger, "v2", "bad")
    try:
        assert await heard(bad, "ready")
        first = await release(url, ledger, "v1", "good")
        assert await heard(first, "ready")
        await end(first)  # SIGKILL: v1 is known, and nobody runs it
        store = open_store(url, "troubled")
        await store.open()
        async with Client(url, app="troubled") as client:
            await client.deployment.set_current_version("v2")
            for id in IDS:
                await client.workflow("order", returns=list).options(id=id).start()
                await client.handle(id).send(True, GO, key="go")

            async def all_held() -> bool:
                return int(await client.count("problem = no_code AND status = held")) == len(IDS)

            await until(all_held, 30)
            await client.deployment.set_current_version("v1", allow_no_executors=True, allow_missing_workflows=True)
            for _ in range(KILLS):  # the old release, killed at some of its writes
                victim = await release(url, ledger, "v1", "good", str(seed.randrange(1, 30)), seed.choice(CRASHES).name)
                await asyncio.wait([asyncio.ensure_future(heard(victim, "done"))], timeout=6)
                await end(victim)
            last = await release(url, ledger, "v1", "good")
            try:
                assert await heard(last, "done")
            finally:
                await end(last)
            for id in IDS:
                assert await client.handle(id).result() == [1, 2]
                found = await client.handle(id).problems()
                assert all(one.cleared is not None for one in found), found
                kinds = {one.kind for one in found}
                assert {ProblemKind.NO_CODE, ProblemKind.STEP_FAILED} <= kinds, found
                [step] = [one for one in found if one.kind is ProblemKind.STEP_FAILED]
                assert (step.step, step.attempt) == ("second", 2)
                assert (await client.handle(id).info()).problem is None
            assert int(await client.count("problem IS NOT NULL")) == 0
        assert all(row.version == "v1" for row in (await store.rows(IDS)).values())
        await store.close()
    finally:
        await end(bad)
    effects = Counter((await asyncio.to_thread(ledger.read_text)).splitlines())
    assert set(effects) == {f"{id} {step}" for id in IDS for step in ("first", "second")}
    assert max(effects.values()) <= KILLS + 1


async def test_on_sqlite(tmp_path: Path) -> None:
    await rolled_back(f"sqlite:///{tmp_path / 'perdure.db'}", tmp_path / "ledger")


@pytest.mark.postgres
async def test_on_postgres(postgres_url: str, tmp_path: Path) -> None:
    await rolled_back(postgres_url, tmp_path / "ledger")
