"""A batch may be sent again after a lost answer: the same verdicts, and no second row."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.model.ids import RunKey
from perdure.model.records import Intent, Record
from perdure.model.states import Reason, Status
from perdure.model.writes import Continue, Hold, Park, Release, SetEvent, Unit
from perdure.store.base import Store
from tests.store.build import (
    ME,
    OTHER,
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


@pytest.mark.parametrize(
    "kind", ["records", "events", "sends", "keyed", "children", "taken", "woken", "close", "park", "hold", "release"]
)
async def test_a_repeated_unit_has_the_same_verdict_and_writes_no_second_row(store: Store, kind: str) -> None:
    claim = await running(store, "w", "friend")
    await queued(store, "taken")
    mail = send("w")
    await one(store, outside(sends=[mail]))
    u = unit("w", claim, records=[record(1)])
    if kind == "events":
        u.events = [SetEvent("e", b"1")]
    elif kind == "sends":
        u.sends = [send("friend"), send("nobody"), send("nobody", known=True)]
    elif kind == "keyed":
        u.sends = [send("friend", key="k"), send("friend", key="k"), send("nobody", key="k")]
    elif kind == "children":
        u.children = [start("c"), start("taken")]
    elif kind == "taken":
        u.taken = [(mail.mid, 1)]
    elif kind == "woken":
        u.woken = [mail.wake, tok("unknown")]
    elif kind != "records":
        u.change = {
            "close": close(parent="friend", children=("taken",)),
            "park": Park(T + 9, "sleeping", ("friend",)),
            "hold": Hold(Reason.POLICY, "by hand"),
            "release": Release(),
        }[kind]
    first = await commit(store, u, unit("friend", claim, records=[record(1)]))
    before = await dump(store)
    again = await commit(store, u, now=T + 100)
    assert again.verdicts[0] == first.verdicts[0]
    assert await dump(store) == before


@pytest.mark.parametrize("change", ["close", "park", "hold", "release"])
async def test_a_repeated_change_without_records_is_recognised(store: Store, change: str) -> None:
    claim = await running(store, "w", "friend")
    u = unit(
        "w",
        claim,
        change={
            "close": close(parent="friend"),
            "park": Park(None, "mail"),
            "hold": Hold(Reason.NO_CODE, "gone"),
            "release": Release(),
        }[change],
    )
    assert (await one(store, u)).applied
    before = await dump(store)
    assert (await one(store, u)).applied
    after = await dump(store)
    for table in ("workflow", "payload", "wake"):
        assert after[table] == before[table], table


@pytest.mark.usefixtures("serving")
async def test_a_repeated_continue_is_recognised_as_long_as_the_next_run_is_mine(store: Store) -> None:
    claim = await running(store, "w")
    u = unit("w", claim, records=[record(1)], change=Continue(start("w", claim, run=2), tok("wake")))
    assert (await one(store, u)).applied
    before = await dump(store)
    assert (await one(store, u)).applied
    assert await dump(store) == before
    await store.adopt([ME], want(owner=OTHER), now=T)
    assert not (await one(store, u)).applied


async def test_a_repeated_continue_names_taken_ids_and_lost_mail_again(store: Store) -> None:
    claim = await running(store, "w")
    await queued(store, "taken")
    u = unit(
        "w",
        claim,
        records=[record(1)],
        children=[start("taken")],
        sends=[send("nobody")],
        change=Continue(start("w", claim, run=2), tok("wake")),
    )
    first = await one(store, u)
    assert set(first.exists) == {"taken"}
    assert len(first.undelivered) == 1
    assert await one(store, u) == first


async def test_a_repeat_after_a_wake_was_acted_on_wakes_nobody_again(store: Store) -> None:
    claim = await running(store, "w", "friend")
    u = unit("w", claim, records=[record(1)], sends=[send("friend")])
    await one(store, u)
    poll = await store.poll(ME, [], "v1", now=T)
    await one(store, unit("friend", claim, records=[record(1)], woken=[w.nonce for w in poll.wakes]))
    assert (await one(store, u)).applied
    assert (await store.poll(ME, [], "v1", now=T)).wakes == []


async def test_a_repeated_close_commands_nobody_again(store: Store) -> None:
    claim = await running(store, "w", "parent")
    assert (await one(store, own("child", claim, start=start("child", claim, parent="w")))).applied
    u = unit("w", claim, change=close(parent="parent", children=("child",)))
    await one(store, u)
    wakes = (await store.poll(ME, None, "v1", now=T)).wakes
    assert sorted(w.dest for w in wakes) == ["child", "parent"]
    for w in wakes:
        await one(store, unit(w.dest, claim, woken=[w.nonce]))
    assert (await one(store, u)).applied
    assert (await store.poll(ME, None, "v1", now=T)).wakes == []


async def test_a_cancel_of_two_is_noted_for_the_one_that_acted_on_it(store: Store) -> None:
    claim = await running(store, "parent")
    await commit(store, *(own(id, claim, start=start(id, claim, parent="parent")) for id in "ab"))
    await one(store, unit("parent", claim, change=close(children=("a", "b"))))
    a, b = (await store.poll(ME, None, "v1", now=T)).wakes
    assert a.nonce == b.nonce
    await commit(store, unit(a.dest, claim, records=[record(1)], woken=[a.nonce]), unit(b.dest, claim))
    assert (await row(store, a.dest)).cancel is not None
    assert (await row(store, b.dest)).cancel is None
    assert [w.dest for w in (await store.poll(ME, None, "v1", now=T)).wakes] == [b.dest]


async def test_a_lone_checkpoint_is_written_once_and_only_by_its_holder(store: Store) -> None:
    claim = await running(store, "w")
    u = unit("w", claim, records=[record(1, data=b"{}", intents=(Intent("2", "next", b"fp"),))])
    assert (await one(store, u)).applied
    before = await dump(store)
    assert (await one(store, u)).applied
    assert not (await one(store, unit("w", claim, records=[record(1)]))).applied  # another's record
    assert not (await one(store, unit("w", tok("stale"), records=[record(2)]))).applied
    assert not (await one(store, unit("w", claim, run=2, records=[record(2)]))).applied
    assert not (await one(store, unit("nobody", claim, records=[record(1)]))).applied
    assert await dump(store) == before
    assert (await one(store, unit("w", claim, records=[record(2, data=None)]))).applied
    assert [(r.data, r.intents) for r in await history(store, "w")] == [(b"{}", u.records[0].intents), (None, ())]


@pytest.mark.parametrize("with_record", [True, False])
async def test_a_repeated_event_wakes_its_watchers_once(store: Store, with_record: bool) -> None:
    claim = await running(store, "w")
    await one(store, own("waiter", claim, change=Park(None, "event", ("w",))))
    u = unit("w", claim, records=[record(1)] if with_record else (), events=[SetEvent("e", b"1")])
    await one(store, u, T + 1)
    (woken,) = await store.claim(want(), now=T + 2)
    assert woken.row.id == "waiter"
    await one(store, unit("waiter", woken.row.claim or b"", change=Park(None, "the next value", ("w",))), T + 3)
    assert (await one(store, u, T + 4)).applied
    assert await store.claim(want(), now=T + 5) == []
    await one(store, unit("w", claim, events=[SetEvent("e", b"2")]), T + 6)
    assert [c.row.id for c in await store.claim(want(), now=T + 7)] == ["waiter"]


@pytest.mark.parametrize("records", [[record(1)], []], ids=["record", "no record"])
async def test_a_late_second_try_of_a_hold_does_not_hold_what_was_released(store: Store, records: list[Record]) -> None:
    claim = await running(store, "w")
    u = unit("w", claim, records=records, change=Hold(Reason.POLICY, "by hand"))
    assert (await one(store, u)).applied
    assert await store.release_held([Reason.POLICY], "v1", now=T) == 1
    assert not (await one(store, u)).applied
    assert (await row(store, "w")).status is Status.QUEUED


@pytest.mark.parametrize(
    "more", [{}, {"records": [record(1)], "children": [start("taken")], "sends": [send("nobody")]}]
)
async def test_a_repeated_start_that_continues_at_once_has_the_same_verdict(store: Store, more: dict[str, Any]) -> None:
    await queued(store, "taken")
    u = own("w", tok("claim"), change=Continue(start("w", run=2), tok("wake")), **more)
    first = await one(store, u)
    assert first.applied
    before = await dump(store)
    assert await one(store, u, T + 1) == first
    assert await dump(store) == before


async def test_a_repeated_start_that_closes_at_once_commands_its_child_once(store: Store) -> None:
    u = own("w", tok("claim"), children=[start("child", parent="w")], change=close(children=("child",)))
    await one(store, u)
    (child,) = await store.claim(want(), now=T)
    assert child.row.cancel is not None
    assert (await one(store, u)).applied
    assert (await store.poll(ME, None, "v1", now=T)).wakes == []


async def test_a_repeated_start_that_nobody_holds_stands_although_it_was_claimed_since(store: Store) -> None:
    u = Unit(key=RunKey("w", 1), nonce=tok("unit"), start=start("w"))
    first = await one(store, u)
    assert len(await store.claim(want(), now=T)) == 1
    assert await one(store, u) == first
