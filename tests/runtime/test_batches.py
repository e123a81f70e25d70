"""Batches: each verb over a query, once for each target, whoever dies, comes second, or changes a target meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import perdure.sync
from perdure import App, Client, Codec
from perdure.batches import BatchState, Cancel, Delete, Fate, Fork, Pause, Restart, Resume, Terminate, Unpause
from perdure.errors import BatchConflict, BatchNotFound, ConfigError, NotDurable, QueryError
from perdure.model.records import Kind
from perdure.model.states import Status
from perdure.operations import batches
from perdure.operations.batches import Work
from perdure.store.base import Store
from tests.runtime.batching import (
    IDS,
    WHY,
    audited,
    begun,
    held,
    order,
    queued,
    row_of,
    statuses,
    tables,
    to_the_end,
    token,
    told,
)
from tests.runtime.moving import run_of, store_of, trip
from tests.runtime.support import Ledger, row, until
from tests.store.build import close, one, record, running, unit

# -- ordered


async def test_one_verb_to_all_that_a_query_names(client: Client, store: Store) -> None:
    await queued(store, "a", "b", version="v2")
    await queued(store, "good")
    batch = client.batch(Cancel(), "version = v2 AND status = open", reason=WHY)
    seen: list[int] = []
    info = await batch.apply(progress=lambda info: seen.append(info.waiting))
    assert (info.key, info.verb, info.state, info.reason) == (batch.key, "cancel", BatchState.DONE, WHY)
    assert (info.total, info.done, info.skipped, info.failed, info.waiting) == (2, 2, 0, 0, 0)
    assert seen == [0]
    assert await statuses(store, "a", "b", "good") == ["cancelled", "cancelled", "queued"]
    assert (await row_of(store, "a")).cancel == WHY
    assert await told(client, info.key) == {"a": "done: cancelled", "b": "done: cancelled"}
    assert await audited(store, info.key, "a", "b", "good") == {"a": 1, "b": 1, "good": 0}
    assert [one.key for one in await client.batches()] == [info.key]
    assert await client.batch_handle(info.key).info() == info


async def test_ordered_twice_it_is_answered_with_the_first(client: Client, store: Store) -> None:
    await queued(store, "a")
    batch = client.batch(Cancel(), "status = open OR status = closed", reason=WHY)
    first = await batch.apply()
    await queued(store, "b")
    before = await tables(store)
    assert await batch.apply() == first
    after = await tables(store)
    assert {name for name in before if before[name] != after[name]} == {"audit_line"}
    for ask in (client.batch_handle(first.key).retry, client.batch_handle(first.key).resume):
        assert await ask() == first
    assert await tables(store) == after
    assert await client.batch(Cancel(), " status = open OR status = closed ", reason=WHY).apply() == first
    assert await statuses(store, "b") == ["queued"]
    another = await batch.apply(again=True)
    assert (another.key, another.total, another.skipped) == (f"{first.key}-2", 2, 1)
    assert (await batch.apply(again=True)).key == f"{first.key}-3"
    assert len(await store.batches.audits(first.key, [""])) == 2, "who asks for another does not ask again"


def test_the_key_is_of_verb_options_query_and_reason(app: App) -> None:
    def key(verb: Any = None, query: str = "status = open", reason: str = WHY) -> str:
        return app.client.batch(verb or Resume(version="v1"), query, reason=reason).key

    others = {key(Resume(version="v2")), key(Resume(version="v1", force=True)), key(query="a"), key(reason="b")}
    assert len(others | {key(), key(Cancel())}) == 6
    assert key() == key(query=" status = open\n")
    assert key().startswith("resume-")
    assert app.client.batch(Cancel(), "a", reason="b", key="mine").key == "mine"


async def test_a_key_with_another_order_is_refused_showing_both(client: Client, store: Store) -> None:
    await client.batch(Resume(version="v1"), "status = held", reason=WHY, key="mine").apply()
    other = client.batch(Cancel(), "status = held", reason=WHY, key="mine")
    with pytest.raises(BatchConflict, match="'mine' is that of the batch resume version=v1: status = held; this one is "
                       "cancel: status = held"):  # fmt: skip
        await other.apply()
    same = client.batch(Resume(version="v1"), "status = held", reason="in other words", key="mine")
    assert (await same.apply()).reason == WHY


MISTAKES: tuple[tuple[dict[str, Any], str], ...] = (
    ({"query": " "}, "a batch takes a query"),
    ({"query": "statsu = open"}, r"column 1: there is no field 'statsu'"),
    ({"query": "status = open ORDER BY id"}, "a set has no order"),
    ({"query": "GROUP BY status"}, "GROUP BY is for a count"),
    ({"reason": " "}, "takes a reason"),
    ({"key": ""}, "'' is no key"),
    ({"key": "a\n"}, "is no key"),
    ({"verb": "cancel"}, "'cancel' is no verb"),
    ({"rate": 0}, "rate=0 is no rate"),
    ({"rate": float("nan")}, "rate=nan is no rate"),
)


async def test_what_cannot_be_ordered(client: Client) -> None:
    async def ordered(verb: Any, query: str, reason: str, key: str | None, rate: float | None) -> None:
        await client.batch(verb, query, reason=reason, key=key).apply(rate=rate)

    fields: dict[str, Any] = {"verb": Cancel(), "query": "status = open", "reason": WHY, "key": None, "rate": None}
    for how, said in MISTAKES:
        with pytest.raises(ConfigError, match=said):
            await ordered(**{**fields, **how})
    assert await client.batches() == []


async def test_a_mistake_in_a_query_has_its_column(client: Client) -> None:
    with pytest.raises(QueryError) as error:
        await client.batch(Cancel(), "version = v2 AND problm IS NULL", reason=WHY).plan()
    assert error.value.column == 18


async def test_what_is_asked_of_a_batch_that_is_not_there(client: Client) -> None:
    handle = client.batch_handle("none")
    for call in (handle.info, handle.resume, handle.retry, handle.cancel):
        with pytest.raises(BatchNotFound, match="has no batch 'none'; see: perdure batch list"):
            await call()
    with pytest.raises(ConfigError, match="'gone' is no state of a target: waiting, done, skipped, failed"):
        await anext(handle.targets("gone"))


async def test_not_in_a_body(app: App) -> None:
    @app.workflow
    async def body() -> str:
        try:
            await app.client.batches()
        except NotDurable as refused:
            return str(refused)
        return "done"

    async with app:
        assert "do it in a step" in await body()


# -- verbs


async def test_verbs_do_to_each_what_they_do_by_hand(client: Client, store: Store) -> None:
    async def apply(verb: Any, ids: list[str]) -> dict[str, str]:
        listed = ", ".join(f"'{id}'" for id in ids)
        info = await client.batch(verb, f"id IN ({listed})", reason=WHY).apply()
        return await told(client, info.key)

    await queued(store, "q", "r", "s", "t")
    await held(store, "h", "p")
    claim = await running(store, "run", "end")
    await one(store, unit("end", claim, change=close(Status.FAILED)))
    assert await apply(Pause(), ["q", "run", "end"]) == {
        "q": "done: paused", "run": "done: told to pause", "end": "skipped: it is failed",
    }  # fmt: skip
    assert (await row_of(store, "q")).detail.endswith(WHY)
    assert await apply(Unpause(), ["q", "run", "h", "end"]) == {
        "q": "done: unpaused", "run": "done: its pause is taken back", "h": "skipped: it is not paused: held",
        "end": "skipped: it is not paused: failed",
    }  # fmt: skip
    assert await apply(Cancel(), ["r", "run"]) == {"r": "done: cancelled", "run": "done: told to cancel"}
    assert await apply(Resume(), ["h", "r", "run", "end"]) == {
        "h": "done: queued", "r": "done: begun anew as run 2, from 0 records",
        "run": "skipped: it goes on already: running",
        "end": "failed: workflow 'end' is failed, which is final; it goes on as another: perdure workflow restart end "
        "(anew, with the same input); or perdure workflow fork end --from STEP (a new workflow that keeps what came "
        "before the step)",
    }  # fmt: skip
    assert await apply(Restart(terminate=True), ["s", "end"]) == {
        "s": "done: begun as s-2, and terminated", "end": "done: begun as end-2, and terminated",
    }  # fmt: skip
    assert await apply(Fork(step="#1", version="v9"), ["p", "end"]) == {
        "p": "done: begun as p-2", "end": "done: begun as end-3",
    }  # fmt: skip
    assert (await row_of(store, "p-2")).version == "v9"
    assert await apply(Terminate(), ["t", "end"]) == {"t": "done: terminated", "end": "skipped: it is failed"}
    assert await apply(Delete(), ["t", "p"]) == {
        "t": "done: deleted", "p": "failed: it is held, and only what has ended is deleted: cancel it first",
    }  # fmt: skip
    assert await statuses(store, "q", "r", "s", "s-2", "t", "h", "p", "end") == [
        "queued", "queued", "terminated", "queued", "gone", "queued", "held", "failed",
    ]  # fmt: skip


async def test_resumed_work_runs(app: App, ledger: Ledger) -> None:
    workflow = trip(app, ledger)
    async with app:
        for n in range(5):
            await workflow.options(id=f"t{n}").start("ann")
        await until(lambda: len(ledger) == 10)
        done = await app.client.batch(Cancel(), "type = trip", reason=WHY).apply()
        assert done.done == 5
        await until(lambda: all_of(app, "cancelled"))
        back = await app.client.batch(Resume(), "status = cancelled", reason="it was a slip").apply()
        assert (back.done, back.failed) == (5, 0)
        for n in range(5):
            await workflow.handle(f"t{n}").send("now", "go")
            assert await workflow.handle(f"t{n}").result(timeout=20) == ["ann", "flight!", "hotel!", "now", "taxi!"]
        _, kept = await run_of(app, "t0", 2)
        assert next(r.shown for r in kept if r.kind is Kind.CUT).endswith(": it was a slip")
    assert len(ledger) == 15, "no step ran twice"


async def all_of(app: App, status: str) -> bool:
    return await app.client.count(f"status = {status}") == 5


async def test_a_closed_workflow_that_a_batch_has_begun_anew_is_not_begun_anew_again(
    client: Client, store: Store
) -> None:
    await queued(store, "a", "b")
    await client.batch(Cancel(), "status = open", reason=WHY).apply()
    early = await batches.create(store, order(verb=Resume(), query="status = cancelled", key="early"), token, b"e" * 16)
    first = client.batch(Resume(), "status = cancelled", reason="a slip", key="late")
    assert (await first.apply()).done == 2
    assert (await first.apply()).done == 2, "the same order"
    assert (await client.batch(Resume(), "status = cancelled", reason="a slip").apply()).total == 0, (
        "they match no more"
    )
    work = Work(store, early[0], b"e" * 16, token)
    assert (await to_the_end(work)).skipped == 2, "frozen before, carried out after"
    assert await told(client, "early") == dict.fromkeys("ab", "skipped: run 1 was meant, and it is run 2 by now")
    assert {(await row_of(store, id)).run for id in "ab"} == {2}


async def test_a_workflow_that_has_continued_as_new_is_still_meant(app: App, ledger: Ledger) -> None:
    go = asyncio.Event()

    @app.step
    async def wait() -> None:
        await go.wait()

    @app.workflow
    async def chain(n: int) -> int:
        if n == 0:
            await wait()
            await chain.continue_as_new(1)
        await asyncio.Event().wait() if n < 0 else await perdure.recv("never")
        return n

    async with app:
        await chain.options(id="c").start(0)
        await until(lambda: app.client.count("status = running"))
        work = await begun(store_of(app), b"o" * 16)
        go.set()
        await until(lambda: continued(app))
        assert (await to_the_end(work)).done == 1
        await until(lambda: app.client.count("status = cancelled"))


async def continued(app: App) -> bool:
    return (await row(app, "c")).run == 2


async def test_what_is_begun_anew_with_a_codec_is_readable(database: str) -> None:
    codec = Codec(encode=lambda data: bytes(reversed(data)), decode=lambda data: bytes(reversed(data)))
    app = App("coded", database=database, codec=codec)

    @app.workflow
    async def echo(what: str) -> str:
        return what

    async with app:
        assert await echo.options(id="e").start("hello")
        assert await echo.handle("e").result() == "hello"
        for verb in (Restart(), Fork()):
            done = await app.client.batch(verb, "id = 'e'", reason=WHY).apply()
            [target] = [one async for one in app.client.batch_handle(done.key).targets("done")]
            assert target.new is not None
            assert await app.client.handle(target.new).result(timeout=15) == "hello"


# -- failed, cancelled


async def test_what_has_failed_is_told_and_tried_again(client: Client, store: Store) -> None:
    claim = await running(store, "ended", "fine")
    await one(store, unit("ended", claim, records=[record(1)], change=close()))
    batch = client.batch(Resume(), "id IS NOT NULL", reason=WHY)
    first = await batch.apply()
    assert (first.failed, first.skipped, first.done, first.state) == (1, 1, 0, BatchState.DONE)
    handle = client.batch_handle(first.key)
    [target] = [one async for one in handle.targets("failed")]
    assert target.id == "ended"
    assert "is completed, which is final" in target.detail
    assert await batch.apply() == first, "the same order does not try again"
    assert (await handle.retry()).failed == 1, "as before"
    await store.upkeep.purge([(await row_of(store, "ended")).key])
    again = await handle.retry(reason="it is gone now")
    assert (again.failed, again.skipped) == (0, 2)
    assert await handle.retry() == again
    [target] = [one async for one in handle.targets("skipped") if one.id == "ended"]
    assert target.tries == 3
    assert [line.verb for line in await store.batches.audits(first.key, [""])][-2:] == ["batch retry"] * 2


@pytest.mark.usefixtures("small")
async def test_cancelled_it_acts_on_nothing_more(client: Client, store: Store) -> None:
    await queued(store, *IDS)
    work = await begun(store, b"o" * 16)
    await work.step()
    handle = client.batch_handle("k")
    cancelled = await handle.cancel(reason="enough")
    assert (cancelled.state, cancelled.done, cancelled.waiting) == (BatchState.CANCELLED, 3, 5)
    assert (await to_the_end(work)).state is BatchState.CANCELLED
    assert await client.count("status = cancelled") == 3
    assert [one.id async for one in handle.targets(Fate.WAITING)] == list(IDS[3:])
    assert await handle.cancel() == cancelled
    for call in (handle.resume, handle.retry):
        with pytest.raises(BatchConflict, match="was cancelled with 5 left, which is final"):
            await call()
    assert (await client.batch(Cancel(), "id IS NOT NULL", reason=WHY, key="k").apply()).waiting == 5


async def test_watched_from_elsewhere(client: Client, store: Store) -> None:
    await queued(store, *IDS)
    work = await begun(store, b"o" * 16)
    seen: list[int] = []
    async for info in client.batch_handle("k").watch():
        seen.append(info.waiting)
        await work.step()
    assert seen == [8, 0]


# -- the other face


def test_the_same_without_await(sync_app: perdure.sync.App) -> None:
    @sync_app.workflow(name="nothing")
    def nothing() -> None:
        perdure.sync.recv("never")

    with sync_app:
        for n in range(3):
            nothing.options(id=f"n{n}").start()
        batch = sync_app.client.batch(Cancel(), "type = nothing", reason=WHY, key="k")
        assert batch.plan().total == 3
        seen: list[int] = []
        assert batch.apply(rate=1000, progress=lambda info: seen.append(info.done)).done == 3
        handle = sync_app.client.batch_handle("k")
        assert [info.done for info in handle.watch()] == [3]
        assert [target.id for target in handle.targets("done")] == ["n0", "n1", "n2"]
        assert handle.retry() == handle.resume() == handle.cancel() == handle.info()
        assert seen[-1] == 3
