"""Streams in the store: each value once, places without gaps, under the fence; what follows a run has what was kept."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.model.cuts import Cut, mark
from perdure.model.ids import RunKey
from perdure.model.records import Kind, Record
from perdure.model.states import Cause, Status
from perdure.model.streams import StreamAsk, StreamPage
from perdure.model.writes import Continue, Decided, Delete, Park
from perdure.store.base import Store
from tests.store.build import (
    SECOND,
    T,
    append,
    close,
    dump,
    one,
    own,
    record,
    rewind,
    row,
    running,
    start,
    status,
    tok,
    unit,
    want,
)


async def page(store: Store, id: str = "a", name: str = "s", place: int = 0, **more: Any) -> StreamPage:
    [found] = await store.streams([StreamAsk(id, name, place, **more)])
    assert found is not None
    return found


async def values(store: Store, id: str = "a", name: str = "s") -> list[str]:
    return [value.decode() for value in (await page(store, id, name, limit=1000)).values]


async def places(store: Store, id: str = "a") -> dict[int, list[int]]:
    """The places of all values, by chain."""
    found: dict[int, list[int]] = {}
    for r in sorted((await dump(store))["stream_value"], key=lambda r: r["place"]):
        if r["id"] == id:
            found.setdefault(r["chain"], []).append(r["place"])
    return found


def says(seq: int, end: bool = False, **more: Any) -> Record:
    """The record of a body that wrote to, or closed, the stream s."""
    return Record(seq, str(seq), Kind.STREAM, "s", T + seq, b"end" if end else b"", **more)


async def test_values_stand_in_the_order_of_units_and_within_them(store: Store) -> None:
    claim = await running(store, "a")
    await one(store, unit("a", claim, appends=[append(1, n=0), append(2, n=1)]))
    await one(store, unit("a", claim, appends=[append(3, n=2), append(9, name="t"), append(4, n=3)]))
    assert await page(store) == StreamPage(1, 0, (b"1", b"2", b"3", b"4"), False)
    assert await page(store, place=1, limit=2) == StreamPage(1, 1, (b"2", b"3"), False)
    assert await page(store, place=4) == StreamPage(1, 4, (), False)
    assert await values(store, name="t") == ["9"]


async def test_what_is_not_there_is_told_apart(store: Store) -> None:
    await running(store, "a")
    assert await store.streams([StreamAsk("nobody", "s", 0), StreamAsk("a", "s", 0)]) == [
        None,
        StreamPage(0, 0, (), False),
    ]
    assert await store.streams([]) == []


async def test_a_second_write_of_the_same_is_passed_over_and_the_first_stays(store: Store) -> None:
    claim = await running(store, "a")
    await one(store, unit("a", claim, appends=[append("10", n=0), append("11", n=1)]))
    await one(store, unit("a", claim, appends=[append("20", n=0), append("21", n=1), append("22", n=2)]))
    await one(store, unit("a", claim, appends=[append("30", "q", 0), append("31", n=2), append("32", n=3)]))
    assert await values(store) == ["10", "11", "22", "30", "32"]
    assert await places(store) == {1: [0, 1, 2, 3, 4]}


async def test_a_repeated_unit_appends_nothing_more(store: Store) -> None:
    claim = await running(store, "a")
    first = unit("a", claim, appends=[append(1, n=0), append(2, n=1), append(3, name="t")])
    for _ in range(3):
        assert (await one(store, first)).applied
    await one(store, unit("a", claim, appends=[append(4, n=2)]))
    assert await values(store) == ["1", "2", "4"]
    assert await values(store, name="t") == ["3"]


async def test_only_the_holder_appends(store: Store) -> None:
    claim = await running(store, "a", "b")
    refused = unit("a", tok("stale"), appends=[append(1)])
    beside = unit("b", claim, appends=[append(2)])
    assert [v.applied for v in (await store.commit([refused, beside], now=T)).verdicts] == [False, True]
    assert not (await one(store, unit("a", claim, run=2, appends=[append(3)]))).applied
    assert await values(store) == []
    assert await values(store, "b") == ["2"]


async def test_it_stands_or_falls_with_its_units_records(store: Store) -> None:
    claim = await running(store, "a")
    await one(store, unit("a", claim, records=[record(1)], appends=[append(1)]))
    other = unit("a", claim, records=[record(1)], appends=[append(2, n=1)])  # its record is another's
    assert not (await one(store, other)).applied
    assert await values(store) == ["1"]


async def test_a_run_may_begin_with_values_and_end_with_them(store: Store) -> None:
    verdict = await one(store, own("a", tok("claim"), records=[says(1)], appends=[append(1, "1")], change=close()))
    assert verdict.applied
    assert await page(store) == StreamPage(1, 0, (b"1",), True)
    taken = own("a", tok("claim"), records=[says(1)], appends=[append(2, "1")])
    assert not (await one(store, taken)).applied
    assert await values(store) == ["1"]


async def test_closing_is_the_last_that_happens(store: Store) -> None:
    claim = await running(store, "a")
    await one(store, unit("a", claim, records=[says(1), says(2, end=True)], appends=[append(1), append(None, "2")]))
    assert await page(store) == StreamPage(1, 0, (b"1",), True)
    assert await page(store, limit=1) == StreamPage(1, 0, (b"1",), True)
    await one(store, unit("a", claim, appends=[append(2, n=1), append(3, n=2), append(4, n=3)]))
    assert await page(store) == StreamPage(1, 0, (b"1",), True)
    await one(store, unit("a", claim, appends=[append(5, name="t")]))
    assert await page(store, name="t") == StreamPage(1, 0, (b"5",), False)


async def test_the_end_comes_after_the_last_value(store: Store) -> None:
    claim = await running(store, "a")
    await one(store, unit("a", claim, appends=[append(n, n=n) for n in range(3)], change=close(), records=[record(1)]))
    assert await page(store, limit=2) == StreamPage(1, 0, (b"0", b"1"), False)
    assert await page(store, place=2, limit=2) == StreamPage(1, 2, (b"2",), True)
    assert await page(store, name="never") == StreamPage(0, 0, (), True)


async def test_a_next_run_that_continues_goes_on_in_the_chain(store: Store) -> None:
    claim = await running(store, "a")
    following = Continue(start("a", claim, run=2), tok("wake"))
    first = unit("a", claim, records=[says(1)], appends=[append(1, "1")], change=following)
    for _ in range(2):
        assert (await one(store, first)).applied
    await one(store, unit("a", claim, run=2, records=[says(1)], appends=[append(2, "1")]))
    await one(store, unit("a", claim, run=2, appends=[append(4, "2")]))
    assert await page(store, place=1, chain=1) == StreamPage(1, 1, (b"2", b"4"), False)
    assert await places(store) == {1: [0, 1, 2]}


async def test_a_rewound_run_has_what_its_records_kept(store: Store) -> None:
    """Written: by the body at 1, by a step at 2 beside one at 3 that never ended, and what came after."""
    claim = await running(store, "a")
    await one(store, unit("a", claim, records=[says(1)], appends=[append("b1", "1")]))
    await one(store, unit("a", claim, appends=[append("k0", "2"), append("c0", "3"), append("k1", "2", 1)]))
    await one(store, unit("a", claim, records=[record(2)], appends=[append("c1", "3", 1)]))
    await one(store, unit("a", claim, records=[says(3, end=True)], appends=[append(None, "3")]))
    assert (await page(store)).ended
    seen = await row(store, "a")
    assert await store.rewind(seen, rewind("a", 2), now=T + 1)
    assert await page(store) == StreamPage(2, 0, (b"b1", b"k0", b"k1"), False)
    assert await places(store) == {1: [0, 1, 2, 3, 4], 2: [0, 1, 2]}
    # Who had read four of the first chain goes back to the first that changed; who had read one goes on.
    assert await page(store, place=4, chain=1) == StreamPage(2, 2, (b"k1",), False)
    assert await page(store, place=1, chain=1) == StreamPage(2, 1, (b"k0", b"k1"), False)
    [taken] = await store.claim(want(), now=T + 2 * SECOND)
    held = taken.row.claim or b""
    await one(store, unit("a", held, run=2, appends=[append("again", "2"), append("new", "3")]))
    assert await values(store) == ["b1", "k0", "k1", "new"]


async def test_of_two_cuts_the_deeper_counts_for_who_missed_both(store: Store) -> None:
    claim = await running(store, "a")
    records = [says(n) for n in range(1, 5)]
    await one(store, unit("a", claim, records=records, appends=[append(n, str(n)) for n in range(1, 5)]))
    assert await store.rewind(await row(store, "a"), rewind("a", 1), now=T + 1)
    assert await store.rewind(await row(store, "a"), rewind("a", 1, run=2), now=T + 2)
    assert await page(store, place=4, chain=1) == StreamPage(3, 1, (), False)
    assert await page(store, place=1, chain=2) == StreamPage(3, 1, (), False)


async def test_a_close_that_is_kept_stays_one(store: Store) -> None:
    claim = await running(store, "a")
    await one(store, unit("a", claim, records=[says(1, end=True), record(2)], appends=[append(None, "1")]))
    assert await store.rewind(await row(store, "a"), rewind("a", 1), now=T + 1)
    assert (await page(store)).ended


async def test_a_fork_copies_also_what_the_chain_held_before(store: Store) -> None:
    claim = await running(store, "a")
    following = Continue(start("a", claim, run=2), tok("wake"))
    await one(store, unit("a", claim, records=[says(1)], appends=[append(1, "1")], change=following))
    await one(store, unit("a", claim, run=2, records=[says(1), says(2)], appends=[append(2, "1"), append(3, "2")]))
    cut, begun = mark(Cut("a", 2, 1), "fork", at=T), start("f")
    for _ in range(2):
        assert await store.fork(RunKey("a", 2), begun, cut, now=T) is None
    assert await values(store, "f") == ["1", "2"]
    assert await values(store) == ["1", "2", "3"]
    [taken] = [c for c in await store.claim(want(), now=T + SECOND) if c.row.id == "f"]
    await one(store, unit("f", taken.row.claim or b"", appends=[append(9, "1"), append(4, "2")]))
    assert await values(store, "f") == ["1", "2", "4"]  # its own path 1 stands


async def test_what_takes_an_ids_place_has_nothing_of_it(store: Store) -> None:
    claim = await running(store, "a")
    await one(store, unit("a", claim, records=[says(1)], appends=[append(1, "1")], change=close()))
    assert await store.replace(RunKey("a", 1), start("a", claim, run=2), tok("n"), now=T)
    assert await page(store) == StreamPage(0, 0, (), False)
    assert await page(store, place=1, chain=1) == StreamPage(1, 1, (), True)
    await one(store, unit("a", claim, run=2, appends=[append(2, "1")]))
    assert await values(store) == ["2"]
    assert await page(store, place=1, chain=1) == StreamPage(1, 1, (), True)


async def test_who_is_parked_beside_a_stream_is_woken_by_what_is_appended(store: Store) -> None:
    claim = await running(store, "a", "reader")
    await one(store, unit("reader", claim, change=Park(None, "waits", ("a",))), T + 1)
    assert await status(store, "reader") is Status.WAITING
    said = unit("a", claim, appends=[append(1)])
    await one(store, said, T + 2)
    [taken] = await store.claim(want(), now=T + 3)
    assert taken.row.id == "reader"
    await one(store, said, T + 4)  # a second try has nothing to tell
    await one(store, unit("reader", taken.row.claim or b"", change=Park(None, "waits", ("a",))), T + 5)
    await one(store, said, T + 6)
    assert await store.claim(want(), now=T + 7) == []


async def test_who_parks_just_after_an_append_is_woken_at_once(store: Store) -> None:
    claim = await running(store, "a", "reader")
    await one(store, unit("a", claim, appends=[append(1)]), T + 1)
    await one(store, unit("reader", claim, change=Park(None, "waits", ("a",), reads=(StreamAsk("a", "s", 0),))), T + 2)
    [taken] = await store.claim(want(), now=T + 3)
    assert taken.row.id == "reader"
    after = Park(None, "waits", ("a",), reads=(StreamAsk("a", "s", 1, chain=1),))
    await one(store, unit("reader", taken.row.claim or b"", change=after), T + 4)
    assert await store.claim(want(), now=T + 5) == []


async def test_a_deleted_workflow_leaves_no_value(store: Store) -> None:
    claim = await running(store, "a", "b")
    await one(store, unit("a", claim, appends=[append(1)]))
    await one(store, unit("b", claim, appends=[append(1)]))
    decision = Decided(
        cause=Cause.ERROR, decision="delete", policy="", because="", parameters=None, evidence=b"{}", executor=""
    )  # fmt: skip
    await one(store, unit("a", claim, change=Delete(), decision=decision))
    tables = await dump(store)
    assert {r["id"] for table in ("stream", "stream_value") for r in tables[table]} == {"b"}


async def test_records_after_a_place(store: Store) -> None:
    claim = await running(store, "a")
    await one(store, unit("a", claim, records=[record(n) for n in range(1, 6)]))
    assert [r.seq for r in await store.records_after(RunKey("a", 1), 2, 2)] == [3, 4]
    assert await store.records_after(RunKey("a", 1), 5, 2) == []
    assert (await store.histories([RunKey("a", 1)]))[RunKey("a", 1)][2:4] == await store.records_after(
        RunKey("a", 1), 2, 2
    )


@pytest.mark.parametrize("count", [2, 30])
async def test_a_batch_of_many_runs_keeps_them_apart(store: Store, count: int) -> None:
    ids = [f"w{n}" for n in range(count)]
    claim = await running(store, *ids)
    units = [unit(id, claim, appends=[append(n * 10 + k, "1", k) for k in range(3)]) for n, id in enumerate(ids)]
    await store.commit(units, now=T)
    await store.commit(units, now=T)
    pages = await store.streams([StreamAsk(id, "s", 1) for id in ids])
    assert [p and p.values for p in pages] == [
        (f"{n * 10 + 1}".encode(), f"{n * 10 + 2}".encode()) for n in range(count)
    ]
