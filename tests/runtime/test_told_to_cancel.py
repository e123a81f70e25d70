"""A cancel that was asked for and that the workflow has not seen yet: who asks how it stands is told of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from click.testing import CliRunner

from perdure import App, Client
from perdure.cli.main import cli
from tests.runtime.support import crash, executor, until
from tests.runtime.test_queues import Gate


async def shown(database: str, *words: str) -> str:
    """What ``perdure`` prints, in a thread: it runs a loop of its own."""
    words = (*words, "--database", database, "--app", "shop")
    result = await asyncio.to_thread(CliRunner().invoke, cli, list(words), prog_name="perdure")
    assert result.exit_code == 0, result.output
    return result.stdout


async def as_json(database: str, *words: str) -> Any:
    return json.loads(await shown(database, *words, "--output", "json"))


async def test_a_cancel_that_is_not_delivered_yet_is_shown(app: App, database: str) -> None:
    """While a step is under way; after its executor was killed in it; nothing of it once it has been seen."""
    gate = Gate()

    @app.step
    async def charge() -> None:
        await gate.enter("charge")

    @app.workflow(name="order")
    async def order() -> None:
        await charge()

    async with app:
        await order.options(id="o").start()
        await order.options(id="other").start()
        await until(lambda: len(gate.inside) == 2)
        assert (await as_json(database, "workflow", "show", "o"))["workflow"]["cancel"] is None
        async with Client(database, app="shop") as client:
            answer = asyncio.create_task(client.handle("o").cancel(reason="no more"))
            await until(lambda: executor(app).executions["o"].cancelling is not None)
            text = await shown(database, "workflow", "show", "o")
            assert "asked for: no more" in text
            assert "not delivered yet: its executor delivers it when the step under way has ended" in text
            assert "to end the workflow without its cleanup: perdure workflow terminate o" in " ".join(text.split())
            assert (await client.handle("o").info()).cancel_requested
            assert not (await client.handle("other").info()).cancel_requested
            answer.cancel()
        await crash(app)
    told = (await as_json(database, "workflow", "show", "o"))["workflow"]["cancel"]
    assert (told["reason"], told["delivered"]) == ("no more", False)
    assert "no executor of app 'shop' is alive" in told["expect"]
    listed = {one["id"]: one for one in (await as_json(database, "workflow", "list"))["workflows"]}
    assert (listed["o"]["cancel_requested"], listed["other"]["cancel_requested"]) == (True, False)
    assert "cancel asked for: no more" in await shown(database, "workflow", "list")
    gate.open()
    async with app:
        await until(lambda: over(database))
    ended = (await as_json(database, "workflow", "show", "o"))["workflow"]
    assert (ended["status"], ended["cancel"]) == ("cancelled", None)


async def over(database: str) -> bool:
    return bool((await as_json(database, "workflow", "show", "o"))["workflow"]["status"] == "cancelled")
