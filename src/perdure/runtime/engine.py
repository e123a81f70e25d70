"""An app that is open: its line to the database and, if it works, its executor and its lease.

Opening: settings, store, migrate, register the incarnation, resources, recover, work. Closing in reverse. One engine
belongs to one event loop; ``aface`` and ``sface`` carry calls of either face to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from perdure.client import bounded, verbs
from perdure.client.line import Line
from perdure.client.questions import StartOrder
from perdure.client.verbs import Begun
from perdure.clock import Clock
from perdure.config import Settings, masked
from perdure.definitions import Registry
from perdure.errors import ConfigError, DatabaseTrouble
from perdure.model.records import Incarnation
from perdure.operations.copy import refuse_moved
from perdure.runtime import aio
from perdure.runtime.births import newcomer
from perdure.runtime.bodies import bodies_in
from perdure.runtime.collector import Calm
from perdure.runtime.executor import Executor
from perdure.runtime.farewell import farewell
from perdure.runtime.guards import Guards
from perdure.runtime.launch import Code, code_of
from perdure.runtime.leases import BEATS, Lease, new_incarnation
from perdure.runtime.reaper import ROUND_SECONDS_MAX
from perdure.runtime.recovery import company, until_alone
from perdure.runtime.stalls import StallWatch
from perdure.store.base import Store

log = logging.getLogger("perdure")

DRAIN_SECONDS = 25.0
PART_SECONDS = 2.0  # that an engine which ends before its time takes to hand back and leave
LEAVE_SECONDS = 3.0  # that a database may take to hear that this executor goes: its lease tells, too
TELL_SECONDS = 30.0  # between two words about what keeps this executor from beginning anew
SETTLE_SECONDS = 5.0  # that the writes of the declared dead have to end, one way or the other

MakeStore = Callable[[], Store]
T = TypeVar("T")


class Engine:
    """See the head of this file."""

    def __init__(self, settings: Settings, registry: Registry, make_store: MakeStore, *, works: bool) -> None:
        self.settings = settings
        self.registry = registry
        self.works = works
        self.fakes: dict[str, Callable[..., Any]] = {}
        self._make_store = make_store
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread = 0  # the loop's
        self.line: Line
        self.executor: Executor | None = None
        self.lease: Lease | None = None
        self._code: Code
        self.is_open = self._crashed = False
        self._perhaps: Incarnation | None = None  # registered or not: who asked for it was cancelled
        self._parting: asyncio.Task[None] | None = None  # held: a loop forgets a task that nobody holds
        self._calm = Calm()
        beat = settings.lease / BEATS
        self._guards = Guards(settings.lease, min(ROUND_SECONDS_MAX, beat), beat)

    async def open(
        self,
        *,
        clock: Clock | None = None,
        before_work: Callable[[], Awaitable[None]] | None = None,
        polling: bool = True,
    ) -> None:
        """Connect; with ``works`` also register, recover and begin to claim. Nothing stays open if it fails."""
        self.loop = running_loop()
        self.thread = threading.get_ident()
        store = self._make_store()
        await store.open()
        self.line = Line(store, self.loop, clock)
        try:
            await store.migrate()
            self._say_where()
            self.line.routes.rollout = self.settings.rollout
            # Until the database has told its time, ours would be that of this machine, whatever that is: and what
            # recovery begins right away records times and sets deadlines.
            ask = partial(store.poll, None, None, now=self.line.clock.stamp())
            self.line.clock.observe((await verbs.patiently(self.line, ask)).now)
            await verbs.patiently(self.line, refuse_moved, store)
            if self.works:
                await self._begin_work(before_work, leased=clock is None, polling=polling)
            self.is_open = True
        except GeneratorExit:
            self._stop_now()
            raise
        except BaseException:
            await self.cut_short()
            raise

    async def _begin_work(
        self, before_work: Callable[[], Awaitable[None]] | None, *, leased: bool, polling: bool
    ) -> None:
        settings, line = self.settings, self.line
        bodies = bodies_in(settings.bodies)
        self._code = code = code_of(settings.app, self.registry, settings.version)
        me, lease = await self._register()
        if leased:
            lease.begin()
            self.lease = lease
        executor = Executor(
            line, self.registry, executor_id=settings.executor_id, code=code, me=me, lease=self.lease,
            recovery=settings.recovery, adopt=settings.adopt, threads=settings.threads, bodies=bodies,
            grace=settings.grace, polling=polling, fakes=self.fakes, lease_seconds=settings.lease,
            guards=self._guards if leased else None, listen=settings.listen,
        )  # fmt: skip
        if leased:  # not for a test's engine, one of many
            self._calm_collector()  # before recovery, which may begin thousands of runs
        try:
            if before_work is not None:
                await before_work()
            self.executor = executor  # what is recovered may begin at once, and use the app
            await executor.open()
            line.store.hint()  # who is there hears of one more
        except BaseException:
            self.executor = executor  # it is ended with the rest: nobody may take this incarnation for alive
            raise

    async def _register(self) -> tuple[Incarnation, Lease]:
        settings, line = self.settings, self.line
        me = new_incarnation(line.new_token(), settings.executor_id, self._code.version)
        watch = StallWatch(line.loop)
        lease = Lease(
            self._make_store, me, settings.lease, self._declared_dead, self._told_time, watch.look,
            watch.lateness, self._guards.saw, settings.max_stall, watch,
        )  # fmt: skip
        try:
            await line.store.register(me, int(settings.lease * 1e6), now=line.clock.stamp())
        except asyncio.CancelledError:
            self._perhaps = me
            raise
        return me, lease

    def _calm_collector(self) -> None:
        self._calm.begin()

    def _say_where(self) -> None:
        settings = self.settings
        level = logging.INFO if settings.chosen or settings.database.startswith("postgres") else logging.WARNING
        log.log(
            level, "app %s: database %s (from %s)%s", settings.app, masked(settings.database), settings.database_from,
            "" if settings.chosen else "; set PERDURE_DATABASE_URL=postgresql://… for more than one machine",
        )  # fmt: skip

    # -- from a blocking caller's thread

    def begin_here(self, order: StartOrder, *, until_end: bool) -> tuple[Begun, Any] | None:
        """The way of most starts: run in this process, with no task and one wake-up of the caller's thread.

        What the awaited moment gave, beside who was started; None if it cannot run here.
        """
        host = self.executor
        if host is None or self.settings.patience is not None:
            return None
        begun = newcomer(host, order, until_end=until_end)
        return None if begun is None else begun.begin()

    # -- from the lease's thread

    def _declared_dead(self) -> None:
        if self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._begin_anew)

    def _told_time(self, now: int) -> None:
        if self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.line.clock.observe, now)

    # -- declared dead: the database could not be reached for longer than the lease, and others could sooner than we

    def _begin_anew(self) -> None:
        executor = self.executor
        if executor is not None:
            log.error(
                "this executor was declared dead (its lease ran out); its workflows go on elsewhere, or here again, "
                "under a new identity"
            )
            executor.alive = False  # from here on it takes on nothing, and a dead lease lets no step begin
            executor.keep(asyncio.create_task(self._be_reborn(executor)))

    async def _be_reborn(self, executor: Executor) -> None:
        with contextlib.suppress(TimeoutError):  # starts that are on their way: their callers will ask for them
            async with asyncio.timeout(SETTLE_SECONDS):
                await self.line.journal.drained()  # no more steps begin, so it comes to rest
        executor.drop_all()
        me, lease = await self._until_registered(executor)
        lease.begin()
        self.lease = lease
        await executor.reborn(me, lease)

    async def _until_registered(self, executor: Executor) -> tuple[Incarnation, Lease]:
        """Whatever is in the way: without a new identity this process would live on, and do nothing."""
        told, pause = -TELL_SECONDS, bounded.FIRST_SECONDS
        while True:
            try:
                return await self._register_anew(executor)
            except Exception as error:
                bug = None if isinstance(error, DatabaseTrouble) else error
                if self.line.loop.time() - told >= TELL_SECONDS:
                    told = self.line.loop.time()
                    level = logging.WARNING if bug is None else logging.ERROR  # trouble is waited out
                    log.log(level, "this executor cannot begin anew yet, and tries again: %s", error, exc_info=bug)
            await self.line.wait_out(pause)
            pause = min(pause * 2, bounded.MOST_SECONDS)

    async def _register_anew(self, executor: Executor) -> tuple[Incarnation, Lease]:
        """With ``single`` only when nobody else serves. Who launches meanwhile registers first and looks then, too."""
        while True:
            if executor.recovery == "single":
                await until_alone(executor)
            me, lease = await self._register()
            if executor.recovery != "single" or await verbs.patiently(self.line, company, executor, me.id) is None:
                return me, lease
            await verbs.patiently(self.line, self.line.store.leave, me.id)

    # -- closing

    async def close(self, *, drain: float = DRAIN_SECONDS) -> None:
        """Hand back what is unfinished, write what waits, let go. Cancelled, it does so at once, and leaves nothing."""
        self._calm.end()
        try:
            await self._finish(drain)
            await self.line.close()
            self.is_open = False
        except GeneratorExit:  # its loop turns no more
            self._stop_now()
            raise
        except BaseException:
            await self.cut_short()
            raise

    async def _finish(self, drain: float) -> None:
        executor, line = self.executor, self.line
        if executor is not None:
            try:
                await _briefly(line.store.drain(executor.me.id))
            except DatabaseTrouble as trouble:
                log.info("the database is in trouble, others will not see this executor drain: %s", trouble)
            await executor.drain(drain)
            line.store.hint()  # what was handed back can be claimed
            executor.stop()
            await self._say_unfinished()
        if self.lease is not None:
            self.lease.end()
        if executor is not None:
            try:
                await _briefly(line.store.leave(executor.me.id))
            except DatabaseTrouble as trouble:
                log.warning("leaving could not be recorded, others will notice by the lease: %s", trouble)
        self.executor = None
        line.work = None

    async def cut_short(self) -> None:
        """End before its time: hand back and leave within a moment, or not at all, and let go of everything.

        Opening has failed, or closing was cancelled. What was called off must not live on, least of all its lease: its
        workflows would be nobody's to take. Who cancels this, too, does not wait for the rest of it; it goes on.
        """
        self._calm.end()
        if self._crashed:  # a test's, which may write nothing more
            await self.line.store.close()
            return
        self._parting = asyncio.create_task(self._part())
        await asyncio.shield(self._parting)

    async def _part(self) -> None:
        executor, store = self.executor, self.line.store
        try:
            if executor is not None:
                async with asyncio.timeout(PART_SECONDS):
                    await executor.drain(0)  # handed back, it has not died
                    store.hint()
                    executor.stop()
                    await store.leave(executor.me.id)
            elif self._perhaps is not None:
                async with asyncio.timeout(PART_SECONDS):
                    await store.leave(self._perhaps.id)
        except Exception as trouble:
            said = str(trouble) or f"no answer within {PART_SECONDS:g} s"
            log.warning("leaving could not be recorded, others will notice by the lease: %s", said)
        finally:
            self._stop_now()
            self.executor = self.line.work = None
            try:
                await store.close()
            except Exception as trouble:
                log.warning("the database's connections could not be closed: %s", trouble)

    def _stop_now(self) -> None:
        """All at once, and without the loop."""
        self.is_open = False
        self._calm.end()
        if self.lease is not None:
            self.lease.end()
        try:
            if self.executor is not None:
                self.executor.stop()
        finally:
            self.line.drop()

    def abandon(self) -> None:
        """Its loop has been closed under it: nothing can be handed back."""
        log.warning(
            "app %s was not closed before its event loop was: what was under way is taken over when its lease has run "
            "out", self.settings.app,
        )  # fmt: skip
        self._stop_now()

    def hurry(self) -> None:
        """A drain that is under way, or begins, waits for no step any more. From any thread."""
        if self.executor is not None:
            self.executor.hurried = True

    async def _say_unfinished(self) -> None:
        try:
            text = "" if self.executor is None else await _briefly(farewell(self.executor))
        except DatabaseTrouble:
            return
        if text:
            # On a server it is the rule; whoever runs a script for the first time should see it.
            log.log(logging.INFO if self.settings.chosen else logging.WARNING, "%s", text)

    def forked(self) -> None:
        """In a forked child: not one call more to the parent's connections, whoever still holds a part of this."""
        if self.lease is not None:
            self.lease.dead = True  # its thread is the parent's alone
        if self.executor is not None:
            self.executor.alive = False
        self.line.journal.abandon()

    def crash(self) -> None:
        """Stop as SIGKILL would: nothing more is written, nothing handed back. For tests."""
        self._crashed = True
        self._stop_now()


def running_loop() -> asyncio.AbstractEventLoop:
    """The loop of the caller. Raises ``ConfigError`` for one that is not asyncio's, or lets no body have its own."""
    instead = "In trio, use perdure.sync, by way of trio.to_thread.run_sync"
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigError(
            f"Perdure works on an event loop of asyncio (uvloop, too), and none runs here. {instead}"
        ) from None
    probe: Any = object()
    before = aio.get_running_loop()
    aio.set_running_loop(probe)
    try:
        found: Any = asyncio.get_running_loop()
    finally:
        aio.set_running_loop(before)
    if found is not probe:
        raise ConfigError(
            f"this event loop ({type(loop).__module__}) takes the place of every other in its thread, where each "
            f"workflow body needs one of its own. {instead}"
        )
    return loop


async def _briefly(asked: Awaitable[T]) -> T:
    """Ask the database something on the way out. No answer in time is trouble with it."""
    bound = asyncio.timeout(LEAVE_SECONDS)
    try:
        async with bound:
            return await asked
    except TimeoutError as error:
        if not bound.expired():
            raise
        raise DatabaseTrouble(f"the database has not answered for {LEAVE_SECONDS:g} s") from error
