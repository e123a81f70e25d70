"""``Store.commit``: fences, starts, messages, events and changes of state."""

from __future__ import annotations

import msgspec
import pytest

from perdure.model.ids import RunKey
from perdure.model.records import Intent, Kind, Outcome
from perdure.model.states import CLOSED, Reason, Status
from perdure.model.writes import Continue, Hold, Park, Release, SetEvent
from perdure.store.base import Store
from tests.store.build import (
    ME,
    OTHER,
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
    status,
    tok,
    unit,
    want,
)

# -- fences


async def test_an_empty_batch_writes_nothing_and_tells_the_time(store: Store) -> None:
    receipt = await store.commit([], now=T)
    assert receipt.now == T
    assert receipt.verdicts == []


async def test_the_holder_writes(store: Store) -> None:
    claim = await running(store, "w")
    assert (await one(store, unit("w", claim, records=[record(1), record(2)]))).applied
    assert [r.seq for r in await history(store, "w")] == [1, 2]


@pytest.mark.usefixtures("serving")
@pytest.mark.parametrize("case", ["stale token", "other run", "unknown", "claimed by another", "terminated"])
async def test_a_unit_whose_fence_does_not_match_is_refused_alone_and_writes_nothing(store: Store, case: str) -> None:
    claim = await running(store, "w", "good")
    await queued(store, "friend")
    token, run, id = claim, 1, "w"
    if case == "stale token":
        token = tok("stale")
    elif case == "other run":
        run = 2
    elif case == "unknown":
        id = "nobody"
    elif case == "claimed by another":
        await store.adopt([ME], want(owner=OTHER), now=T)
        claim = (await row(store, "good")).claim or b""
    else:
        await store.terminate("w", "", tok("term"), now=T)
    before = await dump(store)
    bad = unit(
        id,
        token,
        run,
        records=[record(1)],
        events=[SetEvent("e", b"1")],
        sends=[send("friend")],
        children=[start("child")],
        change=close(),
    )
    receipt = await commit(store, bad, unit("good", claim))
    assert [v.applied for v in receipt.verdicts] == [False, True]
    assert await dump(store) == before
    receipt = await commit(store, unit("good", claim, records=[record(1)]), bad)
    assert [v.applied for v in receipt.verdicts] == [True, False]
    assert await history(store, "w") == []
    assert len(await history(store, "good")) == 1


async def test_a_caller_outside_needs_no_fence_and_writes_no_history(store: Store) -> None:
    verdict = await one(store, outside(children=[start("a")]))
    assert verdict.applied
    verdict = await one(store, outside(sends=[send("a")]))
    assert verdict.applied
    assert verdict.undelivered == {}
    assert len(await store.inbox(["a"])) == 1


async def test_after_a_close_the_token_stays_and_any_other_is_refused(store: Store) -> None:
    claim = await running(store, "w")
    assert (await one(store, unit("w", claim, change=close()))).applied
    found = await row(store, "w")
    assert found.claim == claim
    assert found.owner is None
    assert not (await one(store, unit("w", tok("stale"), records=[record(1)]))).applied


async def test_an_outcome_is_never_replaced(store: Store) -> None:
    claim = await running(store, "w")
    await one(store, unit("w", claim, change=close()), T + 1)
    await one(store, unit("w", claim, change=close(Status.FAILED)), T + 2)
    ended = (await store.ended(["w"]))["w"]
    assert (ended.row.status, ended.row.closed) == (Status.COMPLETED, T + 1)


# -- starts


async def test_a_start_that_is_held_runs_from_the_first_moment(store: Store) -> None:
    claim = tok("claim")
    intents = (Intent("1", "charge", b"\x00\xff"),)
    s = start("w", claim, timeout=5 * SECOND, deadline=T + 9 * SECOND, intents=intents, attributes=b'{"k":1}')
    assert (await one(store, own("w", claim, start=s))).applied
    found = await row(store, "w")
    assert (found.status, found.owner, found.claim, found.epoch) == (Status.RUNNING, ME, claim, 1)
    assert (found.created, found.updated, found.started, found.until) == (T, T, T, None)
    assert found.deadline == T + 5 * SECOND
    assert (found.intents, found.attributes, found.fingerprint) == (intents, b'{"k":1}', b"fp-w")
    assert await store.inputs([RunKey("w", 1)]) == {RunKey("w", 1): b'{"n":1}'}


