"""Deduplication keys of ids that are used again, and what a queue notes beside its workflows, once those are gone."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.model.acts import DeleteIt
from perdure.model.ids import RunKey
from perdure.model.queues import PAUSED
from perdure.model.states import Cause, Reason, Status
from perdure.model.writes import Continue, Decided, Delete, Park, Pause, Reopen
from perdure.store.base import Store
from perdure.store.lines import Deduplicated
from perdure.store.tables import TABLES
from tests.store.build import SECOND, T, dump, letin, one, queued, rewind, row, start, tok, unit
from tests.store.test_batches import apply, frozen
from tests.store.test_queues import end, let, limited, once

pytestmark = pytest.mark.usefixtures("serving")
BESIDE = ("dedup", "slot")


async def lived(store: Store, id: str = "a", key: str = "k") -> None:
    """A workflow that had a key, a time to expire and a slot, and has ended."""
    await limited(store, concurrency=2)
    assert await once(store, id, key, expires=9 * SECOND) is None
    assert await let(store) == [id]
    await end(store, id)


async def beside(store: Store) -> dict[str, list[str]]:
    found = await dump(store)
    return {table: [r["id"] for r in found[table]] for table in BESIDE}


async def purged(store: Store) -> None:
    await lived(store)
    assert await store.upkeep.purge([RunKey("a", 1)]) == ["a"]


async def deleted_by_a_policy(store: Store) -> None:
    await limited(store, concurrency=2)
    assert await once(store, "a", expires=9 * SECOND) is None
    [claimed] = (await store.claim_line(letin("q"), now=T)).claimed
    assert claimed.row.claim is not None
    decided = Decided(cause=Cause.ERROR, decision="delete", policy="p", because="", parameters=None, evidence=b"{}",
                      executor="e")  # fmt: skip
    assert (await one(store, unit("a", claimed.row.claim, change=Delete(), decision=decided))).applied


async def deleted_by_a_batch(store: Store) -> None:
    await lived(store)
    await frozen(store, verb="delete")
    await apply(store, DeleteIt(id="a", run=1, nonce=tok("act")))


@pytest.mark.parametrize("goes", [purged, deleted_by_a_policy, deleted_by_a_batch])
async def test_with_a_workflow_goes_all_that_a_queue_noted_of_it(store: Store, goes: Any) -> None:
    await goes(store)
    assert await store.rows(["a"]) == {}
    assert await beside(store) == {"dedup": [], "slot": []}
    assert await store.expire(10, tok("n"), now=T + 9 * SECOND) == []
    assert (await dump(store))["expiry"] == [], "goes at its time"
    await queued(store, "a", queue="q")  # the id again, without the key
    assert await once(store, "b") is None


async def test_others_keep_what_is_theirs(store: Store) -> None:
    await lived(store, "a", "k")
    await once(store, "b", "l", expires=9 * SECOND)
    await once(store, "c", "m", expires=9 * SECOND)
    assert await let(store, 1) == ["b"]
    assert await store.upkeep.purge([RunKey("a", 1)]) == ["a"]
    assert await beside(store) == {"dedup": ["b", "c"], "slot": ["b"]}


async def test_a_key_whose_workflow_is_gone_is_swept(store: Store) -> None:
    """As one that was locked while its workflow was purged, by a start that was then taken back."""
    await lived(store)
    [left] = (await dump(store))["dedup"]
    await store.upkeep.purge([RunKey("a", 1)])
    await once(store, "b", "l")
    table = next(t for t in TABLES if t.name == "dedup")
    await store.upkeep.put(table, ["queue", "key", "id"], [(left["queue"], left["key"], left["id"])], "c", "")
    assert (await beside(store))["dedup"] == ["a", "b"]
    assert await store.upkeep.sweep(table, "", 100, T) == (1, "b")
    assert (await beside(store))["dedup"] == ["b"]


# -- the next run of an id


async def again(store: Store, key: str = "k", run: int = 1, **more: Any) -> str | None:
    how = Deduplicated(key=key, over=RunKey("a", run))
    found = await store.start_once(start("a", queue="q", **more), how, now=T)
    return None if found is None else found.id


async def test_the_next_run_of_an_id_has_the_key_that_it_is_given_and_no_other(store: Store) -> None:
    await lived(store)
    assert await again(store, "new", expires=9 * SECOND) is None
    assert (await row(store, "a")).run == 2
    assert await once(store, "b", "new") == "a"
    assert await once(store, "b", "k") is None, "the key of the run before is free"
    assert [r["key"] for r in (await dump(store))["dedup"] if r["id"] == "a"] == ["new"]


async def test_the_next_run_without_a_key_has_none(store: Store) -> None:
    await lived(store)
    assert await store.replace(RunKey("a", 1), start("a", queue="q"), tok("n"), now=T)
    assert await once(store, "b") is None


async def test_the_next_run_with_the_same_key_has_it(store: Store) -> None:
    await lived(store)
    assert await again(store) is None
    assert await once(store, "b") == "a"


async def test_the_next_run_is_not_begun_while_another_has_the_key(store: Store) -> None:
    await lived(store)
    assert await once(store, "b") is None
    before = await dump(store)
    assert await again(store) == "b"
    assert await dump(store) == before
    assert await let(store) == ["b"]
    await end(store, "b")
    assert await again(store) is None
    assert await once(store, "c") == "a"


async def test_a_second_try_of_a_next_run_finds_its_own(store: Store) -> None:
    await lived(store)
    s, how = start("a", queue="q"), Deduplicated(key="k", over=RunKey("a", 1))
    for _ in range(2):
        assert await store.start_once(s, how, now=T) is None
    assert (await row(store, "a")).run == 2
    assert await let(store) == ["a"]
    await end(store, "a")
    assert await again(store, "l", run=2) is None
    before = await dump(store)
    assert await store.start_once(s, how, now=T) is None, "it was begun, and is over"
    assert await dump(store) == before
    assert await again(store, "x") == "a", "another's, of a run that is over"
    assert await dump(store) == before


async def test_only_what_has_ended_has_a_next_run(store: Store) -> None:
    await limited(store)
    assert await once(store, "a") is None
    before = await dump(store)
    for key in ("k", "l"):
        assert await again(store, key) == "a"
    assert await dump(store) == before
    how = Deduplicated(key="l", over=RunKey("z", 1))
    assert await store.start_once(start("z", queue="q"), how, now=T) is None, "gone meanwhile: begun as any"


async def test_what_is_rewound_or_goes_on_as_another_run_keeps_its_key(store: Store) -> None:
    await limited(store)
    assert await once(store, "a") is None
    seen = await store.cancel("a", "stop", tok("n"), now=T)
    assert seen is not None
    assert await store.rewind(seen, rewind("a", 0, next=start("a", run=2, queue="q")), now=T)
    assert await once(store, "b") == "a"
    [got] = (await store.claim_line(letin("q"), now=T)).claimed
    assert got.row.claim is not None
    goes_on = Continue(start("a", tok("claim"), run=3, queue="q"), tok("wake"))
    assert (await one(store, unit("a", got.row.claim, 2, change=goes_on))).applied
    assert await once(store, "b") == "a"


# -- paused before it began


async def test_a_paused_debounced_one_waits_on_with_the_last_input(store: Store) -> None:
    await limited(store)
    how: dict[str, Any] = {"debounce": 5 * SECOND, "status": Status.SCHEDULED, "delay": 5 * SECOND}
    assert await once(store, "a", input=b"1", expires=SECOND, **how) is None
    await store.pause("a", Pause(nonce=tok("n"), at=T, shown="{}"), now=T)
    assert await once(store, "b", now=T + 2 * SECOND, input=b"2", **how) == "a"
    after = await row(store, "a")
    assert (after.status, after.reason, after.lane) == (Status.HELD, Reason.PAUSED, PAUSED)
    assert (after.until, after.expires) == (T + 7 * SECOND, T + 8 * SECOND)
    back = Reopen(nonce=tok("r"), at=T, shown="{}", verb="unpause", back=True)
    assert await store.reopen(after, back, now=T + 3 * SECOND)
    assert (await row(store, "a")).status is Status.SCHEDULED
    assert await store.line_up(["", "v1"], 10, now=T + 6 * SECOND) == []
    await store.line_up(["", "v1"], 10, now=T + 7 * SECOND)
    [got] = (await store.claim_line(letin("q"), now=T + 7 * SECOND)).claimed
    assert (got.row.id, got.input) == ("a", b"2")


async def test_one_that_was_begun_and_paused_has_lost_its_debounced_key(store: Store) -> None:
    await limited(store)
    how: dict[str, Any] = {"debounce": 5 * SECOND, "status": Status.SCHEDULED, "delay": 5 * SECOND}
    assert await once(store, "a", **how) is None
    await store.line_up(["", "v1"], 10, now=T + 5 * SECOND)
    [got] = (await store.claim_line(letin("q"), now=T + 5 * SECOND)).claimed
    assert got.row.claim is not None
    assert (await one(store, unit("a", got.row.claim, change=Park(None, "")))).applied
    await store.pause("a", Pause(nonce=tok("n"), at=T, shown="{}"), now=T + 6 * SECOND)
    assert await once(store, "b", now=T + 7 * SECOND, **how) is None
    assert (await row(store, "a")).reason is Reason.PAUSED
