"""Which points good worlds of one mix of faults have met: see ``perdure.testing.simulation.sometimes``."""

from __future__ import annotations

from perdure.testing.simulation import simulate
from perdure.testing.simulation.faults import Mix
from perdure.testing.simulation.sometimes import take_hits


def hits(mix: Mix, *kinds: str, seeds: int) -> set[str]:
    take_hits()
    for seed in range(1, seeds + 1):
        result = simulate(seed, mode="liveness", mix=mix, kinds=kinds)
        assert result.good, str(result)
    return set(take_hits())
