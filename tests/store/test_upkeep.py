"""Retention and its chores in the store: whole workflows, never an open one, nothing left behind."""

from __future__ import annotations

from typing import Any

from perdure.model.ids import RunKey
from perdure.model.records import Outcome, Request
from perdure.model.states import Cause, Status
from perdure.model.trials import Trial
from perdure.model.writes import Close, Continue, Decided, Delete, Park, SetEvent
from perdure.store.base import Store
from perdure.store.tables import LEFT, TABLES, Table
from perdure.store.upkeep import Turn
from tests.store.build import (
    OTHER,
    SECOND,
    Dump,
    T,
    append,
    close,
    commit,
    dump,
    one,
    outside,
    own,
    queued,
    record,
    rewind,
    running,
    send,
    start,
    tok,
    unit,
    want,
)

NAMES = {table.name: table for table in TABLES}
FAR = T + 10**12


def of(rows: Dump, id: str) -> dict[str, list[dict[str, Any]]]:
    """What the tables hold of a workflow."""
    return {
        name: found
        for name, table in NAMES.items()
        for owner in table.owners
        if (found := [row for row in rows[name] if row[owner] == id])
    }


async def ended(store: Store, before: int = FAR) -> dict[str, bool]:
    """All workflows by creation, and whether each is needed."""
    return {c.id: c.needed for c in await store.upkeep.ended((-1, ""), before, 100)}


async def full_life(store: Store, id: str) -> None:
    """A workflow with something in every table that can hold something of it, closed in its second run."""
    claim = await running(store, id)
    await one(store, outside(sends=[send(id), send(id, key="k")]))
    mids = [m.mid for m in await store.inbox([id])]
    decided = Decided(cause=Cause.CRASH, decision="resume", policy="", because="", parameters=None, evidence=b"{}",
                      executor="e")  # fmt: skip
    await one(
        store,
        unit(id, claim, records=[record(1)], taken=[(mids[0], 1)], events=[SetEvent("e", b"1")], decision=decided,
             appends=[append(1), append(2, n=1)]),
    )  # fmt: skip
    next_ = start(id, tok("claim"), run=2)
    await one(store, unit(id, claim, change=Continue(next_, tok("wake"))))
    assert next_.claim is not None
    await one(
        store,
        unit(id, next_.claim, 2, records=[record(1)], taken=[(mids[1], 1)], events=[SetEvent("e", b"2")],
             appends=[append(3, "q")], change=close()),
    )  # fmt: skip
    await store.note_trials([Trial(id=id, run=2, last_seq=1, version="v9", reason="no_code", detail="")], now=T)


async def test_a_purged_workflow_leaves_nothing_and_others_everything(store: Store) -> None:
    await full_life(store, "a")
    await full_life(store, "b")
    before = await dump(store)
    assert set(of(before, "a")) >= {
        "workflow", "past_run", "payload", "history", "event", "message", "trial", "decision", "stream", "stream_value"
    }  # fmt: skip
    weights = await store.upkeep.weigh(["a", "nobody"])
    assert weights["a"].rows == sum(map(len, of(before, "a").values()))
    assert weights["a"].bytes > 200
    assert weights["nobody"].rows == 0
    assert await store.upkeep.purge([RunKey("a", 2)]) == ["a"]
    after = await dump(store)
    assert of(after, "a") == {}
    assert of(after, "b") == of(before, "b")
    assert await store.upkeep.purge([RunKey("a", 2)]) == []


async def test_an_id_used_again_starts_clean(store: Store) -> None:
    await full_life(store, "a")
    await store.upkeep.purge([RunKey("a", 2)])
    claim = await running(store, "a")
    assert (await store.rows(["a"]))["a"].run == 1
    assert await store.inbox(["a"]) == []
    assert await store.events([("a", "e")]) == {}
    assert (await store.histories([RunKey("a", 1)]))[RunKey("a", 1)] == []
    assert await store.decisions(["a"]) == []
    assert await store.trials(["a"]) == {}
    await one(store, outside(sends=[send("a", key="k")]))  # the key is free again
    assert len(await store.inbox(["a"])) == 1
    assert (await one(store, unit("a", claim, records=[record(1)]))).applied


