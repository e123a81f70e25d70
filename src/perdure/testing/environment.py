"""The harness: an app at work on a fresh store, on a clock that stands still, with crashes whenever a test wants them.

Two engines share the store and the clock. One works, and is what crashes; it is started again at once, recovers, and
goes on. The other only calls: the test's own calls (``start``, ``send``, ``result`` …) go through it and never notice.

Promises: real time is never slept; time moves by ``advance``, or by itself to the next timer while somebody awaits a
result and nothing else is left to do; whatever a test replaced is as before when the harness has closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, ParamSpec, TypeVar, cast, overload

import perdure.sync
from perdure.api.app import App
from perdure.api.resource import Resource
from perdure.api.step import Step
from perdure.api.workflow import Workflow
from perdure.config import Settings, read_settings
from perdure.definitions import ResourceDef, StepDef, WorkflowDef
from perdure.errors import ConfigError
from perdure.model.durations import Duration, to_us
from perdure.model.states import Status
from perdure.query.conditions import where
from perdure.runtime import aface, sface
from perdure.runtime.engine import Engine
from perdure.runtime.executor import Executor
from perdure.runtime.face import Home
from perdure.runtime.recovery import reap
from perdure.store.base import Store
from perdure.testing.caller import Caller
from perdure.testing.clock import VirtualClock, refuse_stopped_time
from perdure.testing.crash import CrashStore, Plan
from perdure.testing.seat import Seat

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

# Turns of the loop without anything under way: longer than any chain of plain callbacks of ours; where the loop tells
# that no callback is left, only enough for timers that are due.
CALM_TURNS, EMPTY_TURNS = 12, 2
JOIN_SECONDS = 10.0  # a thread cannot be killed: what it does longer than this overlaps with the next life
# A file system in memory, where the system has one: a test's file need not last.
MEMORY = next((path for path in ("/dev/shm",) if os.access(path, os.W_OK)), None)  # noqa: S108


class Work:
    """One life of the working process: its engine, and its seat at the store."""

    def __init__(self, engine: Engine, seat: Seat) -> None:
        self.engine = engine
        self.seat = seat
        self.opening: asyncio.Task[None] | None = None
        self.crashed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def crash(self) -> None:
        """A plain callback of the loop: bodies are never put away from inside a task."""
        if self.opening is not None:
            self.opening.cancel()
        if hasattr(self.engine, "line"):
            self.engine.crash()
        self.crashed.set_result(None)

    async def over(self) -> None:
        """Returns when nothing of this life can have any more effect."""
        await self.crashed
        if self.opening is not None:
            await asyncio.wait([self.opening])
        await self.seat.empty()
        executor = self.engine.executor
        if executor is not None:
            for pool in (executor.step_pool, executor.body_pool):
                if pool.used:
                    await asyncio.to_thread(pool.join, JOIN_SECONDS)


class Harness:
    """An app under test; made by ``harness(app)``. See the head of this file."""

    def __init__(self, app: App | perdure.sync.App, *, database: str | None = None, direct: bool = False) -> None:
        self.clock = VirtualClock()
        self.plan = Plan()
        self.crashes = 0
        self._home: Home = app._home  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  the app's own line, which tests take over
        self._database = database
        self._direct = direct  # calls go through the working engine, and are lost with it
        self._fakes: dict[str, Callable[..., Any]] = {}
        self._replaced: list[ResourceDef] = []
        self._opened: list[ResourceDef] = []
        self._changes: list[asyncio.Future[None]] = []
        self._paused = 0  # time does not move by itself
        self._awaiting = 0  # calls of ours that wait for an end
        self._callers: set[Caller] = set()
        self._troubled = False
        self._reaping = 0  # reapers that look whether anything is left
        self._turning = 0  # who waits for quiet, and lets the loop go round
        self._restart: asyncio.Task[None] | None = None
        self._driver: asyncio.Task[None] | None = None
        self._settings: Settings
        self._folder: str | None = None
        self._store: Store
        self._client: Engine
        self._client_seat: Seat
        self._work: Work

    # -- what tests use

    async def run(
        self, workflow: Workflow[P, R] | perdure.sync.Workflow[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Start a workflow and wait for its result; time skips to the next timer when nothing else is left to do."""
        with self.waiting():
            if isinstance(workflow, perdure.sync.Workflow):  # its calls block
                return await self.in_thread(workflow, *args, **kwargs)
            return await workflow(*args, **kwargs)

    async def in_thread(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Make a blocking call of ``perdure.sync`` in a thread of its own; time never moves while that is at work.

        As ``asyncio.to_thread``: ``await h.in_thread(handle.send, True, paid, key="p-1")``.
        It skips ahead while the thread waits, if that stands within ``with h.waiting():``; as in
        ``with h.waiting(): assert await h.in_thread(handle.result) == "paid"``. Raises what the call raises.
        """
        caller = Caller(self._changed)
        self._callers.add(caller)
        try:
            return await asyncio.to_thread(caller.make, partial(call, *args, **kwargs))
        finally:
            self._callers.discard(caller)
            self._changed()

    async def advance(self, by: Duration) -> None:
        """Move time on, from timer to timer; returns when everything that came due has been done."""
        target = self.clock.now() + to_us(by, "advance")
        with self._pause():
            await self.settle()
            while (when := self._next_timer()) is not None and when <= target:
                self.clock.move_to(when)
                await self.settle()
            self.clock.move_to(target)
            await self.settle()

    async def settle(self) -> None:
        """Wait until nothing is left to do but wait: for a time, a message, a person."""
        with self._pause():
            await self._quiet()
            while not await self._rests():
                await self._quiet()

    async def crash(self) -> None:
        """Kill the process that works, as SIGKILL would; returns when a new one has recovered its work."""
        self._die(self._work)
        if self._restart is not None:
            await asyncio.shield(self._restart)

    def crash_after(self, step: Step[..., Any] | perdure.sync.Step[..., Any] | str, /) -> None:
        """Crash as soon as the next outcome of this step is durable, before anything was done with it."""
        self.plan.after_steps.add(step if isinstance(step, str) else _step(step, "crash_after").name)

    @overload
    def replace(self, target: Step[P, R] | perdure.sync.Step[P, R], fake: Callable[P, R | Awaitable[R]], /) -> None: ...
    @overload
    def replace(self, target: Resource[T], fake: T, /) -> None: ...
    def replace(self, target: Any, fake: Any, /) -> None:
        """Run ``fake`` in place of a step's body, or give it out as a resource, until the harness closes."""
        if isinstance(target, Resource):
            target.replace(fake)
            self._replaced.append(target.definition)
            return
        step = _step(target, "replace")
        if not callable(fake):
            raise TypeError(f"{target!r} is replaced by a function, not by {fake!r}")
        self._fakes[step.name] = fake

    @contextlib.contextmanager
    def waiting(self) -> Generator[None, None, None]:
        """Time skips ahead in here, too: for a test that waits for an end in a way of its own."""
        self._awaiting += 1
        self._changed()
        try:
            yield
        finally:
            self._awaiting -= 1

    async def renew(self, plan: Plan | None = None) -> None:
        """Begin anew, as if just opened: another fresh store, the clock at its start, nothing replaced."""
        await self.close()
        self.clock = VirtualClock()
        self.plan = plan or Plan()
        self.crashes = 0
        await self.open()

    @property
    def store(self) -> Store:
        """The database, for a look at what became durable."""
        return self._store

    # -- life

    async def open(self) -> None:
        if self._home.is_open:
            raise ConfigError(f"app {self._home.name!r} is open; a harness opens it by itself, on a store of its own")
        await refuse_stopped_time()
        await self._open_store()
        try:
            self.clock.on_move.append(self._moved)
            self._client_seat = self._seat(None)
            self._client = Engine(self._settings, self._home.registry, lambda: _store(self._client_seat), works=False)
            await self._client.open(clock=self.clock)
            self._work = self._new_work()
            await self._work.engine.open(clock=self.clock, polling=False, before_work=self._open_resources_now)
            self._at_work()
        except BaseException:
            self._home.opened(None)
            await self._let_go()
            raise
        self.plan.counting = True
        self._driver = asyncio.create_task(self._drive(), name="perdure-harness")

    async def close(self) -> None:
        """Stop without a trace; closing what is closed does nothing."""
        if self._driver is None:
            return
        if self._restart is not None:
            await asyncio.wait([self._restart])
        driver, self._driver = self._driver, None
        driver.cancel()
        await asyncio.wait([driver])
        self._home.opened(None)
        self._work.seat.vacate()
        asyncio.get_running_loop().call_soon(self._work.crash)
        await self._work.over()
        self._client.crash()
        await self._client_seat.empty()
        await self._let_go()
        self._changed()

    async def _let_go(self) -> None:
        try:
            await self._close_resources()
        finally:
            await self._close_store()

    async def _open_store(self) -> None:
        home = self._home
        url, name = self._database, home.name
        if url is None:
            self._folder = tempfile.mkdtemp(prefix="perdure-", dir=MEMORY)
            url = f"sqlite:///{self._folder}/{name}.db"
        else:
            name = f"{name}-{secrets.token_hex(8)}"  # apps never see each other: a fresh one is a fresh store
        self._settings = read_settings(name, {**home.arguments, "database": url, "recovery": "fleet"})
        for module in home.modules:
            importlib.import_module(module)
        self._store = home.make_store(url, name, self._settings.schema)
        await self._store.open()
        await self._store.migrate()

    async def _close_store(self) -> None:
        await self._store.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    # -- the working engine, and its lives

    def _seat(self, die: Callable[[], None] | None) -> Seat:
        mortal = die is not None
        struck = CrashStore(self._store, self.plan, die or (lambda: self._die(self._work)), mortal=mortal)
        struck.on_trouble = self._look_again
        return Seat(struck, self._changed, self._told)

    def _new_work(self) -> Work:
        seat = self._seat(lambda: self._die(work))
        seat.before_claim = self._open_resources
        engine = Engine(self._settings, self._home.registry, lambda: _store(seat), works=True)
        engine.fakes = self._fakes
        work = Work(engine, seat)
        return work

    def _at_work(self) -> None:
        executor = self._work.engine.executor
        assert executor is not None, "the engine works"
        executor.on_change = self._changed
        self._home.opened(self._work.engine if self._direct else self._client)
        if self._troubled:
            self._look_again()
        else:
            executor.keep(asyncio.create_task(self._reap(executor)))
        self._changed()

    def _die(self, work: Work) -> None:
        """Kill one life, now; begin the next."""
        if work is not self._work or work.seat.vacant or self._driver is None:
            return
        self.crashes += 1
        work.seat.vacate()
        asyncio.get_running_loop().call_soon(work.crash)
        if self._restart is None:
            self._restart = asyncio.create_task(self._begin_again(work), name="perdure-restart")

    async def _begin_again(self, dead: Work) -> None:
        try:
            while dead.seat.vacant:
                await dead.over()
                # What a machine would see of a killed process: no such pid.
                gone = [who.id for who in await self._store.incarnations()]
                await self._store.bury(gone, expired_only=False, now=self.clock.stamp())
                self._work = work = self._new_work()
                work.opening = asyncio.create_task(work.engine.open(clock=self.clock, polling=False))
                with contextlib.suppress(asyncio.CancelledError):
                    await work.opening
                dead = work
            self._at_work()
        finally:
            self._restart = None
            self._changed()

    # -- resources: opened before the first workflow runs, unless a test has replaced them by then

    async def _open_resources_now(self) -> None:
        if self._direct:
            await self._open_resources()

    async def _open_resources(self) -> None:
        for definition in self._home.registry.resources.values():
            if not definition.value:
                self._opened.append(definition)
                if definition.is_async:
                    await aface.open_resource(definition)
                else:
                    sface.open_resource(definition)

    async def _close_resources(self) -> None:
        self._fakes.clear()
        for definition in self._replaced:
            definition.value.clear()
        self._replaced.clear()
        opened, self._opened = self._opened, []
        await aface.close_resources(opened)

    # -- quiet

    def _changed(self) -> None:
        changes, self._changes = self._changes, []
        for change in changes:
            if not change.done():
                change.set_result(None)

    async def _change(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changes.append(future)
        await future

    def _under_way(self) -> bool:
        """Whether something is under way that will say when it ends: a call of the database, a step, a thread."""
        if self._restart is not None or self._reaping or self._client_seat.under_way or self._work.seat.under_way:
            return True
        if any(caller.works for caller in self._callers):
            return True
        executor = self._work.engine.executor
        return (
            executor is None
            or bool(executor.newcomers)
            or bool(executor.deciding)
            or any(e.running or e.at_work for e in executor.executions.values())
        )

    def _busy(self) -> bool:
        """Whether plain callbacks are still to come, or calls that were refused are still to be made again."""
        executor = self._work.engine.executor
        lines = (self._client.line, self._work.engine.line)
        return (
            any(line.journal.busy or line.waiting_out for line in lines)
            or executor is None
            or any(e.busy for e in executor.executions.values())
        )

    async def _quiet(self) -> None:
        # asyncio's own loop keeps the callbacks here that it has yet to call; another need not.
        ready = getattr(asyncio.get_running_loop(), "_ready", None)
        calm = 0
        while calm < (EMPTY_TURNS if ready is not None and len(ready) <= self._turning else CALM_TURNS):
            if self._under_way():
                calm = 0
                await self._change()
            else:
                calm = 0 if self._busy() else calm + 1
                await self._turn()

    async def _turn(self) -> None:
        """Let the loop go round once. Whoever awaits this is one of its callbacks, for others that wait for quiet."""
        self._turning += 1
        try:
            await asyncio.sleep(0)
        finally:
            self._turning -= 1

    async def _rests(self) -> bool:
        """Whether a look finds nothing more, where all is quiet; so that all timers are known.

        Told in the very turn that knows it: an eviction goes by real time, and what is put away meanwhile has no timer
        until a look has found it.
        """
        seen = self.plan.writes
        self._look()
        await self._quiet()
        if await self._left_behind():
            return False
        return seen == self.plan.writes and not self._under_way() and not self._busy()

    async def _left_behind(self) -> bool:
        """Whether the store holds running work that nobody runs: the answer to a claim was lost. It is looked for."""
        executor = self._work.engine.executor
        if executor is None or self._restart is not None:
            return True
        running = (await self._store.list(where(statuses=[Status.RUNNING]))).rows
        here = executor.executions.keys() | executor.deciding.keys()
        if lost := [row for row in running if row.owner != executor.me.id or row.id not in here]:
            executor.looks = 0
            if any(row.owner != executor.me.id for row in lost):
                executor.keep(asyncio.create_task(self._reap(executor)))
        return bool(lost)

    # -- time

    def _moved(self) -> None:
        loop = asyncio.get_running_loop()
        for engine in (self._client, self._work.engine):
            loop.call_soon(engine.line.timers.fire)
        self._look()

    def _look(self) -> None:
        """What a poll would do."""
        executor = self._work.engine.executor
        if executor is not None and self._restart is None:
            executor.look()
        self._client.line.watcher.look()

    def _look_again(self) -> None:
        """After trouble: what the next polls and the next round of the reaper would do."""
        self._client.line.watcher.look()
        executor = self._work.engine.executor
        self._troubled = executor is None  # it is being opened: as soon as it is
        if executor is not None:
            executor.looks = 0
            executor.look()
            self._work.engine.line.watcher.look()
            executor.keep(asyncio.create_task(self._reap(executor)))

    async def _reap(self, executor: Executor) -> None:
        """The reaper's next rounds, until nothing is left: it skips what somebody else has locked."""
        running = where(statuses=[Status.RUNNING])
        self._reaping += 1
        try:
            while any(row.owner != executor.me.id for row in (await self._store.list(running)).rows):
                await reap(executor)
                await asyncio.sleep(0)
        finally:
            self._reaping -= 1
            self._changed()
        executor.look()

    def _told(self, seat: Seat) -> None:
        """Something was written from a seat that others may wait for."""
        loop = asyncio.get_running_loop()
        for other in (self._client_seat, self._work.seat):
            if other is not seat and not other.vacant:
                loop.call_soon(other.hinted, ())

    def _next_timer(self) -> int | None:
        lines = (self._client.line, self._work.engine.line)
        return min((when for line in lines if (when := line.timers.next()) is not None), default=None)

    @contextlib.contextmanager
    def _pause(self) -> Generator[None, None, None]:
        self._paused += 1
        try:
            yield
        finally:
            self._paused -= 1
            self._changed()

    async def _drive(self) -> None:
        """Skip to the next timer whenever somebody awaits an end and nothing else is left to do."""
        while True:
            await self._quiet()
            if self._awaited:
                if not await self._rests():
                    continue
                when = self._next_timer()
                if self._awaited and when is not None:  # that look may have been what they waited for
                    self.clock.move_to(when)
                    continue
            await self._change()

    @property
    def _awaited(self) -> bool:
        """Whether somebody waits for an end, and time may pass for it."""
        return not self._paused and bool(self._awaiting or (not self._direct and self._client.line.watcher.waits))


def _store(seat: Seat) -> Store:
    return cast(Store, seat)  # what it does not do itself, it passes on


def _step(given: object, what: str) -> StepDef:
    """What was declared of a step or transaction. Raises ``TypeError`` for anything else."""
    definition = getattr(given, "definition", None)
    if isinstance(definition, StepDef):
        return definition
    also = " or a resource" if what == "replace" else ""
    instead = f"; {what} the steps that it calls" if isinstance(definition, WorkflowDef) else ""
    raise TypeError(f"{what} takes a step{also} of the app, not {given!r}{instead}")


@asynccontextmanager
async def harness(app: App | perdure.sync.App, /, *, database: str | None = None) -> AsyncGenerator[Harness, None]:
    """Put an app to work on a fresh store with a clock of its own; see ``Harness``.

    The store is an embedded one in a temporary folder, or a fresh app in the database of that URL.
    """
    environment = Harness(app, database=database)
    await environment.open()
    try:
        yield environment
        if never := sorted(environment.plan.after_steps):
            raise AssertionError(f"crash_after({never[0]!r}): no outcome of such a step was recorded, nothing crashed")
    finally:
        await environment.close()
