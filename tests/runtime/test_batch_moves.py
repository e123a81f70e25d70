"""Move and reset over a query: each workflow once, open or closed, whoever orders twice; families; the routing."""

from __future__ import annotations

from typing import Any

import pytest

from perdure import Client
from perdure.batches import Move, Reset, Skip
from perdure.errors import ConfigError, VersionNotFound
from perdure.model.acts import Act
from perdure.model.batches import Applied, BatchRow, NewBatch
from perdure.model.cuts import cut_of
from perdure.model.ids import RunKey
from perdure.model.records import Intent, Kind
from perdure.model.states import Status, Versioning
from perdure.model.writes import Continue, Park
from perdure.operations import batches
from perdure.operations.batches import Work
from perdure.operations.look import Order
from perdure.query.conditions import Query
from perdure.store.base import Store
from perdure.testing.crash import Crashed
from tests.runtime.batching import IDS, WHY, audited, begun, held, queued, row_of, tables, to_the_end, token, told
from tests.runtime.deploys import build, first
from tests.runtime.support import Ledger
from tests.runtime.test_batch_deaths import WRITES, Dying
from tests.runtime.test_batch_plans import answered, left_by_v1, other
from tests.store.build import close, one, own, record, running, start, tok, unit

ME, OTHER = b"me" * 8, b"other".ljust(16)


async def failed(store: Store, *ids: str, **more: Any) -> None:
    claim = await running(store, *ids, **more)
    await store.commit([unit(id, claim, records=[record(1), record(2)], change=close(Status.FAILED)) for id in ids])


async def where(store: Store, *ids: str) -> list[tuple[str, int, str]]:
    rows = await store.rows(ids)
    return [(str(rows[id].status), rows[id].run, rows[id].version) for id in ids]


# -- move


async def test_open_ones_are_moved_and_closed_ones_left(client: Client, store: Store) -> None:
    await running(store, "runs")
    await held(store, "held")
    await queued(store, "there", version="v2", versioning=Versioning.PINNED)
    await failed(store, "failed")
    batch = client.batch(Move(to="v2", force=True), "id IS NOT NULL", reason=WHY)
    info = await batch.apply()
    assert (info.done, info.skipped, info.failed) == (2, 2, 0)
    assert info.key.startswith("move-")
    ids = ("runs", "held", "there", "failed")
    assert await where(store, *ids) == [("queued", 1, "v2")] * 3 + [("failed", 1, "v1")]
    row = await row_of(store, "runs")
    assert (row.versioning, row.owner) == (Versioning.PINNED, None)
    assert await told(client, info.key) == {
        "runs": "done: on version v2, pinned", "held": "done: on version v2, pinned",
        "there": "skipped: on version v2, pinned", "failed": "skipped: it is failed",
    }  # fmt: skip
    assert await audited(store, info.key, *ids) == {"runs": 1, "held": 1, "there": 0, "failed": 0}
    last = (await store.histories([row.key]))[row.key][-1]
    assert (last.kind, last.name) == (Kind.DECISION, "move")
    assert WHY in last.shown
    before = await tables(store)
    assert await batch.apply() == info
    after = await tables(store)
    assert {name for name in before if before[name] != after[name]} == {"audit_line"}
    again = await batch.apply(again=True)
    assert (again.done, again.skipped) == (0, 4), "they are there already"


async def test_a_version_that_was_never_launched_is_refused_before_anything_is_frozen(
    client: Client, store: Store
) -> None:
    await queued(store, "a")
    for verb in (Move(to="v9"), Reset(to="first", move_to="v9")):
        with pytest.raises(VersionNotFound, match=r"'v9' of .* was never launched"):
            await client.batch(verb, "status = open", reason=WHY, key="k").apply()
    assert await store.batches.get("k") is None
    forced = await client.batch(Move(to="v9", force=True), "status = open", reason=WHY, key="k").apply()
    assert forced.done == 1
    with pytest.raises(ConfigError, match="goes with a version, not with to='unset'"):
        Move(to="unset", one_time=True)


class Turning:
    """A store whose routing changes once, between the look at the targets and the act."""

    def __init__(self, store: Store, then: str) -> None:
        self.app = store.app
        self.acts = 0
        self._store = store
        self._then = then

    @property
    def batches(self) -> Any:
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store.batches if name in ("get", "targets") else self._store, name)

    async def create(self, new: NewBatch, query: Query) -> tuple[BatchRow, bool]:
        return await self._store.batches.create(new, query)

    async def apply(self, key: str, owner: bytes, acts: list[Act]) -> Applied:
        self.acts += 1
        if self.acts == 1:
            await self._store.launched(self._then, {}, (), auto=True)
        return await self._store.batches.apply(key, owner, acts)


