"""Rewinding: the next run of an id from the first records of the one before it, by its holder and from outside."""

from __future__ import annotations

import msgspec
import pytest

from perdure.model.ids import RunKey
from perdure.model.records import Intent, Kind, Record
from perdure.model.states import Reason, Status
from perdure.model.writes import Hold, Park, SetEvent, Unit
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
    record,
    rewind,
    row,
    running,
    send,
    start,
    tok,
    unit,
    want,
)

INTENTS = (Intent("9", "charge", b"fp"),)


async def three(store: Store, id: str = "w") -> bytes:
    """A run of three records, written by two versions."""
    claim = await running(store, id)
    first = unit(id, claim, records=[record(1, shown="a"), record(2, intents=INTENTS)])
    assert (await one(store, first)).applied
    third = msgspec.structs.replace(unit(id, claim, records=[record(3)]), version="v2")
    assert (await one(store, third)).applied
    return claim


# -- by the holder


@pytest.mark.parametrize("keep", [0, 1, 2, 3])
async def test_the_kept_records_are_the_same_bytes_and_the_mark_follows_them(store: Store, keep: int) -> None:
    claim = await three(store)
    before = await dump(store)
    change = rewind("w", keep)
    assert (await one(store, unit("w", claim, change=change), T + 5)).applied
    after = await dump(store)

    def of(tables: dict[str, list[dict[str, object]]], run: int) -> list[dict[str, object]]:
        rows = [r for r in tables["history"] if r["run"] == run]
        return sorted(({**r, "run": 0} for r in rows), key=lambda r: str(r["seq"]))

    assert of(after, 1) == of(before, 1), "the earlier run stays readable as it was"
    assert of(after, 2)[:-1] == of(before, 1)[:keep]
    records = await history(store, "w", 2)
    assert [r.seq for r in records] == list(range(1, keep + 2))
    assert (records[-1].kind, records[-1].name, records[-1].shown) == (Kind.CUT, "rewind", "by tests")
    assert [r.version for r in records[:-1]] == ["v1", "v1", "v2"][:keep]


async def test_the_run_that_was_rewound_is_superseded_and_the_next_is_queued(store: Store) -> None:
    claim = await three(store)
    change = rewind("w", 2, attempts=3)
    assert (await one(store, unit("w", claim, change=change), T + 5)).applied
    old, new = await store.run(RunKey("w", 1)), await row(store, "w")
    assert old is not None
    assert (old.status, old.closed, old.last_seq, old.claim) == (Status.SUPERSEDED, T + 5, 3, claim)
    assert (new.status, new.run, new.last_seq, new.until, new.attempts) == (Status.QUEUED, 2, 3, T + 5, 3)
    assert (new.lineage, new.claim, new.owner, new.closed) == (change.next.lineage, None, None, None)
    assert not (await one(store, unit("w", claim, records=[record(4)]))).applied, "its holder can write no more"
    [got] = await store.claim(want(), now=T + 5)
    assert (got.row.key, got.row.last_seq, got.input) == (RunKey("w", 2), 3, change.next.input)


async def test_with_a_claim_the_next_run_goes_on_at_once(store: Store) -> None:
    claim, following = await three(store), tok("next")
    assert (await one(store, unit("w", claim, change=rewind("w", 1, following)), T + 5)).applied
    assert (await row(store, "w")).status is Status.RUNNING
    assert (await one(store, unit("w", following, run=2, records=[record(3)]))).applied, "gapless after the mark"
    assert not (await one(store, unit("w", claim, run=2, records=[record(4)]))).applied
    assert [r.seq for r in await history(store, "w", 2)] == [1, 2, 3]


async def test_what_asked_for_it_may_follow_the_mark(store: Store) -> None:
    claim = await three(store)
    decision = Record(3, "", Kind.DECISION, "run from step", T, data=b'{"a":1}')
    change = rewind("w", 1, tok("next"), then=(decision,))
    assert (await one(store, unit("w", claim, change=change))).applied
    assert [r.kind for r in await history(store, "w", 2)] == [Kind.STEP, Kind.CUT, Kind.DECISION]
    assert (await row(store, "w")).last_seq == 3
    assert (await one(store, unit("w", change.next.claim or b"", run=2, records=[record(4)]))).applied


async def test_records_of_the_same_unit_are_written_before_it_is_rewound(store: Store) -> None:
    claim = await three(store)
    assert (await one(store, unit("w", claim, records=[record(4)], change=rewind("w", 4)))).applied
    assert [r.seq for r in await history(store, "w", 1)] == [1, 2, 3, 4]
    assert [r.seq for r in await history(store, "w", 2)] == [1, 2, 3, 4, 5]


