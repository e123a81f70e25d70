"""Moves at work: replicas of two versions, an operator who orders where a workflow runs on. On both stores."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure import App, recv
from perdure.errors import VersionNotFound, WorkflowNotFound, WorkflowRefused
from perdure.model.states import Reason, Status, Versioning
from tests.runtime.releases import GO, Declared, Replica, everybody_follows, go, known, version_of, waits
from tests.runtime.support import Ledger, executor, history, row, until


async def begun(app: Any, id: str = "w", name: str = "order", *args: Any) -> Any:
    handle = await getattr(app, name).options(id=id).start(*args)
    await waits(app, id)
    return handle


async def is_waiting_on(app: App, version: str, id: str = "w") -> None:
    async def there() -> bool:
        now = await row(app, id)
        return (now.status, now.version) == (Status.WAITING, version)

    await until(there)


@pytest.mark.parametrize("declared", [None, "pinned", "auto_upgrade"])
async def test_begun_work_runs_on_where_it_is_moved_to(replica: Replica, declared: Declared) -> None:
    """Whatever the routing says: routing with an override."""
    old, new = await replica("v1", declared), await replica("v2", declared)
    handle = await begun(old)
    assert await handle.move("v2", reason="a try") in ("waiting", "queued", "running")
    await is_waiting_on(new, "v2")
    await everybody_follows(old, new)
    assert await go(new) == ["v1", "v2"]
    [said] = [record for record in await history(new, "w") if record.name == "move"]
    assert said.shown.endswith(": a try")


async def test_moved_back_to_an_old_version_it_stays_there_though_another_is_current(replica: Replica) -> None:
    old, new = await replica("v1", "auto_upgrade"), await replica("v2", "auto_upgrade")
    await new.client.deployment.set_current_version("v2")
    handle = await begun(new)
    await handle.move("v1")
    await everybody_follows(old, new)
    await is_waiting_on(old, "v1")
    assert (await row(old, "w")).versioning is Versioning.PINNED
    assert await go(old) == ["v2", "v1"]


async def test_unset_it_goes_with_what_its_code_declares_again(replica: Replica) -> None:
    old, new = await replica("v1", "auto_upgrade"), await replica("v2", "auto_upgrade")
    handle = await begun(old)
    await old.client.deployment.set_current_version("v2")
    await handle.move("v1")
    await everybody_follows(old, new)
    assert await version_of(old) == "v1", "an order counts more than the routing"
    await handle.move("unset")
    await everybody_follows(old, new)
    assert await version_of(new) == "v2"
    assert await go(new) == ["v1", "v2"]


async def test_pinned_work_moved_to_auto_upgrade_goes_with_the_routing_from_then_on(replica: Replica) -> None:
    one, two = await replica("v1", "pinned"), await replica("v2", "pinned")
    handle = await begun(one)
    await one.client.deployment.set_current_version("v2")
    await handle.move("auto-upgrade")
    await is_waiting_on(two, "v2")
    three = await replica("v3", "pinned")
    await one.client.deployment.set_current_version("v3")

    async def followed() -> bool:
        await everybody_follows(one, two, three)  # it may be held just now
        return await version_of(one) == "v3"

    await until(followed)  # though its code declares nothing of the kind
    assert await go(three) == ["v1", "v3"]


async def test_a_step_that_was_to_be_tried_again_in_an_hour_is_tried_at_once_where_it_is_moved_to(
    replica: Replica,
) -> None:
    old, bad, good = await replica("v1", "pinned"), await replica("v2", "pinned"), await replica("v3", "pinned")
    handle = await begun(old, "w", "caller")
    await handle.move("v2")

    async def tried_there() -> bool:
        attempts = [record.attempt for record in await history(bad, "w") if record.name == "reach"]
        return attempts == [1, 2]

    await until(tried_there)
    await is_waiting_on(bad, "v2")  # an hour again: the order counts for one attempt
    [problem] = [one for one in await handle.problems() if one.version == "v2"]
    assert problem.next is not None
    await handle.move("v3")
    assert await good.client.handle("w").result(timeout=20) == "v3"
    assert [record.attempt for record in await history(good, "w") if record.name == "reach"] == [1, 2, 3]


async def test_for_one_turn_it_comes_back_with_the_routing(replica: Replica) -> None:
    old, new = await replica("v1", "auto_upgrade"), await replica("v2", "auto_upgrade")
    handle = await begun(old)
    await handle.move("v2", one_time=True)
    await is_waiting_on(new, "v2")

    async def over() -> bool:
        return (await row(new, "w")).override is None

    await until(over)
    await everybody_follows(old, new)
    assert await version_of(old) == "v1", "v1 is current"
    assert await go(old) == ["v1", "v1"]


async def test_a_turn_on_the_version_before_does_not_end_it(replica: Replica) -> None:
    """Nobody runs the version that it is moved to: executors of the other leave it alone."""
    old = await replica("v1", "pinned")
    await replica("v2", "pinned")
    handle = await begun(old)
    await old.client.handle("w").move("v9", one_time=True, force=True)
    await handle.send(True, GO)
    await everybody_follows(old)
    now = await row(old, "w")
    assert (now.version, now.status) == ("v9", Status.WAITING)
    assert now.override is not None
    assert now.override.once
    new = await replica("v9", "pinned")
    assert await new.client.handle("w").result(timeout=20) == ["v1", "v9"]


async def test_a_moved_workflow_keeps_its_old_version_from_being_drained_no_longer(replica: Replica) -> None:
    old, new = await replica("v1", "pinned"), await replica("v2", "pinned")
    handle = await begun(old)
    await old.client.deployment.set_current_version("v2")
    assert (await known(new, "v1")).state == "draining"
    await handle.move("v2")
    assert (await known(new, "v1")).state == "drained"
    await handle.move("v1")
    assert (await known(new, "v1")).state == "draining", "a move back makes it draining again"


async def test_children_are_pinned_with_a_parent_that_was_moved(replica: Replica) -> None:
    old, new = await replica("v1"), await replica("v2")
    handle = await begun(old, "p", "parent")
    await handle.move("v2")
    await is_waiting_on(new, "v2", "p")
    assert await go(new, "p") == "child"
    await waits(new, "child")
    child = await row(new, "child")
    assert (child.version, child.versioning, child.override) == ("v2", Versioning.PINNED, None)


async def test_the_run_that_continues_goes_on_under_the_order(replica: Replica) -> None:
    old, new = await replica("v1", "auto_upgrade"), await replica("v2", "auto_upgrade")
    handle = await begun(old, "r", "rounds", 1)
    await handle.move("v2")
    await is_waiting_on(new, "v2", "r")
    await handle.send(True, GO)

    async def next_run() -> bool:
        return (await row(new, "r")).run == 2

    await until(next_run)
    await everybody_follows(old, new)
    await is_waiting_on(new, "v2", "r")
    now = await row(new, "r")
    assert now.override is not None
    assert now.override.was is Versioning.AUTO_UPGRADE
    assert await go(new, "r") == "v2"


async def test_a_zombie_in_the_middle_of_a_step_writes_nothing(database: str, ledger: Ledger) -> None:
    inside, leave = asyncio.Event(), asyncio.Event()

    def build(version: str) -> tuple[App, Any]:
        app = App("shop", database=database, version=version, rollout="manual")

        @app.step(name="work")
        async def work() -> str:
            ledger.note(version)
            if version == "v1":
                inside.set()
                await leave.wait()
            return version

        @app.workflow(name="body")
        async def body() -> list[str]:
            return [await work(), await recv(GO) and "went"]

        return app, body

    (old, body), (new, _) = build("v1"), build("v2")
    async with old, new:
        handle = await body.options(id="w").start()
        await inside.wait()
        assert await handle.move("v2") == "queued"
        await until(lambda: ledger == ["v1", "v2"])
        leave.set()  # the zombie's step ends, unheard
        await until(lambda: not executor(old).has("w"))
        await new.client.handle("w").send(True, GO)
        assert await new.client.handle("w").result(timeout=15) == ["v2", "went"]
        steps = [r for r in await history(new, "w") if r.name == "work"]
        assert len(steps) == 1


async def test_held_on_a_bad_version_it_goes_on_where_the_code_fits(replica: Replica, database: str) -> None:
    old = await replica("v1")
    await begun(old)
    bad = App("shop", database=database, version="v2", rollout="manual", adopt="never")

    @bad.workflow(name="order")
    async def order() -> None:
        await recv("other")

    async with bad:
        handle = bad.client.handle("w")
        await handle.move("v2")

        async def held() -> bool:
            return (await row(bad, "w")).reason is Reason.NONDETERMINISM

        await until(held)
        await handle.move("v1", reason="v2 does not fit")
        assert await go(old) == ["v1", "v1"]


async def test_what_cannot_be_moved_is_refused_with_the_way_out(replica: Replica) -> None:
    app = await replica("v1")
    handle = await begun(app)
    with pytest.raises(VersionNotFound, match=r"'v7' of shop was never launched.* there are: v1\..*--force"):
        await handle.move("v7")
    with pytest.raises(WorkflowNotFound):
        await app.client.handle("nobody").move("v1")
    assert await go(app) == ["v1", "v1"]
    with pytest.raises(WorkflowRefused, match="perdure workflow reset w --to first --move-to v1"):
        await handle.move("v1")
