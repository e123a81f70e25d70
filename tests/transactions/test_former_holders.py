"""A run that was taken over: whoever held it before may be about to commit in another database."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from perdure import App
from perdure.errors import StepTimeout
from tests.runtime.support import crash, until
from tests.transactions.banks import Bank
from tests.transactions.conftest import AWAY, places

FENCE = "select nonce from perdure_transaction where run = 0"
KINDS = [where for where in AWAY if where.kind in ("apsw", "sqlite3") or where.kind.endswith("connect")]


class Door:
    """A source that can be shut: who opens a session then waits."""

    def __init__(self, money: Bank) -> None:
        self._money = money
        self._blocking, self._awaited = threading.Event(), asyncio.Event()
        self.knocked = 0
        self.open()

    def open(self) -> None:
        self._blocking.set()
        self._awaited.set()

    def shut(self) -> None:
        self._blocking.clear()
        self._awaited.clear()
        self.knocked = 0

    def source(self) -> Any:
        self.knocked += 1
        return self._wait() if self._money.awaited else self._block()

    async def _wait(self) -> Any:
        await self._awaited.wait()
        return await self._money.source()

    def _block(self) -> Any:
        assert self._blocking.wait(20)
        return self._money.source()


@places(*KINDS)
async def test_a_timeout_is_no_outcome_before_the_fence_is_the_new_holders(database: str, money: Bank) -> None:
    """Before that a former holder that was stopped right before its COMMIT might go on, and what failed be applied."""
    door, bodies = Door(money), []
    stop = threading.Event()

    def declare(timeout: float | None) -> tuple[App, Any]:
        app = App("shop", database=database)

        async def awaited(_db: Any) -> int:
            bodies.append(1)
            await asyncio.Event().wait()
            return 1

        def blocking(_db: Any) -> int:
            bodies.append(1)
            stop.wait(20)
            return 1

        move = app.transaction(door.source, name="move", timeout=timeout)(awaited if money.awaited else blocking)

        @app.workflow(name="pay")
        async def pay() -> str:
            try:
                await move()
            except StepTimeout:
                return "too slow"
            return "?"

        return app, pay

    first, pay = declare(None)
    await first.open()
    await pay.options(id="w").start()
    await until(lambda: bodies)
    before = await money.read(FENCE)
    door.shut()
    await crash(first)
    stop.set()

    second, pay = declare(0.2)
    async with second:
        await until(lambda: door.knocked)
        await asyncio.sleep(0.6)  # waits: for longer than the timeout
        door.open()
        assert await pay.handle("w").result() == "too slow"
    assert await money.read(FENCE) != before
