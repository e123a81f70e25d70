"""This process as an incarnation: a fresh identity, a lease renewed from a thread of its own, proofs of being gone.

Liveness is the lease; safety is the claim token, never the lease. The thread has its own event loop and its own
connection, so that a blocked host loop or a full pool does not look like death.

Promises:
- ``allowed`` is False when no renewal was acknowledged for lease - margin, by a clock that counts suspension: then no
  new effect begins, until a renewal is acknowledged again;
- a heartbeat that finds no row of ours means "declared dead": ``on_dead`` is called once, and this identity is over;
- each heartbeat tells how late the host's event loop is (``lag``), and what time the database has (``saw``);
- a renewal that failed is tried again within a second, and so is one made whose connection then closes: who looks for
  the dead may see that it has;
- nothing that fails ends the thread: without it no step would begin any more, and nobody would be told;
- with ``max_stall`` a loop that has stood still for so long is renewed no more, until it answers: the lease runs out,
  others take its work over, and it goes on as somebody new.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable

from perdure.model.real import own_runner, time
from perdure.model.records import Incarnation
from perdure.runtime.machine import boot_id, elapsed, pid_space, process_started
from perdure.runtime.outage import Outage
from perdure.runtime.stalls import StallWatch, Stuck
from perdure.store.base import Store

log = logging.getLogger("perdure")

BEATS = 3  # renewals within one lease
ANSWER_SECONDS = 2.0  # that a renewal may take at least
LOOK_SECONDS = 1.0  # between two looks at the host's loop
AGAIN_SECONDS = 1.0  # until a loop is tried again that could not be made


def new_incarnation(token: bytes, executor: str, version: str) -> Incarnation:
    """Who this process is, with the proofs by which others can tell that it is gone."""
    pid = os.getpid()
    return Incarnation(
        id=token,
        executor=executor,
        version=version,
        host=socket.gethostname(),
        boot=boot_id(),
        space=pid_space(),
        pid=pid,
        pid_started=process_started(pid) or 0,
    )


def same_place(who: Incarnation) -> bool:
    """Whether its process could be seen from here: same boot, same pid namespace, and it told when it began."""
    return bool(who.pid_started and who.boot and who.boot == boot_id() and who.space and who.space == pid_space())


def ended(who: Incarnation) -> bool:
    """Whether its process is no more, although another may have its pid. Of one in the same place."""
    return process_started(who.pid) not in {who.pid_started, None}


def provably_gone(who: Incarnation) -> bool:
    """Same boot, same pid namespace, and no process of that pid and start time: it cannot be alive."""
    return same_place(who) and ended(who)


def lives(who: Incarnation, now: int) -> bool:
    """Whether it serves under a lease that still runs, by the database's time, and nothing proves it gone."""
    return who.leased(now) and not provably_gone(who)


class Lease:
    """Renews one incarnation's lease; see the head of this file."""

    def __init__(
        self,
        make_store: Callable[[], Store],
        who: Incarnation,
        seconds: float,
        on_dead: Callable[[], None],
        on_time: Callable[[int], None],
        on_look: Callable[[], None],
        lag: Callable[[], float] = lambda: 0.0,
        saw: Callable[[int, float, float], None] = lambda _now, _asked, _answered: None,
        max_stall: float = 0.0,
        stalls: StallWatch | None = None,
    ) -> None:
        self._make_store = make_store
        self.who = who
        self.seconds = seconds
        self._on_dead = on_dead
        self._on_time = on_time
        self._on_look = on_look
        self._lag = lag
        self._saw = saw
        self._max_stall = max_stall
        self._stalls = stalls
        self._stalled = False
        self._hurry = False  # the next renewal does not wait for its beat
        self._acknowledged = elapsed()
        self._loop: asyncio.AbstractEventLoop | None = None  # the thread's
        self._ending = asyncio.Event()  # set on that loop
        self._ended = False
        self._thread = threading.Thread(target=self._serve, name="perdure-lease", daemon=True)
        self.dead = False

    @property
    def allowed(self) -> bool:
        """Whether an effect may begin."""
        return not self.dead and elapsed() - self._acknowledged < self.seconds * 0.8

    def begin(self) -> None:
        """The incarnation has been registered with a full lease: renew it from now on."""
        self._acknowledged = elapsed()
        self._begin()

    def _begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._ended = True  # before the loop is looked for, which the thread sets before it looks at this
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._ending.set)

    def _serve(self) -> None:
        """Whatever happens to its loop: one that ends for lack of files, threads or memory is made anew."""
        while not (self._ended or self.dead):
            try:
                with own_runner() as runner:
                    runner.run(self._renew())
            except Exception as trouble:
                log.warning("the lease cannot be renewed now, which is tried again: %s", trouble)
                time.sleep(AGAIN_SECONDS)

    def _stands_still(self) -> bool:
        """Whether the host's loop is not worth a lease just now; says so once."""
        lag, before = self._lag(), self._stalled
        self._stalled = 0 < self._max_stall <= lag
        if self._stalled and not before:
            log.error(
                "the event loop has stood still for %.0f s (max_stall is %.0f s): the lease is not renewed until it "
                "answers, so that others take its work over",
                lag, self._max_stall,
            )  # fmt: skip
        return self._stalled

    async def _note(self, store: Store, stalls: StallWatch, stuck: Stuck) -> None:
        """A body blocks the loop: nobody but this thread can say so. What fails is tried again with the next look."""
        run = stuck.execution
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await store.note_turn(run.run.key, run.claim or b"", stuck.text, stuck.nonce)
        except Exception as trouble:
            log.warning("that the body of workflow %s does not come to rest could not be noted: %s", run.id, trouble)
        else:
            stalls.noted(stuck)

    def _cut(self) -> None:
        """The connection has closed: others may see that, and take this for a death."""
        self._hurry = True

    async def _over(self, seconds: float) -> bool:
        """Whether it is to end, within so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ending.wait()
        return self._ended

    async def _renew(self) -> None:
        self._ending = asyncio.Event()  # an event belongs to the first loop that waits for it
        self._loop = asyncio.get_running_loop()
        if self._ended:
            return
        store = self._make_store()
        store.lifeline(self.who.id, self._cut)
        opened = False
        try:
            with contextlib.suppress(Exception):  # at once: where connections run out, this one is to be there
                await store.open()
                opened = True
            beat = self.seconds / BEATS
            patience = max(beat, ANSWER_SECONDS)
            tried = elapsed()
            outage = Outage("the lease could not be renewed", "the lease is renewed again", logging.WARNING, elapsed)
            while not await self._over(min(beat, LOOK_SECONDS)):
                self._on_look()
                if opened and self._stalls is not None and (stuck := self._stalls.stuck()) is not None:
                    await self._note(store, self._stalls, stuck)
                if self._stands_still() or (elapsed() - tried < beat and not self._hurry):
                    continue
                self._hurry = False
                tried = asked = elapsed()
                try:
                    if not opened:
                        await store.open()
                        opened = True
                    lag = int(self._lag() * 1e6)
                    async with asyncio.timeout(patience):  # the next try has a connection of its own: this may be dead
                        now = await store.heartbeat(self.who.id, int(self.seconds * 1e6), lag=lag)
                except Exception as trouble:  # whatever it is: without this thread the executor would be lost
                    why = str(trouble) or f"no answer within {patience:.0f} s ({type(trouble).__name__})"
                    self._hurry = True
                    outage.met(why)
                    continue
                outage.passed()
                if now is None:
                    self.dead = True
                    self._on_dead()
                    return
                self._acknowledged = asked
                self._saw(now, asked, elapsed())
                self._on_time(now)
        finally:
            await store.close()
