"""What happens to a simulated fleet beside its faults: deploys, policies, modes, a person; and who judges the modes."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from perdure.testing.histcheck.evidence import Evidence
from perdure.testing.simulation import faults, simulate
from perdure.testing.simulation.failover import Failover
from perdure.testing.simulation.faults import Mix
from perdure.testing.simulation.judgement import ALL
from perdure.testing.simulation.leased import unleased
from perdure.testing.simulation.modes import wrong
from perdure.testing.simulation.sometimes import ANSWERS
from perdure.testing.simulation.wire import Cut
from tests.simulation.hits import hits


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
    found = hits(Mix.calm(judged=1.0, kill=1.2, drain=1.0, one_host=1.0), "judged", seeds=40)
    assert len([point for point in found if point.startswith("a policy was asked and answered")]) > 3
    assert "a person let go on what a policy held" in found


@pytest.mark.parametrize("seed", [739, 782])
def test_a_world_ends_when_a_person_has_let_go_on_what_a_policy_held(seed: int) -> None:
    result = simulate(seed)
    assert result.good, str(result)


@pytest.mark.parametrize("kind", ["queued", "portioned", "keyed", "scheduled"])
def test_lines_keys_and_schedules_under_deaths(kind: str) -> None:
    found = hits(Mix.calm(kill=1.0, drain=0.5, aborted=0.05, lost=0.05), kind, seeds=12)
    wanted = {
        "queued": "an item of a queue was taken over", "portioned": "an item of a queue was taken over",
        "keyed": "a key was another's", "scheduled": "a nominal time was waiting",
    }  # fmt: skip
    assert wanted[kind] in found


def test_a_failover_loses_what_is_done_again() -> None:
    found = hits(Mix.calm(failover=1.0), seeds=24)
    assert found >= {"a failover lost commits", "a run knew more than the database after a failover"}


def test_an_operator_orders_everything_and_dies_meanwhile() -> None:
    found = hits(Mix.calm(orders=True, rollout=True), seeds=24)
    wanted = {f"an operator ordered: {verb}" for verb in ("reset", "fork", "restart", "move", "batch", "route")}
    assert found >= wanted | {"an order was given twice", "an operator's process died of an order"}


@pytest.mark.parametrize("how", list(Cut))
def test_a_process_that_is_cut_off_goes_on_in_no_way_that_it_may_not(how: Cut, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "CUTS", (how,))
    found = hits(Mix.calm(cut=1.5, slow=0.1), "chain", "group", seeds=6)
    assert f"a process was cut off: {how.name.lower()}" in found


def test_what_begins_without_a_lease_is_told() -> None:
    who = ("incarnation", {**incarnation("a"), "lease_until": 5_000_000})
    begun = {"phase": "begin", "owner": "a", "pid": 97, "w": "w", "name": "pay", "path": "1", "at": 5_500_000}

    def judged(*faults: dict[str, Any], at: int = 5_500_000) -> str:
        of = evidence(who)
        of.ledger, of.faults = [{**begun, "at": at}], list(faults)
        return unleased(of, 2.0)

    assert judged() == "w began pay at 1 0.500 s after the lease had run out"
    assert judged(at=5_000_500) == "", "as much as clocks differ"
    stopped = {"fault": "stop", "whom": "97", "at": 1_000_000, "seconds": 4.5}
    assert judged(stopped) == "", "it was stopped right between looking at its clock and beginning"
    assert judged({**stopped, "whom": "98"}) != ""
    assert judged({**stopped, "seconds": 4.0}) != ""


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
    back = ("incarnation", incarnation("a again"))
    told = "recovery=single: a again works beside b (audit 7)"
    assert wrong(evidence(*two, gone, held_by("b"), back, held_by("a again")), "single") == told


# -- what a failover excuses


def lost_from(n: int, *rows: tuple[str, dict[str, Any]]) -> Failover:
    """A failover between the moments 100 and 200, that has lost the audit's rows from the n-th on."""
    audit = [{"table": table, "op": "insert", "row": row} for table, row in rows]
    world = SimpleNamespace(
        loop=SimpleNamespace(later=lambda *_: None), healed=False, over=False, now=lambda: 200,
        faults=SimpleNamespace(note=lambda *_, **__: None),
        database=SimpleNamespace(audit=lambda: audit, become=lambda copy: len(audit) - copy[1]),
    )  # fmt: skip
    failover = Failover(world, random.Random(1))
    failover._fail_over((b"", n), 100)
    return failover


def effect(id: str, claim: str, at: int) -> dict[str, Any]:
    return {"w": id, "claim": claim, "at": at}


def test_what_is_begun_on_the_strength_of_lost_records_is_no_evidence_until_the_run_has_proven_itself() -> None:
    held = [("workflow", {"id": "w", "claim": "1"}), ("workflow", {"id": "v", "claim": "1"})]
    failover = lost_from(2, *held, ("history", {"id": "w", "run": 1, "seq": 1}), ("wake", {"id": "v"}))
    failover._world.now = lambda: 300
    failover.prove("w", "1")
    begun = [effect("w", "1", at) for at in (99, 150, 250, 350)]
    others = [effect("v", "1", 150), effect("v", "1", 250), effect("w", "2", 250)]  # lost nothing; read what there is
    assert failover.effects([*begun, *others]) == [begun[0], begun[3], *others]


def test_an_end_that_is_lost_may_have_been_told_to_whoever_needs_not_ask() -> None:
    ended = ("workflow", {"id": "w", "claim": "1", "closed": 150})
    failover = lost_from(1, ("workflow", {"id": "w", "claim": "1", "closed": None}), ended)

    def call(i: int, op: str, id: str, asked: int, answered: int) -> list[dict[str, Any]]:
        line = {"c": "c", "i": i, "op": op, "w": id}
        return [{**line, "type": "invoke", "at": asked}, {**line, "type": "ok", "at": answered}]

    calls = [
        *call(1, "result", "w", 90, 99), *call(2, "result", "w", 90, 150), *call(3, "result", "w", 250, 250),
        *call(4, "result", "w", 250, 260), *call(5, "result", "v", 250, 250), *call(6, "send", "w", 250, 250),
    ]  # fmt: skip
    assert {line["i"] for line in failover.calls(calls) if line["type"] == "unknown"} == {2, 3}


def test_mail_that_is_lost_may_have_been_received() -> None:
    kept, lost = ({"dest": "w", "data": data, "mid": data} for data in "12")
    failover = lost_from(1, ("message", kept), ("message", lost), ("wake", {"dest": "w"}))
    assert failover.lost_mail == {("w", "2")}


def test_a_claim_that_is_lost_itself_never_proves_itself() -> None:
    failover = lost_from(1, ("workflow", {"id": "w", "claim": None}), ("workflow", {"id": "w", "claim": "1"}))
    again = effect("w", "2", 400)
    assert failover.effects([effect("w", "1", 150), effect("w", "1", 250), effect("w", "1", 390), again]) == [again]