async def test_never_an_open_one_nor_one_that_became_another_run(store: Store) -> None:
    claim = await running(store, "runs", "parked", "done")
    await one(store, unit("parked", claim, change=Park(None, "")))
    await queued(store, "queued")
    await one(store, unit("done", claim, change=close()))
    assert await ended(store) == {"done": False, "parked": True, "queued": True, "runs": True}
    await store.replace(RunKey("done", 1), start("done", run=2), tok("n"), now=T)
    before = await dump(store)
    keys = [RunKey(id, 1) for id in ("runs", "parked", "queued", "done")] + [RunKey("done", 2)]
    assert await store.upkeep.purge(keys) == []
    assert await dump(store) == before


async def test_a_child_stays_while_its_parents_run_is_open(store: Store) -> None:
    claim = await running(store, "p")
    for id, more in {"child": {"parent": "p", "parent_run": 1}, "other": {}}.items():
        await commit(store, own(id, tok("c"), start=start(id, held := tok("c"), **more)))
        await one(store, unit(id, held, change=close()))
    assert await ended(store) == {"child": True, "other": False, "p": True}
    keys = [RunKey("child", 1), RunKey("other", 1)]
    assert await store.upkeep.purge(keys) == ["other"]
    # The parent is rewound: the next run has the same lineage, and finds the children that it had.
    row = (await store.rows(["p"]))["p"]
    next_ = start("p", again := tok("claim"), run=2, lineage=row.lineage)
    assert (await one(store, unit("p", claim, change=rewind("p", 0, next=next_)))).applied
    assert (await ended(store))["child"]
    assert await store.upkeep.purge(keys) == []
    # It continues as a new run: that one cannot ask for it.
    assert (
        await one(store, unit("p", again, 2, change=Continue(start("p", last := tok("c"), run=3), tok("w"))))
    ).applied
    assert not (await ended(store))["child"]
    assert await store.upkeep.purge(keys) == ["child"]
    assert last


async def test_a_child_goes_once_its_parent_has_ended(store: Store) -> None:
    claim = await running(store, "p")
    child = start("c", held := tok("c"), parent="p", parent_run=1)
    await commit(store, own("c", held, start=child, change=close()))
    assert (await ended(store))["c"]
    await one(store, unit("p", claim, change=close()))
    assert not (await ended(store))["c"]
    assert await store.upkeep.purge([RunKey("c", 1)]) == ["c"]


async def test_what_a_parked_workflow_waits_for_stays(store: Store) -> None:
    claim = await running(store, "waiter", "target")
    await one(store, unit("waiter", claim, change=Park(None, "", ("target",))))
    await one(store, unit("target", claim, change=close()))
    assert (await ended(store))["target"]
    assert await store.upkeep.purge([RunKey("target", 1)]) == []
    [woken] = await store.claim(want(), now=T)
    assert woken.row.id == "waiter"
    assert await store.upkeep.purge([RunKey("target", 1)]) == ["target"]


async def test_pages_follow_creation_and_ids_whatever_is_created_at_once(store: Store) -> None:
    for at, ids in ((T, "dacb"), (T + SECOND, "hgfe")):
        for id in ids:
            await queued(store, id, now=at)
    seen: list[str] = []
    after = (-1, "")
    while page := await store.upkeep.ended(after, T + SECOND, 3):
        seen += [c.id for c in page]
        after = (page[-1].created, page[-1].id)
    assert seen == list("abcdefgh")
    assert [c.id for c in await store.upkeep.ended((-1, ""), T + SECOND - 1, 10)] == list("abcd")


async def chain(store: Store, id: str, runs: int) -> bytes:
    """A workflow that has continued as new; each run has received a message and set an event."""
    claim = await running(store, id)
    for run in range(1, runs):
        await one(store, outside(sends=[send(id, key=f"k{run}")]))
        [message] = await store.inbox([id])
        next_ = start(id, tok("claim"), run=run + 1)
        done = await one(
            store,
            unit(id, claim, run, records=[record(1)], taken=[(message.mid, 1)], events=[SetEvent("e", b"1")],
                 change=Continue(next_, tok("wake"))),
            T + run,
        )  # fmt: skip
        assert done.applied
        assert next_.claim is not None
        claim = next_.claim
    return claim


