"""A place at the one store of a test: each engine takes one, and loses it when it crashes.

Promises: after ``vacate`` nothing reaches the store from this seat, and no answer leaves it; what was under way then
has happened, or not, when ``empty`` returns; ``under_way`` counts the calls that the store has not answered yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any

from perdure.model.records import WorkflowRow
from perdure.model.writes import Close, Continue, Rewind, Verdict
from perdure.store.base import Store
from perdure.store.upkeep import Upkeep
from perdure.store.within import Within


class Seat:
    """A store to an engine. ``changed`` is called when a call begins or ends, ``told`` when it wrote for others."""

    def __init__(self, store: Any, changed: Callable[[], None], told: Callable[[Seat], None]) -> None:
        self._store: Store = store
        self._changed = changed
        self._told = told
        self._calls: set[asyncio.Task[Any]] = set()
        self.vacant = False
        self.app: str = store.app
        self.url: str = store.url
        self.hinted: Callable[[Collection[str]], None] = lambda _queues: None
        self.before_claim: Callable[[], Awaitable[None]] | None = None

    @property
    def under_way(self) -> int:
        return len(self._calls)

    async def open(self) -> None:
        """The store is open; who made it opens and closes it."""

    async def close(self) -> None: ...

    async def migrate(self) -> list[str]:
        return []

    def on_hint(self, callback: Callable[[Collection[str]], None]) -> None:
        self.hinted = callback

    def hint(self, _queue: str = "") -> None:
        if not self.vacant:
            self._told(self)

    def within(self, *args: Any, **kwargs: Any) -> Within[Verdict]:
        """What is written through a session of the user's own, which outlives this seat as it would a process."""
        return self._store.within(*args, **kwargs)

    def within_once(self, *args: Any, **kwargs: Any) -> Within[WorkflowRow | None]:
        """The same of a start that has a deduplication key."""
        return self._store.within_once(*args, **kwargs)

    @property
    def upkeep(self) -> Any:
        """The second half of the protocol, under the same rules."""
        return _Upkeep(self._store.upkeep, self)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            if self.vacant:
                raise asyncio.CancelledError  # in a task of the dead that does not know it yet
            coroutine = method(*args, **kwargs)
            if name in ("claim", "claim_line") and self.before_claim is not None:
                coroutine = self._claim(self.before_claim, coroutine)
            answer = await self.carry(coroutine)
            if name == "commit" and not self.vacant and any(_concerns_others(unit) for unit in args[0]):
                self._told(self)
            return answer

        return call

    @staticmethod
    async def _claim(before: Callable[[], Awaitable[None]], coroutine: Any) -> Any:
        await before()
        return await coroutine

    async def carry(self, coroutine: Any) -> Any:
        """Await a call of the store's, as long as the seat is taken; under no name that a store has."""
        task = asyncio.ensure_future(coroutine)
        self._calls.add(task)
        # A crash cancels who waits, never what the database does: a future of its own, not the task.
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        task.add_done_callback(partial(self._ended, answer))
        self._changed()
        return await answer

    def _ended(self, answer: asyncio.Future[Any], task: asyncio.Task[Any]) -> None:
        self._calls.discard(task)
        error = None if task.cancelled() else task.exception()
        if answer.done():
            pass
        elif self.vacant or task.cancelled():
            answer.cancel()
        elif error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(task.result())
        self._changed()

    def vacate(self) -> None:
        self.vacant = True
        self.hinted = lambda _queues: None

    async def empty(self) -> None:
        """Returns when the store has ended every call of this seat."""
        while self._calls:
            await asyncio.wait(self._calls)


def _concerns_others(unit: Any) -> bool:
    return bool(unit.events or unit.sends or unit.children or isinstance(unit.change, (Close, Continue, Rewind)))


class _Upkeep:
    """What keeps the database small, as the one in the seat calls it."""

    def __init__(self, upkeep: Upkeep, seat: Seat) -> None:
        self._upkeep = upkeep
        self._seat = seat

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._upkeep, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            if self._seat.vacant:
                raise asyncio.CancelledError
            return await self._seat.carry(method(*args, **kwargs))

        return call
