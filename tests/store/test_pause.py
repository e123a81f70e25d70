"""Pause in the store: where a row goes from each status, what may still take it from there, and where it comes back."""

from __future__ import annotations

import pytest

from perdure.model.ids import RunKey
from perdure.model.queues import DELAYED, PAUSED, Limits, QueueChange, lane_of
from perdure.model.records import Kind, Wake, WorkflowRow
from perdure.model.states import Cause, Reason, Status, Versioning
from perdure.model.writes import Continue, Hold, Park, Pause, Release, Reopen
from perdure.store.base import Store
from tests.store.build import (
    ME,
    OTHER,
    SECOND,
    T,
    close,
    history,
    letin,
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

pytestmark = pytest.mark.usefixtures("serving")


async def pause(store: Store, id: str, now: int = T) -> WorkflowRow:
    found = await store.pause(id, Pause(nonce=tok("pause"), shown="by ann", at=now), now=now)
    assert found is not None
    return found


async def unpause(store: Store, id: str, now: int = T + SECOND) -> WorkflowRow:
    order = Reopen(nonce=tok("back"), verb="unpause", shown="by ann", at=now, back=True)
    assert await store.reopen(await row(store, id), order, now=now)
    return await row(store, id)


async def stopped(store: Store, id: str, claim: bytes, **more: object) -> WorkflowRow:
    """Told while it runs, and held by its holder."""
    await pause(store, id)
    await one(store, unit(id, claim, change=Hold(Reason.PAUSED, "by ann", **more)))  # type: ignore[arg-type]
    return await row(store, id)


async def test_what_runs_is_told_and_its_holder_hears_of_it(store: Store) -> None:
    claim = await running(store, "w")
    found = await pause(store, "w")
    assert (found.status, found.pause, found.claim) == (Status.RUNNING, "by ann", claim)
    [wake] = (await store.poll(ME, [], "v1", now=T)).wakes
    assert wake == Wake("w", wake.nonce, None, "by ann")
    assert (await one(store, unit("w", claim, records=[record(1)], change=Hold(Reason.PAUSED, "by ann")))).applied
    held = await row(store, "w")
    assert (held.status, held.reason, held.pause, held.until) == (Status.HELD, Reason.PAUSED, None, None)
    assert await store.claim(want(), now=T + SECOND) == []


async def test_what_was_taken_back_is_only_handed_back(store: Store) -> None:
    claim = await running(store, "w")
    await pause(store, "w")
    assert await store.pause("w", None, now=T) is not None
    u = unit("w", claim, change=Hold(Reason.PAUSED, "by ann", T + 9 * SECOND))
    for _ in range(2):  # the answer to the first was lost
        assert (await one(store, u, T + 1)).applied
        found = await row(store, "w")
        assert (found.status, found.reason, found.detail, found.until) == (Status.QUEUED, None, "", T + 1)
    [again] = await store.claim(want(), now=T + 1)
    assert (again.row.id, again.row.pause) == ("w", None)


@pytest.mark.parametrize("begun", [True, False], ids=["begun before", "begun here"])
async def test_what_was_taken_back_was_not_drained(store: Store, begun: bool) -> None:
    """Policies that ask about drained work leave it alone."""
    claim = await running(store, "w") if begun else tok("claim")
    u = unit("w", claim) if begun else own("w", claim)
    u.change = Hold(Reason.PAUSED, "by ann")
    assert (await one(store, u)).applied
    found = await row(store, "w")
    assert (found.status, found.reason, found.detail, found.cause) == (Status.QUEUED, None, "", Cause.NONE)


async def test_a_pause_outlives_whoever_holds_the_run(store: Store) -> None:
    claim = await running(store, "w")
    await pause(store, "w")
    await one(store, unit("w", claim, change=Release()))
    [got] = await store.claim(want(owner=OTHER), now=T + 1)
    assert got.row.pause == "by ann"
    [again] = await store.adopt([OTHER], want(), now=T + 2)
    assert again.row.pause == "by ann"


@pytest.mark.parametrize("how", ["waiting", "handed back"])
async def test_what_has_begun_is_held_at_once_and_its_late_writer_is_refused(store: Store, how: str) -> None:
    claim = await running(store, "w", timeout=60 * SECOND)
    u = unit("w", claim, records=[record(1)], change=Release() if how != "waiting" else Park(T + SECOND, "a timer"))
    await one(store, u)
    found = await pause(store, "w")
    assert (found.status, found.reason, found.detail, found.lane) == (Status.HELD, Reason.PAUSED, "by ann", None)
    assert found.until == found.deadline
    assert [(r.kind, r.name, r.shown) for r in await history(store, "w")][1:] == [(Kind.DECISION, "pause", "by ann")]
    assert not (await one(store, u)).applied, "a second try of who let it go"
    assert await store.claim(want(), now=T + 30 * SECOND) == []
    [got] = await store.claim(want(), now=T + 60 * SECOND)
    assert (got.row.id, got.row.reason, got.row.pause) == ("w", None, None), "its deadline holds"


async def test_mail_does_not_wake_it_and_a_command_to_cancel_does(store: Store) -> None:
    claim = await running(store, "w")
    await one(store, unit("w", claim, change=Park(None, "mail")))
    await pause(store, "w")
    await one(store, outside(sends=[send("w")]))
    assert (await store.poll(OTHER, [], "v1", now=T)).claimable is None
    assert await store.claim(want(), now=T) == []
    found = await store.cancel("w", "enough", tok("cancel"), now=T)
    assert found is not None
    assert found.status is Status.HELD, "its code is to clean up"
    assert (await store.poll(OTHER, [], "v1", now=T)).claimable == T
    [got] = await store.claim(want(), now=T)
    assert got.row.cancel == "enough"


async def test_the_end_of_its_parent_reaches_it(store: Store) -> None:
    parent, child = await running(store, "parent"), await running(store, "child", parent="parent")
    await one(store, unit("child", child, change=Park(None, "mail")))
    await pause(store, "child")
    await one(store, unit("parent", parent, change=close(children=("child",))))
    [got] = await store.claim(want(), now=T)
    assert got.row.id == "child"


async def test_where_nobody_runs_its_code_a_cancel_ends_it(store: Store) -> None:
    claim = await running(store, "w")
    await one(store, unit("w", claim, change=Park(None, "mail")))
    await pause(store, "w")
    found = await store.cancel("w", "enough", tok("cancel"), now=T, unserved="v1")
    assert found is not None
    assert found.status is Status.CANCELLED


async def test_delayed_in_line_and_queued_keep_their_place_and_time(store: Store) -> None:
    await store.declare_queues({"q": Limits(concurrency=5)}, now=T)
    await queued(store, "line", queue="q", priority=3, partition="p")
    await queued(store, "late", queue="q", status=Status.SCHEDULED, delay=9 * SECOND)
    await queued(store, "soon", status=Status.SCHEDULED, delay=9 * SECOND)
    await queued(store, "free")
    for id in ("line", "late", "soon", "free"):
        found = await pause(store, id, T + 1)
        assert (found.status, found.lane) == (Status.HELD, PAUSED)
    poll = await store.poll(ME, [], "v1", now=T + 90 * SECOND)
    assert (poll.claimable, poll.lines, poll.due) == (None, [], None)
    assert await store.claim(want(), now=T + 90 * SECOND) == []
    assert (await store.claim_line(letin("q"), now=T + SECOND)).claimed == []
    assert await store.line_up(["v1"], 10, now=T + 90 * SECOND) == []
    assert (await store.queue_counts()).get("q") is None
    back = {id: await unpause(store, id) for id in ("line", "late", "soon", "free")}
    assert {id: (str(r.status), r.lane, r.until) for id, r in back.items()} == {
        "line": ("queued", lane_of("q", "p", 3), T),
        "late": ("scheduled", DELAYED, T + 9 * SECOND),
        "soon": ("scheduled", None, T + 9 * SECOND),
        "free": ("queued", None, T),
    }


async def test_an_overdue_one_is_lined_up_at_its_time(store: Store) -> None:
    await queued(store, "late", queue="q", status=Status.SCHEDULED, delay=SECOND)
    await pause(store, "late")
    found = await unpause(store, "late", T + 5 * SECOND)
    assert (found.status, found.lane, found.until) == (Status.QUEUED, lane_of("q", "", 0), T + SECOND)


async def test_what_never_began_ends_by_a_cancel_or_by_its_time_in_line(store: Store) -> None:
    await queued(store, "line", "told", queue="q", expires=5 * SECOND)
    await pause(store, "line")
    await pause(store, "told")
    found = await store.cancel("told", "enough", tok("cancel"), now=T)
    assert found is not None
    assert found.status is Status.CANCELLED
    assert await store.expire(10, tok("expire"), now=T + 5 * SECOND) == ["line"]
    assert (await row(store, "line")).status is Status.TIMED_OUT


async def test_what_has_begun_keeps_its_slot(store: Store) -> None:
    await store.declare_queues({"q": Limits(concurrency=1)}, now=T)
    await queued(store, "a", "b", queue="q")
    [got] = (await store.claim_line(letin("q"), now=T)).claimed
    await one(store, unit("a", got.row.claim or b"", change=Park(None, "mail")))
    await pause(store, "a")
    assert (await store.claim_line(letin("q"), now=T)).claimed == []
    assert (await store.queue_counts())["q"].in_progress == 1
    await store.change_queue("q", QueueChange(limits={"concurrency": None}), now=T)
    await store.change_queue("q", QueueChange(limits={"concurrency": 1}), now=T)
    assert (await store.claim_line(letin("q"), now=T)).claimed == []
    back = await unpause(store, "a")
    assert (back.status, back.lane) == (Status.QUEUED, None)
    [again] = await store.claim(want(), now=T + SECOND)
    assert again.row.id == "a"


async def test_what_is_held_for_another_reason_can_be_paused_and_tried_again(store: Store) -> None:
    claim = await running(store, "w")
    await one(store, unit("w", claim, change=Hold(Reason.NONDETERMINISM, "other steps")))
    assert (await pause(store, "w")).reason is Reason.PAUSED
    assert await store.release_held([Reason.NONDETERMINISM], "v1", now=T) == 0
    assert (await unpause(store, "w")).status is Status.QUEUED


async def test_twice_is_once_and_a_closed_one_is_left_alone(store: Store) -> None:
    claim = await running(store, "w", "c")
    await one(store, unit("w", claim, change=Park(None, "mail")))
    first = await pause(store, "w")
    assert await pause(store, "w", T + 5) == first
    assert await store.pause("w", None, now=T) == first, "only a reopening takes that back"
    await one(store, unit("c", claim, change=close()))
    assert (await pause(store, "c")).status is Status.COMPLETED
    assert await store.pause("nobody", Pause(nonce=tok("p"), shown="", at=T), now=T) is None


async def test_deaths_are_counted_on(store: Store) -> None:
    await running(store, "w")
    [got] = await store.adopt([ME], want(owner=OTHER), now=T)
    assert got.row.attempts == 1
    await one(store, unit("w", got.row.claim or b"", change=Release()))
    await pause(store, "w")
    assert (await unpause(store, "w")).attempts == 1


async def test_the_next_run_of_a_chain_is_told_and_one_that_replaces_an_end_is_not(store: Store) -> None:
    claim = await running(store, "w", "c")

    await pause(store, "w")
    await one(store, unit("w", claim, change=Continue(start("w", run=2), tok("wake"))))
    assert (await row(store, "w")).pause == "by ann"
    await pause(store, "c")
    await one(store, unit("c", claim, change=close()))
    assert await store.replace(RunKey("c", 1), start("c", run=2), tok("n"), now=T)
    assert (await row(store, "c")).pause is None


async def test_a_deploy_gives_it_no_other_version(store: Store) -> None:

    claim = await running(store, "w", "v", versioning=Versioning.AUTO_UPGRADE)
    for id in ("w", "v"):
        await one(store, unit(id, claim, change=Park(None, "mail")))
    await pause(store, "w")
    assert await store.upgrade("v2", ["flow"], 10, now=T) == 1
    assert ((await row(store, "w")).version, (await row(store, "v")).version) == ("v1", "v2")
