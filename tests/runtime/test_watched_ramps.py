"""A ramp that watches itself, with real executors: stopped, rolled back, left alone. On both stores."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any

import pytest

from perdure import App
from perdure.errors import DefinitionError
from perdure.runtime.upgrades import follow
from perdure.versions.watch import SAMPLES_MIN
from tests.runtime.support import crash, executor, status, until

Release = Callable[..., Coroutine[Any, Any, App]]


@pytest.fixture
async def release(database: str) -> AsyncIterator[Release]:
    """Opens a replica of a release. In ``bad`` ones a workflow fails; ``poor`` ones lack one. All are closed."""
    opened: list[App] = []

    async def start(version: str, *, bad: bool = False, poor: bool = False) -> App:
        app = App("shop", database=database, version=version, rollout="manual")

        @app.workflow(name="order")
        async def order(fails: bool = False) -> None:
            if bad or fails:
                raise ValueError("a bug")

        async def parcel() -> None: ...

        app.order = order  # type: ignore[attr-defined]
        if not poor:
            app.parcel = app.workflow(parcel)  # type: ignore[attr-defined]
        opened.append(app)
        await app.open()
        return app

    yield start
    for app in reversed(opened):
        await app.close()


async def orders(app: App, count: int, first: int = 0, *, fails: bool = False) -> None:
    """Start so many on the version that runs here, and wait for their ends."""
    order, version = app.order, executor(app).version  # type: ignore[attr-defined]
    begun = [
        await order.options(id=f"{version}-{n}", version=version).start(fails) for n in range(first, first + count)
    ]
    for handle in begun:
        await until(partial(_ended, app, handle.id))


async def _ended(app: App, id: str) -> bool:
    return await status(app, id) in ("completed", "failed")


async def test_a_bad_ramp_is_stopped_by_whoever_looks_and_not_before_twenty(
    release: Release, said: pytest.LogCaptureFixture
) -> None:
    old, new = await release("v1"), await release("v2", bad=True)
    to = old.client.deployment
    done = await to.set_ramping_version("v2", 20, abort_if="failure_rate > 2%", reason="canary")
    assert "it loses that by itself if failure_rate > 2%, of 20 workflows at least" in done.message
    assert (await to.describe()).abort_if == ("failure_rate > 2%",)
    await orders(new, SAMPLES_MIN - 1)
    await follow(executor(old))
    assert (await to.describe()).ramping == "v2", "too few to tell"
    await orders(new, 1, SAMPLES_MIN)
    await asyncio.gather(*(follow(executor(app)) for app in (old, new) for _ in range(2)))
    info = await to.describe()
    assert (info.current, info.ramping, info.abort_if) == ("v1", None, ())
    assert [one.kind for one in info.changes] == ["abort", "set_ramping_version", "launch"], "once, whoever saw it"
    change = info.changes[0]
    assert change.by.startswith("executor ")
    assert change.reason == info.reason
    assert change.reason == (
        "failure_rate > 2%: 20 of 20 that ended have failed or timed out since the ramp began (100 %)"
    )
    assert (await to.describe_version("v2")).withdrawn, "no launch gives it traffic again"
    [told] = [one for one in said.records if "the rollout of version v2 was stopped" in one.getMessage()]
    assert told.levelno == logging.ERROR
    assert executor(old).line.routes.routing.ramping is None


@pytest.mark.slow
async def test_a_bad_ramp_is_stopped_within_ten_seconds(release: Release) -> None:
    old, new = await release("v1"), await release("v2", bad=True)
    await old.client.deployment.set_ramping_version("v2", 20, abort_if=["problem_rate > 5%", "failure_rate > 2%"])
    await orders(new, SAMPLES_MIN)

    async def stopped() -> bool:
        return (await old.client.deployment.describe()).ramping is None

    await until(stopped, 10)


async def test_what_became_current_is_rolled_back(release: Release) -> None:
    old, new = await release("v1"), await release("v2", bad=True)
    to = old.client.deployment
    await to.set_ramping_version("v2", 5, abort_if="failure_rate > 2%")
    await to.set_current_version("v2")
    assert (await to.describe()).abort_if == ("failure_rate > 2%",)
    await orders(new, SAMPLES_MIN)
    await follow(executor(new))
    info = await to.describe()
    assert (info.current, info.ramping, info.changes[0].kind) == ("v1", None, "abort")
    assert {one.version: str(one.state) for one in info.versions} == {"v1": "current", "v2": "drained"}


async def test_nothing_is_rolled_back_to_a_version_that_nobody_runs(
    release: Release, said: pytest.LogCaptureFixture
) -> None:
    old, new = await release("v1"), await release("v2", bad=True)
    to = new.client.deployment
    await to.set_ramping_version("v2", 5, abort_if="failure_rate > 2%")
    await to.set_current_version("v2")
    await crash(old)
    await orders(new, SAMPLES_MIN)
    await follow(executor(new))
    assert (await to.describe()).current == "v2"
    assert "it stays the current one, since no executor of version v1 is alive" in said.text
    await release("v1")
    await follow(executor(new))
    assert (await to.describe()).current == "v1"


async def test_problems_stop_a_ramp(release: Release) -> None:
    """Here: the new code lacks a workflow."""
    old, new = await release("v1"), await release("v2", poor=True)
    to = old.client.deployment
    await to.set_ramping_version("v2", 20, abort_if="problem_rate > 2%", allow_missing_workflows=True)
    ids = [f"p{n}" for n in range(SAMPLES_MIN)]
    for id in ids:
        await old.parcel.options(id=id, version="v2").start()  # type: ignore[attr-defined]
    for id in ids:
        await until(partial(_is_held, new, id))
    await follow(executor(old))
    change = (await to.describe()).changes[0]
    assert (change.kind, change.reason) == (
        "abort", "problem_rate > 2%: 20 of 20 that it began have a problem since the ramp began (100 %)",
    )  # fmt: skip


async def _is_held(app: App, id: str) -> bool:
    return await status(app, id) == "held"


async def test_a_good_ramp_goes_on(release: Release) -> None:
    """Failures before the ramp, and those of the current version, are not its own."""
    old, new = await release("v1"), await release("v2")
    await orders(new, SAMPLES_MIN, 100, fails=True)
    to = old.client.deployment
    await to.set_ramping_version("v2", 20, abort_if=("failure_rate > 2%", "problem_rate > 2%"))
    await orders(old, SAMPLES_MIN, fails=True)
    await orders(new, SAMPLES_MIN)
    await follow(executor(old))
    await follow(executor(new))
    assert (await to.describe()).ramping == "v2"


async def test_a_person_who_is_quicker_is_not_overruled(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = await release("v1"), await release("v2", bad=True)
    to, store = old.client.deployment, executor(old).line.store
    await to.set_ramping_version("v2", 20, abort_if="failure_rate > 2%")
    await orders(new, SAMPLES_MIN)
    sample = store.sample

    async def slowly(*args: Any) -> Any:
        found = await sample(*args)
        monkeypatch.setattr(store, "sample", sample)
        await new.client.deployment.set_ramping_version("v2", 30, reason="I know")
        return found

    monkeypatch.setattr(store, "sample", slowly)
    await follow(executor(old))
    info = await to.describe()
    assert (info.ramping, info.percentage, info.changes[0].reason) == ("v2", 30.0, "I know")
    await follow(executor(old))
    assert (await to.describe()).ramping is None, "it was only quicker"


@pytest.mark.parametrize("bound", ["failures > 2%", "failure_rate > 2", ["failure_rate > 2%", "x"]])
async def test_what_is_no_bound_is_refused(release: Release, bound: Any) -> None:
    app = await release("v1")
    with pytest.raises(DefinitionError, match=r"is no bound of a ramp|is none of failure_rate, problem_rate"):
        await app.client.deployment.set_ramping_version("v2", 20, abort_if=bound)