async def test_messages_that_the_cut_off_records_took_may_be_received_again(store: Store) -> None:
    claim = await running(store, "w")
    mail = [send("w", mid=bytes([n]) * 16, data=str(n).encode()) for n in range(1, 5)]
    await one(store, outside(sends=mail))
    recv = [record(n, Kind.RECV) for n in (1, 2, 3)]
    taken = [(m.mid, n) for n, m in enumerate(mail[:3], 1)]
    assert (await one(store, unit("w", claim, records=recv, taken=taken))).applied
    assert [m.mid for m in await store.inbox(["w"])] == [mail[3].mid]
    next_claim = tok("next")
    assert (await one(store, unit("w", claim, change=rewind("w", 1, next_claim)))).applied
    assert [m.data for m in await store.inbox(["w"])] == [b"2", b"3", b"4"]
    # What was kept may be cut off the next time.
    again = rewind("w", 0, run=2)
    assert (await one(store, unit("w", next_claim, run=2, change=again))).applied
    assert [m.data for m in await store.inbox(["w"])] == [b"1", b"2", b"3", b"4"]


async def test_events_are_as_the_kept_records_have_set_them(store: Store) -> None:
    claim = await running(store, "w")
    for seq, (name, value) in enumerate([("e", b"1"), ("f", b"1"), ("e", b"2"), ("e", b"3"), ("g", b"1")], 1):
        event = Record(seq, str(seq), Kind.EVENT, name, T, data=value)
        assert (await one(store, unit("w", claim, records=[event], events=[SetEvent(name, value)]))).applied
    assert (await one(store, unit("w", claim, change=rewind("w", 3)), T + 5)).applied
    keys = [("w", name) for name in "efg"]
    assert await store.events(keys) == {("w", "e"): b"2", ("w", "f"): b"1"}


async def test_who_watches_is_woken_to_look_again(store: Store) -> None:
    claim = await running(store, "w", "watcher")
    await one(store, unit("watcher", claim, change=Park(None, "", ("w",))))
    await one(store, unit("w", claim, change=rewind("w", 0, tok("next"))))
    assert [c.row.id for c in await store.claim(want(), now=T)] == ["watcher"]


@pytest.mark.parametrize("uncancel", [False, True])
async def test_a_command_to_cancel_is_given_to_the_next_run_unless_it_is_taken_back(
    store: Store, uncancel: bool
) -> None:
    claim = await running(store, "w")
    nonce = tok("cancel")
    await store.cancel("w", "enough", nonce, now=T)
    cancelled = Record(1, "", Kind.CANCEL, "cancelled:enough", T)
    assert (await one(store, unit("w", claim, records=[cancelled], woken=[nonce]))).applied
    assert (await one(store, unit("w", claim, change=rewind("w", 0, uncancel=uncancel)))).applied
    assert (await row(store, "w")).cancel == (None if uncancel else "enough")


async def test_the_time_of_the_body_goes_on_and_the_deadline_is_what_was_asked_for(store: Store) -> None:
    claim = await three(store)
    following = start("w", run=2, began=T - 7, timeout=3 * SECOND)
    assert (await one(store, unit("w", claim, change=rewind("w", 2, next=following)), T + 5)).applied
    found = await row(store, "w")
    assert (found.started, found.deadline, found.created) == (T - 7, T + 5 + 3 * SECOND, T + 5)
    following = start("w", run=3, began=T - 7, timeout=9 * SECOND, deadline=T + 6)
    assert await store.rewind(found, rewind("w", 0, run=2, next=following), now=T + 5)
    assert (await row(store, "w")).deadline == T + 6


async def test_a_stale_holder_rewinds_nothing(store: Store) -> None:
    await three(store)
    before = await dump(store)
    assert not (await one(store, unit("w", tok("stale"), change=rewind("w", 1)))).applied
    assert not (await one(store, unit("w", tok("stale"), run=2, change=rewind("w", 1)))).applied
    assert await dump(store) == before


@pytest.mark.parametrize("claimed", [False, True])
async def test_a_repeated_rewind_has_the_same_verdict_and_does_nothing_twice(store: Store, claimed: bool) -> None:
    claim = await three(store)
    mail = send("w")
    await one(store, outside(sends=[mail]))
    u = unit(
        "w", claim, records=[record(4, Kind.RECV)], taken=[(mail.mid, 4)], events=[SetEvent("e", b"1")],
        sends=[send("w", topic="x")], children=[start("child")],
        change=rewind("w", 2, tok("next") if claimed else None),
    )  # fmt: skip
    assert (await one(store, u)).applied
    before = await dump(store)
    assert (await one(store, u, T + 9)).applied
    assert await dump(store) == before


