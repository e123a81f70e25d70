"""What a batch would do: counts of what it names, samples replayed where the verb moves to another version."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

from perdure import App, Client, recv
from perdure.batches import Cancel, Delete, Fork, PlanGroup, Resume, Unpause
from perdure.model.problems import Failing, ProblemKind, Trouble
from perdure.model.states import Reason, Status
from perdure.model.writes import Hold
from perdure.operations import batch_plans
from perdure.runtime.requests import serve_requests
from tests.runtime.batching import tables
from tests.runtime.deploys import begun, build, comment, first
from tests.runtime.moving import store_of
from tests.runtime.support import Ledger, executor
from tests.store.build import close, outside, record, running, start, unit

T = TypeVar("T")
WHY = "v1 is bad"


async def other(s: dict[str, Any]) -> list[str]:
    return [await s["reserve"]("sku", 1), await s["ship"](), await recv("go")]


@asynccontextmanager
async def left_by_v1(database: str, ledger: Ledger, body: Any, *ids: str) -> AsyncIterator[App]:
    """Workflows that ``v1`` has begun, and an executor of ``v2``, whose code has this body."""
    old = build(database, ledger, first, "v1")
    async with old:
        await begun(old, *ids)
    new = build(database, ledger, body, "v2", adopt="never")
    async with new:
        yield new


async def answered(app: App, call: Coroutine[Any, Any, T]) -> T:
    """The call, while the executor's rounds come one after the other."""
    task = asyncio.ensure_future(call)
    while not task.done():
        await serve_requests(executor(app))
        await asyncio.wait([task], timeout=0.02)
    return await task


async def test_counts_by_type_version_status_and_problem(app: App) -> None:
    async with app.connect() as client:
        store = store_of(app)
        await store.commit([outside(children=[start("q1"), start("q2"), start("o", version="v2", name="other")])])
        claim = await running(store, "h1", "h2", "p", "f")
        held = [(id, Reason.NO_CODE) for id in ("h1", "h2")] + [("p", Reason.POLICY)]
        told = Failing(kind=ProblemKind.NO_CODE, version="v1", text="why")
        trouble = {Reason.NO_CODE: Trouble(now=ProblemKind.NO_CODE, told=(told,))}
        await store.commit(
            [unit(id, claim, change=Hold(reason, "why"), trouble=trouble.get(reason)) for id, reason in held]
        )
        await store.commit([unit("f", claim, records=[record(1)], change=close(Status.FAILED))])
        batch = client.batch(Cancel(), "id IS NOT NULL", reason=WHY)
        plan = await batch.plan()
        assert (plan.total, plan.key, plan.verb, plan.target, plan.samples, plan.before) == (
            7, batch.key, "cancel", None, (), None,
        )  # fmt: skip
        assert plan.total == await client.count("id IS NOT NULL")

        def group(count: int, status: str, problem: str | None = None, **more: Any) -> PlanGroup:
            fields = {"type": "flow", "version": "v1", "applies": status != "failed", **more}
            return PlanGroup(count=count, status=status, problem=problem, **fields)

        assert sorted(plan.groups, key=repr) == sorted([
            group(2, "queued"), group(2, "held", "no_code"), group(1, "held"), group(1, "failed"),
            group(1, "queued", type="other", version="v2"),
        ], key=repr)  # fmt: skip
        assert [one.count for one in plan.groups][:2] == [2, 2], "the largest first"
        assert {one.status for one in (await client.batch(Delete(), "type = flow", reason=WHY).plan()).groups
                if one.applies} == {"failed"}  # fmt: skip
        done = await batch.apply()
        assert (await batch.plan()).before == done


async def test_nothing_is_frozen_or_changed_by_a_plan(app: App) -> None:
    async with app.connect() as client:
        store: Any = store_of(app)
        await store.commit([outside(children=[start("a"), start("b")])])
        before = await tables(store)
        for verb in (Cancel(), Unpause(), Resume(version="v9"), Fork(version="v9")):
            await client.batch(verb, "status = open", reason=WHY).plan(patience=0.1)
        assert await tables(store) == before


