"""Workflows that nobody wrote, in worlds of faults: others in each run, by a seed that is printed."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator
from typing import Any

import pytest

from perdure.runtime.loop import WorkflowLoop
from perdure.testing.plans import BRANCHES, LEAVES, Plan, draw
from perdure.testing.simulation import __main__ as command
from perdure.testing.simulation import simulate, world
from perdure.testing.simulation.programs import Program
from perdure.testing.simulation.runner import run
from perdure.testing.simulation.slow import CUTS, slow_machine
from tests.effort import by_effort

WORLDS = by_effort(40, 60, 600)
SEED = int(os.environ.get("PERDURE_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)


def test_what_nobody_wrote_comes_to_its_end_and_replays_as_it_was() -> None:
    report = run(range(SEED, SEED + WORLDS), jobs=1, kinds=("program",))
    print(report)
    assert not report.failed, str(report)
    assert report.hits["a program that nobody wrote ended"] > WORLDS
    assert report.hits["a step was run again"] > 0


@pytest.mark.parametrize("seed", [63, 90])
def test_a_world_of_programs_is_the_same_world_again(seed: int) -> None:
    """In these two somebody waits, turn after turn, for a burst that was cut, which takes time."""
    first, second = (simulate(seed, kinds=("program",), trace=True) for _ in range(2))
    assert first.good, str(first)
    assert first.lines == second.lines
    assert first.trace == second.trace


def test_a_replay_that_is_another_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here it is, by a body that knows how many there have been in its process."""
    bodies = itertools.count()
    plain = Program.__init__

    def begin(self: Any, *given: Any) -> None:
        plain(self, *given)
        self.log.append(f"body {next(bodies)}")

    monkeypatch.setattr(Program, "__init__", begin)
    said = [str(result) for seed in range(1, 21) if not (result := simulate(seed, kinds=("program",))).good]
    assert "history has step declare.report('10', '6 " in "".join(said)


def test_each_kind_is_drawn_and_a_seed_is_the_same_plan() -> None:
    def kinds(plan: Plan) -> Iterator[str]:
        yield plan.kind
        for part in plan.parts:
            yield from kinds(part)

    drawn = [draw(seed) for seed in range(300)]
    assert {kind for plan in drawn for kind in kinds(plan)} == {*LEAVES, *BRANCHES}
    assert drawn == [draw(seed) for seed in range(300)]
    assert max(plan.size for plan in drawn) > 30


def test_the_machine_is_slow_in_worlds_of_programs_and_in_a_part_of_the_others() -> None:
    class Loop:
        def call_soon(self, callback: Any, *args: Any, context: Any = None) -> None: ...

    def is_slow(seed: int, kind: str) -> bool:
        with slow_machine(loop, seed, (kind,)):
            seen.add(WorkflowLoop.burst_callbacks_max)
            return "call_soon" in vars(loop)

    loop, usual = Loop(), WorkflowLoop.burst_callbacks_max
    seen: set[int] = set()
    assert all(is_slow(seed, "program") for seed in range(100))
    assert seen == set(CUTS)
    assert 10 < sum(is_slow(seed, "chain") for seed in range(100)) < 30
    assert WorkflowLoop.burst_callbacks_max == usual
    assert "call_soon" not in vars(loop)


def test_the_command_runs_worlds_of_one_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--seed", "3", "--kinds", "program"]) == 0
    assert "seed 3 (liveness): good" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command.main(["--kinds", "programme,chain"])
    assert "there is no programme; there is: asker, blocking" in capsys.readouterr().err


def test_what_fails_is_told_with_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_self: object, _tasks: object) -> str:
        return "never"

    monkeypatch.setattr(world.World, "_come_to_an_end", never)
    report = run(range(7, 8), jobs=1, kinds=("program",))
    assert "again: python -m perdure.testing.simulation --seed 7 --kinds program --trace" in str(report)
