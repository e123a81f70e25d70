"""The simulator: seeds are good, the same seed is the same world, time is virtual, and every point can be hit."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time

import pytest

from perdure.testing.simulation import POINTS, simulate
from perdure.testing.simulation.loop import Stuck, VirtualLoop
from perdure.testing.simulation.runner import run

SEEDS = int(os.environ.get("PERDURE_TEST_SEEDS", "120"))  # `make simulate` runs 600, and asks for every point
STREAM_SEEDS = max(10, SEEDS // 6)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_seeds_are_good() -> None:
    report = run(range(1, SEEDS + 1), jobs=1)
    print(report)
    assert not report.failed, str(report)
    assert len(report.missed) < len(POINTS) / 4, f"these faults met nothing: {report.missed}"
    assert report.speed > 20, f"{report.speed:.0f} virtual seconds for one: waits must cost nothing"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_worlds_of_streams_are_good() -> None:
    values = 0
    for seed in range(1, STREAM_SEEDS + 1):
        result = simulate(seed, kinds=("teller",))
        assert result.good, str(result)
        values += result.verdict.looked["I30"]
    assert values > 50 * STREAM_SEEDS


@pytest.mark.parametrize("seed", [3, 8, 97])
def test_a_seed_is_the_same_world_again(seed: int) -> None:
    first, second = simulate(seed, trace=True), simulate(seed, trace=True)
    assert first.lines == second.lines
    assert first.trace == second.trace
    assert simulate(seed + 1).trace != first.trace


def test_a_seed_is_the_same_world_in_every_process() -> None:
    program = "from perdure.testing.simulation import simulate; print(simulate(8).trace, simulate(14).trace)"
    traces = {
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    }  # fmt: skip
    assert len(traces) == 1
    assert simulate(14).trace in traces.pop()


@pytest.mark.parametrize("mode", ["safety", "liveness"])
def test_both_modes(mode: str) -> None:
    result = simulate(5, mode=mode)
    assert result.good, str(result)
    healed = any(line["fault"] == "heal" for line in result.evidence.faults)
    assert healed == (mode == "liveness")


def test_the_points_are_many_and_different() -> None:
    assert len(set(POINTS)) == len(POINTS) >= 60


def test_the_loop_skips_to_the_next_timer() -> None:
    loop = VirtualLoop()
    began = time.monotonic()

    async def sleep_long() -> float:
        await asyncio.sleep(86_400)  # waits: in virtual time
        return loop.time()

    assert loop.run_until_complete(sleep_long()) == 86_400
    assert time.monotonic() - began < 5
    loop.close()


def test_a_timer_takes_time_however_short_it_is() -> None:
    """Who waits for the rest of a second, a rest too small to count, would wait for it for ever."""
    loop = VirtualLoop()

    async def wait() -> float:
        await asyncio.sleep(1.0)  # waits: in virtual time
        before = loop.time()
        await asyncio.sleep(1e-17)  # waits: in virtual time
        return loop.time() - before

    assert loop.run_until_complete(wait()) > 0
    loop.close()


def test_timers_of_one_moment_come_in_the_order_in_which_they_were_made() -> None:
    loop = VirtualLoop()
    came: list[int] = []
    for n in range(20):
        loop.call_at(1.0, came.append, n)
    loop.call_at(2.0, loop.stop)
    loop.run_forever()
    assert came == list(range(20))
    loop.close()


def test_the_loop_says_when_nothing_can_ever_happen() -> None:
    loop = VirtualLoop()

    async def wait_for_nobody() -> None:
        await loop.create_future()

    task = loop.create_task(wait_for_nobody())
    with pytest.raises(Stuck):
        loop.run_until_complete(task)
    task.cancel()
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()


def test_the_command_repeats_a_seed() -> None:
    command = [sys.executable, "-m", "perdure.testing.simulation", "--seed", "14", "--trace"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"trace {simulate(14).trace}" in said
    assert " commit " in said


def test_the_command_runs_many() -> None:
    command = [sys.executable, "-m", "perdure.testing.simulation", "--seeds", "1..4", "--jobs", "1"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "simulator: 4 seeds, 0 failed" in said
    assert "times real time" in said
