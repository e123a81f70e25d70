"""Who asks of others what rests on its own writes: of a child that was started a moment ago, and runs anywhere.

Promise that is judged: who has begun a workflow is never told that there is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from perdure import App, current, set_event
from perdure.errors import PerdureError, WorkflowNotFound
from perdure.model.states import Status
from perdure.testing.histcheck.evidence import Evidence, status_of
from perdure.testing.simulation.sometimes import ASKED, sometimes

NAME = "declare.asker"
LINGERS = (0.02, 0.1, 0.6, 1.2)  # seconds: some long enough for a unit to be set aside meanwhile
BESIDE = 3  # scripts of other kinds; a world with many more would cost more
QUESTIONS = ("status", "result", "event", "cancel", "send")

Script = Callable[[Any], Awaitable[None]]


def declare(code: Any, topic: Any, event: Any) -> tuple[Any, Any]:
    """The asker, and whom it asks."""
    app: App = code.app

    @app.step
    async def linger(what: str) -> int:
        with code.stage.ledger.effect(what):
            await asyncio.sleep(code.stage.chance.choice(LINGERS))
        return 1

    @app.workflow
    async def asked() -> int:
        await set_event(event, 1)
        await linger("asked")
        return 1

    async def begin(of: int, n: int, where: str) -> Any:
        ways: dict[str, dict[str, Any]] = {
            "here": {}, "late": {"delay": 0.3}, "line": {"queue": "asked"},
            "named": {"id": f"{current().id}-named{of + n or ''}"}, "keyed": {"queue": "asked", "dedup": f"key {n}"},
        }  # fmt: skip
        return await asked.options(**ways[where]).start()

    async def ask(child: Any, question: str) -> str:
        try:
            match question:
                case "status":
                    return str(await child.status())
                case "result":
                    return str(await child.result())
                case "event":
                    return str(await child.get_event(event, timeout=1))
                case "cancel":
                    return str(await child.cancel())
                case _:
                    return str(await child.send(1, topic))
        except WorkflowNotFound:
            raise
        except PerdureError as error:  # it was cancelled, or had ended
            return type(error).__name__

    async def branch(of: int, plan: Sequence[Sequence[str]]) -> list[str]:
        said: list[str] = []
        for n, (where, question) in enumerate(plan):
            await linger(f"branch {of} {n}")
            said.append(await ask(await begin(of, n, where), question))
            sometimes(f"a body asked for a child that it had begun: {where}")
        return said

    @app.workflow
    async def asker(plans: list[list[tuple[str, str]]]) -> list[list[str]]:
        return await asyncio.gather(*(branch(of, plan) for of, plan in enumerate(plans)))

    return asker, asked


def scripts(id: str, chance: Any) -> Script:
    """One that asks at two or three places at once: what one place writes is set aside while another goes on."""
    plans = [
        [(chance.choice(ASKED), chance.choice(QUESTIONS)) for _ in range(chance.randint(1, 2))]
        for _ in range(chance.randint(2, 3))
    ]

    async def script(client: Any) -> None:
        handle = await client.start(client.app.asker, id, plans)
        await client.result(handle)

    return script


def more(chance: Any) -> list[tuple[Script, float]]:
    """Some of them, in a world of few others."""
    return [(scripts(f"a{n}", chance), chance.uniform(0.0, 2.0)) for n in range(chance.randint(2, 3))]


def wrong(of: Evidence) -> str:
    """The first who was told that what it had begun was not there; "" for none."""
    for id, row in of.ends.items():
        if row["name"] == NAME and status_of(row) is Status.FAILED:
            return f"{id} asked for what it had begun, and failed: {of.workflows[id][-1]}"
    return ""
