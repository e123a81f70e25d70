"""Each mutant of the engine is caught by the checker (or hangs, and is told so), in worlds where the engine is good.

By default the world in which a mutant is known to be caught comes first, and the engine as it is must be good there;
``PERDURE_TEST_MUTANTS=all`` begins with the first world, and asks for more of the engine. ``make test`` and CI take
a sixth of the mutants, by chance; ``make crashes`` all.
"""

from __future__ import annotations

import os
import random

import pytest

from perdure.testing.simulation import simulate
from perdure.testing.simulation.faults import Mix
from tests.effort import by_effort
from tests.mutants import (
    aside,
    commits,
    fence,
    fleet,
    order,
    orders,
    queues,
    recovery,
    replay,
    schedules,
    streams,
    transactions,
)  # fmt: skip
from tests.mutants.base import Mutant

MUTANTS: list[type[Mutant]] = [
    one
    for module in (
        fence,
        commits,
        aside,
        recovery,
        replay,
        order,
        fleet,
        streams,
        queues,
        schedules,
        orders,
        transactions,
    )
    for one in vars(module).values()
    if isinstance(one, type) and issubclass(one, Mutant) and one.apply is not Mutant.apply
]
ALL = os.environ.get("PERDURE_TEST_MUTANTS") == "all"
SEED = int(os.environ.get("PERDURE_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
CONTROLS = 4  # worlds of the same faults in which the engine as it is must be good


def caught(mutant: Mutant, patch: pytest.MonkeyPatch) -> str:
    """By what, in which world; "" if it survives."""
    mix = Mix.calm(**mutant.faults)
    worlds = list(range(1, mutant.seeds + 1))
    if not ALL:
        worlds.sort(key=lambda seed: seed != mutant.known)
    for seed in worlds[: CONTROLS if ALL else 1]:
        result = simulate(seed, mode="liveness", mix=mix, kinds=mutant.kinds)
        assert result.good, f"without the mutant {mutant.number}: {result}"
    with patch.context() as patched:
        mutant.apply(patched)
        for seed in worlds:
            result = simulate(seed, mode="liveness", mix=mix, kinds=mutant.kinds)
            if not result.good:
                return f"{', '.join(sorted(result.verdict.broken)) or 'stuck'} at seed {seed}"
    return ""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_mutant_survives(monkeypatch: pytest.MonkeyPatch) -> None:
    print(f"\nPERDURE_SEED={SEED}")
    tried = random.Random(SEED).sample(MUTANTS, len(MUTANTS) // by_effort(6, 6, 1))
    score = {one.__name__: caught(one(), monkeypatch) for one in tried}
    for one in tried:
        print(f"mutant {one.number:>3} {one.__name__:<22} {score[one.__name__] or 'SURVIVES'}")
    print(f"mutants: {sum(map(bool, score.values()))}/{len(tried)} of {len(MUTANTS)}")
    survivors = [name for name, by in score.items() if not by]
    assert not survivors, f"no invariant that is judged tells of {', '.join(survivors)}: a workload is missing"