async def test_samples_that_go_on_there_are_safe(database: str, ledger: Ledger) -> None:
    async with left_by_v1(database, ledger, comment, "a", "b", "c") as app:
        batch = app.client.batch(Resume(version="v2"), "version = v1", reason=WHY)
        plan = await answered(app, batch.plan(samples=2))
        assert (plan.target, len(plan.samples), plan.unsampled) == ("v2", 2, 0)
        assert {(one.verdict, one.type, one.version) for one in plan.samples} == {("safe", "order", "v1")}
        again = await answered(app, batch.plan(samples=2))
        assert again == plan, "the same seed draws the same"
        drawn = {
            tuple(sorted(one.id for one in (await answered(app, batch.plan(samples=2, seed=seed))).samples))
            for seed in range(6)
        }
        assert len(drawn) > 1
        async with Client(database, app="shop") as elsewhere:  # which has no code: it asks whoever has
            far = elsewhere.batch(Resume(version="v2"), "version = v1", reason=WHY)
            done = await answered(app, far.apply())
        assert (done.done, done.failed) == (3, 0)
        for id in "abc":
            await app.client.handle(id).send("x", "go")
            assert await app.client.handle(id).result(timeout=15) == ["reserve", "charge", "x", "ship"]
    assert ledger.counts == {"reserve('sku', 1)": 3, "charge(5,)": 3, "ship()": 3}, "no step ran twice"


async def test_samples_that_diverge_show_the_step_and_both_sides(database: str, ledger: Ledger) -> None:
    async with left_by_v1(database, ledger, other, "a") as app:
        batch = app.client.batch(Resume(version="v2"), "version = v1", reason=WHY)
        [sample] = (await answered(app, batch.plan())).samples
        assert (sample.verdict, sample.id, sample.step) == ("diverges", "a", "2")
        assert sample.recorded == "step charge(5)"
        assert sample.called == "step ship"
        assert "test_batch_plans.py:" in sample.where
        done = await answered(app, batch.apply())
        assert (done.done, done.failed) == (0, 1)
        [target] = [one async for one in app.client.batch_handle(done.key).targets("failed")]
        assert "was not moved to 'v2'" in target.detail
        assert "step charge(5)" in target.detail
    assert "ship()" not in ledger


async def test_where_nobody_can_say_it_is_unknown_and_why(database: str, ledger: Ledger) -> None:
    async with left_by_v1(database, ledger, comment, "a") as app:

        async def verdict(version: str, patience: float = 15.0) -> tuple[str, str]:
            batch = app.client.batch(Resume(version=version), "version = v1", reason=WHY)
            [sample] = (await batch.plan(patience=patience)).samples
            return sample.verdict, sample.detail

        assert await verdict("v7") == (
            "unknown", "no live executor runs version 'v7': start one, or replay here with --code MODULE:APP",
        )  # fmt: skip
        executor(app).answering = True  # at something that takes long
        assert await verdict("v2", 0.2) == ("unknown", "no live executor of version 'v2' answered within 0.2 s")


async def test_what_is_there_already_is_not_sampled_and_small_groups_only_up_to_a_bound(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_plans, "GROUPS_MAX", 2)
    async with app.connect() as client:
        sizes = {"v1": 3, "v2": 2, "v3": 1, "v4": 1, "new": 5}
        starts = [start(f"{v}-{n}", version=v) for v, size in sizes.items() for n in range(size)]
        await store_of(app).commit([outside(children=starts)])
        plan = await client.batch(Resume(version="new"), "status = open", reason=WHY).plan(samples=2)
        assert sorted(one.version for one in plan.samples) == ["v1", "v1", "v2", "v2"]
        assert plan.unsampled == 2
