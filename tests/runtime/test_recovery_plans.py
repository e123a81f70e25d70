"""What to do about a bad version's workflows: each row of the table, what a person assumes, groups and evidence."""

from __future__ import annotations

from typing import Any

import pytest

from perdure import App, Client
from perdure.batches import Move, Reset, Restart
from perdure.definitions import WorkflowDef
from perdure.errors import ConfigError
from perdure.model.problems import Failing, ProblemKind, Trouble
from perdure.model.recoveries import Advice, Assumed, Case, Group, advise
from perdure.model.states import Reason, Status
from perdure.model.writes import Hold, Park
from perdure.operations import recovery_plans
from perdure.operations.look import Order
from perdure.operations.recovery_plans import Evidence, RecoveryOrder, query_of
from perdure.store.base import Store
from tests.runtime.batching import token
from tests.runtime.deploys import first
from tests.runtime.moving import store_of
from tests.runtime.support import Ledger
from tests.runtime.test_batch_plans import answered, left_by_v1
from tests.store.build import close, one, record, running, unit

ANEW = Reset(to="first", exclude="all", move_to="good")


def advice(
    state: str = "open", problem: str | None = "step_failed", *, restartable: bool | None = False, version: str = "bad",
    **said: Any,
) -> Advice:  # fmt: skip
    group = Group(type="order", version=version, state=state, problem=problem, count=3, statuses={})
    return advise(group, Assumed(to="good", fixed="fixed", **said), restartable)


# -- the table, row by row


def test_retrying_and_restartable_begins_anew_on_the_good_version() -> None:
    for said in ({}, {"intact": ("order",)}, {"corrupted": ("order",)}):
        found = advice(restartable=True, **said)
        assert (found.case, found.verb) == (Case.RESTARTABLE, ANEW)


@pytest.mark.parametrize("restartable", [False, None])
def test_retrying_intact_and_not_restartable_goes_on_where_it_replays(restartable: bool | None) -> None:
    found = advice(restartable=restartable)
    assert (found.case, found.verb) == (Case.INTACT, Move(to="fixed"))
    assert "assumed intact" in found.because
    assert ("nobody who runs good says" in found.because) == (restartable is None)
    assert advice(problem=None, restartable=True).verb == Move(to="fixed"), "it is not retrying: it only waits there"


def test_retrying_corrupted_and_not_restartable_goes_back_to_its_last_wait() -> None:
    found = advice(corrupted=("order",))
    assert (found.case, found.verb) == (Case.CORRUPTED, Reset(to="last", move_to="fixed"))


@pytest.mark.parametrize("restartable", [True, False])
@pytest.mark.parametrize("state", ["failed", "timed_out"])
def test_closed_begins_anew_and_says_what_may_need_a_remedy(state: str, restartable: bool) -> None:
    found = advice(state, None, restartable=restartable)
    assert (found.case, found.verb) == (Case.CLOSED, ANEW)
    assert ("remedy" in found.because) == (not restartable)


def test_closed_with_a_result_does_so_only_if_that_is_wrong() -> None:
    assert advice("completed", None).case is Case.LEFT
    assert advice("completed", None, corrupted=("order:completed",)).verb == ANEW
    for state in ("cancelled", "terminated"):
        assert advice(state, None, corrupted=("*",)).verb is None


@pytest.mark.parametrize(("state", "ends"), [("open", True), ("failed", False)])
def test_replaceable_is_begun_under_another_id(state: str, ends: bool) -> None:
    found = advice(state, replace=("order",), restartable=True)
    assert (found.case, found.verb) == (Case.REPLACEABLE, Restart(terminate=ends, version="good"))


def test_what_is_there_already_is_left() -> None:
    for version in ("good", "fixed"):
        assert advice(version=version).case is Case.LEFT


def test_the_closer_word_holds_and_two_of_the_same_are_refused() -> None:
    said = {"corrupted": ("*",), "intact": ("order:step_failed",)}
    assert advice(**said).case is Case.INTACT
    assert advice(problem="no_code", **said).case is Case.CORRUPTED
    with pytest.raises(ConfigError, match="assumed corrupted and intact; name one of them more closely: order:open"):
        advice(corrupted=("order",), intact=("order",))
    group = Group(type="order", version="bad", state="open", problem=None, count=1, statuses={})
    assert Assumed(to="a", fixed="b", corrupted=("odrer",), replace=("order",)).unmatched([group]) == ["odrer"]