async def test_with_the_routing_they_go_where_it_points_when_they_are_moved(database: str, ledger: Ledger) -> None:
    app = build(database, ledger, first, "v1")
    async with app:
        store = app._home.engine().line.store
        await queued(store, "a", "b", version="v0")
        turning: Any = Turning(store, "v3")
        verb = Move(to="auto-upgrade")
        done = await to_the_end(await begun(turning, ME, verb=verb, query="version = v0"))
        assert (done.done, turning.acts) == (2, 2)
        assert await where(store, "a", "b") == [("queued", 1, "v3")] * 2
        assert (await row_of(store, "a")).versioning is Versioning.AUTO_UPGRADE


# -- skip


async def test_each_is_given_the_result_of_the_step_it_is_at(client: Client, store: Store) -> None:
    claim = await running(store, "a", "b", "over", "before")
    notify = Intent("2", "notify", b"fp")
    await store.commit([unit(id, claim, records=[record(1, intents=(notify,))]) for id in ("a", "b")])
    await store.commit([unit("over", claim, records=[record(1)], change=close())])
    batch = client.batch(Skip(step="notify", result={"sent": False}), "id IS NOT NULL", reason=WHY)
    info = await batch.apply()
    assert (info.done, info.skipped, info.failed) == (2, 1, 1)
    assert await told(client, info.key) == {
        "a": "done: step notify (path 2) has that result; it does not run",
        "b": "done: step notify (path 2) has that result; it does not run",
        "over": "skipped: it is completed",
        "before": "failed: no step 'notify' is in flight; there are: none",
    }
    assert await audited(store, info.key, "a", "b", "over", "before") == {"a": 1, "b": 1, "over": 0, "before": 0}
    row = await row_of(store, "a")
    *_, said, outcome = (await store.histories([row.key]))[row.key]
    assert (said.kind, said.name, WHY in said.shown) == (Kind.DECISION, "skip", True)
    assert (outcome.kind, outcome.name, outcome.data) == (Kind.STEP, "notify", b'{"sent":false}')
    before = await tables(store)
    assert await batch.apply() == info
    after = await tables(store)
    assert {name for name in before if before[name] != after[name]} == {"audit_line"}
    again = await batch.apply(again=True)
    assert (again.done, again.skipped, again.failed) == (0, 3, 1), "they have it already"


# -- reset


async def test_open_and_closed_ones_begin_anew_once_however_often_it_is_ordered(client: Client, store: Store) -> None:
    await failed(store, "failed")
    await held(store, "held")
    await queued(store, "fresh")
    verb = Reset(to="#3", move_to="v2", force=True)
    mine = await begun(store, ME, verb=verb, key="first")
    late = await begun(store, OTHER, verb=Reset(to="first", force=True), key="second")  # frozen before the first acts
    done = await to_the_end(mine)
    assert (done.done, done.skipped, done.failed) == (2, 0, 1)
    assert await where(store, "failed", "fresh") == [("queued", 2, "v2"), ("queued", 1, "v2")]
    assert await told(client, "first") == {
        "failed": "done: run 2 goes on from 2 records of run 1, on version v2", "fresh": "done: on version v2, pinned",
        "held": "failed: run 1 of workflow 'held' has 1 records; there is no #3",
    }  # fmt: skip
    row = await row_of(store, "failed")
    *kept, mark = (await store.histories([row.key]))[row.key]
    assert (len(kept), mark.kind, cut_of(mark).key) == (2, Kind.CUT, "batch first")
    second = await to_the_end(late)
    assert (second.done, second.skipped) == (1, 2)
    assert (await told(client, "second"))["failed"] == "skipped: run 1 was meant, and it is run 2 by now"
    assert await where(store, "failed") == [("queued", 2, "v2")]
    assert await audited(store, "second", "failed", "fresh", "held") == {"failed": 0, "fresh": 0, "held": 1}


async def test_what_was_begun_anew_after_it_had_continued_as_new_is_not_meant(client: Client, store: Store) -> None:
    claim = await running(store, "w")
    work = await begun(store, ME, verb=Reset(to="first"))
    change = Continue(start("w", run=2), b"wake".ljust(16))
    assert (await one(store, unit("w", claim, records=[record(1)], change=change))).applied
    assert (await row_of(store, "w")).run == 2
    await client.handle("w").terminate()
    await client.handle("w").reset("first", key="by hand")
    assert (await row_of(store, "w")).run == 3
    done = await to_the_end(work)
    assert (done.done, done.skipped) == (0, 1)
    assert await told(client, "k") == {"w": "skipped: run 1 was meant, and it is run 3 by now"}


