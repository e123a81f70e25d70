"""The places where asyncio itself iterates by address, made to follow the order of creation on a workflow's loop.

``asyncio.as_completed`` collects its futures in a set of coroutines, ``asyncio.all_tasks`` reads a process-wide weak
set, and ``gather``'s future hashes by address. ``install`` puts a dispatcher before each, once. On any other loop
the original runs, unchanged.
"""

from __future__ import annotations

import asyncio
import asyncio.tasks
import functools
from asyncio import events
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from typing import Any, Protocol, Self, cast

from perdure.runtime import pythons


class OrderedLoop(Protocol):
    """What this module asks of a workflow's loop."""

    def live_tasks(self) -> list[asyncio.Task[Any]]: ...
    def next_future_hash(self) -> int: ...


class OrderedAsCompleted(Iterator[Coroutine[Any, Any, Any]], AsyncIterator[Any]):
    """``asyncio.as_completed`` that makes its tasks in the order given; async iteration also before Python 3.13."""

    def __init__(self, fs: Iterable[Any], timeout: float | None) -> None:
        loop = events.get_running_loop()
        self._done: asyncio.Queue[asyncio.Future[Any] | None] = asyncio.Queue()
        self._timer: asyncio.TimerHandle | None = None
        given = dict.fromkeys(fs)  # the same awaitable twice counts once, as in asyncio
        self._todo: dict[asyncio.Future[Any], None] = {asyncio.ensure_future(f, loop=loop): None for f in given}
        self._left = len(self._todo)
        for future in self._todo:
            future.add_done_callback(self._completed)
        if self._todo and timeout is not None:
            self._timer = loop.call_later(timeout, self._timed_out)

    def __aiter__(self) -> Self:
        return self

    def __iter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if not self._left:
            raise StopAsyncIteration
        self._left -= 1
        return await self._next_done()

    def __next__(self) -> Coroutine[Any, Any, Any]:
        if not self._left:
            raise StopIteration
        self._left -= 1
        return self._next_result()

    def _completed(self, future: asyncio.Future[Any]) -> None:
        if future not in self._todo:
            return  # the time ran out first
        del self._todo[future]
        self._done.put_nowait(future)
        if not self._todo and self._timer is not None:
            self._timer.cancel()

    def _timed_out(self) -> None:
        for future in self._todo:
            future.remove_done_callback(self._completed)
            self._done.put_nowait(None)
        self._todo.clear()

    async def _next_done(self) -> asyncio.Future[Any]:
        future = await self._done.get()
        if future is None:
            raise TimeoutError
        return future

    async def _next_result(self) -> Any:
        return (await self._next_done()).result()


def _ordered_as_completed(original: Callable[..., Any], is_ours: Callable[[object], bool]) -> Callable[..., Any]:
    @functools.wraps(original)
    def as_completed(fs: Any, *, timeout: float | None = None) -> Any:
        if not is_ours(events._get_running_loop()):
            return original(fs, timeout=timeout)
        if asyncio.isfuture(fs) or asyncio.iscoroutine(fs):
            raise TypeError(f"expects an iterable of awaitables, not {type(fs).__name__}")
        return OrderedAsCompleted(fs, timeout)

    return as_completed


def _ordered_all_tasks(original: Callable[..., Any], is_ours: Callable[[object], bool]) -> Callable[..., Any]:
    @functools.wraps(original)
    def all_tasks(loop: Any = None) -> Any:
        asked = events._get_running_loop() if loop is None else loop
        if not is_ours(asked):
            return original(loop)
        return set(cast(OrderedLoop, asked).live_tasks())  # filled in one order from one set of hashes: iterates alike

    return all_tasks


def _number_gathering_futures(is_ours: Callable[[object], bool]) -> None:
    """``gather()`` makes futures of a class of its own, which end up in sets when they are passed to ``wait()``."""
    gathering = getattr(asyncio.tasks, "_GatheringFuture", None)
    if gathering is None:
        return  # a later Python builds gather() otherwise; the test of call orders will say whether it matters

    def numbered_hash(self: Any) -> int:
        loop = self.get_loop()
        if not is_ours(loop):
            return object.__hash__(self)
        try:
            return int(self._perdure_hash)
        except AttributeError:
            self._perdure_hash = number = cast(OrderedLoop, loop).next_future_hash()
            return number

    gathering.__hash__ = numbered_hash


def install(loop_class: type) -> None:
    """Put the dispatchers in place, once for the process."""
    if getattr(asyncio.as_completed, "perdure_dispatches", False):
        return

    def is_ours(loop: object) -> bool:
        return isinstance(loop, loop_class)

    as_completed = cast(Any, _ordered_as_completed(asyncio.as_completed, is_ours))
    as_completed.perdure_dispatches = True
    all_tasks = _ordered_all_tasks(asyncio.all_tasks, is_ours)
    modules: list[Any] = [asyncio, asyncio.tasks]
    for module in modules:
        module.as_completed = as_completed
        module.all_tasks = all_tasks
    _number_gathering_futures(is_ours)
    pythons.install(is_ours)
