"""Crashes at every write of every canonical workflow and example, on both stores: nothing is lost, nothing done twice.

For each scenario: once in peace, to count its writes; then, for each write and each thing that can go wrong there (or
a seeded part of those), a run of its own, on a fresh app; then runs with a second crash during the recovery.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from perdure.query.conditions import where
from perdure.store.base import Store
from perdure.store.open import open_store
from perdure.testing import Harness
from perdure.testing.crash import CRASHES, Mode, Plan
from tests.crash.ledger import Witness, for_app, fresh, ledger
from tests.crash.programs import PROGRAMS
from tests.crash.scenarios import SCENARIOS, Outside, Scenario
from tests.crash.scratch import scratch
from tests.effort import EFFORT, by_effort

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.timeout(by_effort(900, 900, 3600))]

POINTS_MIN = by_effort(120, 1000, 3000)  # for each store
STRUCK = by_effort(0.1, 0.5, 1.0)  # of the writes of each scenario, by chance; then any, until there are POINTS_MIN
FULL = EFFORT == "all"  # in every way
SECOND_EVERY = 6  # of so many single crashes, one is repeated with a second crash soon after
RUN_SECONDS = 120.0  # real ones: that nothing hangs
SEED = int(os.environ.get("PERDURE_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)


class Tried(Counter[str]):
    """Runs by what went wrong in them."""

    @property
    def crash_points(self) -> int:
        return sum(self.values())


class Bench:
    """Runs scenarios of one app against one database."""

    def __init__(self, scenario: Scenario, store: Store, direct: bool) -> None:
        self.scenario = scenario
        self.direct = direct
        self.store = store
        self.home = scenario.app._home
        self.make_store = self.home.make_store
        self.chance = random.Random(f"{SEED} bodies")
        self.points = 0

    async def run(self, plan: Plan) -> tuple[Harness, Any]:
        """One run, checked."""
        fresh()
        harness = Harness(self.scenario.app, database="sqlite:///given.db", direct=self.direct)
        harness.plan = plan
        self.scenario.prepare(harness, self.scenario.app)
        self.home.make_store = self.next_life
        try:
            await harness.open()
            async with asyncio.timeout(RUN_SECONDS):
                result = await self.scenario.drive(Outside(harness, self.scenario.blocking), harness)
                await harness.settle()
            plan.orders.clear()
            assert result == self.scenario.result, f"came out: {result!r}"
            await self.check(harness, plan)
            return harness, result
        finally:
            self.home.make_store = self.make_store
            self.home.arguments.pop("bodies", None)
            plan.orders.clear()
            await harness.close()

    def next_life(self, _url: str, app: str, _schema: str) -> Store:
        """Blocking bodies stand in threads or in greenlets, by chance: each goes on with what the other recorded."""
        self.home.arguments["bodies"] = self.chance.choice(("threads", "greenlets"))
        return cast(Store, Witness(for_app(self.store, app)))

    async def check(self, harness: Harness, plan: Plan) -> None:
        """What holds after every run, whatever went wrong in it."""
        assert not ledger.wrong, f"{ledger.wrong[:3]}"
        crashes = harness.crashes
        too_often = {where: n for where, n in ledger.bodies.items() if n > 1 + crashes}
        assert not too_often, f"more than 1 + {crashes} runs of a step's body: {too_often}"
        never = [where for where in ledger.outcomes if not any(body[:2] == where for body in ledger.bodies)]
        assert not never, f"recorded, and never run: {never}"
        assert all(len(places) == 1 for places in ledger.taken.values()), f"taken more than once: {ledger.taken}"
        rows = (await harness.store.list(where(), limit=1000)).rows
        unfinished = [row for row in rows if row.status.open]
        assert not unfinished, f"not finished: {unfinished}"
        histories = await harness.store.histories([row.key for row in rows])
        for row in rows:
            seqs = [record.seq for record in histories[row.key]]
            assert seqs == list(range(1, len(seqs) + 1)), f"the history of {row.key} has gaps: {seqs}"
            assert row.last_seq == len(seqs)

    async def in_peace(self) -> None:
        """Counts the writes."""
        harness, _ = await self.run(Plan())
        assert harness.crashes == 0
        self.points = len(harness.plan.points)


async def everywhere(bench: Bench, tried: Tried, rng: random.Random) -> None:
    seconds: list[dict[int, Mode]] = []
    for point in sorted(rng.sample(range(1, bench.points + 1), round(bench.points * STRUCK))):
        for mode in modes(bench.direct or bench.scenario.blocking, rng):
            await once(bench, {point: mode}, tried, str(mode))
            if mode in CRASHES and rng.randrange(SECOND_EVERY) == 0:
                seconds.append({point: mode, point + rng.randint(1, 6): rng.choice(list(Mode))})
    for orders in seconds:
        await once(bench, orders, tried, "two in a row")


async def up_to_the_promise(benches: list[Bench], tried: Tried, rng: random.Random) -> None:
    """Anywhere, by chance: the part before is not always as large, nor is each write still there in the second run."""
    for bench in rng.choices(benches, [bench.points for bench in benches], k=POINTS_MIN):
        if tried.crash_points >= POINTS_MIN:
            return
        mode = rng.choice(list(Mode))
        await once(bench, {rng.randint(1, bench.points): mode}, tried, str(mode))


def modes(direct: bool, rng: random.Random) -> list[Mode]:
    """What goes wrong at a write, in runs of their own.

    In full every mode, and two where the same writes are struck again, called from another process; else one of them,
    by chance.
    """
    return rng.sample(list(Mode), (len(Mode) if direct else 2) if FULL else 1)


async def once(bench: Bench, orders: dict[int, Mode], tried: Tried, what: str) -> None:
    plan = Plan(orders)
    try:
        await bench.run(plan)
    except BaseException as error:
        way = "from the process that crashes" if bench.direct else "from another process"
        error.add_note(f"scenario {bench.scenario.name}, called {way}, {plan!r}; orders {orders}; PERDURE_SEED={SEED}")
        raise
    tried[what] += bool(plan.struck)


@pytest.fixture(autouse=True)
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Crashes are told of in the log a thousand times; settings are read from no file."""
    monkeypatch.chdir(tmp_path)
    logging.getLogger("perdure").setLevel(logging.ERROR)
    yield
    logging.getLogger("perdure").setLevel(logging.NOTSET)


async def all_scenarios(url: str) -> Tried:
    store = open_store(url, "crash")
    await store.open()
    await store.migrate()
    tried = Tried()
    rng = random.Random(SEED)
    began = time.monotonic()
    benches: list[Bench] = []
    try:
        for scenario in (*SCENARIOS, *PROGRAMS):
            # A blocked caller dies with its process; there is nobody to ask again.
            for direct in (False,) if scenario.blocking else (True, False):
                benches.append(Bench(scenario, store, direct))
                await benches[-1].in_peace()
                await everywhere(benches[-1], tried, rng)
        await up_to_the_promise(benches, tried, rng)
    finally:
        await store.close()
    print(f"\n{tried.crash_points} crash points in {time.monotonic() - began:.0f} s, seed {SEED}: {dict(tried)}")
    return tried


async def test_on_sqlite(tmp_path: Path) -> None:
    with scratch(tmp_path, "crash") as url:
        tried = await all_scenarios(url)
    assert tried.crash_points >= POINTS_MIN


@pytest.mark.postgres
async def test_on_postgres(postgres_url: str) -> None:
    tried = await all_scenarios(postgres_url)
    assert tried.crash_points >= POINTS_MIN
