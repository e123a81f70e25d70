"""Reopen and fork: what the operators' orders write, once, on rows that are as they were seen."""

from __future__ import annotations

import msgspec
import pytest

from perdure.model.cuts import Cut, mark
from perdure.model.ids import RunKey
from perdure.model.queues import lane_of
from perdure.model.records import Kind, Record
from perdure.model.states import Reason, Status
from perdure.model.writes import Hold, Park, Reopen, SetEvent
from perdure.store.base import Store
from tests.store.build import (
    ME,
    OTHER,
    SECOND,
    T,
    close,
    dump,
    history,
    letin,
    one,
    outside,
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


def order(**more: object) -> Reopen:
    fields: dict[str, object] = {"nonce": tok("order"), "verb": "resume", "shown": "by tests: why", "at": T + 3}
    return Reopen(**{**fields, **more})  # type: ignore[arg-type]


def a_mark(id: str, keep: int, verb: str = "fork") -> Record:
    return mark(Cut(id, 1, keep), verb, at=T, shown="by tests")


# -- reopen


async def test_held_work_is_queued_under_another_token_with_who_and_why(store: Store) -> None:
    claim = await running(store, "w")
    await one(store, unit("w", claim, records=[record(1)], change=Hold(Reason.RECOVERY_LIMIT, "poison")))
    to = order()
    assert await store.reopen(await row(store, "w"), to, now=T + 5)
    now = await row(store, "w")
    assert (now.status, now.reason, now.detail, now.claim, now.until) == (Status.QUEUED, None, "", to.nonce, T + 5)
    assert (now.attempts, now.last_seq, now.run) == (0, 2, 1)
    said = (await history(store, "w"))[-1]
    assert (said.seq, said.kind, said.name, said.shown, said.at) == (2, Kind.DECISION, "resume", "by tests: why", T + 3)
    assert not (await one(store, unit("w", claim, records=[record(3)]))).applied, "a late write of who held it"
    [got] = await store.claim(want(), now=T + 5)
    assert (got.row.id, got.row.last_seq) == ("w", 2)
    assert (await one(store, unit("w", got.row.claim or b"", records=[record(3)]))).applied


async def test_deaths_are_forgotten(store: Store) -> None:
    await running(store, "w")
    for n in range(3):
        [got] = await store.adopt([(ME, OTHER)[n % 2]], want(owner=(OTHER, ME)[n % 2]), suspects=n > 0, now=T)
    assert got.row.attempts == 3
    await one(store, unit("w", got.row.claim or b"", change=Hold(Reason.RECOVERY_LIMIT, "")))
    assert await store.reopen(await row(store, "w"), order(), now=T)
    assert (await row(store, "w")).attempts == 0


@pytest.mark.parametrize("claimed", [False, True])
async def test_a_repeated_order_is_done_once(store: Store, claimed: bool) -> None:
    claim = await running(store, "w")
    await one(store, unit("w", claim, change=Hold(Reason.POLICY, "")))
    seen, to = await row(store, "w"), order()
    assert await store.reopen(seen, to, now=T + 1)
    if claimed:
        await store.claim(want(), now=T + 1)
    before = await dump(store)
    assert await store.reopen(seen, to, now=T + 2)
    assert not await store.reopen(seen, order(), now=T + 2), "another's order came second"
    assert await dump(store) == before


async def test_at_once_is_before_all_others_and_outside_its_queue(store: Store) -> None:
    await queued(store, "a", "b", "c", queue="emails")
    assert await store.reopen(await row(store, "c"), order(at_once=True), now=T + 5)
    [got] = await store.claim(want(1), now=T + 5)
    assert (got.row.id, got.row.queue) == ("c", None)


async def test_held_work_keeps_its_queue(store: Store) -> None:
    await store.make_queues(["emails"], now=T)
    await queued(store, "a", queue="emails")
    [got] = (await store.claim_line(letin("emails"), now=T)).claimed
    await one(store, unit("a", got.row.claim or b"", change=Hold(Reason.POLICY, "")))
    assert await store.reopen(await row(store, "a"), order(), now=T + 5)
    again = await row(store, "a")
    assert (again.queue, again.lane) == ("emails", lane_of("emails", "", 0)), "it stands in line again"


async def test_work_that_moves_is_claimed_by_its_new_version_only(store: Store) -> None:
    claim = await running(store, "w")
    await one(store, unit("w", claim, records=[record(1)], change=Park(None, "mail")))
    await one(store, outside(sends=[send("w")]))
    assert await store.reopen(await row(store, "w"), order(version="v2"), now=T)
    assert await store.claim(want(), now=T) == []
    [got] = await store.claim(want(version="v2"), now=T)
    assert got.row.version == "v2"
    assert (await store.poll(None, None, "v2", now=T)).claimable is None, "its wakes went with the claim"


@pytest.mark.parametrize("between", ["claimed", "closed", "terminated", "rewound"])
async def test_what_was_touched_since_is_left_alone(store: Store, between: str) -> None:
    claim = await running(store, "w")
    await one(store, unit("w", claim, change=Park(T, "a while")))
    seen = await row(store, "w")
    if between == "claimed":
        await store.claim(want(), now=T)
    elif between == "closed":
        [got] = await store.claim(want(), now=T)
        await one(store, unit("w", got.row.claim or b"", change=close()))
    elif between == "terminated":
        await store.terminate("w", "", tok("n"), now=T)
    else:
        await store.replace(RunKey("w", 1), start("w", run=2), tok("n"), now=T)
        await store.terminate("w", "", tok("n"), now=T)
    before = await dump(store)
    assert not await store.reopen(seen, order(), now=T)
    assert not await store.reopen(msgspec.structs.replace(seen, id="nobody"), order(), now=T)
    assert await dump(store) == before


async def test_what_is_closed_is_not_reopened(store: Store) -> None:
    claim = await running(store, "w")
    await one(store, unit("w", claim, change=close(Status.CANCELLED)))
    assert not await store.reopen(await row(store, "w"), order(), now=T)


# -- fork


async def two(store: Store) -> bytes:
    claim = await running(store, "w")
    event = Record(2, "2", Kind.EVENT, "e", T, data=b'"x"')
    u = unit("w", claim, records=[record(1), event], events=[SetEvent("e", b'"x"'), SetEvent("f", b'"y"')])
    assert (await one(store, u)).applied
    return claim


@pytest.mark.parametrize("keep", [0, 1, 2])
async def test_a_fork_is_a_workflow_of_its_own_and_leaves_its_source_alone(store: Store, keep: int) -> None:
    claim = await two(store)
    mail = send("w")
    await one(store, outside(sends=[mail]))
    before = await dump(store)
    began = T - 3 if keep else None
    begun = start("f", input=b"[2]", began=began, timeout=SECOND)
    assert await store.fork(RunKey("w", 1), begun, a_mark("w", keep), now=T + 5) is None
    after = await dump(store)
    for table, rows in after.items():
        assert [r for r in rows if r.get("id", r.get("dest")) != "f"] == before[table], table
    assert (await history(store, "f"))[:keep] == (await history(store, "w"))[:keep]
    assert [r.kind for r in (await history(store, "f"))[keep:]] == [Kind.CUT]
    now = await row(store, "f")
    assert (now.status, now.run, now.lineage, now.last_seq, now.until) == (
        Status.QUEUED, 1, begun.lineage, keep + 1, T + 5,
    )  # fmt: skip
    assert (now.started, now.deadline) == ((T - 3, T + 5 + SECOND) if keep else (None, None))
    assert await store.events([("f", "e"), ("f", "f")]) == ({("f", "e"): b'"x"'} if keep == 2 else {})
    assert (await store.inputs([RunKey("f", 1)]))[RunKey("f", 1)] == b"[2]"
    assert await store.inbox(["f"]) == []
    assert (await one(store, unit("w", claim, records=[record(3)]))).applied, "its holder goes on"
    [got] = await store.claim(want(), now=T + 5)
    assert (got.row.id, got.row.last_seq) == ("f", keep + 1)


async def test_a_repeated_fork_is_done_once_and_another_learns_who_has_the_id(store: Store) -> None:
    await two(store)
    begun = start("f")
    assert await store.fork(RunKey("w", 1), begun, a_mark("w", 1), now=T) is None
    before = await dump(store)
    assert await store.fork(RunKey("w", 1), begun, a_mark("w", 1), now=T + 1) is None
    taken = await store.fork(RunKey("w", 1), start("f"), a_mark("w", 1), now=T + 1)
    assert taken is not None
    assert taken.lineage == begun.lineage
    own = await store.fork(RunKey("w", 1), start("w"), a_mark("w", 1), now=T + 1)
    assert own is not None
    assert own.id == "w"
    assert await dump(store) == before
    # Also when it has gone on as another run since.
    [got] = await store.claim(want(), now=T)
    await one(store, unit("f", got.row.claim or b"", change=close()))
    assert await store.replace(RunKey("f", 1), start("f", run=2), tok("n"), now=T)
    assert await store.fork(RunKey("w", 1), begun, a_mark("w", 1), now=T + 1) is None


@pytest.mark.parametrize("closed", [False, True])
async def test_the_source_is_terminated_in_the_same_commit(store: Store, closed: bool) -> None:
    claim = await two(store)
    if closed:
        await one(store, unit("w", claim, change=close()))
    begun = start("f")
    for _ in range(2):
        assert await store.fork(RunKey("w", 1), begun, a_mark("w", 0, "restart"), end="stuck", now=T + 1) is None
    was = await row(store, "w")
    assert was.status is (Status.COMPLETED if closed else Status.TERMINATED)
    assert was.detail == ("" if closed else "stuck")
    assert (await one(store, unit("w", claim, records=[record(3)]))).applied is closed


async def test_a_fork_whose_id_is_taken_terminates_nothing(store: Store) -> None:
    await two(store)
    await queued(store, "f")
    assert await store.fork(RunKey("w", 1), start("f"), a_mark("w", 0), end="stuck", now=T) is not None
    assert (await row(store, "w")).status is Status.RUNNING


async def test_who_waited_for_an_id_that_was_not_there_hears_of_the_fork(store: Store) -> None:
    claim = await running(store, "waiter")
    await two(store)
    await one(store, park := unit("waiter", claim, change=Park(None, "", ("f",))))
    await one(store, unit("waiter", claim, woken=[park.nonce]))  # that it is not there wakes it, too
    await store.fork(RunKey("w", 1), start("f"), a_mark("w", 0), now=T)
    [got] = await store.claim(want(), now=T)
    await one(store, unit("f", got.row.claim or b"", change=close()))
    assert [c.row.id for c in await store.claim(want(), now=T)] == ["waiter"]
