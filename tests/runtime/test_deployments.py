"""Deployments at work: where work goes as operators change the routing, and who ends by itself. On both stores."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure import App, Client, sleep
from perdure.errors import DeploymentConflict
from perdure.model.states import Versioning
from perdure.runtime import upgrades
from perdure.runtime.drained import is_done, until_drained
from perdure.runtime.upgrades import follow
from perdure.versions.routing import ramps
from tests.runtime.releases import GO, Declared, Replica, everybody_follows, go, known, version_of, waits
from tests.runtime.support import crash, executor, history, row, status, until

# -- where begun work goes


async def test_pinned_work_stays_when_another_version_becomes_current(replica: Replica) -> None:
    old, new = await replica("v1", "pinned"), await replica("v2", "pinned")
    await old.order.options(id="w").start()  # type: ignore[attr-defined]
    await waits(old)
    await old.client.deployment.set_current_version("v2")
    await everybody_follows(old, new)
    assert await go(new) == ["v1", "v1"]
    assert await new.quick() == "v2"  # type: ignore[attr-defined]


async def test_auto_upgrade_work_goes_to_the_version_that_becomes_current(replica: Replica) -> None:
    old, new = await replica("v1", "auto_upgrade"), await replica("v2", "auto_upgrade")
    await old.order.options(id="w").start()  # type: ignore[attr-defined]
    await waits(old)
    await old.client.deployment.set_current_version("v2")
    await everybody_follows(old, new)
    assert await go(old) == ["v1", "v2"]


async def test_auto_upgrade_work_goes_to_a_ramp_of_everything(replica: Replica) -> None:
    old, new = await replica("v1", "auto_upgrade"), await replica("v2", "auto_upgrade")
    await old.order.options(id="w").start()  # type: ignore[attr-defined]
    await waits(old)
    await old.client.deployment.set_ramping_version("v2", 100)
    await everybody_follows(old, new)
    assert await version_of(new) == "v2"
    await everybody_follows(old, new)
    assert await version_of(new) == "v2", "and not back"
    assert await go(old) == ["v1", "v2"]


@pytest.mark.parametrize("rollout", ["manual", "auto"])
async def test_begun_work_is_parted_as_new_work_is_and_comes_back_when_the_ramp_ends(
    replica: Replica, rollout: str
) -> None:
    old = await replica("v1", "auto_upgrade", rollout=rollout)
    ids = [f"w{n}" for n in range(20)]
    for id in ids:
        await old.order.options(id=id).start()  # type: ignore[attr-defined]
    for id in ids:
        await waits(old, id)
    new = await replica("v2", "auto_upgrade", rollout="manual")
    within = [id for id in ids if ramps("shop", id, 30.0)]
    assert 0 < len(within) < 20
    await new.client.deployment.set_ramping_version("v2", 30)
    for _ in range(2):
        await everybody_follows(old, new)
        assert [id for id in ids if await version_of(new, id) == "v2"] == within
    await new.client.deployment.set_ramping_version("v2", 0, reason="bad")
    await everybody_follows(old, new)
    assert {await version_of(new, id) for id in ids} == {"v1"}
    assert (await known(new, "v2")).state == "drained"


async def test_a_long_look_in_vain_is_followed_by_a_rest(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the routing has changed: what waits on the other side of a ramp is read each time."""
    app = await replica("v1", "auto_upgrade")
    await replica("v2", "auto_upgrade")
    host, asked = executor(app), 0
    upgrade = host.line.store.upgrade

    async def counted(*args: Any, **kwargs: Any) -> int:
        nonlocal asked
        asked += 1
        return await upgrade(*args, **kwargs)  # type: ignore[no-any-return]

    monkeypatch.setattr(host.line.store, "upgrade", counted)
    monkeypatch.setattr(upgrades, "LONG_SECONDS", -1.0)
    monkeypatch.setattr(upgrades, "RESTS", 1_000_000)
    await app.client.deployment.set_ramping_version("v2", 5)
    for _ in range(3):
        await follow(host)
    assert asked == 1
    await app.client.deployment.set_ramping_version("v2", 6)
    for _ in range(3):
        await follow(host)
    assert asked == 2