async def family(store: Store) -> None:
    """A parent that has failed, its child that is done, and one of its own kind that waits alone."""
    claim, mine = await running(store, "p", "q"), tok("claim")
    begins = start("c", mine, parent="p", parent_run=1, parent_path="1")
    for u in (
        unit("p", claim, records=[record(1, Kind.CHILD, b"c")]),
        own("c", mine, start=begins, records=[record(1)]),
        unit("c", mine, change=close()),
        unit("p", claim, records=[record(2)], change=close(Status.FAILED)),
        unit("q", claim, records=[record(1)], change=Park(None, "waits")),
    ):
        assert (await one(store, u)).applied


@pytest.mark.parametrize(("query", "done"), [("id = p", 1), ("id IN (p, c)", 2)])
async def test_families_go_together_each_member_once(client: Client, store: Store, query: str, done: int) -> None:
    await family(store)
    verb = Reset(to="first", children="reset")
    came = await to_the_end(await begun(store, ME, verb=verb, query=query))
    assert (came.done, came.total) == (done, done)
    assert [run for _, run, _ in await where(store, "p", "c", "q")] == [2, 2, 1]
    of_p = (await told(client, "k"))["p"]
    assert of_p.endswith("of run 1; with 1 child") == (query == "id = p"), of_p
    assert await to_the_end(await begun(store, ME, verb=verb, query=query)) == came


@pytest.mark.parametrize("many", [1, 50])
async def test_a_child_that_is_a_target_too_is_reset_once(
    client: Client, store: Store, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    """Whichever chunk it is in."""
    monkeypatch.setattr(Reset, "chunk", many)
    await family(store)
    verb = Reset(to="first", children="reset")
    came = await to_the_end(await begun(store, ME, verb=verb, query="id IN (p, c)"))
    assert (came.done + came.skipped, came.failed) == (2, 0)
    runs = [run for _, run, _ in await where(store, "p", "c")]
    assert runs == [2, 2]


# -- whoever dies


@pytest.mark.parametrize("sent", [False, True], ids=["before", "unanswered"])
@pytest.mark.parametrize("at", range(1, WRITES + 1))
@pytest.mark.parametrize(
    "verb", [Move(to="v2", force=True), Reset(to="#2", move_to="v2", force=True)], ids=["move", "reset"]
)
async def test_whoever_dies_at_any_write_each_is_moved_or_reset_once(
    client: Client, store: Store, monkeypatch: pytest.MonkeyPatch, verb: Move | Reset, at: int, sent: bool
) -> None:
    monkeypatch.setattr(type(verb), "many", 3)
    await held(store, *IDS)
    dying: Any = Dying(store, at, sent=sent)
    with pytest.raises(Crashed):
        await to_the_end(await begun(dying, ME, verb=verb))
    await begun(store, OTHER, verb=verb)
    work = Work(store, await batches.take(store, "k", Order(by="bob"), token, OTHER), OTHER, token)
    done = await to_the_end(work)
    assert (done.done, done.failed, done.skipped) == (len(IDS), 0, 0)
    run, records = (1, 2) if isinstance(verb, Move) else (2, 2)
    assert await where(store, *IDS) == [("queued", run, "v2")] * len(IDS)
    histories = await store.histories([RunKey(id, run) for id in IDS])
    assert {len(history) for history in histories.values()} == {records}, "one record of the order"
    assert await audited(store, "k", *IDS) == dict.fromkeys(IDS, 1)


# -- samples


async def test_samples_of_a_reset_are_of_what_it_keeps(database: str, ledger: Ledger) -> None:
    async with left_by_v1(database, ledger, other, "a") as app:

        async def sample(verb: Any) -> Any:
            [found] = (await answered(app, app.client.batch(verb, "version = v1", reason=WHY).plan())).samples
            return found

        moved = await sample(Move(to="v2"))
        assert (moved.verdict, moved.recorded) == ("diverges", "step charge(5)")
        for point in ("first", "charge", "#2"):
            assert (await sample(Reset(to=point, move_to="v2"))).verdict == "safe", point
        assert (await sample(Reset(to="last", move_to="v2"))).verdict in ("safe", "diverges")
        lost = await sample(Reset(to="nowhere", move_to="v2"))
        assert lost.verdict == "unknown"
        assert "it would be refused: " in lost.detail
        plan = await app.client.batch(Reset(to="first"), "version = v1", reason=WHY).plan()
        assert (plan.target, plan.samples) == (None, ())
        done = await app.client.batch(Reset(to="charge", move_to="v2"), "version = v1", reason=WHY).apply()
        assert done.done == 1
        await app.client.handle("a").send("x", "go")
        assert await app.client.handle("a").result(timeout=15) == ["reserve", "ship", "x"]