async def test_earlier_runs_go_by_themselves_with_all_that_was_theirs(store: Store) -> None:
    await chain(store, "a", 4)
    await chain(store, "b", 2)
    page = await store.upkeep.past(("", 0), 2)
    assert [(c.id, c.run, c.needed) for c in page] == [("a", 1, False), ("a", 2, False)]
    assert [(c.id, c.run) for c in await store.upkeep.past(("a", 2), 9)] == [("a", 3), ("b", 1)]
    keys = [RunKey("a", 1), RunKey("a", 2)]
    weights = await store.upkeep.weigh_past(keys)
    before = await dump(store)
    assert sorted(await store.upkeep.purge_past([*keys, RunKey("a", 9)])) == keys
    after = await dump(store)
    assert [m["taken_run"] for m in after["message"] if m["dest"] == "a"] == [3]
    for name in ("past_run", "payload", "history", "event"):
        runs = {row["run"] for row in after[name] if row["id"] == "a"}
        assert runs <= {3, 4}, name
    gone = sum(len(before[name]) - len(after[name]) for name in NAMES)
    assert sum(w.rows for w in weights.values()) == gone == 10
    assert of(after, "b") == of(before, "b")


async def test_runs_of_the_latest_lineage_stay(store: Store) -> None:
    claim = await running(store, "a")
    row = (await store.rows(["a"]))["a"]
    next_ = start("a", tok("claim"), run=2, lineage=row.lineage)
    await one(store, unit("a", claim, records=[record(1)]))
    await one(store, unit("a", claim, change=rewind("a", 1, next=next_)))
    assert [c.needed for c in await store.upkeep.past(("", 0), 9)] == [True]
    assert await store.upkeep.purge_past([RunKey("a", 1)]) == []


async def sweep(store: Store, table: Table, before: int = FAR) -> int:
    swept, after = 0, ""
    while True:
        found, last = await store.upkeep.sweep(table, after, 2, before)
        swept += found
        if last is None:
            return swept
        after = last


async def test_what_was_left_behind_is_swept_and_nothing_else(store: Store) -> None:
    claim = await running(store, "open", "shut", "target")
    decided = Decided(cause=Cause.ERROR, decision="delete", policy="p", because="", parameters=None, evidence=b"{}",
                      executor="e")  # fmt: skip
    await one(store, unit("shut", claim, change=close(), decision=decided))
    for dest in ("open", "shut", "gone-1", "gone-2", "gone-3"):  # a send that needs no check, after the end
        await one(store, outside(sends=[send(dest, known=True), send(dest, known=True)]))
        await store.note_trials([Trial(id=dest, run=1, last_seq=0, version="v", reason="no_code", detail="")], now=T)
    await one(store, unit("open", claim, change=Park(None, "", ("nobody-yet",))))
    before = await dump(store)
    swept = {table.name: await sweep(store, table) for table in LEFT}
    after = await dump(store)
    assert swept == {"message": 3, "wake": 3, "watch": 0, "trial": 4, "decision": 0, "dedup": 0}
    assert {m["dest"] for m in after["message"]} == {"open", "shut"}
    assert {w["dest"] for w in after["wake"]} == {"open"}
    assert {t["id"] for t in after["trial"]} == {"open"}
    assert after["watch"] == before["watch"]
    assert after["workflow"] == before["workflow"]
    assert {table.name: await sweep(store, table) for table in LEFT} == dict.fromkeys(swept, 0)


async def test_what_a_policy_deleted_is_remembered_for_a_while(store: Store) -> None:
    claim = await running(store, "a")
    decided = Decided(cause=Cause.ERROR, decision="delete", policy="p", because="", parameters=None, evidence=b"{}",
                      executor="e")  # fmt: skip
    await one(store, unit("a", claim, change=Delete(), decision=decided))
    assert set(of(await dump(store), "a")) == {"decision"}
    assert await sweep(store, NAMES["decision"], T - 1) == 0
    assert len(await store.decisions(["a"])) == 1
    assert await sweep(store, NAMES["decision"], T) == 1
    assert await store.decisions(["a"]) == []