async def test_a_rollback_brings_back_what_the_bad_version_holds(replica: Replica, database: str) -> None:
    """Without touching it by hand."""
    old = await replica("v1", "auto_upgrade")
    await old.order.options(id="w").start()  # type: ignore[attr-defined]
    await waits(old)
    bad = App("shop", database=database, version="v2", rollout="manual", adopt="never")

    @bad.workflow(name="order", versioning="auto_upgrade")
    async def order() -> None:
        await sleep(1_000)

    async with bad:
        await bad.client.deployment.set_current_version("v2", allow_missing_workflows=True)
        await follow(executor(bad))
        await bad.client.handle("w").send(True, GO)

        async def held() -> bool:
            return await status(bad, "w") == "held"

        await until(held)
        assert (await row(bad, "w")).version == "v2"
        await bad.client.deployment.set_current_version("v1", reason="v2 holds orders")
        await follow(executor(old))
        assert await old.client.handle("w").result(timeout=20) == ["v1", "v1"]


async def test_a_start_that_names_a_version_stays_there(replica: Replica, database: str) -> None:
    old, new = await replica("v1", "auto_upgrade"), await replica("v2", "auto_upgrade")
    await old.client.deployment.set_current_version("v2")
    await new.order.options(id="w", version="v1").start()  # type: ignore[attr-defined]
    await old.order.options(id="here", version="v1").start()  # type: ignore[attr-defined]
    async with Client(database, app="shop") as client:
        await client.workflow("order", returns=list).options(id="outside", version="v1").start()
    for id in ("w", "here", "outside"):
        await waits(old, id)
        assert (await row(old, id)).versioning is Versioning.PINNED
    await everybody_follows(old, new)
    for id in ("w", "here", "outside"):
        assert await go(new, id) == ["v1", "v1"], id


async def test_only_executors_of_its_version_take_pinned_work(replica: Replica) -> None:
    old = await replica("v1", "pinned", adopt="replay_safe")
    await old.order.options(id="w").start()  # type: ignore[attr-defined]
    await waits(old)
    await crash(old)
    new = await replica("v2", "pinned", adopt="replay_safe")
    await new.client.deployment.set_current_version("v2")
    await new.client.handle("w").send(True, GO)
    for _ in range(3):
        await executor(new)._round()
        await executor(new).adopter.round()
    assert await version_of(new) == "v1"
    assert (await known(new, "v1")).open_work["pinned"] == 1
    await replica("v1", "pinned")
    assert await new.client.handle("w").result(timeout=20) == ["v1", "v1"]


# -- what is inherited


@pytest.mark.parametrize(
    ("parent", "child", "version", "versioning"),
    [
        ("pinned", "pinned", "v1", Versioning.PINNED),
        ("pinned", None, "v1", Versioning.PINNED),
        ("pinned", "auto_upgrade", "v1", Versioning.AUTO_UPGRADE),
        ("auto_upgrade", "auto_upgrade", "v2", Versioning.AUTO_UPGRADE),
        ("auto_upgrade", None, "v2", Versioning.UNDECLARED),
        ("auto_upgrade", "pinned", "v2", Versioning.PINNED),
        (None, None, "v2", Versioning.UNDECLARED),
    ],
)
async def test_what_a_child_inherits(
    replica: Replica, parent: Declared, child: Declared, version: str, versioning: Versioning
) -> None:
    """The parent began on v1; v2 is current when the child starts. v1 alone runs the parent then."""
    old = await replica("v1", parent, child)
    await old.parent.options(id="w").start()  # type: ignore[attr-defined]
    await waits(old)
    await old.client.deployment.set_current_version("v2", allow_no_executors=True)
    assert await go(old) == "child"
    begun = await row(old, "child")
    assert (begun.version, begun.versioning) == (version, versioning)


async def test_a_pinned_child_of_a_pinned_parent_ends_on_their_version(replica: Replica) -> None:
    old, new = await replica("v1", "pinned"), await replica("v2", "pinned", adopt="replay_safe")
    await old.parent.options(id="w").start()  # type: ignore[attr-defined]
    await waits(old)
    await old.client.deployment.set_current_version("v2")
    assert await go(old) == "child"
    await waits(old, "child")
    await old.close()
    await executor(new).adopter.round()
    assert await version_of(new, "child") == "v1", "adopted by nobody, though it declares nothing"
    old = await replica("v1", "pinned")
    assert await go(new, "child") == ["v1", "v1"]


