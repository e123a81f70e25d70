"""Reads, listings, and that apps never see each other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from perdure.model.ids import MessageIds, RunKey
from perdure.model.states import Status
from perdure.model.writes import Continue, SetEvent
from perdure.query.conditions import where
from perdure.store.asks import Fates
from perdure.store.base import Store
from tests.store.build import (
    ME,
    T,
    close,
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

MakeStore = Callable[[str], Awaitable[Store]]


async def test_a_database_migrates_once(make_store: MakeStore) -> None:
    store = await make_store("app")
    have, known = await store.schema_version()
    assert have == known > 0
    assert await store.migrate() == []


async def test_reads_of_nothing(store: Store) -> None:
    assert await store.histories([]) == {}
    assert await store.histories([RunKey("x", 1)]) == {RunKey("x", 1): []}
    assert await store.inbox([]) == []
    assert await store.inbox(["x"]) == []
    assert await store.rows([]) == {}
    assert await store.rows(["x"]) == {}
    assert await store.run(RunKey("x", 1)) is None
    assert await store.inputs([]) == {}
    assert await store.inputs([RunKey("x", 1)]) == {}
    assert await store.ended([]) == {}
    assert await store.ended(["x"]) == {}
    assert await store.events([]) == {}
    assert (await store.list(where())).rows == []


async def test_histories_of_many_in_one_call(store: Store) -> None:
    claim = await running(store, "a", "b", "c")
    await one(store, unit("a", claim, records=[record(n) for n in range(1, 12)]))
    await one(store, unit("b", claim, records=[record(1)]))
    await one(store, unit("b", claim, change=Continue(start("b", claim, run=2), tok("wake"))))
    await one(store, unit("b", claim, 2, records=[record(1), record(2)]))
    keys = [RunKey("b", 2), RunKey("a", 1), RunKey("c", 1), RunKey("b", 1)]
    got = await store.histories(keys)
    assert {key: [r.seq for r in records] for key, records in got.items()} == {
        RunKey("a", 1): list(range(1, 12)),
        RunKey("b", 1): [1],
        RunKey("b", 2): [1, 2],
        RunKey("c", 1): [],
    }


async def test_the_inbox_is_first_in_first_out_per_sender(store: Store) -> None:
    await queued(store, "a", "b")
    mids = MessageIds()
    mail = [send("a" if n % 3 else "b", mid=mids(), topic=str(n % 2), sender="s") for n in range(12)]
    await one(store, outside(sends=mail[:6]))
    await one(store, outside(sends=mail[6:]))
    got = await store.inbox(["b", "a"])
    for dest in "ab":
        assert [m.mid for m in got if m.dest == dest] == [m.mid for m in mail if m.dest == dest]
    assert len(got) == 12


async def test_an_earlier_run_is_read_by_its_number(store: Store) -> None:
    claim = await running(store, "w")
    first = await row(store, "w")
    await one(store, unit("w", claim, change=Continue(start("w", claim, run=2), tok("wake"))), T + 1)
    old = await store.run(RunKey("w", 1))
    assert old is not None
    assert (old.lineage, old.created, old.claim) == (first.lineage, first.created, claim)
    assert await store.run(RunKey("w", 2)) == await row(store, "w")
    assert await store.run(RunKey("w", 3)) is None


async def test_a_row_is_read_with_the_length_of_its_history(store: Store) -> None:
    """Also while it runs: its row is not touched for records alone."""
    claim = await running(store, "w")
    for seq in (1, 2, 3):
        await one(store, unit("w", claim, records=[record(seq)]))
        found = [await row(store, "w"), await store.run(RunKey("w", 1)), *(await store.list(where())).rows]
        assert [r.last_seq for r in found if r is not None] == [seq] * 3
    assert [r.last_seq for r in (await store.list(where(ids=["w"]))).rows] == [3]


async def test_ended_answers_for_closed_latest_runs_only(store: Store) -> None:
    claim = await running(store, "open", "closed")
    await one(store, unit("closed", claim, change=close(Status.FAILED)))
    got = await store.ended(["open", "closed", "unknown"])
    assert set(got) == {"closed"}
    assert got["closed"].row == await row(store, "closed")


async def test_fates_tell_of_the_closed_and_of_those_that_are_not_there(store: Store) -> None:
    claim = await running(store, "open", "closed")
    await one(store, unit("closed", claim, change=close(Status.FAILED)))
    got = await store.fates(["open", "closed", "unknown", "closed", "none"])
    assert (got.ended, got.gone) == (await store.ended(["closed"]), ["none", "unknown"])
    assert await store.fates([]) == Fates({}, [])


# -- listings


async def test_a_listing_is_newest_first_and_pages_without_gap_or_repeat(store: Store) -> None:
    for n in range(7):
        await queued(store, f"w{n}", now=T + n // 2)  # pairs of equal times: the id decides
    expected = ["w6", "w5", "w4", "w3", "w2", "w1", "w0"]
    assert [r.id for r in (await store.list(where())).rows] == expected
    seen: list[str] = []
    cursor = None
    for _ in range(10):
        found = await store.list(where(), limit=2, cursor=cursor)
        seen += [r.id for r in found.rows]
        cursor = found.cursor
        if cursor is None:
            break
        await queued(store, f"new{len(seen)}", now=T + 100)  # comes before the page, so it is not seen
    assert seen == expected


async def test_the_last_page_has_no_cursor(store: Store) -> None:
    await queued(store, "a", "b")
    assert (await store.list(where(), limit=2)).cursor is None
    assert (await store.list(where(), limit=1)).cursor is not None


async def test_filters_restrict_together(store: Store) -> None:
    claim = await running(store, "run")
    await queued(store, "q1", name="other")
    await queued(store, "q2", parent="run")
    await one(store, own("gone", claim, start=start("gone", claim), change=close()))

    async def ids(**which: object) -> set[str]:
        return {r.id for r in (await store.list(where(**which))).rows}  # type: ignore[arg-type]

    assert await ids(statuses=frozenset({Status.QUEUED})) == {"q1", "q2"}
    assert await ids(statuses=frozenset({Status.QUEUED, Status.COMPLETED})) == {"q1", "q2", "gone"}
    assert await ids(names=frozenset({"flow"})) == {"run", "q2", "gone"}
    assert await ids(names=frozenset({"flow", "other"})) == {"run", "q1", "q2", "gone"}
    assert await ids(ids=frozenset({"q1", "gone", "unknown"})) == {"q1", "gone"}
    assert await ids(parent="run") == {"q2"}
    assert await ids(parent="run", names=frozenset({"other"})) == set()
    assert await ids(ids=frozenset({"q1", "q2"}), names=frozenset({"other"})) == {"q1"}


async def test_a_listing_shows_the_latest_run_of_an_id(store: Store) -> None:
    claim = await running(store, "w")
    await one(store, unit("w", claim, change=Continue(start("w", claim, run=2), tok("wake"))))
    assert [(r.id, r.run) for r in (await store.list(where())).rows] == [("w", 2)]


# -- apps


async def test_apps_never_see_each_other(make_store: MakeStore) -> None:
    a, b = await make_store("a"), await make_store("b")
    claim = await running(a, "w")
    s = send("w", key="k")
    await one(a, outside(sends=[s]))
    await one(a, unit("w", claim, records=[record(1)], events=[SetEvent("e", b"1")]))
    await queued(a, "q")
    assert await b.rows(["w", "q"]) == {}
    assert await history(b, "w") == []
    assert await b.inbox(["w"]) == []
    assert await b.events([("w", "e")]) == {}
    assert await b.inputs([RunKey("w", 1)]) == {}
    assert (await b.list(where())).rows == []
    assert await b.claim(want(), now=T) == []
    assert await b.adopt([ME], want(), now=T) == []
    assert await b.reclaim([RunKey("w", 1)], want(), now=T) == []
    poll = await b.poll(ME, [], "v1", now=T)
    assert (poll.wakes, poll.claimable, poll.lost) == ([], None, [])
    assert await b.cancel("w", "", tok(), now=T) is None
    assert await b.terminate("w", "", tok(), now=T) is None
    assert not (await one(b, unit("w", claim, records=[record(2)]))).applied
    assert (await one(b, outside(sends=[send("w")]))).undelivered
    before = await dump(a)
    assert (await one(b, own("w", claim, children=[start("q")], records=[record(1)], change=close()))).applied
    assert (await one(b, outside(sends=[send("q", mid=s.mid, key="k")]))).undelivered == {}
    after = await dump(a)
    for table, rows in before.items():
        assert [r for r in after[table] if r["app"] == "a"] == rows
