"""Versions of the code at work: which one a start takes, and what becomes current as executors come and go.

Each app here is a replica of the app "shop"; a version given by hand stands for other code.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from types import SimpleNamespace
from typing import Any, Literal

import pytest

import perdure.sync
from perdure import App, Client, Topic, current, recv, sleep
from perdure.errors import ConfigError, DefinitionError
from perdure.model.states import Versioning
from perdure.model.versions import Routing
from perdure.runtime import upgrades
from perdure.runtime.upgrades import follow
from tests.runtime.support import crash, executor, history, row, status, until

GO: Topic[bool] = Topic("go")
Replica = Callable[..., Coroutine[Any, Any, App]]
Declared = Literal["pinned", "auto_upgrade"] | None


def shop(database: str, version: str | None, declared: Declared = None, **more: Any) -> App:
    """A replica: ``order`` waits for a message, then tells which versions ran its two steps."""
    # What a launch alone does with work of other versions; that it may be adopted is for test_adoption.py.
    app = App("shop", database=database, version=version, **{"adopt": "never", **more})

    @app.step(name="step")
    async def step() -> str:
        return current().version

    @app.workflow(name="order", versioning=declared)
    async def order() -> list[str]:
        before = await step()
        await recv(GO)
        return [before, await step(), current().version]

    @app.workflow(name="quick")
    async def quick() -> str:
        return current().version

    @app.workflow(name="parent", versioning=declared)
    async def parent() -> str:
        await recv(GO)
        child = await quick.options(id="child", delay=0.01).start()
        await recv(GO)
        return await child.result()

    app.order, app.quick, app.parent = order, quick, parent  # type: ignore[attr-defined]
    return app


@pytest.fixture
async def replica(database: str) -> AsyncIterator[Replica]:
    """Opens a replica of a version; all that are still open are closed at the end."""
    opened: list[App] = []

    async def start(version: str | None, declared: Declared = None, **more: Any) -> App:
        app = shop(database, version, declared, **more)
        opened.append(app)
        await app.open()
        return app

    yield start
    for app in reversed(opened):
        await app.close()


async def routing(app: App) -> Routing:
    found = await app._home.engine().line.store.routing()
    assert found is not None
    return found


async def now_current(app: App) -> str:
    return (await routing(app)).current


async def operator(app: App, current: str = "", ramping: str = "", percentage: float = 0.0) -> None:
    """What an operator's commands do."""
    to = app.client.deployment
    if current:
        await to.set_current_version(current, allow_no_executors=True)
    if ramping:
        await to.set_ramping_version(ramping, percentage, allow_no_executors=True)


async def versions_of(app: App, *ids: str) -> list[str]:
    return [(await row(app, id)).version for id in ids]


# -- the version of a process


async def test_an_executor_always_has_a_version(replica: Replica) -> None:
    app, same = await replica(None), await replica(None)
    version = executor(app).version
    assert len(version) == 12
    assert executor(same).version == version, "the same code"
    assert executor(app).me.version == version
    [known] = await app._home.engine().line.store.versions()
    assert (known.name, dict(known.fingerprints)) == (version, dict(executor(app).code.fingerprints))
    assert set(known.fingerprints) == {"order", "quick", "parent"}


async def test_rows_records_and_current_tell_the_version(replica: Replica) -> None:
    app = await replica("v1")
    handle = await app.order.options(id="w").start()  # type: ignore[attr-defined]
    await handle.send(True, GO)
    assert await handle.result() == ["v1", "v1", "v1"]
    assert (await row(app, "w")).version == "v1"
    assert {record.version for record in await history(app, "w")} == {"v1"}


async def test_other_code_leaves_unfinished_work_alone(replica: Replica) -> None:
    old = await replica("v1")
    await old.order.options(id="w").start()  # type: ignore[attr-defined]
    await until(lambda: history(old, "w"))
    await old.close()
    new = await replica("v2")
    await new._home.engine().line.store.commit([])
    assert await new.quick() == "v2"  # type: ignore[attr-defined]
    assert ((await row(new, "w")).version, await status(new, "w")) == ("v1", "queued")
    back = await replica("v1")
    handle = back.order.handle("w")  # type: ignore[attr-defined]
    await handle.send(True, GO)
    assert await handle.result() == ["v1", "v1", "v1"]


# -- which version is current, as executors come and go


async def test_a_deploy_becomes_current_while_the_old_one_drains(replica: Replica) -> None:
    old = await replica("v1")
    assert await now_current(old) == "v1"
    await replica("v2")
    assert await now_current(old) == "v2"