@pytest.mark.parametrize(
    ("more", "expected", "until"),
    [
        ({}, Status.QUEUED, T),
        ({"status": Status.SCHEDULED, "delay": 3 * SECOND}, Status.SCHEDULED, T + 3 * SECOND),
        ({"status": Status.SCHEDULED, "until": T + 7}, Status.SCHEDULED, T + 7),
    ],
)
async def test_a_start_that_nobody_holds_waits_for_its_time(
    store: Store, more: dict[str, object], expected: Status, until: int
) -> None:
    await queued(store, "w", timeout=SECOND, deadline=T + 9, **more)
    found = await row(store, "w")
    assert (found.status, found.until, found.owner, found.claim) == (expected, until, None, None)
    assert (found.started, found.deadline, found.timeout, found.epoch) == (None, T + 9, SECOND, 0)


async def test_family_routing_and_search_columns_come_back(store: Store) -> None:
    more = {
        "parent": "p",
        "parent_run": 2,
        "parent_path": "1.2",
        "on_parent_close": "abandon",
        "queue": "q",
        "priority": -3,
        "attributes": b'{"a":2}',
    }
    await queued(store, "w", **more)
    found = await row(store, "w")
    assert {name: getattr(found, name) for name in more} == more


async def test_an_own_start_of_a_taken_id_is_not_applied_and_shows_the_row(store: Store) -> None:
    await running(store, "w")
    before = await dump(store)
    claim = tok("claim")
    verdict = await one(store, own("w", claim, records=[record(1)], children=[start("c")], change=close()))
    assert not verdict.applied
    assert verdict.exists == {"w": await row(store, "w")}
    assert await dump(store) == before


async def test_a_child_of_a_taken_id_is_named_and_the_unit_stands(store: Store) -> None:
    await queued(store, "taken")
    claim = await running(store, "w")
    verdict = await one(store, unit("w", claim, records=[record(1)], children=[start("taken"), start("free")]))
    assert verdict.applied
    assert verdict.exists == {"taken": await row(store, "taken")}
    assert set(await store.rows(["taken", "free"])) == {"taken", "free"}
    assert len(await history(store, "w")) == 1


async def test_two_starts_of_one_id_in_one_batch_make_one_row(store: Store) -> None:
    first, second = start("w"), start("w")
    receipt = await commit(store, outside(children=[first]), outside(children=[second]))
    assert [v.applied for v in receipt.verdicts] == [True, True]
    losers = [v for v in receipt.verdicts if v.exists]
    assert len(losers) == 1
    assert (await row(store, "w")).lineage in {first.lineage, second.lineage}


async def test_a_repeated_own_start_is_applied_once(store: Store) -> None:
    claim = tok("claim")
    u = own("w", claim, records=[record(1)], children=[start("c")], sends=[send("c")])
    first = await one(store, u)
    before = await dump(store)
    assert await one(store, u, T + 5) == first
    assert await dump(store) == before


@pytest.mark.usefixtures("serving")
async def test_a_repeated_own_start_that_another_has_claimed_since_is_not_mine(store: Store) -> None:
    claim = tok("claim")
    u = own("w", claim, records=[record(1)])
    await one(store, u)
    await store.adopt([ME], want(owner=OTHER), now=T)
    before = await dump(store)
    verdict = await one(store, u)
    assert not verdict.applied
    assert verdict.exists["w"].owner == OTHER
    assert await dump(store) == before


async def test_a_repeated_start_from_outside_stands_although_it_was_claimed_since(store: Store) -> None:
    u = outside(children=[start("w")])
    await one(store, u)
    await store.claim(want(), now=T)
    verdict = await one(store, u)
    assert verdict.applied
    assert verdict.exists == {}


async def test_a_repeated_start_stands_although_the_workflow_continued_since(store: Store) -> None:
    u = outside(children=[start("w")])
    await one(store, u)
    [claimed] = await store.claim(want(), now=T)
    claim = claimed.row.claim or b""
    await one(store, unit("w", claim, change=Continue(start("w", claim, run=2), tok("wake"))))
    verdict = await one(store, u)
    assert verdict.applied
    assert verdict.exists == {}


async def test_one_burst_starts_records_and_closes(store: Store) -> None:
    claim = tok("claim")
    u = own("w", claim, records=[record(1), record(2)], events=[SetEvent("e", b"1")], change=close())
    assert (await one(store, u)).applied
    found = await row(store, "w")
    assert (found.status, found.last_seq, found.closed, found.owner) == (Status.COMPLETED, 2, T, None)
    assert await store.events([("w", "e")]) == {("w", "e"): b"1"}
    before = await dump(store)
    assert (await one(store, u)).applied
    assert await dump(store) == before


