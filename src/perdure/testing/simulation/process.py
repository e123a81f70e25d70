"""A simulated process: one life of an executor, or of a client, on the one loop of the world."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import Any

from perdure.clock import Clock, SystemClock
from perdure.config import Settings
from perdure.runtime.engine import Engine
from perdure.store.base import Store
from perdure.testing.simulation.database import SimulatedStore
from perdure.testing.simulation.gate import Gate
from perdure.testing.simulation.loop import PROCESS
from perdure.testing.simulation.sometimes import sometimes
from perdure.testing.simulation.wire import Cut


class SimulatedEngine(Engine):
    """The engine itself; a clock is given, and it leases all the same."""

    async def _begin_work(
        self, before_work: Callable[[], Awaitable[None]] | None, *, leased: bool, polling: bool
    ) -> None:
        await super()._begin_work(before_work, leased=True, polling=polling)

    def _calm_collector(self) -> None:
        """One of many engines of this real process."""


class Process:
    """See the head of this file. ``works``: an executor, else a client. ``mortal``: it may be killed."""

    def __init__(
        self, world: Any, app: Any, name: str, host: str, pid: int, settings: Settings, *, works: bool, mortal: bool
    ) -> None:
        self.world = world
        self.app = app.app  # the edition of the code that it runs
        self.code = app
        self.settings = settings
        self.name = name
        self.host = host
        self.pid = pid
        self.works = works
        self.mortal = mortal
        self.skew, self.rate = world.mix.skew(world.chance)
        self.dead = False
        self.paused = False
        self.draining = False
        self.opened = False
        self.stash: list[asyncio.Handle] = []
        self.cut_until, self.cut = 0, Cut.REFUSED
        self.on_hint: list[Callable[[Collection[str]], None]] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.holds: dict[Any, Gate] = {}  # what keeps others from writing, and goes with it
        self.context = contextvars.copy_context()
        self.context.run(PROCESS.set, self)
        make_store: Callable[[], Store] = lambda: SimulatedStore(world, self, settings.app)  # noqa: E731
        self.engine = SimulatedEngine(settings, app.home.registry, make_store, works=works)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run something in this process; it dies with it."""
        task: asyncio.Task[Any] = self.world.loop.create_task(coroutine, context=self.context, name=self.name)
        self.tasks.append(task)
        return task

    def begin(self) -> None:
        """Open, trying again while the database is in trouble, as a supervisor does."""
        self.run(self._open())

    async def _open(self) -> None:
        while True:
            clock: Clock = SystemClock()
            try:
                await self.engine.open(clock=clock)
            except Exception as error:
                self.world.note(self, "cannot open", type(error).__name__)
                await asyncio.sleep(0.2)
            else:
                self.opened = True
                return

    @property
    def open(self) -> bool:
        """Whether it is at work."""
        return self.opened and not self.dead

    @property
    def busy(self) -> bool:
        """Whether it runs anything."""
        executor = self.engine.executor
        return executor is not None and bool(executor.executions)

    def crash(self) -> None:
        """SIGKILL: nothing of it acts any more; what it has sent is on its way."""
        if self.dead or not self.mortal:
            return
        sometimes("a process was killed")
        sometimes("a process was killed with work in flight", self.busy)
        self.world.faults.note("kill", self.identity, effective=self.busy, name=self.name)
        self.world.note(self, "killed")
        self._over()
        self.world.begin_again(self)

    @property
    def identity(self) -> str:
        """What the fault log calls it."""
        return str(self.pid)

    def let_go(self, what: Any) -> None:
        """Give back what keeps others from writing."""
        if (gate := self.holds.pop(what, None)) is not None:
            gate.let_go(what)

    def _over(self) -> None:
        self.dead = True
        self._let_go_of_all()
        self.on_hint.clear()
        if self.paused:
            self.world.loop.resume(self)
        self.world.loop.call_soon(self._stop, context=self.context)

    def _stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        if hasattr(self.engine, "line"):
            self.engine.crash()

    def drain(self) -> None:
        """SIGTERM: it hands its work back, ends, and another is begun."""
        if self.open and not self.draining:
            self.draining = True
            self.run(self._drain())

    async def _drain(self) -> None:
        await self.engine.close(drain=self.world.lease * 3)
        self.world.note(self, "drained")
        if not self.dead:
            self._over_by_itself()
            self.world.begin_again(self)

    def _over_by_itself(self) -> None:
        self.world.faults.note("exit", self.identity, effective=True, name=self.name)
        self.dead = True
        self._let_go_of_all()
        self.on_hint.clear()
        self.world.loop.call_soon(self._stop, context=self.context)

    def _let_go_of_all(self) -> None:
        for what in list(self.holds):
            self.let_go(what)

    def end(self) -> None:
        """The world ends."""
        if not self.dead:
            self._over()