@pytest.mark.parametrize(
    ("declared", "served", "expected"),
    [("pinned", True, "v1"), (None, True, "v1"), ("auto_upgrade", True, "v2"), ("auto_upgrade", False, "v1")],
)
async def test_where_a_run_continues_as_new(replica: Replica, declared: Declared, served: bool, expected: str) -> None:
    """A run that never rests gets to the current version at the latest so; not where nobody would run it."""
    old = await replica("v1", declared)
    if served:
        await replica("v2", declared)
    await old.rounds.options(id="w").start(1)  # type: ignore[attr-defined]
    await old.client.deployment.set_current_version("v2", allow_no_executors=True)
    await until(lambda: history(old, "w"))
    await follow(executor(old))
    first = await row(old, "w")
    await old.client.handle("w").send(True, GO)

    async def next_run() -> bool:
        return (await row(old, "w")).run == 2

    await until(next_run)
    assert (await row(old, "w")).version == expected
    assert (await row(old, "w")).versioning is first.versioning
    assert await go(old) == expected


async def test_what_a_pinned_run_becomes_is_pinned(replica: Replica) -> None:
    old = await replica("v1", "pinned")
    await old.becomes.options(id="w").start()  # type: ignore[attr-defined]
    await old.client.handle("w").send(True, GO)

    async def became() -> bool:
        return (await row(old, "w")).name == "slow"

    await until(became)
    assert (await row(old, "w")).versioning is Versioning.PINNED


# -- what is described


async def test_a_deployment_is_described_as_it_is_now(replica: Replica) -> None:
    old = await replica("v1", "pinned", executor_id="left")
    await old.order.options(id="w").start()  # type: ignore[attr-defined]
    await replica("v2", "pinned", executor_id="right")
    to = old.client.deployment
    await to.update_metadata("v2", {"commit": "4f1c2aa", "n": [1, 2]})
    done = await to.set_ramping_version("v2", 12.5, reason="canary")
    assert (done.changed, done.revision) == (True, 3)
    info = await to.describe()
    assert (info.app, info.current, info.ramping, info.percentage) == ("shop", "v1", "v2", 12.5)
    assert (info.revision, info.reason) == (3, "canary")
    assert [one.version for one in info.versions] == ["v2", "v1"]
    v2, v1 = info.versions
    assert (v1.state, v1.executors, v1.open_work) == (
        "current", ("left",), {"undeclared": 0, "pinned": 1, "auto_upgrade": 0},
    )  # fmt: skip
    assert (v2.state, v2.percentage, v2.executors) == ("ramping", 12.5, ("right",))
    assert v2.metadata == {"commit": "4f1c2aa", "n": [1, 2]}
    assert [one.kind for one in info.changes] == ["set_ramping_version", "update_metadata", "launch"]
    assert "@" in info.changes[0].by
    assert await to.list() == info.versions
    assert await to.describe_version("v1") == v1
    assert v1.first_launched is not None
    assert v1.since >= v1.first_launched