# -- records


async def test_a_record_comes_back_as_it_was_written(store: Store) -> None:
    claim = await running(store, "w")
    full = record(
        1,
        Kind.ATTEMPT,
        b'{"e":"\xc3\xa9"}',
        attempt=3,
        shown="f(1, …)",
        intents=(Intent("2", "next", b"\x80"), Intent("3", "", b"")),
    )
    bare = full.__class__(2, "2", Kind.TIMER, "", T)
    await one(store, unit("w", claim, records=[full, bare]))
    got = await history(store, "w")
    assert got == [msgspec.structs.replace(r, version="v1") for r in (full, bare)]
    assert got[1].outcome is Outcome.NONE


# -- messages


async def test_a_message_reaches_its_destination_with_a_wake(store: Store) -> None:
    claim = await running(store, "w")
    mail = send("w", topic="news", data=b"[1]", sender="s")
    verdict = await one(store, outside(sends=[mail]))
    assert verdict.undelivered == {}
    [got] = await store.inbox(["w"])
    assert (got.dest, got.mid, got.topic, got.data, got.sender, got.at) == ("w", mail.mid, "news", b"[1]", "s", T)
    [wake] = (await store.poll(ME, [], "v1", now=T)).wakes
    assert (wake.dest, wake.nonce, wake.cancel) == ("w", mail.wake, None)
    assert (await one(store, unit("w", claim, records=[record(1)], taken=[(mail.mid, 1)], woken=[mail.wake]))).applied
    assert await store.inbox(["w"]) == []
    assert (await store.poll(ME, [], "v1", now=T)).wakes == []


async def test_messages_to_unknown_and_closed_destinations_are_reported(store: Store) -> None:
    claim = await running(store, "w", "closed")
    await one(store, unit("closed", claim, change=close(Status.FAILED)))
    nobody, closed, known = send("nobody"), send("closed"), send("later", known=True)
    verdict = await one(store, unit("w", claim, records=[record(1)], sends=[nobody, closed, known]))
    assert verdict.applied
    assert verdict.undelivered == {nobody.mid: None, closed.mid: Status.FAILED}
    assert [m.mid for m in await store.inbox(["nobody", "closed", "later"])] == [known.mid]


async def test_a_message_is_told_delivered_again_although_its_destination_closed_since(store: Store) -> None:
    claim = await running(store, "dest")
    u = outside(sends=[send("dest"), send("dest", key="k")])
    await one(store, u)
    await one(store, unit("dest", claim, change=close()))
    assert (await one(store, u)).undelivered == {}


async def test_a_keyed_message_arrives_once_whoever_sends_it(store: Store) -> None:
    await queued(store, "a", "b")
    first = send("a", key="k")
    await one(store, outside(sends=[first]))
    verdict = await one(store, outside(sends=[send("a", key="k"), send("b", key="k"), send("a", key="l")]))
    assert verdict.undelivered == {}
    assert first.mid in {m.mid for m in await store.inbox(["a"])}
    assert len(await store.inbox(["a"])) == 2
    assert len(await store.inbox(["b"])) == 1


async def test_a_message_to_a_child_of_the_same_unit_arrives(store: Store) -> None:
    claim = await running(store, "w")
    u = unit("w", claim, records=[record(1)], children=[start("c")], sends=[send("c")])
    assert (await one(store, u)).undelivered == {}
    assert len(await store.inbox(["c"])) == 1


async def test_mail_and_park_in_one_batch_leave_no_sleeper(store: Store) -> None:
    claim = await running(store, "a", "b")
    park = unit("a", claim, change=Park(None, "mail"))
    mail = unit("b", claim, records=[record(1)], sends=[send("a")])
    for batch in ([park, mail],):
        await commit(store, *batch)
    assert [c.row.id for c in await store.claim(want(), now=T)] == ["a"]


async def test_a_message_is_taken_once_and_its_mark_stays(store: Store) -> None:
    claim = await running(store, "w")
    mail = send("w")
    await one(store, outside(sends=[mail]))
    await one(store, unit("w", claim, records=[record(1)], taken=[(mail.mid, 1)]))
    await one(store, outside(sends=[mail]))
    assert await store.inbox(["w"]) == []
    [mark] = (await dump(store))["message"]
    assert (mark["taken_run"], mark["taken_seq"]) == (1, 1)


# -- events and watchers


