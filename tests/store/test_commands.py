"""Cancel, terminate and replace, in every status."""

from __future__ import annotations

import pytest

from perdure.model.ids import RunKey
from perdure.model.records import Outcome
from perdure.model.states import Reason, Status
from perdure.model.writes import Hold, Park, Release
from perdure.store.base import Store
from tests.store.build import (
    ME,
    SECOND,
    T,
    close,
    commit,
    dump,
    history,
    one,
    outside,
    own,
    queued,
    record,
    row,
    running,
    send,
    start,
    tok,
    unit,
    want,
)

OPEN = [Status.SCHEDULED, Status.QUEUED, Status.RUNNING, Status.WAITING, Status.HELD]


async def put(store: Store, status: Status, id: str = "w") -> bytes:
    """A workflow in ``status``; its token, if any."""
    if status is Status.QUEUED:
        await queued(store, id)
    elif status is Status.SCHEDULED:
        await queued(store, id, status=status, delay=SECOND)
    else:
        claim = await running(store, id)
        if status is Status.WAITING:
            await one(store, unit(id, claim, change=Park(None, "mail")))
        elif status is Status.HELD:
            await one(store, unit(id, claim, change=Hold(Reason.NO_CODE, "by hand")))
        elif status is not Status.RUNNING:
            await one(store, unit(id, claim, change=close(status)))
        return claim
    return b""


async def test_unknown_workflows(store: Store) -> None:
    assert await store.cancel("nobody", "", tok(), now=T) is None
    assert await store.terminate("nobody", "", tok(), now=T) is None


@pytest.mark.parametrize("status", [Status.SCHEDULED, Status.QUEUED, Status.HELD])
async def test_cancel_ends_what_nobody_holds(store: Store, status: Status) -> None:
    await put(store, status)
    got = await store.cancel("w", "enough", tok(), now=T + 3)
    assert got == await row(store, "w")
    assert got is not None
    assert (got.status, got.closed, got.updated, got.cancel) == (Status.CANCELLED, T + 3, T + 3, "enough")
    assert (got.until, got.reason, got.owner) == (None, None, None)
    ended = (await store.ended(["w"]))["w"]
    assert (ended.outcome, ended.data) == (Outcome.NONE, None)
    assert await store.claim(want(), now=T + 2 * SECOND) == []


async def test_cancel_of_what_was_handed_back_is_heard_by_whoever_takes_it(store: Store) -> None:
    """It has begun, so it may have something to clean up."""
    claim = await put(store, Status.RUNNING)
    await one(store, unit("w", claim, records=[record(1)], change=Release()))
    got = await store.cancel("w", "enough", tok("n"), now=T)
    assert got is not None
    assert got.status is Status.QUEUED
    [taken] = await store.claim(want(), now=T + 1)
    assert (taken.row.status, taken.row.cancel) == (Status.RUNNING, "enough")


WITH_CODE = [Reason.RECOVERY_LIMIT, Reason.CRASHED, Reason.POLICY]


@pytest.mark.parametrize("reason", WITH_CODE)
async def test_cancel_of_what_is_held_though_its_code_is_there_is_heard_by_whoever_takes_it(
    store: Store, reason: Reason
) -> None:
    """The same cancel again is the same; its deaths are forgotten, so that it is let undo what it has done."""
    claim = await running(store, "w")
    await one(store, unit("w", claim, records=[record(1)], change=Hold(reason, "died")))
    for _ in range(2):
        got = await store.cancel("w", "enough", tok("n"), now=T + 3)
        assert got is not None
        assert (got.status, got.reason, got.lane, got.attempts, got.last_seq) == (Status.QUEUED, None, None, 0, 1)
    [taken] = await store.claim(want(), now=T + 4)
    assert (taken.row.status, taken.row.cancel) == (Status.RUNNING, "enough")


@pytest.mark.parametrize("reason", WITH_CODE)
async def test_cancel_of_what_is_held_and_nobody_serves_ends_it(store: Store, reason: Reason) -> None:
    claim = await running(store, "w")
    await one(store, unit("w", claim, change=Hold(reason, "died")))
    got = await store.cancel("w", "enough", tok("n"), unserved="v1", now=T)
    assert got is not None
    assert got.status is Status.CANCELLED


