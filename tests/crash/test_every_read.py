"""Trouble with the database at every read of every canonical workflow: all goes on, and the same comes out.

Each scenario runs in peace, to count what it asks of the store; then so often that each of these calls was refused
once, some with others in the same run. The same again with a crash on the way, for what recovery reads; ``make
crashes`` runs both, any other run one of the two by chance. A workflow that failed, was restarted, took a message twice
or ran a body twice would be seen: see ``Bench.check``.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from perdure.store.base import Store
from perdure.store.open import open_store
from perdure.testing.crash import Mode, Plan
from tests.crash.scenarios import READING, Scenario
from tests.crash.scratch import scratch
from tests.crash.test_every_write import SEED, Bench, quiet
from tests.effort import by_effort

__all__ = ["quiet"]  # a fixture

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.sampled(1)]

READS = frozenset({
    "histories", "inbox", "rows", "run", "inputs", "ended", "events", "streams", "list", "poll", "incarnations",
})  # fmt: skip
ANSWERS = frozenset({"claim", "adopt", "reclaim", "cancel", "replace"})  # writes that are asked for an answer
TURNS = 3  # runs that share the calls to refuse, by chance: each refuses some of them
POINTS_MIN = by_effort(500, 500, 1000)  # for each store
CRASH_AFTER = "act"
BY_CHANCE = (("reclaim", 1),)  # that only trouble or a close race bring about: not in every calm run


class ReadPlan(Plan):
    """Refuses the first, second … call of a name: the looks that trouble causes do not shift the others."""

    def __init__(self, orders: Mapping[tuple[str, int], Mode], *, crash: bool) -> None:
        super().__init__(numbered=READS | ANSWERS)
        self.calls: Counter[str] = Counter()
        self.refuse = dict(orders)
        if crash:
            self.after_steps.add(CRASH_AFTER)

    def number(self, what: str) -> Mode | None:
        if self.counting and what in self.numbered:
            self.calls[what] += 1
            if mode := self.refuse.pop((what, self.calls[what]), None):
                self.orders[len(self.points) + 1] = mode
        return super().number(what)


async def everywhere(bench: Bench, struck: Counter[str], rng: random.Random, *, crash: bool) -> bool:
    """Whether it could be done: not every scenario has a step to crash after."""
    calm = ReadPlan({}, crash=crash)
    harness, _ = await bench.run(calm)
    if crash and not harness.crashes:
        return False
    points = [(name, n) for name, calls in calm.calls.items() for n in range(1, calls + 1)]
    rng.shuffle(points)
    for turn in range(TURNS):
        refused = {*points[turn::TURNS], *BY_CHANCE}
        made = ReadPlan({at: rng.choice((Mode.TROUBLE, Mode.LOST)) for at in sorted(refused)}, crash=crash)
        try:
            harness, _ = await bench.run(made)
        except BaseException as error:
            way = "from the process that works" if bench.direct else "from another process"
            error.add_note(f"scenario {bench.scenario.name}, called {way}, {made!r}; PERDURE_SEED={SEED}")
            raise
        assert harness.crashes == crash, "nothing is restarted for trouble's sake"
        struck.update(made.points[at - 1] for at, _ in made.struck)
    return True


async def all_scenarios(url: str) -> None:
    store = open_store(url, "trouble")
    await store.open()
    await store.migrate()
    struck: Counter[str] = Counter()
    rng = random.Random(SEED)
    began = time.monotonic()
    try:
        for scenario in READING:
            await one_scenario(scenario, store, struck, rng)
    finally:
        await store.close()
    print(f"\n{struck.total()} reads refused in {time.monotonic() - began:.0f} s, seed {SEED}: {dict(struck)}")
    never = (READS | ANSWERS) - set(struck)
    assert not never, f"never refused: {never}"
    assert struck.total() >= POINTS_MIN


async def one_scenario(scenario: Scenario, store: Store, struck: Counter[str], rng: random.Random) -> None:
    both = by_effort(False, False, True)
    crashed = False
    if both or rng.random() < 0.5:
        crashed = await everywhere(Bench(scenario, store, not scenario.blocking), struck, rng, crash=True)
    if both or not crashed:
        await everywhere(Bench(scenario, store, False), struck, rng, crash=False)


async def test_on_sqlite(tmp_path: Path) -> None:
    with scratch(tmp_path, "reads") as url:
        await all_scenarios(url)


@pytest.mark.postgres
async def test_on_postgres(postgres_url: str) -> None:
    await all_scenarios(postgres_url)