async def test_an_event_has_its_latest_value(store: Store) -> None:
    claim = await running(store, "w")
    await one(store, unit("w", claim, records=[record(1)], events=[SetEvent("e", b"1"), SetEvent("f", b"2")]))
    await one(store, unit("w", claim, records=[record(2)], events=[SetEvent("e", b"3")]))
    assert await store.events([("w", "e"), ("w", "f"), ("w", "g"), ("x", "e")]) == {
        ("w", "e"): b"3",
        ("w", "f"): b"2",
    }


async def test_events_are_those_of_the_latest_run(store: Store) -> None:
    claim = await running(store, "w")
    u = unit("w", claim, events=[SetEvent("e", b"1")], change=Continue(start("w", claim, run=2), tok("wake")))
    await one(store, u)
    assert await store.events([("w", "e")]) == {}


@pytest.mark.parametrize("what", ["event", "close", "cancel", "terminate"])
async def test_watchers_are_woken(store: Store, what: str) -> None:
    claim = await running(store, "watcher", "target")
    await one(store, unit("watcher", claim, change=Park(None, "target", ("target",))), T + 1)
    assert await store.claim(want(), now=T + 1) == []
    if what == "event":
        await one(store, unit("target", claim, records=[record(1)], events=[SetEvent("e", b"1")]), T + 2)
    elif what == "close":
        await one(store, unit("target", claim, change=close()), T + 2)
    elif what == "terminate":
        await store.terminate("target", "", tok("n"), now=T + 2)
    else:
        await one(store, unit("target", claim, change=Hold(Reason.NO_CODE, "")), T + 2)
        await store.cancel("target", "", tok("n"), now=T + 2)
    assert [c.row.id for c in await store.claim(want(), now=T + 2)] == ["watcher"]
    assert (await dump(store))["watch"] == []


@pytest.mark.parametrize("what", ["event", "close"])
async def test_who_parks_just_after_the_target_moved_is_woken_at_once(store: Store, what: str) -> None:
    claim = await running(store, "watcher", "target")
    u = (
        unit("target", claim, events=[SetEvent("e", b"1")])
        if what == "event"
        else unit("target", claim, change=close())
    )
    await one(store, u, T + 1)
    park = Park(None, "target", ("target",), events=(("target", "e"),))
    await one(store, unit("watcher", claim, change=park), T + 2)
    assert [c.row.id for c in await store.claim(want(), now=T + 2)] == ["watcher"]


# -- changes


@pytest.mark.parametrize("end", sorted(CLOSED - {Status.CONTINUED, Status.SUPERSEDED}))
async def test_a_close_ends_the_run_with_its_outcome(store: Store, end: Status) -> None:
    claim = await running(store, "w")
    await one(store, unit("w", claim, records=[record(1)], change=close(end)), T + 4)
    ended = (await store.ended(["w"]))["w"]
    assert (ended.row.status, ended.row.closed, ended.row.updated, ended.row.last_seq) == (end, T + 4, T + 4, 1)
    assert (ended.row.owner, ended.row.claim, ended.row.until) == (None, claim, None)
    assert (ended.outcome, ended.data) == (Outcome.VALUE, b'"end"')


async def test_a_close_wakes_its_parent_and_cancels_its_open_children(store: Store) -> None:
    claim = await running(store, "parent", "w")
    held = own("held", claim, start=start("held", claim, parent="w", parent_run=1))
    assert (await one(store, held)).applied
    await queued(store, "child", "done", parent="w", parent_run=1)
    await store.cancel("done", "", tok("n"), now=T)
    change = close(parent="parent", children=("child", "done", "held", "nobody"))
    await one(store, unit("w", claim, change=change))
    poll = await store.poll(ME, [], "v1", now=T)
    assert sorted((w.dest, w.cancel is None) for w in poll.wakes) == [("held", False), ("parent", True)]
    [child] = await store.claim(want(), now=T)
    assert (child.row.id, child.row.cancel is None) == ("child", False)


@pytest.mark.parametrize("begun", [True, False], ids=["begun before", "begun here"])
async def test_a_close_cancels_a_child_that_was_started_in_the_same_unit(store: Store, begun: bool) -> None:
    claim = await running(store, "w") if begun else tok("claim")
    rest = {"records": [record(1)], "children": [start("child", parent="w")], "change": close(children=("child",))}
    u = unit("w", claim, **rest) if begun else own("w", claim, **rest)
    assert (await one(store, u)).applied
    [child] = await store.claim(want(), now=T)
    assert (child.row.id, child.row.cancel is None) == ("child", False)


