"""What happens to a simulated fleet beside its faults: deploys, policies, modes, a person; and who judges the modes."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.testing.histcheck.evidence import Evidence
from perdure.testing.simulation import simulate
from perdure.testing.simulation.faults import Mix
from perdure.testing.simulation.judgement import ALL
from perdure.testing.simulation.modes import wrong
from perdure.testing.simulation.sometimes import ANSWERS, take_hits


def hits(mix: Mix, *kinds: str, seeds: int = 6) -> set[str]:
    take_hits()
    for seed in range(1, seeds + 1):
        result = simulate(seed, mode="liveness", mix=mix, kinds=kinds)
        assert result.good, str(result)
    return set(take_hits())


def test_a_rollout_adopts_upgrades_strands_and_drains() -> None:
    found = hits(Mix.calm(rollout=1.0, kill=0.5), "chain", "looper", "sleeper", "stubborn", "hurried", seeds=40)
    assert found >= {"work was adopted by another version", "work was stranded by a rollout"}


def test_a_world_with_a_rollout_is_the_same_world_again() -> None:
    mix = Mix.calm(rollout=1.0, kill=0.5, judged=1.0, hand_over=0.3)
    first, second = (simulate(4, mix=mix, trace=True) for _ in range(2))
    assert first.lines == second.lines
    simulate(5)  # of other versions: nothing of it stays
    assert simulate(4, mix=mix).trace == first.trace


def test_a_policy_answers_anything() -> None:
    found = hits(Mix.calm(judged=1.0, kill=1.2, drain=1.0, one_host=1.0), "judged", seeds=12)
    assert len([point for point in found if point.startswith("a policy was asked and answered")]) > 3
    assert "a person let go on what a policy held" in found


def test_a_failover_loses_what_is_done_again() -> None:
    found = hits(Mix.calm(failover=1.0), seeds=12)
    assert found >= {"a failover lost commits", "a run knew more than the database after a failover"}


def test_each_answer_is_a_point() -> None:
    assert set(ANSWERS) == set(ALL)


@pytest.mark.parametrize("recovery", ["own", "manual", "single"])
def test_each_mode_comes_to_an_end(recovery: str) -> None:
    assert f"a world of recovery={recovery}" in hits(Mix.calm(recovery, kill=1.0, stop=0.5), seeds=4)


# -- who judges the modes


def incarnation(id: str, state: str = "alive", executor: str = "", heir: str | None = None) -> dict[str, Any]:
    return {"id": id, "state": state, "executor": executor or id, "heir": heir, "lease_until": 100, "pid": ord(id[0])}


def evidence(*rows: tuple[str, dict[str, Any]]) -> Evidence:
    lines = [
        {"n": n, "tx": n, "at": n, "table": table, "op": "update", "row": {"app": "sim", **row}}
        for n, (table, row) in enumerate(rows, 1)
    ]
    return Evidence(lines)


def held_by(owner: str) -> tuple[str, dict[str, Any]]:
    return "workflow", {"id": "w", "owner": owner}


@pytest.mark.parametrize(
    ("recovery", "state", "executor", "heir", "told"),
    [
        ("fleet", "dead", "b", None, ""),
        ("manual", "dead", "b", None, "recovery=manual: w went from a to b (audit 5)"),
        ("manual", "released", "b", None, ""),
        ("manual", "released", "b", "b", ""),
        ("fleet", "released", "b", "c", "recovery=fleet: w went from a to b (audit 5), and a person had given it to c"),
        ("own", "dead", "b", None, "recovery=own: w went from a to b (audit 5)"),
        ("own", "dead", "a", None, ""),
        ("own", "released", "b", None, ""),
    ],
)
def test_who_may_take_over(recovery: str, state: str, executor: str, heir: str | None, told: str) -> None:
    former, next_one = ("incarnation", incarnation("a")), ("incarnation", incarnation("b", executor=executor))
    over = ("incarnation", incarnation("a", state, heir=heir))
    assert wrong(evidence(former, next_one, held_by("a"), over, held_by("b")), recovery) == told


def test_nobody_works_beside_a_single_one() -> None:
    two = [("incarnation", incarnation("a")), ("incarnation", incarnation("b")), held_by("a")]
    assert wrong(evidence(*two), "single") == ""
    assert wrong(evidence(*two, held_by("b")), "single") == "recovery=single: b works beside a (audit 4)"
    gone = ("incarnation", incarnation("a", "dead"))
    assert wrong(evidence(*two, gone, held_by("b")), "single") == ""
