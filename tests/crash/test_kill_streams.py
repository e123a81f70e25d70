"""Executors killed in the middle of what a step writes; who reads, in another process, misses and doubles nothing."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from perdure import Client
from perdure.testing.histcheck import Evidence, check, install_audit, read_audit
from tests.crash.writer import EXPECTED
from tests.effort import by_effort

pytestmark = [pytest.mark.crash, pytest.mark.slow]

SEED = int(os.environ.get("PERDURE_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
ROOT = Path(__file__).resolve().parents[2]
COUNT = 6
KILLS = by_effort(3, 6, 12)


async def executor(url: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.crash.writer", url, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )


async def killed_while_they_write(process: asyncio.subprocess.Process, markers: int) -> bool:
    """Kill it at its so manyeth marker. False: it said no more."""
    assert process.stdout is not None
    try:
        async with asyncio.timeout(15):
            for _ in range(markers):
                if not await process.stdout.readline():
                    return False
    except TimeoutError:  # all is written, or the others write it
        return False
    finally:
        process.kill()
        await process.wait()
    return True


async def read_from_the_middle(handle: Any) -> list[str]:
    """As one who was interrupted after three values."""
    first = [word async for word in handle.read_stream("words", offset=3)]
    return [*EXPECTED[:3], *first]


async def tried(url: str) -> None:
    print(f"PERDURE_SEED={SEED}")
    rng = random.Random(SEED)
    await install_audit(url)
    async with Client(url, app="writer") as client:
        story = client.workflow("story", returns=str)
        handles = [await story.options(id=f"s{n}").start(f"s{n}") for n in range(COUNT)]
        readers = [asyncio.ensure_future(_all(handle)) for handle in handles]
        readers += [asyncio.ensure_future(read_from_the_middle(handle)) for handle in handles]
        alive = [await executor(url)]
        assert alive[0].stdout is not None
        await alive[0].stdout.readline()  # all is its own, and half of it written when it dies
        alive.append(await executor(url))
        killed = 0
        for _ in range(KILLS):
            killed += await killed_while_they_write(alive.pop(0), rng.randint(1, 8))
            alive.append(await executor(url))
            if all(reader.done() for reader in readers):
                break
        try:
            assert await asyncio.gather(*readers) == [EXPECTED] * (2 * COUNT)
            assert [await handle.result() for handle in handles] == [f"s{n}" for n in range(COUNT)]
        finally:
            for process in alive:
                process.kill()
                await process.wait()
    assert killed, "nobody was killed while it wrote"
    verdict = check(Evidence(await read_audit(url), app="writer"), ["I1", "I2", "I7", "I30", "I31"])
    assert verdict.good, str(verdict)
    assert verdict.looked["I30"] == verdict.looked["I31"] == COUNT * len(EXPECTED)


async def _all(handle: Any) -> list[str]:
    return [word async for word in handle.read_stream("words")]


async def test_sqlite(tmp_path: Path) -> None:
    await tried(f"sqlite:///{tmp_path / 'writer.db'}")


@pytest.mark.postgres
async def test_postgres(postgres_url: str) -> None:
    await tried(postgres_url)