@pytest.mark.parametrize("company", [False, True], ids=["alone", "in company"])
async def test_a_close_spares_what_somebody_else_began_in_the_place_of_a_child(store: Store, company: bool) -> None:
    claim = await running(store, "w")
    await queued(store, "child", "again", parent="w", parent_run=1)
    for id, parent in (("child", None), ("again", "w")):
        await store.terminate(id, "", tok("n"), now=T)
        assert await store.replace(RunKey(id, 1), start(id, run=2, parent=parent), tok("n"), now=T)
    end = unit("w", claim, change=close(children=("child", "again")))
    others = [own("other", tok("claim")), outside(children=[start("more", parent="else")])] if company else []
    assert all(v.applied for v in (await commit(store, end, *others)).verdicts)
    got = {c.row.id: c.row for c in await store.claim(want(), now=T)}
    assert (got["child"].cancel, got["again"].cancel) == (None, ""), "its own next run is still its child"


async def test_park_waits_for_its_time(store: Store) -> None:
    claim = await running(store, "w")
    await one(store, unit("w", claim, records=[record(1)], change=Park(T + 9, "sleeping until nine")), T + 1)
    found = await row(store, "w")
    assert (found.status, found.until, found.detail) == (Status.WAITING, T + 9, "sleeping until nine")
    assert (found.owner, found.claim, found.updated, found.last_seq) == (None, claim, T + 1, 1)
    assert await store.claim(want(), now=T + 8) == []
    assert len(await store.claim(want(), now=T + 9)) == 1


async def test_hold_waits_for_a_person(store: Store) -> None:
    claim = await running(store, "w")
    await one(store, unit("w", claim, change=Hold(Reason.NONDETERMINISM, "1: a, not b")))
    found = await row(store, "w")
    assert (found.status, found.reason, found.detail) == (Status.HELD, Reason.NONDETERMINISM, "1: a, not b")
    assert (found.owner, found.until) == (None, None)
    await one(store, outside(sends=[send("w")]))
    assert await store.claim(want(), now=T + SECOND) == []


async def test_release_queues_again_and_is_no_attempt(store: Store) -> None:
    claim = await running(store, "w")
    await one(store, unit("w", claim, records=[record(1)], change=Release()), T + 2)
    found = await row(store, "w")
    assert (found.status, found.until, found.owner, found.attempts) == (Status.QUEUED, T + 2, None, 0)
    [again] = await store.claim(want(), now=T + 2)
    assert (again.row.started, again.row.epoch, again.row.last_seq) == (T, 2, 1)


@pytest.mark.parametrize("held", [True, False])
async def test_continue_ends_one_run_and_begins_the_next_in_one_commit(store: Store, held: bool) -> None:
    claim = await running(store, "w")
    mail = send("w")
    await one(store, outside(sends=[mail]))
    following = start("w", claim if held else None, run=2, input=b'{"n":2}', timeout=SECOND)
    u = unit("w", claim, records=[record(1)], change=Continue(following, tok("wake")))
    assert (await one(store, u, T + 1)).applied
    old, new = await store.run(RunKey("w", 1)), await store.run(RunKey("w", 2))
    assert old is not None
    assert (old.status, old.closed, old.last_seq, old.run, old.owner) == (Status.CONTINUED, T + 1, 1, 1, None)
    assert new == await row(store, "w")
    assert new is not None
    assert (new.status, new.run) == (Status.RUNNING if held else Status.QUEUED, 2)
    assert (new.last_seq, new.lineage, new.created, new.closed) == (0, following.lineage, T + 1, None)
    assert new.deadline == (T + 1 + SECOND if held else None)
    assert await store.inputs([RunKey("w", 1), RunKey("w", 2)]) == {
        RunKey("w", 1): b'{"n":1}',
        RunKey("w", 2): b'{"n":2}',
    }
    assert [m.mid for m in await store.inbox(["w"])] == [mail.mid]
    assert await store.ended(["w"]) == {}
    assert not (await one(store, unit("w", claim, 1, records=[record(2)]))).applied
    if held:
        assert (await one(store, unit("w", claim, 2, records=[record(1)]))).applied
        assert len(await history(store, "w", 2)) == 1
    assert len(await history(store, "w", 1)) == 1


