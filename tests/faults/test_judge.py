"""The chaos run's own judge sees what is put before it."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

from chaos import judge
from chaos.auditor import faults_of
from chaos.judge import Evidence, Line, Row
from chaos.plan import ACCOUNTS, CENTS, OneOf, Planned
from perdure.model.states import CODE, Status

ID = "w0"


def planned(**more: Any) -> Planned:
    given = {
        "id": ID, "blocking": False, "tree": [], "mail": (), "cancel": None, "ends": "completed", "result": ["a"],
        "effects": {"w0.1": 1}, **more,
    }  # fmt: skip
    return Planned(**given)


def row(status: Status = Status.COMPLETED, id: str = ID, reason: str | None = None) -> Row:
    return Row(id, 1, "tree", CODE[status], reason, "", None, 0, 1, None, None, "")


def effect(at: float, pid: int = 1, key: str = "k", attempt: int = 1, name: str = "w0.1") -> Line:
    return Line(name, key, attempt, ID, 1, "1", pid, at)


def evidence(plan: Planned, **more: Any) -> Evidence:
    """What a run without any fault leaves, but for what is given."""
    found = Evidence.__new__(Evidence)
    vars(found).update(
        planned={ID: plan}, ledger=[effect(10.0)], faults=[], said=[], rows={ID: row()},
        counts=[("chaos", ID, 1, 2, 2, 1)], doubled=[], untaken=[],
        recorded={(ID, 1, "1"): 11.0}, interrupted=defaultdict(list),
        history=[answer("start", ID), answer("result", ["a"])],
    )  # fmt: skip
    vars(found).update(more)
    return found


def answer(op: str, value: Any, **more: Any) -> dict[str, Any]:
    return {"w": ID, "op": op, "n": 0, "type": "ok", "value": value, **more}


def failed(op: str, error: str) -> dict[str, Any]:
    return answer(op, "text", type="fail", error=error)


CHECKS = (
    judge.answers, judge.ends, judge.effects, judge.no_effect_after_its_record, judge.histories, judge.messages,
    judge.errors,
)  # fmt: skip


def violations(found: Evidence) -> str:
    return "\n".join(violation for check in CHECKS for violation in check(found))


def test_nothing_wrong_is_nothing_found() -> None:
    assert violations(evidence(planned())) == ""
    again = [effect(10.0), effect(10.5, pid=2)]
    killed = defaultdict(list, {1: [(10.2, 10.2)]})
    assert violations(evidence(planned(), ledger=again, interrupted=killed)) == ""
    either = planned(result=[OneOf(("a", "b"))])
    assert violations(evidence(either)) == ""


START = answer("start", ID)
WRONG: dict[str, dict[str, Any]] = {
    "has no answer to result": {"history": [START]},
    "the model says": {"history": [START, answer("result", ["b"])]},
    "planned was completed": {"history": [START, failed("result", "WorkflowCancelled")]},
    "start 0 failed: DatabaseTrouble": {"history": [failed("start", "DatabaseTrouble"), answer("result", ["a"])]},
    "is not in the database": {"rows": {}},
    "is held (nondeterminism)": {"rows": {ID: row(Status.HELD, reason="nondeterminism")}},
    "w0:1: failed": {"rows": {ID: row(), "w0:1": row(Status.FAILED, "w0:1")}},
    "was cancelled by nobody": {"rows": {ID: row(), "w0:1": row(Status.CANCELLED, "w0:1")}},
    "nobody started it": {"rows": {ID: row(), "x": row(id="x")}},
    "is missing at attempts [1]": {"ledger": []},
    "took more attempts than planned": {"ledger": [effect(10.0), effect(10.1, attempt=2)]},
    "was never planned": {"ledger": [effect(10.0), effect(10.0, name="w0.9")]},
    "under several keys": {"ledger": [effect(10.0), effect(10.0, key="l")]},
    "nothing had interrupted the first": {"ledger": [effect(10.0), effect(10.5, pid=2)]},
    "after its record": {"ledger": [effect(10.0), effect(12.0)]},
    "2 records from 1 to 3": {"counts": [("chaos", ID, 1, 2, 3, 1)]},
    "2 outcomes of step 1": {"doubled": [(ID, 1, "1", 2)]},
    "messages untaken": {"untaken": [(ID, 1)]},
    "an error of the library": {"said": [{"level": "ERROR", "said": "a bug", "pid": 1, "at": 1.0}]},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_found(wrong: str) -> None:
    assert wrong in violations(evidence(planned(), **WRONG[wrong]))


def test_at_most_once_is_once() -> None:
    killed = defaultdict(list, {1: [(10.2, 10.2)]})
    once = planned(at_most_once=frozenset({"w0.1"}))
    assert violations(evidence(once, ledger=[])) == ""  # it may never have happened
    assert "at most once" in violations(evidence(once, ledger=[effect(10.0), effect(10.5, 2)], interrupted=killed))


def test_a_cancel_says_how_it_ended() -> None:
    plan = planned(ends="either", cancel=1.0, effects={})
    told = [START, answer("cancel", "cancelled"), answer("result", ["a"])]
    assert "cancel was answered cancelled, but it is completed" in violations(evidence(plan, history=told, ledger=[]))


def test_a_snapshot_of_the_accounts_adds_up_or_is_a_fault() -> None:
    first, second, *rest = ACCOUNTS
    still = [(name, CENTS, 0, 0) for name in rest]
    assert faults_of([(first, CENTS - 5, 0, 5), (second, CENTS + 5, 5, 0), *still]) == []
    (torn, total) = faults_of([(first, CENTS - 5, 0, 5), (second, CENTS, 5, 0), *still])
    assert second in torn
    assert str(CENTS * len(ACCOUNTS) - 5) in total
    (unmoved,) = faults_of([(first, CENTS, 0, 5), (second, CENTS, 0, 0), *still])
    assert first in unmoved


def test_an_alarm_about_what_the_run_does_is_no_bug() -> None:
    said = [{"level": "ERROR", "said": "4 of 6 executors look expired together: more likely …", "pid": 1, "at": 1.0}]
    assert violations(evidence(planned(), said=said)) == ""
