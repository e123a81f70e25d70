"""What the tests of deploys share: an app of some version, whose workflow has some body, and its runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from perdure import App, recv
from perdure.model.records import Incarnation
from perdure.runtime import adoption
from tests.runtime.support import Ledger, executor, history, row, until

Round = Callable[[adoption.Adopter], Awaitable[None]]
Body = Callable[[dict[str, Any]], Any]


def build(database: str, ledger: Ledger, body: Body, version: str, name: str = "order", **more: Any) -> App:
    """An app of that version whose workflow has this body; its steps note what they do."""
    app = App("shop", database=database, version=version, **more)
    steps: dict[str, Any] = {}
    for step_name in ("reserve", "charge", "ship"):

        @app.step(name=step_name)
        async def step(*args: object, _name: str = step_name) -> str:
            ledger.note(f"{_name}{args}")
            return _name

        steps[step_name] = step

    @app.workflow(name=name)
    async def order() -> list[str]:
        return await body(steps)  # type: ignore[no-any-return]

    app.test_order = order  # type: ignore[attr-defined]
    return app


async def first(s: dict[str, Any]) -> list[str]:
    return [await s["reserve"]("sku", 1), await s["charge"](5), await recv("go"), await s["ship"]()]


async def comment(s: dict[str, Any]) -> list[str]:
    # a comment, and another layout
    reserved = await s["reserve"]("sku", 1)
    return [reserved, await s["charge"](5), await recv("go"), await s["ship"]()]


async def begun(app: App, *ids: str) -> None:
    """Start them and let each come to its wait."""
    for id in ids:
        await app.test_order.options(id=id).start()  # type: ignore[attr-defined]
    for id in ids:
        await until(partial(_waits, app, id))


async def _waits(app: App, id: str) -> bool:
    return bool(executor(app).executions[id].waiting) and len(await history(app, id)) >= 2


async def version_of(app: App, id: str = "a") -> str:
    return (await row(app, id)).version


async def finish(app: App, id: str = "a") -> list[str]:
    handle = app.client.handle(id)
    await handle.send("went", "go")
    return await handle.result(timeout=20)  # type: ignore[no-any-return]


async def is_of(app: App, version: str, id: str = "a") -> bool:
    return await version_of(app, id) == version


class Fleet:
    """Incarnations of a kind, put into the database by hand."""

    def __init__(self, app: App) -> None:
        self.store = app._home.engine().line.store

    async def put(self, label: str, version: str, *, lease: int = 60_000_000, now: int | None = None) -> bytes:
        id = label.encode().ljust(16, b".")
        who = Incarnation(id=id, executor=label, version=version, host="elsewhere", boot="b", space="s", pid=1)
        await self.store.register(who, lease, now=now)
        return id
