"""When this executor looks for the dead: often enough for each bound, seldom enough to cost nothing.

A round (``recovery.reap``) is a few small queries. It comes

- every third of a lease (5 s at most), 20 % sooner or later so that executors do not all look at once;
- a moment after the next lease would run out, so that a silent death is found when it may be, and a moment after
  one whose connection has closed should have renewed;
- at once when a process of this machine that was serving is gone: its pid is looked at twice a second, without a query;
- soon again while there was more to take than could be taken.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from perdure.model.records import Incarnation
from perdure.runtime.guards import Guards
from perdure.runtime.leases import BEATS, ended, same_place
from perdure.runtime.lifelines import Lifelines
from perdure.runtime.outage import Outage

ROUND_SECONDS_MAX = 5.0
PEER_SECONDS = 0.5  # between two looks at the processes of this machine
MEET_SECONDS = 1.0  # between two looks at who is there, when others hint
SPREAD = 0.2  # of a round
FORGET_EVERY = 12  # rounds


class Reaper:
    """The rounds of one executor, and what they remember. ``elapsed``: own seconds, counting suspension."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        reap: Callable[[], Coroutine[Any, Any, object]],
        meet: Callable[[], Coroutine[Any, Any, None]],
        lease: float,
        elapsed: Callable[[], float],
        guards: Guards | None = None,
    ) -> None:
        self._loop = loop
        self._reap = reap
        self._meet = meet
        self._meeting: asyncio.Task[None] | None = None
        self._later: asyncio.TimerHandle | None = None
        self._met = 0.0  # when it was looked last who is there
        said = (
            "the database is in trouble, who is there is asked again later",
            "the database answers who is there again",
        )
        self.outage = Outage(*said, logging.INFO, elapsed)
        self._round = min(ROUND_SECONDS_MAX, lease / BEATS)
        self.elapsed = elapsed
        self.guards = guards if guards is not None else Guards(lease, self._round, lease / BEATS)
        self.lifelines = Lifelines()
        self.next_expiry: float | None = None  # in so many seconds the first lease runs out, or a suspect is overdue
        self.soon: float | None = None  # the next round comes in so many seconds: something is left to take
        self.buried = False  # somebody, in the latest round: what was read before it is old
        self._rounds = 0
        self._again = False
        self._peers: list[Incarnation] = []
        self._task: asyncio.Task[object] | None = None
        self._next: asyncio.TimerHandle | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._stopped = True

    def start(self) -> None:
        self._stopped = False
        self._plan()
        self._watch = self._loop.call_later(PEER_SECONDS, self._look_at_peers)

    def stop(self) -> None:
        """No new round begins."""
        self._stopped = True
        for handle in (self._next, self._watch, self._later):
            if handle is not None:
                handle.cancel()

    @property
    def under_way(self) -> list[asyncio.Task[Any]]:
        """What has begun and not ended."""
        return [task for task in (self._task, self._meeting) if task is not None]

    def hinted(self) -> None:
        """Another process has done something: it may be new. Who is there is read then, once a second at most."""
        if self._stopped or self._meeting is not None or self._later is not None:
            return
        wait = self._met + MEET_SECONDS - self._loop.time()
        if wait > 0:
            self._later = self._loop.call_later(wait, self._hinted_before)
            return
        self._meeting = asyncio.Task(self._meet(), loop=self._loop)
        self._meeting.add_done_callback(self._has_met)

    def _hinted_before(self) -> None:
        self._later = None
        self.hinted()

    def _has_met(self, task: asyncio.Task[None]) -> None:
        self._meeting = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._loop.call_exception_handler({"message": "who is there could not be read", "exception": error})

    def know(self, serving: Sequence[Incarnation]) -> None:
        """Who serves: the processes of this machine among them are watched."""
        self._met = self._loop.time()
        self._peers = [who for who in serving if same_place(who)]

    def may_forget(self) -> bool:
        """Whether this round is one of those that forget the dead who hold nothing; they are shown for a while."""
        self._rounds += 1
        return self._rounds % FORGET_EVERY == 0

    def rhythm(self, spread: float | None = None) -> float:
        """Seconds between two rounds, if nothing makes the next one come sooner; ``spread``: 0 to ``SPREAD``."""
        return self._round * (1 - SPREAD + 2 * (random.uniform(0, SPREAD) if spread is None else spread))

    def pause(self) -> float:
        """Seconds until the next round."""
        if self.soon is not None:
            return self.soon
        spread = random.uniform(0, SPREAD)
        regular = self.rhythm(spread)
        if self.next_expiry is None:
            return regular
        return min(regular, self.next_expiry + self._round * spread)

    def now(self) -> None:
        """Begin a round, or another one right after the one that is under way: it may have looked too early."""
        if self._task is not None:
            self._again = True
            return
        if self._next is not None:
            self._next.cancel()
        self._task = asyncio.Task(self._reap(), loop=self._loop)
        self._task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[object]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._loop.call_exception_handler({"message": "a round of recovery failed", "exception": error})
        again, self._again = self._again, False
        if again and not self._stopped:
            self.now()
        elif not self._stopped:
            self._plan()

    def _plan(self) -> None:
        if self._next is not None:
            self._next.cancel()
        self._next = self._loop.call_later(self.pause(), self.now)

    def _look_at_peers(self) -> None:
        gone = [who for who in self._peers if ended(who)]
        if gone:
            self._peers = [who for who in self._peers if who not in gone]
            self.now()
        self._watch = self._loop.call_later(PEER_SECONDS, self._look_at_peers)
