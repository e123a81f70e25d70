"""Pages under inserts and changes, cursors of other listings, and what a page holds."""

from __future__ import annotations

import random

import pytest

from perdure.errors import ConfigError
from perdure.model.states import Status
from perdure.query.conditions import Attribute, Fact, OneOf, Order, Query, narrowed, where
from perdure.query.evaluate import place_of
from perdure.query.fields import FIELDS
from perdure.query.read import read_query
from perdure.store import search
from perdure.store.base import Store
from perdure.store.cursor import cursor_of
from tests.query.rows import SECOND, T, held, put, some_row, some_rows

FACTS = sorted({field.subject for field in FIELDS if field.sorts and isinstance(field.subject, Fact)})


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("all_runs", [True, False])
async def test_pages_have_no_gap_and_no_repeat_whatever_is_inserted_meanwhile(
    store: Store, descending: bool, all_runs: bool
) -> None:
    rng = random.Random(3)
    there = some_rows(rng, 40)
    await put(store, there.rows, there.past, there.known.errors)
    now, number = there.known.now, 1000
    for fact in FACTS:
        query = Query(order=Order(fact, descending), all_runs=all_runs)
        rows = there.rows + (there.past if all_runs else [])
        expected = [row.key for row in sorted(rows, key=lambda row: place_of(query.order, row, there.known))]
        seen, cursor = [], None
        while True:
            found = await store.list(query, limit=7, cursor=cursor, now=now if cursor is None else now + 5 * SECOND)
            seen += [row.key for row in found.rows]
            cursor = found.cursor
            if cursor is None:
                break
            if len(seen) == 14:
                new = [some_row(rng, number := number + 1) for _ in range(3)]
                await put(store, new)
                there.rows += new
        assert [key for key in seen if key in set(expected)] == expected, fact
        assert len(seen) == len(set(seen)), fact


async def test_now_is_that_of_the_first_page(store: Store) -> None:
    """A duration until now grows between two pages; no row may pass the place where the page before ended."""
    rows = [held(f"w{n}", status=Status.WAITING, started=T - n * SECOND) for n in range(5)]
    await put(store, rows)
    query = read_query("duration < 3s ORDER BY duration DESC", store.app)
    found = await store.list(query, limit=2, now=T)
    assert [row.id for row in found.rows] == ["w2", "w1"]
    found = await store.list(query, limit=2, cursor=found.cursor, now=T + 10 * SECOND)
    assert [row.id for row in found.rows] == ["w0"]


async def test_a_cursor_is_of_one_order(store: Store) -> None:
    await put(store, [held("a"), held("b")])
    cursor = (await store.list(where(), limit=1)).cursor
    assert cursor is not None
    by_id = Query(order=Order(Fact.ID, descending=False))
    with pytest.raises(ConfigError, match="is of a list by created desc, not by id asc"):
        await store.list(by_id, cursor=cursor)
    for wrong in ("", "x", "1800000000000000:a", "é", cursor + "AAAA", "W10"):
        with pytest.raises(ConfigError, match="is no cursor"):
            await store.list(where(), cursor=wrong)
    for value in (None, "text", 2**70):
        with pytest.raises(ConfigError, match="is no cursor"):
            await store.list(where(), cursor=cursor_of(Order(), value, "a", 1, T))
    assert (await store.list(by_id, cursor=cursor_of(by_id.order, "a", "a", 1, T))).rows[0].id == "b"


async def test_a_page_of_all_runs_is_one_snapshot_of_both_tables(store: Store) -> None:
    latest = held("w", run=3, created=T + 3)
    past = [held("w", run=run, created=T + run, status=Status.CONTINUED, closed=T + run) for run in (1, 2)]
    await put(store, [latest, held("x", created=T + 2)], past)
    found = await store.list(read_query("status = continued OR id = x", store.app, all_runs=True))
    assert [(row.id, row.run) for row in found.rows] == [("x", 1), ("w", 2), ("w", 1)]
    assert (await store.list(read_query("status = continued", store.app))).rows == []
    counts = await store.count(read_query("GROUP BY status", store.app, use="count", all_runs=True))
    assert [tuple(one) for one in counts] == [(("continued",), 2), (("queued",), 2)]


async def test_groups_are_few_or_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await put(store, [held(f"w{n}") for n in range(4)])
    monkeypatch.setattr(search, "GROUPS_MAX", 3)
    with pytest.raises(ConfigError, match="more than 3 groups; narrow the query"):
        await store.count(Query(groups=(Fact.ID,)))
    assert len(await store.count(Query(condition=OneOf(Fact.ID, ("w1", "w2", "w3")), groups=(Fact.ID,)))) == 3


async def test_nothing_of_a_text_becomes_sql(store: Store) -> None:
    """Names of attributes and values are what they look like, and nothing else."""
    evil = [
        "'; drop table workflow; --",
        '"',
        "\\",
        "$1",
        "?1",
        "@now",
        "%s",
        "{0}",
        "perdure.workflow",
        "') or ('1' = '1",
    ]
    await put(store, [held(text) for text in evil])
    for text in evil:
        assert [row.id for row in (await store.list(where(ids=[text]))).rows] == [text]
        for query in (
            narrowed(where(), OneOf(Attribute(text), (text, 1, True))),
            Query(condition=OneOf(Fact.NAME, (text,)), groups=(Attribute(text),)),
        ):
            assert (await store.list(query)).rows == []
            assert sum(one.total for one in await store.count(query)) == 0
    assert len((await store.list(where())).rows) == len(evil)


async def test_another_apps_workflows_are_not_there(store: Store, make_store: object) -> None:
    other = await make_store("other")  # type: ignore[operator]
    await put(store, [held("a", status=Status.RUNNING, owner=b"a" * 16)])
    await put(other, [held("b"), held("c")])
    for text in ("", "id != 'zzz'", "id = a OR id = b OR id = c", "NOT executor = 'gamma'"):
        assert [row.id for row in (await store.list(read_query(text, "app"))).rows] == ["a"], text
        assert (await store.count(read_query(text, "app", use="count")))[0].total == 1


def test_after_a_prefix() -> None:
    assert search.after("ab") == "ac"
    assert search.after("a\U0010ffff") == "b"
    assert search.after("\U0010ffff") is None
    assert search.after("") is None
    assert search.after("\ud7ff") == "\ue000"
