"""A workflow of three steps whose executor dies while the second is under way, and what was decided about it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from perdure import App, Topic, current
from perdure.model.records import DecisionRow
from perdure.recovery import Decision, Incident
from perdure.testing import Harness
from tests.runtime.support import Ledger

word = Topic[str]("word")


class Shop:
    """A workflow of three steps that can be stopped inside the second, under a harness."""

    def __init__(self, app: App, ledger: Ledger) -> None:
        self.app = app
        self.ledger = ledger
        self.gate = asyncio.Event()
        self.inside = asyncio.Event()
        self.seen: list[dict[str, Any]] = []

        @app.step(name="reserve")
        async def reserve(sku: str) -> str:
            ledger.note("reserve")
            return f"r-{sku}"

        @app.step(name="charge")
        async def charge(cents: int) -> int:
            ledger.note("charge")
            self.inside.set()
            await self.gate.wait()
            return cents

        @app.step(name="ship")
        async def ship() -> str:
            ledger.note(f"ship {current().parameters}")
            return "shipped"

        @app.step(name="undo")
        async def undo(what: str) -> None:
            ledger.note(f"undo {what}")

        @app.workflow(name="order", max_deaths=2)
        async def order(sku: str, cents: int) -> list[Any]:
            async with contextlib.AsyncExitStack() as undoing:
                self.seen.append(current().parameters)
                reserved = await reserve(sku)
                undoing.push_async_exit(undo_unless_done(undo, reserved))
                paid = await charge(cents)
                self.seen.append(current().parameters)
                return [reserved, paid, await ship()]

        self.order = order

    async def interrupt(self, h: Harness, id: str = "a", *, crashes: int = 1) -> None:
        """Start it, and crash while its second step is under way."""
        await self.order.options(id=id).start("sku", 5)
        for _ in range(crashes):
            await asyncio.wait_for(self.inside.wait(), 10)
            self.inside.clear()
            await h.crash()

    async def decisions(self, h: Harness, id: str = "a") -> list[DecisionRow]:
        return await h.store.decisions([id])


def undo_unless_done(undo: Any, what: str) -> Callable[..., Awaitable[bool | None]]:
    async def leave(kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool | None:
        if kind is not None:
            await undo(what)
        return None

    return leave


def evidence(row: DecisionRow) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(row.evidence)
    return found


def always(shop: Shop, decision: Decision, **more: Any) -> list[Incident]:
    """Declare a policy that answers so; what it is told."""
    told: list[Incident] = []

    @shop.app.recovery_policy(shop.order, **more)
    async def policy(incident: Incident) -> Decision:
        told.append(incident)
        return decision

    return told
