"""Move and skip: decided by the row under its lock, many in one commit; done twice, they write nothing."""

from __future__ import annotations

import pytest

from perdure.model.ids import RunKey
from perdure.model.orders import Answer, Goal, MoveOrder, SkipOrder, digest_of
from perdure.model.queues import lane_of
from perdure.model.records import Intent, Kind, Outcome, Override
from perdure.model.states import Reason, Status, Versioning
from perdure.model.writes import Hold, Park, Pause, Release
from perdure.store.base import Store
from tests.store.build import (
    ME,
    T,
    close,
    dump,
    history,
    letin,
    one,
    queued,
    record,
    row,
    running,
    start,
    tok,
    unit,
    want,
)

ENDED = "it is terminated; reset it to the step first: perdure workflow reset w --to charge, then skip it"
TO_V2 = Goal(Versioning.PINNED, "v2")
FOLLOW = Goal(Versioning.AUTO_UPGRADE, "v3")
UNSET = Goal(Versioning.UNDECLARED)
CHARGE = Intent("2", "charge", b"fp")


def order(id: str = "w", goal: Goal = TO_V2) -> MoveOrder:
    return MoveOrder(id=id, goal=goal, nonce=tok("order"), shown="by ann: why", at=T + 3)


def skipping(step: str = "charge", data: bytes = b'"ch_42"', id: str = "w") -> SkipOrder:
    return SkipOrder(
        id=id, step=step, data=data, digest=digest_of(data), nonce=tok("order"), shown="by ann: by hand", at=T + 3
    )


async def moved(store: Store, goal: Goal = TO_V2, id: str = "w") -> Answer:
    [answered] = await store.move([order(id, goal)], now=T + 5)
    return answered.answer


async def nothing_more(store: Store, goal: Goal = TO_V2) -> None:
    """The same again writes nothing."""
    before = await dump(store)
    assert await moved(store, goal) is Answer.ALREADY
    assert await dump(store) == before


# -- move, in each status


async def test_what_runs_is_taken_from_its_holder(store: Store) -> None:
    claim = await running(store, "w")
    assert (await one(store, unit("w", claim, records=[record(1)]))).applied
    told = order()
    [answered] = await store.move([told], now=T + 5)
    assert (answered.answer, answered.status) == (Answer.DONE, Status.QUEUED)
    now = await row(store, "w")
    assert (now.status, now.version, now.versioning) == (Status.QUEUED, "v2", Versioning.PINNED)
    assert (now.override, now.claim, now.owner, now.until) == (Override(Versioning.UNDECLARED), told.nonce, None, T + 5)
    assert not (await one(store, unit("w", claim, records=[record(2)]))).applied, "a zombie writes nothing"
    said = (await history(store, "w"))[-1]
    assert (said.seq, said.kind, said.name, said.shown) == (2, Kind.DECISION, "move", "by ann: why")
    assert said.version == "v2"
    assert await store.claim(want(), now=T + 9) == []
    [got] = await store.claim(want(version="v2"), now=T + 9)
    assert (got.row.key, got.row.last_seq) == (RunKey("w", 1), 2)


async def test_what_waits_is_due_at_once(store: Store) -> None:
    claim = await running(store, "w")
    await one(store, unit("w", claim, change=Park(T + 10**9, "sleeps")))
    assert await moved(store) is Answer.DONE
    now = await row(store, "w")
    assert (now.status, now.until, now.detail) == (Status.WAITING, T + 5, "sleeps")
    await nothing_more(store)
    assert [c.row.id for c in await store.claim(want(version="v2"), now=T + 5)] == ["w"]


async def test_what_stands_in_line_keeps_its_place_and_what_is_delayed_its_time(store: Store) -> None:
    await queued(store, "w", queue="q", partition="p", priority=3)
    await queued(store, "later", status=Status.SCHEDULED, delay=99)
    before = await row(store, "w")
    answers = await store.move([order("later"), order("w")], now=T + 5)
    assert [a.answer for a in answers] == [Answer.DONE] * 2
    now, later = await row(store, "w"), await row(store, "later")
    assert (now.status, now.lane, now.until) == (Status.QUEUED, before.lane, before.until)
    assert (later.status, later.until, later.version) == (Status.SCHEDULED, T + 99, "v2")


