"""What a workflow's end means to the children that are open, whoever ends it: told to cancel once, in that commit."""

from __future__ import annotations

import pytest

from perdure.model.acts import CancelIt, TerminateIt
from perdure.model.batches import NewBatch
from perdure.model.ids import RunKey
from perdure.model.states import Cause, Reason, Status
from perdure.model.writes import Decided, Delete, Hold, Park
from perdure.query.read import read_query
from perdure.store.base import Store
from perdure.store.lines import Deduplicated
from tests.store.build import (
    ME,
    SECOND,
    T,
    close,
    commit,
    dump,
    one,
    outside,
    own,
    queued,
    record,
    row,
    running,
    start,
    tok,
    unit,
    want,
)


async def family(store: Store) -> None:
    """Children of two runs of "w", and what is none of its or not to be cancelled with it."""
    await queued(store, "first", parent="w", parent_run=1)
    await queued(store, "second", parent="w", parent_run=2)
    await queued(store, "over", parent="w", parent_run=1)
    await store.terminate("over", "", tok("n"), now=T)
    await queued(store, "left", parent="w", parent_run=1, on_parent_close="abandon")
    await queued(store, "awaited", parent="w", parent_run=1, on_parent_close="wait")
    await queued(store, "elses", parent="other", parent_run=1)
    await queued(store, "nobodys")


async def commands(store: Store) -> list[str]:
    return sorted(wake["dest"] for wake in (await dump(store))["wake"] if wake["cancel"] is not None)


@pytest.mark.parametrize("company", [False, True], ids=["alone", "in company"])
async def test_a_close_of_a_run_that_does_not_know_them_all_cancels_what_every_run_started(
    store: Store, company: bool
) -> None:
    claim = await running(store, "w", run=3)
    await family(store)
    end = unit("w", claim, run=3, change=close(family=True, children=("second",)))
    others = [own("more", tok("claim"), start=start("more", tok("c"), parent="w", parent_run=3))] if company else []
    assert all(v.applied for v in (await commit(store, *others, end)).verdicts)
    assert await commands(store) == ["first", *(["more"] if company else []), "second"]


async def test_a_first_unit_with_its_end_and_a_close_that_is_repeated_tell_nobody_twice(store: Store) -> None:
    claim = await running(store, "w")
    await family(store)
    end = unit("w", claim, change=close(family=True))
    assert (await one(store, end)).applied
    for child in await store.claim(want(), now=T):
        if child.row.cancel is not None:
            await one(store, unit(child.row.id, child.row.claim or b"", change=Park(None, "cleaning up")))
    assert await commands(store) == []
    assert (await one(store, end)).applied
    assert await commands(store) == []


@pytest.mark.parametrize("verb", ["cancel", "terminate"])
@pytest.mark.parametrize("many", [False, True], ids=["one", "in a batch"])
@pytest.mark.parametrize("status", [Status.SCHEDULED, Status.QUEUED, Status.HELD, Status.RUNNING, Status.WAITING])
async def test_an_end_from_outside_cancels_them_too(store: Store, verb: str, status: Status, many: bool) -> None:
    if status in (Status.SCHEDULED, Status.QUEUED):
        await queued(store, "w", status=status, delay=SECOND if status is Status.SCHEDULED else None)
    else:
        claim = await running(store, "w")
        change = {Status.WAITING: Park(None, "mail"), Status.HELD: Hold(Reason.POLICY, "")}.get(status)
        if change is not None:
            await one(store, unit("w", claim, change=change))
    await family(store)
    if many:
        made = CancelIt if verb == "cancel" else TerminateIt
        batch = NewBatch(
            key="k", verb=verb, options=b"{}", query="id = w", by="ann", reason="", rate=None, owner=ME, nonce=tok()
        )
        await store.batches.create(batch, read_query("id = w", store.app, use="set"), now=T)
        await store.batches.apply("k", ME, [made(id="w", run=1, nonce=tok("act"), reason="")], now=T)
    else:
        await getattr(store, verb)("w", "", tok("n"), now=T)
    if (await row(store, "w")).status.open:
        assert await commands(store) == ["w"]  # its body, or its own end, sees to them
    else:
        assert await commands(store) == ["first", "second"]


async def test_a_child_that_also_waits_for_its_parent_is_cancelled_when_that_is_terminated(store: Store) -> None:
    await running(store, "w")
    claim = await running(store, "child", parent="w", parent_run=1)
    await one(store, unit("child", claim, change=Park(None, "event", ("w",))))
    await store.terminate("w", "", tok("n"), now=T)
    assert await commands(store) == ["child"]


async def test_a_deleted_one_leaves_no_child_behind(store: Store) -> None:
    claim = await running(store, "w")
    await family(store)
    decided = Decided(
        cause=Cause.CRASH, decision="delete", policy="p", because="", parameters=None, evidence=b"{}", executor="here"
    )
    assert (await one(store, unit("w", claim, change=Delete(("second",)), decision=decided))).applied
    assert await commands(store) == ["first"]


async def test_a_child_that_is_held_is_named_to_be_ended_and_no_other_held_one(store: Store) -> None:
    """Its code cannot hear of it."""
    claim = await running(store, "w")
    for id, reason in (("broken", Reason.NONDETERMINISM), ("at a fork", Reason.NO_EXIT)):
        kid = await running(store, id, parent="w", parent_run=1)
        await one(store, unit(id, kid, change=Hold(reason, "")))
    other = await running(store, "free")
    await commit(store, unit("free", other, change=Hold(Reason.NONDETERMINISM, "")))
    await one(store, outside(children=[start("child", parent="w", parent_run=1)]))
    await one(store, unit("w", claim, change=close(children=("broken", "at a fork", "child"))))
    assert (await store.poll(ME, [], "v1", now=T)).told == [("broken", "")]


@pytest.mark.parametrize("gone", [False, True], ids=["ended", "deleted"])
@pytest.mark.parametrize("policy", ["cancel", "abandon"])
async def test_a_child_with_a_key_whose_parent_ends_just_before_it_is_begun_is_cancelled(
    store: Store, policy: str, gone: bool
) -> None:
    """It does not travel with a unit of its parent's, which would be refused."""
    claim = await running(store, "w")
    await store.terminate("w", "enough", tok("n"), now=T)
    if gone:
        assert await store.upkeep.purge([RunKey("w", 1)]) == ["w"]
    child = start("child", parent="w", parent_run=1, on_parent_close=policy, queue="q")
    assert await store.start_once(child, Deduplicated(key="k"), now=T) is None
    assert await commands(store) == (["child"] if policy == "cancel" else [])
    assert not (await one(store, unit("w", claim, records=[record(1)]))).applied


async def test_so_is_one_that_replaces_what_had_its_id(store: Store) -> None:
    claim = await running(store, "w", "child")
    await one(store, unit("child", claim, change=close()))
    await store.terminate("w", "enough", tok("n"), now=T)
    begun = start("child", run=2, parent="w", parent_run=1)
    assert await store.replace(RunKey("child", 1), begun, tok("n"), now=T)
    assert await commands(store) == ["child"]