# -- groups and evidence


def ordered(query: str = "version = v1", **said: Any) -> RecoveryOrder:
    fields = {"to": "v2", "fixed": "v2", **said}
    return RecoveryOrder(query=query, assumed=Assumed(**fields), order=Order(by="ann", reason="v1 is bad"))


async def test_groups_are_what_the_query_names_and_each_has_a_query_of_its_own(client: Client, store: Store) -> None:
    claim = await running(store, "h1", "h2", "w", "f", "g", "quiet")
    told = Failing(kind=ProblemKind.STEP_FAILED, version="v1", path="1", name="s", text="no such table")
    trouble = Trouble(now=ProblemKind.STEP_FAILED, told=(told,))
    held = Hold(Reason.POLICY, "why")
    await store.commit([unit(id, claim, trouble=trouble, change=held) for id in ("h1", "h2")])
    await one(store, unit("w", claim, trouble=trouble, change=Park(None, "a word")))
    await store.commit([unit(id, claim, records=[record(1)], change=close(Status.FAILED)) for id in ("f", "g")])
    found = await recovery_plans.plan(store, ordered(), token, Evidence(samples=0))
    assert found.total == 6
    kinds = [(p.group.state, p.group.problem, dict(p.group.statuses), p.case) for p in found.groups]
    assert kinds == [
        ("open", "step_failed", {"held": 2, "waiting": 1}, Case.INTACT), ("failed", None, {"failed": 2}, Case.CLOSED),
        ("open", None, {"running": 1}, Case.INTACT),
    ]  # fmt: skip
    assert found.groups[0].problems == ("no such table",)
    for one_ in found.groups:
        assert await client.count(one_.query) == one_.group.count, one_.query
        assert one_.key.startswith(found.prefix)
    assert (await recovery_plans.plan(store, ordered(), token, Evidence(samples=0))) == found
    others = {ordered(fixed="v3").prefix, ordered("id = a").prefix, ordered(corrupted=("x",)).prefix, found.prefix}
    assert len(others) == 4


def test_a_group_without_a_version_has_a_query_too() -> None:
    group = Group(type="it's", version="", state="failed", problem=None, count=1, statuses={})
    assert query_of("a = 1 OR b = 2", group) == (
        "(a = 1 OR b = 2) AND type = 'it''s' AND version IS NULL AND status = failed"
    )


async def another(s: dict[str, Any]) -> Any:
    return [await s["ship"]()]


@pytest.mark.parametrize(("body", "verdict"), [(first, "safe"), (another, "diverges")])
async def test_who_runs_the_good_version_says_what_is_restartable_and_what_replays(
    database: str, ledger: Ledger, body: Any, verdict: str
) -> None:
    async with left_by_v1(database, ledger, body, "a") as app:
        store, known = store_of(app), app._registry.workflows
        for restartable in (False, True):
            fields = {name: getattr(known["order"], name) for name in WorkflowDef.__struct_fields__}
            known["order"] = WorkflowDef(**{**fields, "restartable": restartable})
            order = ordered(corrupted=("order",)) if restartable else ordered()
            planned = recovery_plans.plan(store, order, token, Evidence(samples=1))
            [found] = (await answered(app, planned)).groups
            assert found.restartable == restartable
            assert found.case is (Case.RESTARTABLE if restartable else Case.INTACT)
            [sample] = found.samples
            assert sample.verdict == ("safe" if restartable else verdict), "nothing is kept of what begins anew"
            assert found.diverges == (sample.verdict == "diverges")


def test_restartable_is_declared_with_the_workflow(app: App) -> None:
    @app.workflow(restartable=True)
    async def anew() -> None:
        """Nothing that may not be done twice."""

    @app.workflow
    async def once() -> None:
        """Something that may not."""

    assert [one.definition.restartable for one in (anew, once) if one.definition is not None] == [True, False]
