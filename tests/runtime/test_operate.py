"""What an operator does has one door: closed in a workflow's body, which would do it again at each replay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import perdure.sync
from perdure import App
from perdure.errors import NotDurable, WrongFace

VERBS: dict[str, Callable[[Any], Any]] = {
    "client.list()": lambda client: client.list(),
    "client.count()": lambda client: client.count(),
    "client.queues()": lambda client: client.queues(),
    "client.set_queue()": lambda client: client.set_queue("q", concurrency=1),
    "client.reset_queue()": lambda client: client.reset_queue("q"),
    "client.pause_queue()": lambda client: client.pause_queue("q"),
    "client.resume_queue()": lambda client: client.resume_queue("q"),
    "client.recover_executors()": lambda client: client.recover_executors("e"),
    "client.size()": lambda client: client.size(),
    "client.purge()": lambda client: client.purge(older_than=1),
    "client.schedules()": lambda client: client.schedules(),
    "schedule 'nightly'": lambda client: client.create_schedule("nightly", "work", "0 2 * * *"),
}


async def awaited(made: Any) -> Any:
    """A call of the async face, or the first of what it lists."""
    return await made if hasattr(made, "__await__") else [one async for one in made]


@pytest.mark.parametrize("what", VERBS)
async def test_no_operator_is_let_in_by_a_body(app: App, what: str) -> None:
    @app.workflow(name="meddler")
    async def meddler() -> None:
        await awaited(VERBS[what](app.client))

    async with app:
        with pytest.raises(NotDurable) as raised:
            await meddler()
        assert f"{what} was called in a workflow's body" in str(raised.value)
        assert "do it in a step" in str(raised.value)
        assert await app.client.queues() == [], "nothing was changed"


@pytest.mark.parametrize("what", VERBS)
def test_no_operator_is_let_in_by_a_blocking_body(sync_app: perdure.sync.App, what: str) -> None:
    @sync_app.workflow(name="meddler")
    def meddler() -> None:
        made = VERBS[what](sync_app.client)
        if what == "client.list()":
            list(made)

    with sync_app:
        with pytest.raises(NotDurable) as raised:
            meddler()
        assert f"{what} was called in a workflow's body" in str(raised.value)
        assert sync_app.client.queues() == [], "nothing was changed"


async def test_in_a_step_an_operator_may_be_called(app: App) -> None:
    @app.step(name="widen")
    async def widen() -> list[str]:
        await app.client.set_queue("q", concurrency=7)
        return [queue.name for queue in await app.client.queues()]

    @app.workflow(name="scaler")
    async def scaler() -> list[str]:
        return await widen()

    async with app:
        assert await scaler() == ["q"]


async def test_the_other_face_is_told_so(app: App, database: str) -> None:
    blocking = perdure.sync.Client(database, app="shop")

    @app.workflow(name="meddler")
    async def meddler() -> None:
        blocking.queues()

    async with app:
        with pytest.raises(WrongFace):
            await meddler()