async def test_a_cancel_command_that_was_acted_on_stays_known(store: Store) -> None:
    claim = await running(store, "w")
    await store.cancel("w", "enough", tok("n"), now=T)
    [wake] = (await store.poll(ME, [], "v1", now=T)).wakes
    assert wake.cancel == "enough"
    await one(store, unit("w", claim, records=[record(1, Kind.CANCEL)], woken=[wake.nonce]))
    assert (await row(store, "w")).cancel == "enough"
    assert await status(store, "w") is Status.RUNNING


async def test_a_thousand_units_in_one_batch(store: Store) -> None:
    ids = [f"w{i:04}" for i in range(1000)]
    claim = await running(store, *ids)
    units = [unit(id, claim, records=[record(1), record(2)]) for id in reversed(ids)]
    units[500].claim = tok("stale")
    receipt = await store.commit(units, now=T)
    assert [i for i, v in enumerate(receipt.verdicts) if not v.applied] == [500]
    found = await store.histories([RunKey(id, 1) for id in ids])
    assert sum(map(len, found.values())) == 1998


# -- a batch means the same whatever the order of its units


async def test_the_row_of_a_taken_id_is_shown_as_the_batch_left_it(store: Store) -> None:
    claim = await running(store, "w", "x")
    receipt = await commit(store, unit("w", claim, children=[start("x")]), unit("x", claim, change=close()))
    assert [v.applied for v in receipt.verdicts] == [True, True]
    assert receipt.verdicts[0].exists == {"x": await row(store, "x")}
    assert receipt.verdicts[0].exists["x"].status is Status.COMPLETED


async def test_mail_to_a_run_that_the_same_batch_closes_arrives_though_another_unit_is_refused(store: Store) -> None:
    claim = await running(store, "w", "x", "late")
    await one(store, unit("late", claim, records=[record(1)]))
    mail = send("x")
    receipt = await commit(
        store,
        unit("x", claim, change=close()),
        unit("late", claim, records=[record(1)]),  # of another unit: this one lost a race
        unit("w", claim, records=[record(1)], sends=[mail]),
    )
    assert [v.applied for v in receipt.verdicts] == [True, False, True]
    assert receipt.verdicts[2].undelivered == {}
    assert [m.mid for m in await store.inbox(["x"])] == [mail.mid]


async def test_no_wake_outlives_the_run_that_it_was_for(store: Store) -> None:
    claim = await running(store, "w", "x", "child")
    await commit(
        store,
        unit("x", claim, change=close(children=("child",))),
        unit("child", claim, change=close(parent="x")),
        unit("w", claim, sends=[send("x"), send("child", known=True)]),
    )
    assert (await dump(store))["wake"] == []


async def test_a_child_that_also_watches_its_parent_is_cancelled_with_it(store: Store) -> None:
    claim, own_claim = await running(store, "parent"), await running(store, "child", parent="parent")
    await one(store, unit("child", own_claim, change=Park(None, "event", ("parent",))))
    await one(store, unit("parent", claim, change=close(children=("child",))))
    (child,) = await store.claim(want(), now=T)
    assert child.row.cancel is not None


async def test_a_cancel_is_noted_for_the_one_that_acted_on_it_whatever_the_other_does(store: Store) -> None:
    of_parent = await running(store, "parent")
    claim = await running(store, "a", "b", parent="parent")
    await one(store, unit("parent", of_parent, change=close(children=("a", "b"))))
    nonce = (await store.poll(ME, None, "v1", now=T)).wakes[0].nonce  # of both
    await commit(store, unit("a", claim, woken=[nonce], change=Park(None, "")), unit("b", claim, change=Park(None, "")))
    assert (await row(store, "a")).cancel is not None
    assert (await row(store, "b")).cancel is None


async def test_of_two_commands_to_cancel_in_one_unit_the_same_one_stays_known(store: Store) -> None:
    claim = await running(store, "w")
    for reason in ("too late", "enough", "stop"):
        await store.cancel("w", reason, tok("n"), now=T)
    wakes = (await store.poll(ME, None, "v1", now=T)).wakes
    await one(store, unit("w", claim, records=[record(1)], woken=[w.nonce for w in wakes]))
    assert (await row(store, "w")).cancel == "enough"


async def test_an_event_set_twice_in_one_unit_to_what_it_was_has_not_changed(store: Store) -> None:
    claim = await running(store, "w")
    await one(store, unit("w", claim, events=[SetEvent("e", b"1")]))
    before = await dump(store)
    await one(store, unit("w", claim, events=[SetEvent("e", b"2"), SetEvent("e", b"1")]), T + 5)
    assert await dump(store) == before
