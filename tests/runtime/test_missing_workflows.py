"""A version that lacks workflows of the current one gets no traffic by a slip of the hand. On both stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any

import pytest

from perdure import App, current, recv
from perdure.errors import DeploymentConflict
from tests.runtime.releases import everybody_follows
from tests.runtime.support import executor, row, status, until

Release = Callable[..., Coroutine[Any, Any, App]]


@pytest.fixture
async def release(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Release]:
    """Opens a replica of a version that has these workflows; each waits for a message. All are closed."""
    monkeypatch.setenv("PERDURE_GRACE", "0.05")
    opened: list[App] = []

    async def start(version: str, *names: str) -> App:
        app = App("shop", database=database, version=version, rollout="manual")

        async def body() -> str:
            await recv("go")
            return current().version

        for name in names:
            setattr(app, name, app.workflow(name=name, versioning="auto_upgrade")(body))
        opened.append(app)
        await app.open()
        return app

    yield start
    for app in reversed(opened):
        await app.close()


async def is_(app: App, id: str, wanted: str) -> bool:
    return await status(app, id) == wanted


async def test_it_is_refused_until_that_is_meant(release: Release) -> None:
    old, new = await release("v1", "order", "refund", "parcel"), await release("v2", "order", "gift")
    to = old.client.deployment
    before = await to.describe()
    said = r"version v2 of shop has no workflows parcel, refund, which version v1 has: .*--allow-missing-workflows"
    for order in (partial(to.set_current_version, "v2"), partial(to.set_ramping_version, "v2", 5)):
        with pytest.raises(DeploymentConflict, match=said):
            await order(allow_no_executors=True)
    assert await to.describe() == before
    first = await to.set_ramping_version("v2", 5, allow_missing_workflows=True)
    assert "it has NO workflows parcel, refund: what is started of that is held" in first.message
    assert (await to.set_ramping_version("v2", 50)).changed, "it was said when the ramp began"
    with pytest.raises(DeploymentConflict, match=said):
        await to.set_current_version("v2")
    assert (await to.set_current_version("v2", allow_missing_workflows=True)).changed
    assert (await to.describe()).current == "v2"
    await everybody_follows(old, new)


async def test_what_then_becomes_of_it_and_that_a_rollback_needs_no_word(release: Release) -> None:
    """What the new code lacks stays where it is, what is started of it is held, until the rollback lets it go on."""
    old, new = await release("v1", "order", "refund"), await release("v2", "order", "gift")
    to = old.client.deployment
    for id in ("order", "refund"):
        await old.client.workflow(id, returns=str).options(id=id).start()
        await until(partial(is_, old, id, "waiting"))
    await to.set_current_version("v2", allow_missing_workflows=True)
    await everybody_follows(old, new)
    assert [(await row(new, id)).version for id in ("order", "refund")] == ["v2", "v1"]
    await new.client.workflow("refund", returns=str).options(id="late").start()
    await until(partial(is_, new, "late", "held"))
    assert (await row(new, "late")).problem == "no_code"
    done = await to.set_current_version("v1", reason="we do need refunds")
    assert "instead of v2: new work goes there within 5 seconds; it has NO workflow gift:" in done.message
    await everybody_follows(old, new)
    await executor(old).adopter.round()
    for id in ("order", "refund", "late"):
        await old.client.handle(id).send(True, "go")
        assert await old.client.handle(id).result(timeout=20) == "v1", id
