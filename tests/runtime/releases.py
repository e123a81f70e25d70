"""What the tests of deployments share: replicas of the app "shop", whose versions by hand stand for other code."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Literal

from perdure import App, Retry, Topic, VersionInfo, current, recv
from perdure.runtime.upgrades import follow
from tests.runtime.support import executor, row, status, until

GO: Topic[bool] = Topic("go")
Replica = Callable[..., Coroutine[Any, Any, App]]
Declared = Literal["pinned", "auto_upgrade"] | None


def shop(database: str, version: str, declared: Declared = None, child: Declared = None, **more: Any) -> App:
    """A replica: ``order`` waits for a message, then tells which versions ran its two steps."""
    app = App("shop", database=database, version=version, **{"rollout": "manual", "adopt": "never", **more})

    @app.step(name="step")
    async def step() -> str:
        return current().version

    @app.workflow(name="order", versioning=declared)
    async def order() -> list[str]:
        before = await step()
        await recv(GO)
        return [before, await step()]

    @app.workflow(name="quick", versioning=child)
    async def quick() -> str:
        return await step()

    @app.workflow(name="slow", versioning=child)
    async def slow() -> list[str]:
        before = await step()
        await recv(GO)
        return [before, await step()]

    @app.workflow(name="parent", versioning=declared)
    async def parent() -> str:
        await recv(GO)
        handle = await slow.options(id="child", on_parent_close="abandon").start()
        return handle.id

    @app.workflow(name="rounds", versioning=declared)
    async def rounds(left: int) -> str:
        ran = await step()
        await recv(GO)
        if left:
            rounds.continue_as_new(left - 1)
        return ran

    @app.workflow(name="becomes", versioning=declared)
    async def becomes() -> None:
        await recv(GO)
        slow.continue_as_new()

    @app.step(name="reach", retry=Retry(attempts=20, delay=3600))
    async def reach() -> str:
        if current().version in ("v1", "v2"):
            raise ConnectionError("no route")
        return current().version

    @app.workflow(name="caller", versioning=declared)
    async def caller() -> str:
        return await reach()

    for workflow in (order, quick, slow, parent, rounds, becomes, caller):
        setattr(app, workflow.name, workflow)
    return app


async def waits(app: App, id: str = "w") -> None:
    """Until it has been put away, and waits for its message."""

    async def waiting() -> bool:
        return await status(app, id) == "waiting"

    await until(waiting)


async def go(app: App, id: str = "w") -> Any:
    handle = app.client.handle(id)
    await handle.send(True, GO)
    return await handle.result(timeout=20)


async def version_of(app: App, id: str = "w") -> str:
    return (await row(app, id)).version


async def known(app: App, version: str) -> VersionInfo:
    return await app.client.deployment.describe_version(version)


async def everybody_follows(*apps: App) -> None:
    for app in apps:
        await follow(executor(app))
