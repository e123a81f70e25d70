"""The simulator: seeds are good, the same seed is the same world, time is virtual, and every point can be hit."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from typing import Any

import pytest

from perdure.testing.histcheck.audit import SQLITE_READ, install_sqlite, lines
from perdure.testing.simulation import POINTS, simulate, world
from perdure.testing.simulation.database import Database
from perdure.testing.simulation.faults import Mix
from perdure.testing.simulation.loop import Stuck, VirtualLoop
from perdure.testing.simulation.runner import run
from tests.effort import by_effort

# `make simulate` runs 2,000, and asks for every point; CI runs it, too.
SEEDS = int(os.environ.get("PERDURE_TEST_SEEDS", by_effort(24, 12, 60)))
STREAM_SEEDS = max(10, SEEDS // 6)
PAUSE_SEEDS = 60


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_seeds_are_good() -> None:
    report = run(range(1, SEEDS + 1), jobs=1)
    print(report)
    assert not report.failed, str(report)
    few = len(POINTS) // (4 if SEEDS >= 60 else 2)
    assert len(report.missed) < few, f"these faults met nothing: {report.missed}"
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


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_worlds_of_pauses_are_good() -> None:
    for seed in range(1, PAUSE_SEEDS + 1):
        result = simulate(seed, kinds=("paused",))
        assert result.good, str(result)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_worlds_of_blocking_bodies_are_good() -> None:
    """In greenlets: threads no virtual loop can hold."""
    for seed in range(1, PAUSE_SEEDS + 1):
        result = simulate(seed, kinds=("blocking",))
        assert result.good, str(result)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_worlds_of_transactions_are_good() -> None:
    """Sixty is the world in which a former holder applied what the next had recorded as a timeout."""
    for seed in range(1, PAUSE_SEEDS + 1):
        result = simulate(seed, mode="liveness", mix=Mix.calm(commits=0.4), kinds=("transfers",))
        assert result.good, str(result)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_worlds_of_moves_are_good() -> None:
    for seed in range(1, PAUSE_SEEDS + 1):
        result = simulate(seed, kinds=("moved",))
        assert result.good, str(result)


@pytest.mark.parametrize(("seed", "kinds"), [(3, ()), (8, ()), (97, ()), (3, ("blocking",))])
def test_a_seed_is_the_same_world_again(seed: int, kinds: tuple[str, ...]) -> None:
    first, second = (simulate(seed, kinds=kinds, trace=True) for _ in range(2))
    assert first.lines == second.lines
    assert first.trace == second.trace
    assert simulate(seed + 1, kinds=kinds).trace != first.trace


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


def test_what_fails_is_told_with_the_command_that_repeats_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.World, "_come_to_an_end", _never)
    report = run(range(7, 8), jobs=1)
    assert list(report.failed) == [7]
    assert "stuck: never" in str(report)
    assert "again: python -m perdure.testing.simulation --seed 7 --trace" in str(report)


async def _never(_self: object, _tasks: object) -> str:
    return "never"


def test_what_comes_of_it_does_not_depend_on_the_number_of_processes() -> None:
    seeds = range(1, 51)
    one, two = run(seeds, jobs=1), run(seeds, jobs=2)
    assert (one.failed, one.hits, one.virtual) == (two.failed, two.hits, two.virtual)


def test_the_trail_is_what_the_triggers_of_a_real_database_write(monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database()
    install_sqlite(database.conn)
    monkeypatch.setattr(world, "_database", [database])
    for seed in (1, 6):
        database.wipe()
        database.conn.execute("delete from audit")
        assert simulate(seed).good
        written = lines(database.conn.execute(SQLITE_READ, (0,)).fetchall())
        assert written
        told = [(line["table"], line["op"], line["row"]) for line in database.audit()]
        assert told == [(line["table"], line["op"], line["row"]) for line in written]


def test_a_trail_forgets_what_is_rolled_back() -> None:
    database = Database()

    def job(conn: Any) -> None:
        conn.execute("insert into wake (app, dest, nonce) values ('app', 'w', x'00')")
        raise LookupError

    with pytest.raises(LookupError):
        database.write(job, 5)
    assert database.audit() == []


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


def test_the_loop_says_when_no_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.testing.simulation.loop.SPINS_MAX", 100)
    loop = VirtualLoop()

    def spin() -> None:
        loop.call_soon(spin)

    loop.call_soon(spin)
    with pytest.raises(Stuck, match="spins"):
        loop.run_forever()
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


def test_how_fast_it_was_is_judged_for_who_asks() -> None:
    command = [sys.executable, "-m", "perdure.testing.simulation", "--seeds", "1..2", "--jobs", "1"]
    fast = subprocess.run([*command, "--at-least", "0.001"], capture_output=True, text=True, check=False)
    assert fast.returncode == 0, fast.stdout
    slow = subprocess.run([*command, "--at-least", "1e9"], capture_output=True, text=True, check=False)
    assert slow.returncode == 1
    assert "times real time, and 1e+09 were asked for" in slow.stdout