async def test_questions_of_nobody_go(store: Store) -> None:
    await store.ask("v1", Request(tok("q"), "x", b"{}"), SECOND, now=T)
    await store.ask("v1", Request(tok("q"), "x", b"{}"), 9 * SECOND, now=T)
    assert await store.upkeep.sweep_requests(T + SECOND) == 1
    assert len((await dump(store))["request"]) == 1


async def test_a_chore_is_one_owners_at_a_time_and_goes_on_where_it_was(store: Store) -> None:
    me, other, upkeep = tok("me"), OTHER, store.upkeep
    assert await upkeep.take("c", me, 60, now=T) == Turn(T, "")
    assert await upkeep.take("c", other, 60, now=T + 59) == T + 60
    assert await upkeep.note("c", me, "half", 60, now=T + 30)
    assert await upkeep.take("c", other, 60, now=T + 60) == T + 90
    assert await upkeep.take("c", other, 60, now=T + 90) == Turn(T + 90, "half"), "its owner is silent"
    assert not await upkeep.note("c", me, "more", 60, now=T + 91)
    assert await upkeep.note("c", other, "", 1000, done=True, now=T + 100)
    assert await upkeep.take("c", me, 60, now=T + 1099) == T + 1100
    assert await upkeep.take("c", me, 60, now=T + 1100) == Turn(T + 1100, "")


async def test_sizes_tell_tables_kinds_and_the_oldest(store: Store) -> None:
    claim = await running(store, "a", "b")
    await one(store, unit("b", claim, change=Close(Status.FAILED, Outcome.ERROR, b"{}", tok("w"))))
    await chain(store, "c", 3)
    sizes = await store.upkeep.sizes(now=T)
    assert [(k.name, k.status, k.count, k.oldest) for k in sizes.kinds] == [
        ("flow", Status.RUNNING, 2, T),
        ("flow", Status.FAILED, 1, T),
    ]
    assert sizes.past_runs == 2
    assert {t.name for t in sizes.tables} >= set(NAMES)
    assert sizes.bytes >= sum(t.bytes for t in sizes.tables) > 0
    assert all(t.bytes for t in sizes.tables)


async def test_other_apps_are_not_touched(make_store: Any) -> None:
    mine, theirs = await make_store("app"), await make_store("other")
    for store in (mine, theirs):
        await full_life(store, "a")
    before = await dump(theirs)
    assert await mine.upkeep.purge([RunKey("a", 2)]) == ["a"]
    for table in LEFT:
        await sweep(mine, table)
    after = await dump(theirs)
    assert [r for r in before["history"] if r["app"] == "other"] == after["history"]
    assert {r["app"] for rows in after.values() for r in rows} == {"other"}


async def test_the_list_of_tables_is_that_of_the_database(store: Store) -> None:
    found = await catalogue(store)
    assert found.pop("meta") is not None
    assert {name: ("app", *table.key) if name != "incarnation" else table.key for name, table in NAMES.items()} == found


async def catalogue(store: Any) -> dict[str, tuple[str, ...]]:
    """Every table's primary key."""
    if hasattr(store, "schema"):
        import asyncpg

        conn = await asyncpg.connect(store.test_url)
        try:
            rows = await conn.fetch(
                """select c.relname, array(
                    select a.attname::text from unnest(i.indkey) with ordinality k (n, at)
                    join pg_attribute a on a.attrelid = c.oid and a.attnum = k.n order by k.at)
                from pg_index i join pg_class c on c.oid = i.indrelid
                where i.indisprimary and c.relnamespace = 'perdure'::regnamespace"""
            )
            return {row[0]: tuple(row[1]) for row in rows}
        finally:
            await conn.close()
    import apsw

    conn = apsw.Connection(str(store.path))
    names = [r[0] for r in conn.execute("select name from sqlite_master where type = 'table'")]
    keys = {
        name: sorted((r[5], r[1]) for r in conn.execute(f"pragma table_info({name})").fetchall() if r[5])
        for name in names
    }
    conn.close()
    return {name: tuple(column for _, column in key) for name, key in keys.items()}