async def test_cancel_of_what_was_handed_back_and_nobody_serves_ends_it(store: Store) -> None:
    claim = await put(store, Status.RUNNING)
    await one(store, unit("w", claim, records=[record(1)], change=Release()))
    got = await store.cancel("w", "enough", tok("n"), unserved="v1", now=T)
    assert got is not None
    assert got.status is Status.CANCELLED


async def test_cancel_asks_the_holder_of_running_work(store: Store) -> None:
    claim = await put(store, Status.RUNNING)
    got = await store.cancel("w", "enough", tok("n"), now=T)
    assert got is not None
    assert got.status is Status.RUNNING
    [wake] = (await store.poll(ME, [], "v1", now=T)).wakes
    assert (wake.dest, wake.cancel) == ("w", "enough")
    assert (await one(store, unit("w", claim, records=[record(1)], change=close(Status.CANCELLED)))).applied
    assert (await dump(store))["wake"] == []


async def test_cancel_wakes_waiting_work(store: Store) -> None:
    await put(store, Status.WAITING)
    got = await store.cancel("w", "", tok("n"), now=T)
    assert got is not None
    assert got.status is Status.WAITING
    [claimed] = await store.claim(want(), now=T)
    assert (claimed.row.id, claimed.row.cancel) == ("w", "")


@pytest.mark.parametrize("status", [Status.RUNNING, Status.WAITING])
async def test_a_repeated_cancel_is_one_command(store: Store, status: Status) -> None:
    await put(store, status)
    nonce = tok("n")
    await store.cancel("w", "", nonce, now=T)
    await store.cancel("w", "", nonce, now=T)
    assert len((await dump(store))["wake"]) == 1


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.TIMED_OUT])
async def test_closed_work_is_left(store: Store, status: Status) -> None:
    await put(store, status)
    before = await dump(store)
    for command in (store.cancel, store.terminate):
        got = await command("w", "late", tok(), now=T + 9)
        assert got is not None
        assert got.status is status
    assert await dump(store) == before


@pytest.mark.parametrize("status", OPEN)
async def test_terminate_ends_any_open_work_at_once(store: Store, status: Status) -> None:
    claim = await put(store, status)
    if status is Status.RUNNING:
        await one(store, unit("w", claim, records=[record(1)]))
    nonce = tok("n")
    got = await store.terminate("w", "by hand", nonce, now=T + 3)
    assert got == await row(store, "w")
    assert got is not None
    assert (got.status, got.closed, got.claim, got.owner) == (Status.TERMINATED, T + 3, nonce, None)
    assert (got.until, got.reason, got.detail) == (None, None, "by hand")
    assert got.last_seq == (1 if status is Status.RUNNING else 0)
    assert not (await one(store, unit("w", claim or tok(), records=[record(2)]))).applied
    assert await store.terminate("w", "by hand", nonce, now=T + 9) == got
    ended = (await store.ended(["w"]))["w"]
    assert (ended.outcome, ended.data) == (Outcome.NONE, None)
    undelivered = (await one(store, outside(sends=[send("w")]))).undelivered
    assert list(undelivered.values()) == [Status.TERMINATED]


@pytest.mark.parametrize("command", ["cancel", "terminate"])
@pytest.mark.parametrize("parent", [Status.RUNNING, Status.WAITING])
async def test_a_command_that_ends_work_wakes_its_parent(store: Store, command: str, parent: Status) -> None:
    await put(store, parent, "parent")
    await queued(store, "w", now=T + 100, parent="parent", parent_run=1)
    await getattr(store, command)("w", "", tok("n"), now=T + 1)
    if parent is Status.RUNNING:
        assert [w.dest for w in (await store.poll(ME, [], "v1", now=T)).wakes] == ["parent"]
    else:
        assert [c.row.id for c in await store.claim(want(), now=T + 1)] == ["parent"]