async def test_an_old_version_relaunched_to_drain_is_not_promoted(replica: Replica) -> None:
    old = await replica("v1")
    await old.order.options(id="w").start()  # type: ignore[attr-defined]
    await until(lambda: history(old, "w"))
    await old.close()
    new = await replica("v2")
    drains = await replica("v1")
    assert await now_current(new) == "v2"
    await new.order.handle("w").send(True, GO)  # type: ignore[attr-defined]
    assert await drains.order.handle("w").result() == ["v1", "v1", "v1"]  # type: ignore[attr-defined]
    later = await new.quick.options(delay=0.01).start()  # type: ignore[attr-defined]
    assert await later.result() in ("v1", "v2"), "unstarted work is for whoever claims it"


async def test_an_old_replica_that_restarts_in_mid_deploy_is_not_promoted(replica: Replica) -> None:
    await replica("v1")
    old = await replica("v1")
    new = await replica("v2")
    await crash(old)
    again = await replica("v1")
    assert await now_current(new) == "v2"
    assert await again.quick() == "v1", "a direct start takes the executor's own version"  # type: ignore[attr-defined]


async def test_an_undone_edit_is_current_again(replica: Replica) -> None:
    for version in ("v1", "v2", "v1"):
        app = await replica(version)
        assert await now_current(app) == version
        await app.close()


async def test_an_undone_edit_after_a_crash_is_current_again(replica: Replica) -> None:
    for version in ("v1", "v2", "v1"):
        app = await replica(version)
        assert await now_current(app) == version
        await crash(app)