@pytest.mark.parametrize("reason", list(Reason))
async def test_what_the_code_or_deaths_hold_is_queued_and_what_a_person_holds_stays(
    store: Store, reason: Reason
) -> None:
    await queued(store, "w", queue="q")
    await store.make_queues(["q"], now=T)
    [got] = (await store.claim_line(letin("q"), now=T)).claimed
    if reason is Reason.PAUSED:
        await store.pause("w", Pause(nonce=tok("pause"), shown="by bob", at=T), now=T)
    await one(store, unit("w", got.row.claim or b"", change=Hold(reason, "why")))
    assert (await row(store, "w")).status is Status.HELD
    assert await moved(store) is Answer.DONE
    now = await row(store, "w")
    assert (now.version, now.versioning) == ("v2", Versioning.PINNED)
    if reason in (Reason.PAUSED, Reason.POLICY, Reason.NO_EXIT):
        assert (now.status, now.reason, now.lane) == (Status.HELD, reason, None)
    else:
        assert (now.status, now.reason, now.detail, now.attempts) == (Status.QUEUED, None, "", 0)
        assert now.lane == lane_of("q", "", 0), "in its queue's line"
    await nothing_more(store)


async def test_what_has_ended_is_refused_and_what_is_not_there_unknown(store: Store) -> None:
    claim = await running(store, "w")
    await one(store, unit("w", claim, change=close()))
    before = await dump(store)
    [refused, unknown] = await store.move([order("w"), order("nobody")], now=T)
    assert (refused.answer, unknown.answer) == (Answer.REFUSED, Answer.UNKNOWN)
    assert "perdure workflow reset w --to first --move-to v2" in refused.words
    assert await dump(store) == before


# -- what it overrides


@pytest.mark.parametrize("declared", list(Versioning))
async def test_unset_brings_back_what_was_declared_on_the_version_it_has(store: Store, declared: Versioning) -> None:
    claim = await running(store, "w", versioning=declared)
    await one(store, unit("w", claim, change=Release()))
    assert await moved(store) is Answer.DONE
    now = await row(store, "w")
    assert now.override == (None if declared is Versioning.PINNED else Override(declared)), (
        "what it does anyway is none"
    )
    assert await moved(store, FOLLOW) is Answer.DONE
    now = await row(store, "w")
    assert (now.version, now.versioning) == ("v3", Versioning.AUTO_UPGRADE)
    await nothing_more(store, FOLLOW)
    answer = await moved(store, UNSET)
    now = await row(store, "w")
    assert (now.version, now.versioning, now.override) == ("v3", declared, None)
    assert answer is (Answer.ALREADY if declared is Versioning.AUTO_UPGRADE else Answer.DONE)
    await nothing_more(store, UNSET)


async def test_what_runs_there_already_is_pinned_and_not_disturbed(store: Store) -> None:
    claim = await running(store, "w")
    assert await moved(store, Goal(Versioning.PINNED, "v1")) is Answer.DONE
    now = await row(store, "w")
    assert (now.status, now.owner, now.claim, now.versioning) == (Status.RUNNING, ME, claim, Versioning.PINNED)
    assert (await one(store, unit("w", claim, records=[record(1)]))).applied
    [noted] = await store.decisions(["w"])
    assert (noted.decision, noted.because) == ("move to v1", "by ann: why")
    await nothing_more(store, Goal(Versioning.PINNED, "v1"))


@pytest.mark.parametrize("end", ["park", "release", "hold"])
async def test_for_one_turn_ends_where_it_comes_to_rest(store: Store, end: str) -> None:
    await running(store, "w", versioning=Versioning.AUTO_UPGRADE)
    assert await moved(store, Goal(Versioning.PINNED, "v2", once=True)) is Answer.DONE
    [got] = await store.claim(want(version="v2"), now=T + 9)
    assert got.row.override == Override(Versioning.AUTO_UPGRADE, once=True)
    change = {"park": Park(None, ""), "release": Release(), "hold": Hold(Reason.NONDETERMINISM, "x")}[end]
    assert (await one(store, unit("w", got.row.claim or b"", change=change))).applied
    now = await row(store, "w")
    assert now.version == "v2"
    if end == "park":
        assert (now.versioning, now.override) == (Versioning.AUTO_UPGRADE, None)
    else:  # it did not get through its turn there
        assert (now.versioning, now.override) == (Versioning.PINNED, got.row.override)


async def test_a_lasting_order_outlives_a_rest(store: Store) -> None:
    await running(store, "w")
    await moved(store)
    [got] = await store.claim(want(version="v2"), now=T + 9)
    await one(store, unit("w", got.row.claim or b"", change=Park(None, "")))
    assert (await row(store, "w")).override == Override(Versioning.UNDECLARED)


async def test_many_are_moved_in_one_commit_each_by_its_own_row(store: Store) -> None:
    claim = await running(store, *(f"r{n}" for n in range(40)))
    await queued(store, *(f"q{n}" for n in range(40)))
    await one(store, unit("r7", claim, change=close()))
    ids = [f"{kind}{n}" for n in range(40) for kind in "rq"]
    answers = await store.move([order(id) for id in ids], now=T + 5)
    assert [a.id for a in answers] == ids
    assert [a.id for a in answers if a.answer is not Answer.DONE] == ["r7"]
    rows = await store.rows(ids)
    assert {r.version for id, r in rows.items() if id != "r7"} == {"v2"}
    assert {r.claim for r in rows.values() if r.id != "r7"}.isdisjoint({claim})


