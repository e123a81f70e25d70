"""Queues under kill -9: executors die at any time, limits change meanwhile, every commit is judged from the rows."""

# waits: between two kills, as long as chance says.

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path

import pytest

from perdure.testing.histcheck import Evidence, check, install_audit, read_audit
from tests.crash.fleet import Fleet, fleet_over, until
from tests.effort import by_effort

SEED = int(os.environ.get("PERDURE_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
ITEMS = int(os.environ.get("PERDURE_TEST_ITEMS", by_effort(80, 150, 1500)))  # 50000 in the long run: half an hour
KILLS = int(os.environ.get("PERDURE_TEST_KILLS", max(by_effort(4, 6, 6), ITEMS // 500)))
PACED = 2000  # at most so many go through the queue of 20 a second
SECONDS = 150 + ITEMS / 25
EXECUTORS = 3
pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.timeout(int(SECONDS) + ITEMS // 50 + 90)]
OF_QUEUES = ("I34", "I35", "I36", "I37", "I38", "I39")


@pytest.mark.parametrize("store", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def test_limits_hold_at_every_commit_whoever_dies(
    store: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    print(f"\nPERDURE_SEED={SEED}")
    rng = random.Random(SEED)
    url = request.getfixturevalue("postgres_url") if store == "postgres" else f"sqlite:///{tmp_path}/fleet.db"
    await install_audit(url)
    async with fleet_over(url, tmp_path) as fleet:
        supervisors = [asyncio.create_task(fleet.supervise(f"e{n}")) for n in range(EXECUTORS)]
        enqueueing = asyncio.create_task(enqueue(fleet, rng))
        for _ in range(KILLS):
            await asyncio.sleep(rng.uniform(0.3, 2.5))
            kill_one(fleet, rng)
            await change_a_limit(fleet, rng)
        killing = asyncio.create_task(go_on_killing(fleet, rng))
        ids = await enqueueing
        await fleet.client.reset_queue("narrow")
        await fleet.client.resume_queue("narrow")

        async def is_over() -> bool:
            if any(info.in_line or info.delayed or info.in_progress for info in await fleet.client.queues()):
                return False
            statuses = await fleet.statuses()
            return statuses.keys() == ids and set(statuses.values()) == {"completed"}

        await until(is_over, SECONDS)
        killing.cancel()
        infos = await fleet.client.queues()
        assert {(info.in_line, info.delayed, info.in_progress) for info in infos} == {(0, 0, 0)}
        for supervisor in supervisors:
            supervisor.cancel()
        await asyncio.gather(*supervisors, return_exceptions=True)
    killed = sum(member.process.returncode == -signal.SIGKILL for member in fleet.members)
    print(f"{len(ids)} items, {killed} executors killed")
    assert killed >= KILLS // 2
    verdict = check(Evidence(await read_audit(url), app="fleet"), OF_QUEUES)
    print(verdict)
    assert verdict.good, f"PERDURE_SEED={SEED}\n{verdict}"
    assert all(verdict.looked[number] for number in ("I34", "I35", "I36", "I37", "I39")), str(verdict)


async def go_on_killing(fleet: Fleet, rng: random.Random) -> None:
    """Seldom enough to let the work come to its end: until it has."""
    while True:
        await asyncio.sleep(rng.uniform(3, 10))
        kill_one(fleet, rng)


async def enqueue(fleet: Fleet, rng: random.Random) -> set[str]:
    """Items of every kind: one by one and in bulk, of partitions, delayed, prior, with keys; their ids."""
    job = fleet.client.workflow("queued", returns=int)
    ids: set[str] = set()
    while len(ids) < ITEMS:
        sent = len(ids)
        queue = rng.choice(["narrow", "narrow", "paced" if sent < 3 * PACED else "narrow"])
        options = job.options(queue=queue, priority=rng.choice([0, 0, 5]), partition=rng.choice("abc"))
        match rng.choice(["one", "many", "late", "keyed"]):
            case "one":
                ids.add((await options.start(f"w{sent}")).id)
            case "many":
                n = min(20, ITEMS - sent)
                ids.update(h.id for h in await options.start_many([f"w{sent + i}" for i in range(n)]))
            case "late":
                ids.add((await options.options(delay=rng.uniform(0, 1)).start(f"w{sent}")).id)
            case _:
                key = rng.choice("xyz")
                handles = await asyncio.gather(*(options.options(dedup=key).start(f"w{sent}") for _ in range(3)))
                ids.update(handle.id for handle in handles)
        await asyncio.sleep(rng.uniform(0, 0.05))
    return ids


def kill_one(fleet: Fleet, rng: random.Random) -> None:
    alive = [member for member in fleet.members if hasattr(member, "process") and member.process.returncode is None]
    if alive:
        rng.choice(alive).signal(signal.SIGKILL)


async def change_a_limit(fleet: Fleet, rng: random.Random) -> None:
    client = fleet.client
    match rng.choice(["limit", "pause", "resume", "reset", "nothing"]):
        case "limit":
            await client.set_queue("narrow", concurrency=rng.choice([2, 4, 9]))
        case "pause":
            await client.pause_queue("narrow")
        case "resume":
            await client.resume_queue("narrow")
        case "reset":
            await client.reset_queue("narrow")
        case _:
            pass