async def test_a_watcher_that_was_terminated_is_not_woken(store: Store) -> None:
    claim = await running(store, "target", "watcher")
    await one(store, unit("watcher", claim, change=Park(None, "", ("target",))))
    await store.terminate("watcher", "", tok("n"), now=T)
    await one(store, unit("target", claim, change=close()))
    assert await store.claim(want(), now=T) == []
    assert (await store.poll(None, [], "v1", now=T)).claimable is None


# -- replace


async def test_replace_begins_the_next_run_of_a_closed_workflow(store: Store) -> None:
    claim = await put(store, Status.RUNNING)
    await one(store, unit("w", claim, records=[record(1)], change=close(Status.FAILED)), T + 1)
    following = start("w", run=2, input=b'{"n":2}')
    assert await store.replace(RunKey("w", 1), following, tok("n"), now=T + 5)
    old, new = await store.run(RunKey("w", 1)), await row(store, "w")
    assert old is not None
    assert (old.status, old.closed, old.last_seq, old.run) == (Status.SUPERSEDED, T + 1, 1, 1)
    assert (new.status, new.run, new.lineage, new.created) == (Status.QUEUED, 2, following.lineage, T + 5)
    assert (new.closed, new.last_seq, new.until) == (None, 0, T + 5)
    assert (await store.inputs([RunKey("w", 1), RunKey("w", 2)]))[RunKey("w", 2)] == b'{"n":2}'
    assert len(await history(store, "w", 1)) == 1
    assert not (await one(store, unit("w", claim, records=[record(2)]))).applied
    [got] = await store.claim(want(), now=T + 5)
    assert got.row.key == RunKey("w", 2)


async def test_a_repeated_replace_begins_nothing_twice(store: Store) -> None:
    await put(store, Status.COMPLETED)
    following = start("w", run=2)
    assert await store.replace(RunKey("w", 1), following, tok("n"), now=T)
    before = await dump(store)
    assert await store.replace(RunKey("w", 1), following, tok("n"), now=T + 1)
    assert not await store.replace(RunKey("w", 1), start("w", run=2), tok("n"), now=T + 1)
    assert await dump(store) == before


@pytest.mark.parametrize("status", OPEN)
async def test_open_work_is_not_replaced(store: Store, status: Status) -> None:
    await put(store, status)
    before = await dump(store)
    assert not await store.replace(RunKey("w", 1), start("w", run=2), tok("n"), now=T)
    assert not await store.replace(RunKey("w", 2), start("w", run=3), tok("n"), now=T)
    assert not await store.replace(RunKey("nobody", 1), start("nobody", run=2), tok("n"), now=T)
    assert await dump(store) == before


async def test_a_run_that_replaces_another_hears_nothing_that_was_meant_for_it(store: Store) -> None:
    claim = await running(store, "child")
    await one(store, unit("child", claim, change=close(parent="w")))  # of a parent that the database does not know yet
    await one(store, own("w", claim, change=close()))
    assert await store.replace(RunKey("w", 1), start("w", claim, run=2), tok("n"), now=T)
    assert (await store.poll(ME, None, "v1", now=T)).wakes == []


# -- what nobody is there to hear


@pytest.mark.parametrize("how", ["close", "close at once", "close in company", "terminate"])
async def test_the_end_of_a_child_leaves_no_wake_for_a_parent_that_was_deleted(store: Store, how: str) -> None:
    """The next workflow of the parent's id would hear it."""
    claim = await running(store, "w") if how != "close at once" else tok("claim")
    if how == "close":
        await one(store, unit("w", claim, change=close(parent="gone", children=("gone too",))))
    elif how == "close at once":
        await one(store, own("w", claim, change=close(parent="gone", children=("gone too",))))
    elif how == "close in company":
        end = unit("w", claim, change=close(parent="gone", children=("gone too",)))
        await commit(store, end, own("other", tok("claim"), change=close(parent="gone")))
    else:
        await queued(store, "child", parent="gone", parent_run=1)
        await store.terminate("child", "", tok("n"), now=T)
    assert (await dump(store))["wake"] == []