# -- skip


async def begun(store: Store) -> bytes:
    """In the middle of its second step."""
    claim = await running(store, "w")
    first = record(1, intents=(CHARGE,))
    assert (await one(store, unit("w", claim, records=[first]))).applied
    return claim


@pytest.mark.parametrize("name", ["charge", "2"])
async def test_a_step_in_flight_is_given_its_outcome(store: Store, name: str) -> None:
    claim = await begun(store)
    told = skipping(name)
    answered = await store.skip(told, now=T + 5)
    assert (answered.answer, answered.status) == (Answer.DONE, Status.QUEUED)
    _, said, outcome = await history(store, "w")
    assert (said.kind, said.name, said.shown) == (Kind.DECISION, "skip", "by ann: by hand")
    assert (outcome.seq, outcome.path, outcome.kind, outcome.name) == (3, "2", Kind.STEP, "charge")
    assert (outcome.fingerprint, outcome.outcome, outcome.data) == (b"fp", Outcome.VALUE, b'"ch_42"')
    now = await row(store, "w")
    assert (now.status, now.owner, now.claim, now.last_seq) == (Status.QUEUED, None, told.nonce, 3)
    late = await one(store, unit("w", claim, records=[record(2)]))
    assert not late.applied, "what the step gives is refused"
    before = await dump(store)
    assert (await store.skip(skipping(name), now=T + 6)).answer is Answer.ALREADY
    other = await store.skip(skipping(name, b'"other"'), now=T + 6)
    assert other.answer is Answer.REFUSED
    assert "has an outcome already (#3)" in other.words
    assert await dump(store) == before


async def test_a_skip_whose_answer_was_lost_is_known_though_its_workflow_has_ended(store: Store) -> None:
    await begun(store)
    assert (await store.skip(skipping(), now=T + 5)).answer is Answer.DONE
    assert await store.terminate("w", "enough", tok("end"), now=T + 6) is not None
    before = await dump(store)
    assert (await store.skip(skipping(), now=T + 7)).answer is Answer.ALREADY
    other = await store.skip(skipping("charge", b'"other"'), now=T + 7)
    assert (other.answer, other.words) == (Answer.REFUSED, ENDED), "what it is told to do, not what it was"
    assert await dump(store) == before


async def test_what_is_not_in_flight_is_refused_with_what_is(store: Store) -> None:
    await begun(store)
    before = await dump(store)
    recorded = await store.skip(skipping("step"), now=T)
    missing = await store.skip(skipping("ship"), now=T)
    assert {recorded.answer, missing.answer} == {Answer.REFUSED}
    assert "reset w --to 1" in recorded.words
    assert missing.words == "no step 'ship' is in flight; there are: charge (path 2)"
    assert (await store.skip(skipping(id="nobody"), now=T)).answer is Answer.UNKNOWN
    assert await dump(store) == before


async def test_of_several_of_a_name_one_is_named_by_its_path(store: Store) -> None:
    claim = await running(store, "w")
    both = (CHARGE, Intent("3", "charge", b"other"))
    assert (await one(store, unit("w", claim, records=[record(1, intents=both)]))).applied
    assert "in flight 2 times: charge (path 2), charge (path 3)" in (await store.skip(skipping(), now=T)).words
    assert (await store.skip(skipping("3"), now=T)).answer is Answer.DONE


@pytest.mark.parametrize("reason", [Reason.RECOVERY_LIMIT, Reason.NONDETERMINISM, Reason.POLICY])
async def test_a_hold_for_deaths_ends_by_it_another_stays(store: Store, reason: Reason) -> None:
    claim = await begun(store)
    await one(store, unit("w", claim, change=Hold(reason, "why")))
    assert (await store.skip(skipping(), now=T + 5)).answer is Answer.DONE
    now = await row(store, "w")
    assert (now.status, now.reason) == (
        (Status.QUEUED, None) if reason is Reason.RECOVERY_LIMIT else (Status.HELD, reason)
    )
    assert len(await history(store, "w")) == 3


async def test_a_step_of_what_has_ended_is_refused(store: Store) -> None:
    claim = await begun(store)
    await one(store, unit("w", claim, change=close(Status.FAILED)))
    answered = await store.skip(skipping(), now=T)
    assert answered.answer is Answer.REFUSED
    assert "perdure workflow reset w --to charge" in answered.words


async def test_an_order_about_another_app_is_unknown_here(make_store: object) -> None:
    store, other = await make_store("app"), await make_store("other")  # type: ignore[operator]
    await begun(store)
    before = await dump(store)
    assert await moved(other) is Answer.UNKNOWN
    assert (await other.skip(skipping(), now=T)).answer is Answer.UNKNOWN
    assert await dump(store) == before


def test_a_start_knows_no_order() -> None:
    assert start("w").override is None