async def test_an_edit_undone_replica_by_replica_is_current_once_the_other_has_been_gone(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    await (await replica("v1")).close()
    new = await replica("v2")
    back = await replica("v1")
    assert await now_current(back) == "v2"
    monkeypatch.setattr(upgrades, "UNSERVED_SECONDS", 0.0)
    for _ in range(3):
        await follow(executor(back))
    assert await now_current(back) == "v2", "it is served"
    await new.close()
    await follow(executor(back))
    assert await now_current(back) == "v2", "it may be restarting"
    await follow(executor(back))
    assert await now_current(back) == "v1"


async def test_a_newer_replica_that_restarts_after_a_rollback_is_not_promoted(replica: Replica) -> None:
    old = await replica("v1")
    new = await replica("v2")
    await operator(old, current="v1")
    await new.close()
    again = await replica("v2")
    assert await now_current(old) == "v1"
    await old.close()
    await again.close()
    alone = await replica("v2")
    assert await now_current(alone) == "v1", "nor if nobody serves the current one"
    third = await replica("v3")
    assert await now_current(third) == "v3", "but the next version is"


# -- which version a start takes


async def test_a_direct_start_takes_its_executors_version_a_queued_one_that_of_its_claimer(replica: Replica) -> None:
    app = await replica("v1")
    await app.order.options(id="direct").start()  # type: ignore[attr-defined]
    await app.quick.options(id="queued", delay=1_000).start()  # type: ignore[attr-defined]
    await app.quick.options(id="asked", delay=1_000, version="v9").start()  # type: ignore[attr-defined]
    assert await versions_of(app, "direct", "queued", "asked") == ["v1", "", "v9"]
    await app.quick.options(id="soon", delay=0.01, version="v2").start()  # type: ignore[attr-defined]
    await app.close()
    new = await replica("v2")
    assert await new.quick.handle("soon").result() == "v2"  # type: ignore[attr-defined]


async def test_a_start_from_outside_takes_the_version_of_its_claimer(replica: Replica, database: str) -> None:
    async with Client(database, app="shop") as client:
        app = await replica("v1")
        handle = await client.workflow("quick", returns=str).options(id="w").start()
        assert await handle.result() == "v1"
        assert (await row(app, "w")).version == "v1"


async def test_executors_that_an_operator_took_traffic_from_leave_new_work_to_those_of_the_current_version(
    replica: Replica, database: str
) -> None:
    """While one of them lives, what they start themselves too. Their own work goes on."""
    new, old = await replica("v2"), await replica("v1", recovery="manual")
    kept = await old.order.options(id="kept").start()  # type: ignore[attr-defined]
    assert await now_current(old) == "v1"
    await operator(old, current="v2")
    await follow(executor(old))
    async with Client(database, app="shop") as client:
        begun = [await client.workflow("quick", returns=str).options(id=f"w{n}").start() for n in range(20)]
        assert {await handle.result() for handle in begun} == {"v2"}
        await kept.send(True, GO)
        assert await kept.result() == ["v1", "v1", "v1"]
        assert await old.quick() == "v2", "though it runs here"  # type: ignore[attr-defined]
        await new.close()
        late = await client.workflow("quick", returns=str).options(id="late").start()
        await follow(executor(old))
        assert await late.result() == "v1", "nobody else is there"
        assert await old.quick() == "v1"  # type: ignore[attr-defined]
        again = await replica("v2")
        await follow(executor(old))
        assert not executor(old).following.fresh
        await operator(again, current="v1")
        await follow(executor(old))
        assert executor(old).following.fresh, "it gets traffic again"


async def test_a_replica_of_a_withdrawn_version_that_restarts_takes_no_new_work(replica: Replica) -> None:
    await replica("v1")
    old = await replica("v2")
    await operator(old, current="v1")
    await old.close()
    again = await replica("v2")
    assert not executor(again).following.fresh


async def test_an_explicit_version_waits_for_its_executor(replica: Replica) -> None:
    old = await replica("v1")
    handle = await old.quick.options(id="w", version="v2").start()  # type: ignore[attr-defined]
    assert (await row(old, "w")).version == "v2"
    await replica("v2")
    assert await handle.result() == "v2"
    assert await old.quick.options(version="v1")() == "v1"  # type: ignore[attr-defined]


async def test_under_manual_routing_alone_decides(replica: Replica) -> None:
    old = await replica("v1", rollout="manual")
    assert await now_current(old) == "v1", "the first one, or nothing could run"
    new = await replica("v2", rollout="manual")
    assert await now_current(old) == "v1"
    assert await new.quick() == "v1", "even a direct start"  # type: ignore[attr-defined]
    await new.quick.options(id="queued", delay=1_000).start()  # type: ignore[attr-defined]
    assert await versions_of(new, "queued") == ["v1"]
    await operator(old, current="v2")
    old._home.engine().line.routes.saw(await routing(old))
    assert await old.quick() == "v2"  # type: ignore[attr-defined]


async def test_under_manual_a_ramp_decides_by_the_id(replica: Replica) -> None:
    old = await replica("v1", rollout="manual")
    await replica("v2", rollout="manual")
    await operator(old, ramping="v2", percentage=50.0)
    old._home.engine().line.routes.saw(await routing(old))
    ids = [f"order-{n}" for n in range(40)]
    took = await asyncio.gather(*(old.quick.options(id=id)() for id in ids))  # type: ignore[attr-defined]
    assert set(took) == {"v1", "v2"}
    assert took == await versions_of(old, *ids)


async def test_under_manual_a_client_is_routed_too(
    replica: Replica, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERDURE_ROLLOUT", "manual")
    async with Client(database, app="shop") as client:
        quick = client.workflow("quick", returns=str)
        early = await quick.options(id="early").start()  # nothing was launched yet: of whoever claims it
        app = await replica("v1")
        assert await early.result() == "v1"
        client._home.engine().line.routes.saw(await routing(app))
        await replica("v2")
        assert [await quick() for _ in range(3)] == ["v1"] * 3


async def test_under_manual_what_was_seen_of_routing_is_believed_for_a_second(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = await replica("v1", rollout="manual")
    routes, read = executor(app).line.routes, executor(app).line.store.routing
    seen: list[Routing] = []

    async def noted() -> Any:
        seen.append(await read())
        return seen[-1]

    executor(app).line.store.routing = noted
    at = routes._believed_until
    monkeypatch.setattr("perdure.client.routes.time", SimpleNamespace(monotonic=lambda: at - 0.01))
    assert await app.quick() == "v1"  # type: ignore[attr-defined]
    assert seen == []
    monkeypatch.setattr("perdure.client.routes.time", SimpleNamespace(monotonic=lambda: at))
    assert [await app.quick() for _ in range(3)] == ["v1"] * 3  # type: ignore[attr-defined]
    assert len(seen) == 1


async def test_under_manual_children_are_routed_too(replica: Replica) -> None:
    old = await replica("v1", rollout="manual")
    new = await replica("v2", rollout="manual")
    handle = await old.parent.options(id="p").start()  # type: ignore[attr-defined]
    await operator(old, current="v2")
    old._home.engine().line.routes.saw(await routing(old))
    await handle.send(True, GO)
    await handle.send(True, GO)
    assert await handle.result() == "v2"
    assert (await row(new, "child")).version == "v2"


async def test_under_manual_blocking_code_is_routed_too(database: str) -> None:
    def open_one(version: str) -> Any:
        app = perdure.sync.App("shop", database=database, version=version, rollout="manual")

        @app.workflow(name="quick")
        def quick() -> str:
            return perdure.sync.current().version

        app.open()
        return app, quick

    (one, _), (two, quick) = open_one("v1"), open_one("v2")
    try:
        assert await asyncio.to_thread(quick) == "v1"
    finally:
        two.close()
        one.close()


# -- children


@pytest.mark.parametrize(("declared", "expected"), [("pinned", "v1"), (None, "")])
async def test_a_child_of_a_pinned_parent_takes_its_version(
    replica: Replica, declared: Declared, expected: str
) -> None:
    app = await replica("v1", declared)
    claims = executor(app).line.store.claim
    handle = await app.parent.options(id="p").start()  # type: ignore[attr-defined]
    taken: list[str] = []

    async def claim(*args: Any, **kwargs: Any) -> Any:
        taken.append((await row(app, "child")).version if await exists(app, "child") else "?")
        return await claims(*args, **kwargs)

    executor(app).line.store.claim = claim
    await handle.send(True, GO)
    await until(lambda: exists(app, "child"))
    await handle.send(True, GO)
    assert await handle.result() == "v1"
    assert taken[-1] == expected


async def exists(app: App, id: str) -> bool:
    return bool(await app._home.engine().line.store.rows([id]))


# -- what was declared


async def test_what_a_workflow_declares_is_stored_with_its_start(replica: Replica, database: str) -> None:
    app = await replica("v1", "pinned")
    await app.order.options(id="direct").start()  # type: ignore[attr-defined]
    await app.order.options(id="queued", delay=1_000).start()  # type: ignore[attr-defined]
    await app.quick.options(id="plain", delay=1_000).start()  # type: ignore[attr-defined]
    found = [(await row(app, id)).versioning for id in ("direct", "queued", "plain")]
    assert found == [Versioning.PINNED, Versioning.PINNED, Versioning.UNDECLARED]


async def test_what_was_started_without_the_code_is_declared_when_it_is_claimed(
    replica: Replica, database: str
) -> None:
    app = await replica("v1", "pinned")
    async with Client(database, app="shop") as client:
        await client.workflow("order", returns=list).options(id="w").start()

        async def declared() -> bool:
            return (await row(app, "w")).versioning is Versioning.PINNED

        await until(declared)


def test_what_cannot_be_declared_is_refused() -> None:
    app = App("shop")
    with pytest.raises(DefinitionError, match="versioning='latest' is none of"):

        @app.workflow(versioning="latest")  # type: ignore[call-overload]
        async def order() -> None: ...


@pytest.mark.parametrize("where", ["argument", "variable"])
async def test_an_unknown_rollout_is_refused(database: str, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if where == "variable":
        monkeypatch.setenv("PERDURE_ROLLOUT", "never")
    app = App("shop", database=database, rollout="never" if where == "argument" else None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"rollout='never' \(from .*\) is none of auto, manual"):
        await app.open()


# -- auto_upgrade


async def test_auto_upgrade_goes_on_with_the_current_version(replica: Replica) -> None:
    old = await replica("v1", "auto_upgrade")
    await old.order.options(id="w").start()  # type: ignore[attr-defined]
    await until(lambda: history(old, "w"))
    await old.close()
    new = await replica("v2", "auto_upgrade")
    assert await versions_of(new, "w") == ["v2"]
    handle = new.order.handle("w")  # type: ignore[attr-defined]
    await handle.send(True, GO)
    assert await handle.result() == ["v1", "v2", "v2"]
    assert [r.version for r in await history(new, "w")] == ["v1", "v2", "v2"]


async def test_auto_upgrade_goes_on_with_the_current_version_after_a_crash(replica: Replica) -> None:
    old = await replica("v1", "auto_upgrade")
    await old.order.options(id="w").start()  # type: ignore[attr-defined]
    await until(lambda: history(old, "w"))
    await crash(old)
    new = await replica("v2", "auto_upgrade")
    taken = await row(new, "w")
    assert (taken.version, taken.attempts) == ("v2", 1)
    handle = new.order.handle("w")  # type: ignore[attr-defined]
    await handle.send(True, GO)
    assert await handle.result() == ["v1", "v2", "v2"]


async def test_auto_upgrade_looks_seldom_while_nobody_could_put_other_work_down(replica: Replica) -> None:
    app = await replica("v1", "auto_upgrade")
    store, asked = executor(app).line.store, 0
    upgrade = store.upgrade

    async def counted(*args: Any, **kwargs: Any) -> int:
        nonlocal asked
        asked += 1
        return await upgrade(*args, **kwargs)  # type: ignore[no-any-return]

    store.upgrade = counted
    for _ in range(2 * upgrades.QUIET_ROUNDS):
        await follow(executor(app))
    assert asked == 2
    await replica("v0")
    await operator(app, current="v1")
    for _ in range(3):
        await follow(executor(app))
    assert asked == 5, "another version is there"


async def test_auto_upgrade_takes_what_an_old_executor_puts_down_later(replica: Replica, quick_eviction: None) -> None:
    old = await replica("v1", "auto_upgrade")
    new = await replica("v2", "auto_upgrade")
    await old.order.options(id="w").start()  # type: ignore[attr-defined]
    await until(lambda: _is(old, "w", "waiting"))
    assert await versions_of(new, "w") == ["v1"]
    assert await follow(executor(old)) == 0, "not the current one"
    assert await follow(executor(new)) == 1
    handle = new.order.handle("w")  # type: ignore[attr-defined]
    await handle.send(True, GO)
    assert await handle.result() == ["v1", "v2", "v2"]


async def _is(app: App, id: str, what: str) -> bool:
    return await status(app, id) == what


async def test_an_upgrade_that_does_not_fit_is_held_and_told(replica: Replica, database: str) -> None:
    old = await replica("v1", "auto_upgrade")
    await old.order.options(id="w").start()  # type: ignore[attr-defined]
    await until(lambda: history(old, "w"))
    await old.close()
    new = App("shop", database=database, version="v2")

    @new.workflow(name="order", versioning="auto_upgrade")
    async def order() -> None:
        await sleep(1_000)

    async with new:
        await until(lambda: _is(new, "w", "held"))
        held = await row(new, "w")
        assert (held.version, str(held.reason)) == ("v2", "nondeterminism")
    fixed = await replica("v3", "auto_upgrade")
    handle = fixed.order.handle("w")  # type: ignore[attr-defined]
    await handle.send(True, GO)
    assert await handle.result() == ["v1", "v3", "v3"]


async def test_pinned_and_undeclared_work_stays(replica: Replica) -> None:
    for n, declared in enumerate(("pinned", None)):
        old = await replica("v1", declared)  # type: ignore[arg-type]
        await old.order.options(id=f"w{n}").start()  # type: ignore[attr-defined]
        await until(lambda: history(old, f"w{n}"))  # noqa: B023  waited for here
        await old.close()
    new = await replica("v2", "auto_upgrade")
    assert await follow(executor(new)) == 0
    assert await versions_of(new, "w0", "w1") == ["v1", "v1"]


# -- what a launch says


async def test_a_launch_says_what_is_unfinished_of_other_versions(
    replica: Replica, said: pytest.LogCaptureFixture
) -> None:
    old = await replica("v1")
    assert "unfinished" not in said.text
    for id in "ab":
        await old.order.options(id=id).start()  # type: ignore[attr-defined]
    await until(lambda: history(old, "b"))
    await replica("v2")
    [told] = [r for r in said.records if "2 unfinished workflows of version v1" in r.getMessage()]
    assert told.levelno == logging.INFO
    assert "alive and goes on with them" in told.getMessage()
    await crash(old)
    await replica("v3")
    [told] = [r for r in said.records if "no executor of that version is alive" in r.getMessage()]
    assert told.levelno == logging.WARNING
    assert "2 unfinished workflows of version v1, oldest 20" in told.getMessage()
    assert "perdure workflow list --stranded" in told.getMessage()
    assert "perdure replay MODULE:APP" in told.getMessage()


async def test_a_launch_that_a_failover_has_lost_is_made_again(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what goes on here would be, for others, of a version that was never launched."""
    app = await replica("v1")
    host, store = executor(app), executor(app).line.store
    versions, launched = store.versions, store.launched
    said: list[str] = []

    async def lost() -> list[Any]:
        return [] if not said else await versions()

    async def noted(version: str, *args: Any, **more: Any) -> Any:
        said.append(version)
        return await launched(version, *args, **more)

    monkeypatch.setattr(store, "versions", lost)
    monkeypatch.setattr(store, "launched", noted)
    for _ in range(2):
        host.following.revision = 0  # as after a failover: not the one that was seen last
        await follow(host)
        assert said == ["v1"]
