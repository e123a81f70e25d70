"""A tiny stand-in for the engine: hands outcomes over in the order of the calls, then fires timers by deadline."""

from __future__ import annotations

import asyncio
from asyncio import events
from collections.abc import Callable, Coroutine
from typing import Any

from perdure.errors import Evicted, NotDurable
from perdure.runtime.loop import LoopTimer, WorkflowLoop

START = 1_800_000_000_123_457  # microseconds, an odd one


class Driver:
    """One run. ``calls`` is what the body did, as (path, name); it is also what two runs are compared by."""

    def __init__(self, identity: bytes = b"an identity") -> None:
        self.loop = WorkflowLoop(identity, self)
        self.loop.run = self
        self.loop.now = START
        self.calls: list[tuple[str, str]] = []
        self.waiting: list[tuple[str, Any, asyncio.Future[Any]]] = []
        self.timers: list[LoopTimer] = []
        self.disarmed: list[str] = []
        self.refused: list[str] = []
        self.spoilt: list[NotDurable] = []
        self.bursts = 0

    def timer_armed(self, timer: LoopTimer) -> None:
        self.timers.append(timer)

    def timer_disarmed(self, timer: LoopTimer) -> None:
        self.timers.remove(timer)
        self.disarmed.append(timer.path)

    def touched(self, error: NotDurable) -> None:
        self.spoilt.append(error)

    def call(self, name: str, value: Any) -> asyncio.Future[Any]:
        if self.loop.gone:
            self.refused.append(name)
            raise Evicted
        self.calls.append((self.loop.next_path(), name))
        future = self.loop.create_future()
        self.waiting.append((name, value, future))
        return future

    def start(self, body: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> asyncio.Task[Any]:
        main = self.loop.start(body(*args))
        self.burst()
        return main

    def burst(self) -> None:
        while not self.loop.burst():
            self.bursts += 1

    def deliver(self, *, last: bool = False) -> None:
        _, value, future = self.waiting.pop(-1 if last else 0)
        if not future.done():
            with self.loop.deliver():
                if isinstance(value, Exception):
                    future.set_exception(value)
                else:
                    future.set_result(value)
        self.burst()

    def fire(self) -> None:
        timer = min(self.timers, key=lambda timer: timer.deadline)
        self.timers.remove(timer)
        self.loop.now = max(self.loop.now, timer.deadline)
        self.loop.fire(timer)
        self.burst()

    def drive(self, main: asyncio.Task[Any], *, last: bool = False) -> Any:
        while not main.done():
            if self.waiting:
                self.deliver(last=last)
            elif self.timers:
                self.fire()
            else:
                assert not self.loop.pending()
                raise AssertionError("stuck")
        return main.result()

    def run(self, body: Callable[..., Coroutine[Any, Any, Any]], *args: Any, last: bool = False) -> Any:
        """From start to end, put away at the end."""
        try:
            return self.drive(self.start(body, *args), last=last)
        finally:
            self.loop.unwind()


def here() -> Driver:
    loop = events._get_running_loop()
    assert isinstance(loop, WorkflowLoop)
    return loop.run


def call(name: str, value: Any = None) -> asyncio.Future[Any]:
    """A step as user code sees it."""
    return here().call(name, value)


async def step(name: str, value: Any = None) -> Any:
    return await call(name, value)