async def test_an_executor_that_was_killed_here_does_not_count(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = await replica("v1"), await replica("v2")
    mine = executor(old).me.id
    monkeypatch.setattr("perdure.api.deployment.provably_gone", lambda who: who.id == mine)
    assert (await known(new, "v1")).executors == ()
    await new.client.deployment.set_current_version("v2")
    with pytest.raises(DeploymentConflict, match="no live executor runs version v1 of shop"):
        await new.client.deployment.set_current_version("v1")


# -- draining, drained, deleted


async def test_a_version_drains_and_is_deleted_and_comes_back_with_a_launch(replica: Replica) -> None:
    old, new = await replica("v1", "pinned"), await replica("v2", "pinned")
    to = new.client.deployment
    await old.order.options(id="w").start()  # type: ignore[attr-defined]
    await waits(old)
    done = await to.set_current_version("v2")
    assert "what v1 began stays with it, see: perdure deployment describe-version v1" in done.message
    assert (await known(new, "v1")).state == "draining"
    since = (await known(new, "v1")).since
    with pytest.raises(DeploymentConflict, match="1 live executor run it"):
        await to.delete_version("v1")
    await go(new)
    drained = await known(new, "v1")
    assert (drained.state, drained.since) == ("drained", since)
    with pytest.raises(DeploymentConflict, match="1 live executor run it"):
        await to.delete_version("v1", skip_drainage=True)
    await old.close()
    done = await to.delete_version("v1")
    assert (done.changed, done.stranded) == (True, 0)
    assert [one.version for one in await to.list()] == ["v2"]
    assert not (await to.delete_version("v1")).changed
    again = await replica("v1", "pinned", rollout="auto")
    back = await known(again, "v1")
    assert (back.state, back.withdrawn, back.metadata) == ("drained", True, {})
    assert (await to.describe()).current == "v2", "a launch gives it no traffic"


async def test_skipping_the_drainage_counts_what_is_stranded(replica: Replica) -> None:
    old, new = await replica("v1", "pinned", None), await replica("v2", "pinned")
    for id in "ab":
        await old.order.options(id=id).start()  # type: ignore[attr-defined]
    await old.slow.options(id="c").start()  # type: ignore[attr-defined]
    await waits(old, "c")
    to = new.client.deployment
    await to.set_current_version("v2")
    await old.close()
    with pytest.raises(DeploymentConflict, match=r"3 open workflows stay with it \(1 undeclared, 2 pinned\)"):
        await to.delete_version("v1")
    done = await to.delete_version("v1", skip_drainage=True)
    assert (done.changed, done.stranded) == (True, 3)
    assert "3 open workflows of it (1 undeclared, 2 pinned) are stranded" in done.message
    await replica("v1", "pinned")
    assert await go(new, "a") == ["v1", "v1"], "launched again it goes on"


async def test_traffic_brings_a_drained_version_back(replica: Replica) -> None:
    old, new = await replica("v1", "pinned"), await replica("v2", "pinned")
    to = new.client.deployment
    await to.set_current_version("v2")
    assert (await known(new, "v1")).state == "drained"
    await to.set_ramping_version("v1", 100)
    assert (await known(new, "v1")).state == "ramping"
    await old.order.options(id="w").start()  # type: ignore[attr-defined]
    await to.set_ramping_version("v1", 0)
    assert (await known(new, "v1")).state == "draining"
    await waits(old)
    assert await go(new) == ["v1", "v1"]
    assert (await known(new, "v1")).state == "drained"


async def test_an_executor_whose_version_was_deleted_meanwhile_brings_it_back(replica: Replica) -> None:
    """It was taken for dead, and lived on."""
    old, new = await replica("v1"), await replica("v2")
    to = new.client.deployment
    await to.set_current_version("v2")
    await to.set_ramping_version("v1", 0)
    await executor(new).line.store.bury([executor(old).me.id], expired_only=False)
    await to.delete_version("v1")
    executor(old).following.revision = 0
    await follow(executor(old))
    assert (await known(new, "v1")).state == "drained"


# -- an executor that ends by itself


async def test_an_executor_is_done_once_its_version_is_drained(replica: Replica) -> None:
    old, new = await replica("v1", "pinned"), await replica("v2", "pinned")
    to, host = new.client.deployment, executor(old)
    assert not await is_done(host), "it is current"
    assert not await is_done(executor(new)), "inactive: it waits for its traffic"
    await old.order.options(id="w").start()  # type: ignore[attr-defined]
    await waits(old)
    await to.set_ramping_version("v2", 50)
    await to.set_current_version("v2")
    assert not await is_done(host), "pinned work stays with it"
    await go(new)
    await until(lambda: not host.executions)
    assert await is_done(host)
    await to.set_ramping_version("v1", 1)
    assert not await is_done(host), "it gets traffic again"
    await to.set_ramping_version("v1", 0)
    assert await is_done(host)
    assert not await is_done(executor(new)), "never while current"
    await new.close()
    assert not await is_done(host), "nobody of the current version is there"


async def test_it_waits_for_what_is_in_its_memory_and_sees_twice_before_it_ends(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = await replica("v1", "auto_upgrade"), await replica("v2", "auto_upgrade")
    host = executor(old)
    monkeypatch.setattr(host, "_grace", 1_000.0)
    await old.order.options(id="w").start()  # type: ignore[attr-defined]
    await until(lambda: history(old, "w"))
    await new.client.deployment.set_current_version("v2")
    assert (await known(new, "v1")).state == "drained", "what goes on with the current version keeps it not"
    assert not await is_done(host), "but it runs here"
    assert await go(new) == ["v1", "v1"]
    await until(lambda: not host.executions)
    asked: list[bool] = []
    real = is_done

    async def noted(of: Any) -> bool:
        asked.append(await real(of) and len(asked) != 1)  # the second time something has just come
        return asked[-1]

    monkeypatch.setattr("perdure.runtime.drained.is_done", noted)
    monkeypatch.setattr(host.reaper, "rhythm", lambda: 0.001)
    await asyncio.wait_for(until_drained(old._home.engine()), 10)
    assert asked == [True, False, True, True]
