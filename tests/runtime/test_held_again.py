"""Held work is tried again when other code is there: by a rollback, by a start, with back-off; no other is."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from perdure import App, Topic, current, recv
from perdure.model.orders import BY_CODE
from perdure.runtime.held import retry_held
from perdure.runtime.upgrades import follow
from perdure.store.postgres import PostgresStore
from tests.runtime.support import Ledger, executor, row, status, until

GO: Topic[bool] = Topic("go")


def good(database: str, version: str, ledger: Ledger, declared: Any = None, **more: Any) -> App:
    """What was there before: ``order`` waits between two steps."""
    app = App("shop", database=database, version=version, **{"rollout": "manual", **more})

    @app.step(name="step")
    async def step(n: int) -> str:
        ledger.note(f"{version} {n}")
        return current().version

    @app.workflow(name="order", versioning=declared)
    async def order() -> list[str]:
        before = await step(1)
        await recv(GO)
        return [before, await step(2)]

    return app


def without(database: str, version: str, ledger: Ledger) -> App:
    """A release that has forgotten ``order``."""
    app = App("shop", database=database, version=version, rollout="manual")

    @app.workflow(name="other")
    async def other() -> None: ...

    return app


def diverging(database: str, version: str, ledger: Ledger, declared: Any = None, **more: Any) -> App:
    """A release whose ``order`` asks for another step first."""
    app = App("shop", database=database, version=version, **{"rollout": "manual", **more})

    @app.step(name="other")
    async def other() -> None:
        ledger.note(f"{version} other")

    @app.workflow(name="order", versioning=declared)
    async def order() -> None:
        await other()
        await recv(GO)

    return app


async def begin(app: App, *ids: str, **options: Any) -> None:
    for id in ids:
        await app.client.workflow("order", returns=list).options(id=id, **options).start()


async def is_(app: App, wanted: str, *ids: str) -> bool:
    return [await status(app, id) for id in ids] == [wanted] * len(ids)


async def a_round(app: App) -> None:
    await follow(executor(app))
    await retry_held(executor(app))
    adopter = executor(app).adopter
    await until(lambda: not adopter._under_way)  # that of the launch: beside it another does nothing
    await adopter.round()


async def time_passes(app: App) -> None:
    """Whatever waits for its back-off has waited."""
    store: Any = app._home.engine().line.store
    if isinstance(store, PostgresStore):
        await store._writing.raw(
            lambda conn: conn.execute("update perdure.problem set next = 0 where next is not null")
        )
    else:
        await store._write(lambda conn: conn.execute("update problem set next = 0 where next is not null").fetchall())
    later = executor(app).following.later
    later.due = None if later.due is None else 0


@pytest.fixture(autouse=True)
def quickly(quick_eviction: None) -> None: ...


async def test_a_rollback_releases_what_the_bad_version_holds_while_it_still_runs(
    database: str, ledger: Ledger, said: pytest.LogCaptureFixture
) -> None:
    """No command for any of them; the executors of the bad version are alive all the time."""
    ids = [f"w{n}" for n in range(7)]
    async with good(database, "v1", ledger) as old, without(database, "v2", ledger) as bad:
        await bad.client.deployment.set_current_version("v2", allow_missing_workflows=True)
        await begin(bad, *ids)
        await until(partial(is_, bad, "held", *ids))
        await a_round(old)
        assert await is_(bad, "held", *ids), "new work still goes to v2"
        assert await bad.client.count("problem = no_code AND version = v2") == 7
        await old.client.deployment.set_current_version("v1", reason="v2 holds orders")
        await a_round(bad)
        assert await is_(bad, "held", *ids), "v2 has tried them"
        await a_round(old)
        assert "7 unfinished workflows held by version v2 replayed on version v1 and goes on there" in said.text
        for id in ids:
            handle = old.client.handle(id)
            await handle.send(True, GO)
            assert await handle.result(timeout=20) == ["v1", "v1"]
            [problem] = await handle.problems()
            assert (problem.kind, problem.version) == ("no_code", "v2")
            assert problem.cleared is not None
    assert sorted(ledger) == sorted(["v1 1", "v1 2"] * 7)


async def test_what_does_not_fit_the_next_version_either_waits_for_one_that_it_fits(
    database: str, ledger: Ledger
) -> None:
    """Each is asked once, by a replay without any effect."""
    async with good(database, "v1", ledger, "auto_upgrade") as old:
        await begin(old, "w")
        await until(partial(is_, old, "waiting", "w"))
    async with diverging(database, "v2", ledger, "auto_upgrade") as bad:
        await bad.client.deployment.set_current_version("v2")
        await a_round(bad)
        await bad.client.handle("w").send(True, GO)
        await until(partial(is_, bad, "held", "w"))
        async with diverging(database, "v3", ledger) as worse:
            await worse.client.deployment.set_current_version("v3")
            await a_round(worse)
            [trial] = (await executor(worse).line.store.trials(["w"])).values()
            assert (trial.version, trial.reason) == ("v3", "nondeterminism")
            assert await executor(worse).line.store.held_elsewhere(BY_CODE, "v3", 10) == []
            assert await is_(worse, "held", "w")
        async with good(database, "v4", ledger) as mended:
            await mended.client.deployment.set_current_version("v4")
            await a_round(mended)
            assert await mended.client.handle("w").result(timeout=20) == ["v1", "v4"]
    assert ledger == ["v1 1", "v4 2"], "no effect of a try that fails"


async def test_held_again_it_waits_longer_each_time(database: str, ledger: Ledger) -> None:
    """Under one version, given by hand: only what the code does can tell."""
    async with good(database, "v1", ledger, rollout="auto") as old:
        await begin(old, "x")
        await until(partial(is_, old, "waiting", "x"))
    ledger.clear()

    async def seen(app: App, attempt: int) -> bool:
        return [one.attempt for one in await app.client.handle("x").problems()] == [attempt]

    restarts = 3
    for attempt in range(1, restarts + 1):
        async with diverging(database, "v1", ledger, rollout="auto") as bad:
            if attempt == 1:
                await bad.client.handle("x").send(True, GO)
            elif attempt > 2:
                await retry_held(executor(bad))
                assert await seen(bad, attempt - 1), "however often it starts, its back-off holds"
                await time_passes(bad)
                await retry_held(executor(bad))
            await until(partial(seen, bad, attempt))
            await until(partial(is_, bad, "held", "x"))
            [problem] = await bad.client.handle("x").problems()
            waits = None if problem.next is None else (problem.next - problem.last).total_seconds()
            assert waits == (None if attempt == 1 else 5 * 2 ** (attempt - 2))
            for _ in range(3 if attempt == 1 else 0):
                await time_passes(bad)
                await retry_held(executor(bad))
                assert await seen(bad, attempt), "who has held it does not try again by itself"
    assert ledger == [], "no effect of a try that fails"
    async with good(database, "v1", ledger, rollout="auto") as fixed:
        assert await status(fixed, "x") == "held"
        await time_passes(fixed)
        await retry_held(executor(fixed))
        assert await fixed.client.handle("x").result(timeout=20) == ["v1", "v1"]
        [problem] = await fixed.client.handle("x").problems()
        assert (problem.attempt, problem.cleared is None) == (restarts, False)


async def test_what_a_person_or_a_policy_holds_and_what_is_pinned_is_left_alone(database: str, ledger: Ledger) -> None:
    async with good(database, "v1", ledger) as old, without(database, "v2", ledger) as bad:
        await bad.client.deployment.set_current_version("v2", allow_missing_workflows=True)
        await begin(bad, "held", "paused")
        await begin(bad, "pinned", version="v2")
        await until(partial(is_, bad, "held", "held", "paused", "pinned"))
        await bad.client.handle("paused").pause(reason="look first")
        await old.client.deployment.set_current_version("v1")
        await a_round(old)
        await until(partial(is_, old, "waiting", "held"))
        assert (await row(old, "paused")).reason == "paused"
        assert (await row(old, "pinned")).reason == "no_code"
        await old.client.handle("paused").unpause()


async def test_with_adopt_never_nothing_moves(database: str, ledger: Ledger) -> None:
    async with good(database, "v1", ledger, adopt="never") as old, without(database, "v2", ledger) as bad:
        await bad.client.deployment.set_current_version("v2", allow_missing_workflows=True)
        await begin(bad, "w")
        await until(partial(is_, bad, "held", "w"))
        await old.client.deployment.set_current_version("v1")
        await a_round(old)
        assert await is_(old, "held", "w")