@pytest.mark.usefixtures("serving")
async def test_a_repeat_is_refused_once_another_holds_the_next_run(store: Store) -> None:
    claim = await three(store)
    u = unit("w", claim, change=rewind("w", 2, tok("next")))
    assert (await one(store, u)).applied
    [got] = await store.adopt([ME], want(owner=OTHER), now=T)
    before = await dump(store)
    assert not (await one(store, u)).applied
    assert await dump(store) == before
    assert got.row.run == 2


async def test_a_stale_rewind_costs_the_rest_of_its_batch_nothing(store: Store) -> None:
    a = await three(store, "a")
    await three(store, "b")
    receipt = await commit(
        store,
        unit("a", a, change=rewind("a", 1)),
        unit("b", tok("stale"), change=rewind("b", 1)),
        outside(children=[start("c")]),
    )
    assert [v.applied for v in receipt.verdicts] == [True, False, True]
    assert len(await history(store, "a", 2)) == 2
    assert (await row(store, "b")).run == 1


# -- from outside

ENDS = [Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.TIMED_OUT]


@pytest.mark.parametrize("end", ENDS)
async def test_a_closed_run_is_rewound_from_outside(store: Store, end: Status) -> None:
    claim = await three(store)
    await one(store, unit("w", claim, change=close(end)), T + 1)
    seen = await row(store, "w")
    change = rewind("w", 2, uncancel=True)
    assert await store.rewind(seen, change, now=T + 5)
    old, new = await store.run(RunKey("w", 1)), await row(store, "w")
    assert old is not None
    assert (old.status, old.closed) == (Status.SUPERSEDED, T + 1)
    assert (new.status, new.run, new.closed, new.cancel) == (Status.QUEUED, 2, None, None)
    assert await store.ended(["w"]) == {}
    before = await dump(store)
    assert await store.rewind(seen, change, now=T + 6), "its answer was lost"
    assert not await store.rewind(seen, rewind("w", 2), now=T + 6), "somebody was quicker"
    assert await dump(store) == before


async def test_a_rewind_from_outside_takes_an_open_run_from_its_holder(store: Store) -> None:
    claim = await three(store)
    seen = await row(store, "w")
    assert (await one(store, unit("w", claim, records=[record(4)]))).applied, "it goes on meanwhile"
    assert await store.rewind(seen, rewind("w", 2), now=T + 5)
    assert not (await one(store, unit("w", claim, records=[record(5)]))).applied
    assert len(await history(store, "w", 2)) == 3


@pytest.mark.usefixtures("serving")
@pytest.mark.parametrize("between", ["claimed", "closed", "held", "rewound"])
async def test_what_is_not_as_it_was_seen_is_left_alone(store: Store, between: str) -> None:
    claim = await three(store)
    seen = await row(store, "w")
    if between == "claimed":
        await store.adopt([ME], want(owner=OTHER), now=T)
    elif between == "closed":
        await one(store, unit("w", claim, change=close()))
    elif between == "held":
        await one(store, unit("w", claim, change=Hold(Reason.POLICY, "by hand")))
    else:
        await store.rewind(seen, rewind("w", 0), now=T)
    before = await dump(store)
    assert not await store.rewind(seen, rewind("w", 1), now=T + 1)
    assert not await store.rewind(msgspec.structs.replace(seen, id="nobody"), rewind("nobody", 0), now=T + 1)
    assert await dump(store) == before


async def test_wakes_for_a_closed_run_do_not_reach_the_next(store: Store) -> None:
    claim = await running(store, "w")
    await one(store, unit("w", claim, change=close()))
    assert await store.rewind(await row(store, "w"), rewind("w", 0, claim), now=T)
    assert (await store.poll(ME, None, "v1", now=T)).wakes == []


async def test_another_app_is_not_touched(make_store: object) -> None:
    store, other = await make_store("app"), await make_store("other")  # type: ignore[operator]
    await three(store)
    seen, before = await row(store, "w"), await dump(store)
    assert not await other.rewind(seen, rewind("w", 1), now=T)
    assert await other.fork(RunKey("w", 1), start("f"), rewind("w", 2).mark, now=T) is None
    assert [r.kind for r in await history(other, "f")] == [Kind.CUT], "the records of another app are none"
    mine = {table: [r for r in rows if r.get("app") == "app"] for table, rows in (await dump(store)).items()}
    assert mine == {table: [r for r in rows if r.get("app") == "app"] for table, rows in before.items()}


def test_a_unit_that_rewinds_is_not_empty() -> None:
    assert not Unit(key=RunKey("w", 1), change=rewind("w", 0)).empty
