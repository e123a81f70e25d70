"""Ramps under ``rollout="auto"``: an operator has parted new work, so it goes by its ids, whoever starts it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import perdure.sync
from perdure import App, Client, current
from perdure.versions.routing import ramps
from tests.runtime.releases import Replica, everybody_follows
from tests.runtime.support import row

IDS = [f"order-{n}" for n in range(24)]
WITHIN = [id for id in IDS if ramps("shop", id, 40.0)]
SPLIT = {id: "v2" if id in WITHIN else "v1" for id in IDS}


def test_the_ids_are_on_both_sides() -> None:
    assert 4 < len(WITHIN) < 20


async def canary(replica: Replica) -> tuple[App, App]:
    """``v1`` is current, ``v2`` was given its share before it was launched: so no launch gives it more."""
    old = await replica("v1", rollout="auto")
    to = old.client.deployment
    assert (await to.set_ramping_version("v2", 40, allow_no_executors=True)).changed
    new = await replica("v2", rollout="auto")
    assert (await to.describe()).current == "v1"
    await everybody_follows(old, new)
    return old, new


async def each(app: Any, ids: list[str]) -> dict[str, str]:
    """Which version ran each, started directly."""
    return dict(zip(ids, await asyncio.gather(*(app.quick.options(id=id)() for id in ids)), strict=True))


@pytest.mark.parametrize("starter", ["v1", "v2"])
async def test_under_auto_what_an_executor_starts_itself_goes_by_its_id(replica: Replica, starter: str) -> None:
    old, new = await canary(replica)
    assert await each(old if starter == "v1" else new, IDS) == SPLIT


async def test_under_auto_what_a_client_starts_goes_by_its_id(replica: Replica, database: str) -> None:
    """Also one that has connected before the ramp began, within five seconds of it."""
    async with Client(database, app="shop") as client:
        await replica("v0", rollout="auto")
        quick = client.workflow("quick", returns=str)
        assert await quick() == "v0"
        old, _ = await replica("v1", rollout="auto"), await replica("v2", rollout="auto")
        await old.client.deployment.set_current_version("v1")
        await old.client.deployment.set_ramping_version("v2", 40)
        client._home.engine().line.routes._believed_until = 0.0  # they have gone by
        begun = [await quick.options(id=id).start() for id in IDS]
        assert {handle.id: await handle.result() for handle in begun} == SPLIT
        many = await client.workflow("rounds", returns=str).start_many([0] * 30)
        wanted = ["v2" if ramps("shop", handle.id, 40.0) else "v1" for handle in many]
        assert [(await row(old, handle.id)).version for handle in many] == wanted


async def test_under_auto_blocking_code_is_parted_too(database: str) -> None:
    def open_one(version: str) -> Any:
        app = perdure.sync.App("shop", database=database, version=version)

        @app.workflow(name="quick")
        def quick() -> str:
            return current().version

        app.quick = quick  # type: ignore[attr-defined]
        return app

    def run() -> dict[str, str]:
        with open_one("v1") as old:
            old.client.deployment.set_ramping_version("v2", 40, allow_no_executors=True)
            with open_one("v2"):
                return {id: old.quick.options(id=id)() for id in IDS[:12]}

    assert await asyncio.to_thread(run) == {id: SPLIT[id] for id in IDS[:12]}


async def test_what_has_no_version_yet_is_left_to_executors_of_the_current_one(replica: Replica, database: str) -> None:
    """Of a caller that has not heard of the ramp: the share is never more than was ordered, unless nobody is there."""
    old, new = await canary(replica)
    async with Client(database, app="shop") as client:
        quick = client.workflow("quick", returns=str)
        believe(client, None)
        begun = [await quick.options(id=id).start() for id in IDS]
        assert {(await row(old, id)).version for id in IDS} <= {"", "v1"}
        assert {await handle.result() for handle in begun} == {"v1"}
        await old.close()
        await everybody_follows(new)
        assert await (await quick.options(id="late").start()).result() == "v2"


def believe(client: Client, routing: Any) -> None:
    routes = client._home.engine().line.routes
    routes.saw(routing)
    routes._believed_until = float("inf")


async def test_under_auto_nothing_new_lands_on_a_version_whose_ramp_was_stopped(
    replica: Replica, database: str
) -> None:
    """Whoever starts it: an executor of that version too, while somebody runs the current one. Then, all the same."""
    old, new = await canary(replica)
    await old.client.deployment.set_ramping_version("v2", 0, reason="it loses orders")
    await everybody_follows(old, new)
    assert set((await each(new, IDS[:8])).values()) == {"v1"}
    assert set((await each(old, IDS[8:16])).values()) == {"v1"}
    async with Client(database, app="shop") as client:
        quick = client.workflow("quick", returns=str)
        assert {await quick() for _ in range(8)} == {"v1"}
    await old.close()
    await everybody_follows(new)
    assert await new.quick() == "v2", "better than for nobody"  # type: ignore[attr-defined]


async def test_under_auto_a_launch_parts_nothing(replica: Replica) -> None:
    """No operator has spoken: each process runs what it starts, while the old one is being replaced."""
    old = await replica("v1", rollout="auto")
    new = await replica("v2", rollout="auto")
    await everybody_follows(old, new)
    assert [await app.quick() for app in (old, new)] == ["v1", "v2"]  # type: ignore[attr-defined]
