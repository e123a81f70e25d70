"""Many seeds, in several real processes: what failed, what was hit, how fast it was."""

from __future__ import annotations

import functools
import gc
import multiprocessing
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

from perdure.testing.simulation.sometimes import POINTS, take_hits
from perdure.testing.simulation.world import simulate

JOBS = 2  # real processes
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
    jobs: int
    kinds: Sequence[str] = ()  # of scripts; all, if none is named

    @property
    def missed(self) -> list[str]:
        """Points that no seed has hit."""
        return [point for point in POINTS if not self.hits[point]]

    @property
    def speed(self) -> float:
        """Virtual seconds for one of processor time, which other load of the machine changes little."""
        return self.virtual / max(self.busy, 1e-9)

    @property
    def together(self) -> float:
        """Virtual seconds for one of the processes together, however long they waited for a processor."""
        return self.speed * self.jobs

    def __str__(self) -> str:
        said = [f"{told}\nagain: {again(seed, self.kinds)}" for seed, told in list(self.failed.items())[:SHOWN]]
        if self.failed:
            said.append(f"failed seeds: {' '.join(map(str, list(self.failed)[:50]))}")
        said.append(
            f"simulator: {self.seeds} seeds, {len(self.failed)} failed; {len(POINTS) - len(self.missed)} of "
            f"{len(POINTS)} points hit; {self.virtual:.0f} s in {self.wall:.0f} s, {self.busy:.0f} s of them at work: "
            f"{self.virtual / self.wall:.0f} times real time ({self.speed:.0f} times for each of {self.jobs} processes)"
        )
        return "\n".join(said)


def again(seed: int, kinds: Sequence[str] = ()) -> str:
    """The command that runs a seed again, with all that happens in it."""
    of = f" --kinds {','.join(kinds)}" if kinds else ""
    return f"python -m perdure.testing.simulation --seed {seed}{of} --trace"


def run(seeds: Sequence[int], jobs: int = JOBS, kinds: Sequence[str] = ()) -> Report:
    """Run each seed once, in ``jobs`` real processes. What comes of it does not depend on their number.

    ``kinds``: of scripts, instead of all.
    """
    began = time.monotonic()
    some = functools.partial(_some, kinds=tuple(kinds))
    chunks = [seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK)]
    if jobs == 1 or len(chunks) == 1:
        parts: Iterable[tuple[dict[int, str], Counter[str], float, float]] = map(some, chunks)
        return _sum(len(seeds), parts, began, 1, kinds)
    # Fresh processes: a fork of one with threads (a test's) may inherit locks that nobody will open.
    # What is there from the start is no garbage: the collector need not look at it again and again.
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"), initializer=gc.freeze) as pool:
        return _sum(len(seeds), pool.map(some, chunks), began, jobs, kinds)


def _sum(
    seeds: int,
    parts: Iterable[tuple[dict[int, str], Counter[str], float, float]],
    began: float,
    jobs: int,
    kinds: Sequence[str],
) -> Report:
    failed: dict[int, str] = {}
    hits: Counter[str] = Counter()
    virtual = busy = 0.0
    for wrong, hit, seconds, used in parts:
        failed |= wrong
        hits += hit
        virtual += seconds
        busy += used
    return Report(seeds, failed, hits, virtual, time.monotonic() - began, busy, jobs, kinds)


def _some(seeds: Sequence[int], *, kinds: Sequence[str]) -> tuple[dict[int, str], Counter[str], float, float]:
    began = time.process_time()
    take_hits()
    failed: dict[int, str] = {}
    virtual = 0.0
    for seed in seeds:
        result = simulate(seed, kinds=kinds)
        virtual += result.virtual
        if not result.good:
            failed[seed] = str(result)
    return failed, take_hits(), virtual, time.process_time() - began
