"""A cancel whose run is replaced meanwhile: whoever asked for it hears what became of what was told, not of another."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from click.testing import CliRunner

from perdure import App, Client, recv
from perdure.cli.main import cli
from tests.runtime.support import executor, until
from tests.runtime.test_queues import Gate


def in_a_step(app: App) -> tuple[Any, Gate]:
    """A workflow that is in a step until the gate is opened, and then waits for a message."""
    gate = Gate()

    @app.step
    async def charge() -> None:
        await gate.enter("charge")

    @app.workflow(name="order")
    async def order() -> str:
        await charge()
        return str(await recv("go"))

    return order, gate


async def told(app: App) -> None:
    await until(lambda: executor(app).executions["o"].cancelling is not None)


@pytest.mark.parametrize("where", ["here", "elsewhere"])
async def test_one_that_is_reset_and_the_command_taken_back_is_superseded(app: App, database: str, where: str) -> None:
    order, gate = in_a_step(app)
    async with app, Client(database, app="shop") as client:
        await order.options(id="o").start()
        await until(lambda: len(gate.inside) == 1)
        asked = app.client if where == "here" else client
        answer = asyncio.create_task(asked.handle("o").cancel(reason="no more"))
        await told(app)
        await client.handle("o").reset("first", exclude="all")
        assert await asyncio.wait_for(answer, 20) == "superseded"
        assert (await client.handle("o").info()).run == 2
        gate.open()
        await client.handle("o").send("went on", "go")
        assert await client.handle("o").result(timeout=20) == "went on"


async def test_the_command_line_says_that_another_run_has_taken_its_place(app: App, database: str) -> None:
    order, gate = in_a_step(app)
    words = ["workflow", "cancel", "o", "--timeout", "60", "--database", database, "--app", "shop"]
    async with app:
        await order.options(id="o").start()
        await until(lambda: len(gate.inside) == 1)
        answer = asyncio.create_task(asyncio.to_thread(CliRunner().invoke, cli, words, prog_name="perdure"))
        await told(app)
        await order.handle("o").reset("first", exclude="all")
        gate.open()
        await order.handle("o").send("went on", "go")
        result = await answer
    said = "o: not cancelled: run 1 was replaced meanwhile, by run 2, which was not told to cancel; it is completed"
    assert (result.exit_code, result.stdout.strip()) == (1, said)


@pytest.mark.parametrize("where", ["here", "elsewhere"])
async def test_one_that_is_reset_and_told_again_is_waited_for(app: App, database: str, where: str) -> None:
    order, gate = in_a_step(app)
    async with app, Client(database, app="shop") as client:
        await order.options(id="o").start()
        await until(lambda: len(gate.inside) == 1)
        asked = app.client if where == "here" else client
        answer = asyncio.create_task(asked.handle("o").cancel(reason="no more"))
        await told(app)
        await client.handle("o").reset("first")
        gate.open()
        assert await asyncio.wait_for(answer, 20) == "cancelled"
        assert (await client.handle("o").info()).run == 2


AFTER: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "resume": lambda order: order.handle("o").resume(),
    "reset": lambda order: order.handle("o").reset("first"),
    "replace": lambda order: order.options(id="o", on_conflict="replace").start(),
}


def late(client: Client, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """A client whose looks for ends are answered once the event is set, by what there is then."""
    seen = asyncio.Event()
    store = client._home.engine().line.store
    fates = store.fates

    async def slow(ids: Any) -> Any:
        await seen.wait()
        return await fates(ids)

    monkeypatch.setattr(store, "fates", slow)
    return seen


@pytest.mark.parametrize("after", AFTER)
async def test_one_that_goes_on_before_its_end_is_seen_is_superseded(
    app: App, database: str, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waited for the end of the run that went on, which nobody had told to end."""
    order, gate = in_a_step(app)
    async with app, Client(database, app="shop") as client:
        await order.options(id="o").start()
        await until(lambda: len(gate.inside) == 1)
        seen = late(client, monkeypatch)
        answer = asyncio.create_task(client.handle("o").cancel())
        await told(app)
        gate.open()
        assert str(await app.client.handle("o").cancel()) == "cancelled"
        await AFTER[after](order)
        seen.set()
        assert await asyncio.wait_for(answer, 20) == "superseded"


async def test_who_replaces_one_that_another_has_replaced_first_replaces_that(
    app: App, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    order, gate = in_a_step(app)
    async with app, Client(database, app="shop") as client:
        await order.options(id="o").start()
        await until(lambda: len(gate.inside) == 1)
        seen = late(client, monkeypatch)
        start = client.workflow("order", returns=str).options(id="o", on_conflict="replace").start
        second = asyncio.create_task(start())
        await told(app)
        gate.open()
        await order.options(id="o", on_conflict="replace").start()
        seen.set()
        handle = await asyncio.wait_for(second, 20)
        assert (await handle.info()).run == 3


@pytest.mark.parametrize("where", ["here", "elsewhere"])
async def test_one_that_goes_on_as_new_again_and_again_is_cancelled_in_one_of_its_runs(
    app: App, database: str, where: str
) -> None:
    @app.step
    async def look() -> None: ...

    @app.workflow(name="order")
    async def order(n: int) -> None:
        await look()
        order.continue_as_new(n + 1)

    async with app, Client(database, app="shop") as client:
        await order.options(id="o").start(0)
        asked = app.client if where == "here" else client
        assert await asyncio.wait_for(asked.handle("o").cancel(), 20) == "cancelled"
