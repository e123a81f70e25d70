"""An opening that is cancelled, at each call of the database that it makes: nothing of it is left."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from perdure import App
from tests.runtime.support import Ledger, until


class Cut:
    """Cancels whoever opens the app at one of its calls of the store: as it is made, or when it was answered."""

    def __init__(self, app: App, number: int, when: str) -> None:
        self.number = number
        self.when = when
        self.calls: list[str] = []
        self.task: asyncio.Task[Any]
        make = app._home.make_store
        app._home.make_store = lambda *given: _Watched(make(*given), self)  # type: ignore[assignment, return-value]

    async def call(self, name: str, method: Callable[..., Any], *given: Any, **options: Any) -> Any:
        mine = asyncio.current_task() is self.task
        strikes = mine and len(self.calls) == self.number
        if mine:
            self.calls.append(name)
        if strikes and self.when == "made":
            self.task.cancel()
        answer = await method(*given, **options)
        if strikes and self.when == "answered":
            self.task.cancel()
        return answer


class _Watched:
    def __init__(self, store: Any, cut: Cut) -> None:
        self._store = store
        self._cut = cut

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not asyncio.iscoroutinefunction(found) or name == "close":
            return found
        return lambda *given, **options: self._cut.call(name, found, *given, **options)


def ours() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("perdure")}


@pytest.mark.parametrize("when", ["made", "answered"])
async def test_nothing_is_left(database: str, ledger: Ledger, when: str) -> None:
    async with App("shop", database=database):
        pass
    had, seen = ours(), 0
    for number in range(100):
        app = App("shop", database=database)
        ledger.clear()

        @app.resource
        async def pool() -> AsyncIterator[int]:
            ledger.note("opened")
            yield 1
            ledger.note("closed")

        cut = Cut(app, number, when)

        async def serve(app: App = app) -> None:
            async with app:
                pass

        cut.task = asyncio.create_task(serve())
        await asyncio.wait([cut.task])
        if len(cut.calls) <= number:
            break
        seen += 1
        assert cut.task.cancelled(), (number, cut.calls, cut.task)
        assert not app._home.is_open, cut.calls
        assert ledger in ([], ["opened", "closed"]), cut.calls
        await until(lambda: ours() <= had)
        assert await alive(database) == 0, (number, cut.calls)
    assert seen > 4


async def alive(database: str) -> int:
    async with App("shop", database=database).connect() as client:
        roll = await client._home.engine().line.store.roll_call()
        return sum(one.state == "alive" for one in roll.known)
