"""Many seeds, in several real processes: what failed, what was hit, how fast it was."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

from perdure.testing.simulation.sometimes import POINTS, take_hits
from perdure.testing.simulation.world import simulate

CHUNK = 25  # seeds that a worker takes at a time
SHOWN = 5  # failures that are told in full


class Report(NamedTuple):
    """What came of many seeds."""

    seeds: int
    failed: dict[int, str]  # seed -> what was wrong
    hits: Counter[str]
    virtual: float  # seconds that passed in the worlds
    wall: float  # seconds that passed here
    busy: float  # seconds of processor time

    @property
    def missed(self) -> list[str]:
        """Points that no seed has hit."""
        return [point for point in POINTS if not self.hits[point]]

    @property
    def speed(self) -> float:
        """Virtual seconds for one of processor time, which other load of the machine does not change."""
        return self.virtual / max(self.busy, 1e-9)

    def __str__(self) -> str:
        said = list(self.failed.values())[:SHOWN]
        if self.failed:
            seeds = " ".join(map(str, list(self.failed)[:50]))
            said.append(f"failed seeds: {seeds}\nagain: python -m perdure.testing.simulation --seed SEED --trace")
        said.append(
            f"simulator: {self.seeds} seeds, {len(self.failed)} failed; {len(POINTS) - len(self.missed)} of "
            f"{len(POINTS)} points hit; {self.virtual:.0f} s in {self.wall:.0f} s: "
            f"{self.virtual / self.wall:.0f} times real time (one processor: {self.speed:.0f} times)"
        )
        return "\n".join(said)


def run(seeds: Sequence[int], jobs: int = 0) -> Report:
    """Run each seed once, in ``jobs`` processes (0: one for each processor)."""
    began = time.monotonic()
    chunks = [seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK)]
    jobs = jobs or os.cpu_count() or 1
    if jobs == 1 or len(chunks) == 1:
        parts: Iterable[tuple[dict[int, str], Counter[str], float, float]] = map(_some, chunks)
        return _sum(len(seeds), parts, began)
    # Fresh processes: a fork of one with threads (a test's) may inherit locks that nobody will open.
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        return _sum(len(seeds), pool.map(_some, chunks), began)


def _sum(seeds: int, parts: Iterable[tuple[dict[int, str], Counter[str], float, float]], began: float) -> Report:
    failed: dict[int, str] = {}
    hits: Counter[str] = Counter()
    virtual = busy = 0.0
    for wrong, hit, seconds, used in parts:
        failed |= wrong
        hits += hit
        virtual += seconds
        busy += used
    return Report(seeds, failed, hits, virtual, time.monotonic() - began, busy)


def _some(seeds: Sequence[int]) -> tuple[dict[int, str], Counter[str], float, float]:
    began = time.process_time()
    take_hits()
    failed: dict[int, str] = {}
    virtual = 0.0
    for seed in seeds:
        result = simulate(seed)
        virtual += result.virtual
        if not result.good:
            failed[seed] = str(result)
    return failed, take_hits(), virtual, time.process_time() - began
