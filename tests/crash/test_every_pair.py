"""Two crashes in a run, at every pair of writes of every canonical workflow of up to eight steps, on both stores.

For each write a run that crashes there, to count what follows; then for each later write a run that crashes there,
too, each in a way that chance chose. ``make pairs`` (``PERDURE_TEST_CRASHES=pairs``) makes all pairs, any other run a
seeded part of them.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from perdure.store.base import Store
from perdure.store.open import open_store
from perdure.testing.crash import CRASHES, Mode, Plan
from tests.crash.ledger import ledger
from tests.crash.scenarios import SCENARIOS, Scenario
from tests.crash.scratch import scratch
from tests.crash.test_every_write import SEED, Bench, Tried, once, quiet
from tests.effort import EFFORT

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.timeout(3600), pytest.mark.sampled(1)]

__all__ = ["quiet"]  # the fixture, used here too

ALL = EFFORT == "pairs"
STEPS_MAX = 8
FIRST_EVERY, SECOND_EVERY = (1, 1) if ALL else (9, 3)  # of so many points, one is struck
PAIRS_MIN = 1500 if ALL else 40  # for each store


async def pairs_of(scenario: Scenario, store: Store, tried: Tried, rng: random.Random) -> None:
    bench = Bench(scenario, store, not scenario.blocking)
    harness, _ = await bench.run(Plan())
    if len(ledger.outcomes) > STEPS_MAX:
        return
    for first in range(1, len(harness.plan.points) + 1):
        if rng.randrange(FIRST_EVERY):
            continue
        way = rng.choice(CRASHES)
        plan = Plan({first: way})
        await bench.run(plan)
        for second in range(first + 1, len(plan.points) + 1):
            if not rng.randrange(SECOND_EVERY):
                await once(bench, {first: way, second: rng.choice(list(Mode))}, tried, "pairs")


async def all_pairs(url: str) -> Tried:
    store = open_store(url, "pairs")
    await store.open()
    await store.migrate()
    tried, rng, began = Tried(), random.Random(SEED), time.monotonic()
    try:
        for scenario in SCENARIOS:
            await pairs_of(scenario, store, tried, rng)
    finally:
        await store.close()
    print(f"\n{tried.crash_points} pairs of crash points in {time.monotonic() - began:.0f} s, seed {SEED}")
    return tried


async def test_on_sqlite(tmp_path: Path) -> None:
    with scratch(tmp_path, "pairs") as url:
        tried = await all_pairs(url)
    assert tried.crash_points >= PAIRS_MIN


@pytest.mark.postgres
async def test_on_postgres(postgres_url: str) -> None:
    assert (await all_pairs(postgres_url)).crash_points >= PAIRS_MIN
