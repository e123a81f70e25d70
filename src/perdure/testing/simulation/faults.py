"""Which faults strike a world, how often, and the nemesis that makes them. All of it follows from the seed.

Swarm: each world has its own mix, since faults that always come together hide each other.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

from perdure.testing.simulation.sometimes import sometimes
from perdure.testing.simulation.wire import Cut, Fate

HOUR_US = 3_600_000_000
ORDERED = 0.12  # of the worlds
TRANSACTING = 0.08  # of the worlds
KEEPING = 0.2  # of the worlds
CUTS = (Cut.REFUSED, Cut.REFUSED, Cut.MUTE, Cut.DEAF, Cut.BEATS, Cut.BEATLESS)


class Mix(NamedTuple):
    """The faults of one world: rates per second for what strikes processes, chances for what strikes calls."""

    kill: float
    stop: float
    cut: float
    drain: float
    outage: float
    stall: float
    aborted: float
    lost: float
    late: float
    dies: float
    deaf: float  # chance that a hint is lost; it never heals, since nothing may need hints
    slow: float  # chance that an effect takes longer than a lease
    skewed: bool
    one_host: bool  # a death is proven there, and needs no lease
    moving: bool  # who is begun again is on another host, which knows nothing of the death
    namesakes: bool  # all executors have one executor id
    rollout: bool = False  # another edition of the code is deployed meanwhile
    judged: bool = False  # some work has a policy, which answers whatever it likes
    hand_over: float = 0.0  # chance that a person gives away an executor's work, at each look
    failover: bool = False  # the newest commits are lost, once
    recovery: str = "fleet"
    transacts: bool = False  # its work is transactions, in two databases
    commits: float = 0.0  # chance that one of their COMMITs meets trouble
    orders: bool = False  # an operator resets, forks, moves …, and orders batches, from a process that dies
    keeps: float = 0.0  # rate at which another transaction keeps a workflow's row for a while
    drops: float = 0.0  # rate at which a workflow gets in the way of every commit with it, some times in a row

    @staticmethod
    def draw(chance: random.Random) -> Mix:
        """A mix: each kind is there or not, and if it is, more or less of it."""

        def rate(most: float, often: float = 0.5) -> float:
            return most * chance.random() ** 2 if chance.random() < often else 0.0

        return Mix(
            kill=rate(0.8), stop=rate(0.8), cut=rate(0.6), drain=rate(0.4, 0.3), outage=rate(0.4, 0.3),
            stall=rate(0.4, 0.3), aborted=rate(0.15), lost=rate(0.15), late=rate(0.15), dies=rate(0.04),
            deaf=rate(1.0), slow=rate(0.1, 0.3), skewed=chance.random() < 0.5, one_host=chance.random() < 0.4,
            moving=chance.random() < 0.5, namesakes=chance.random() < 0.3,
        )  # fmt: skip

    def widened(self, chance: random.Random) -> Mix:
        """The same faults, and what else happens to a fleet: by a chance of its own, so that the faults stay."""
        recovery = chance.choices(("fleet", "own", "manual", "single"), (70, 10, 10, 10))[0]
        return self._replace(
            rollout=recovery == "fleet" and chance.random() < 0.4, judged=chance.random() < 0.4,
            hand_over=chance.random() * 0.5 if chance.random() < 0.2 else 0.0, recovery=recovery,
            failover=chance.random() < 0.15,
        )  # fmt: skip

    def ordered(self, chance: random.Random) -> Mix:
        """The same, and in one of eight worlds somebody who gives orders: by a chance of its own, too."""
        return self._replace(orders=chance.random() < ORDERED)

    def transacting(self, chance: random.Random) -> Mix:
        """The same, and in one of twelve worlds all work is transactions: by a chance of its own, too."""
        if chance.random() >= TRANSACTING:
            return self
        return self._replace(
            transacts=True, commits=0.4 * chance.random(), orders=self.orders or chance.random() < 0.3, failover=False
        )

    def keeping(self, chance: random.Random) -> Mix:
        """The same, and in one of five worlds one workflow is not written while the others are: the same way."""
        if chance.random() >= KEEPING:
            return self
        keeps, drops = chance.choice(((1, 0), (1, 0), (0, 1), (1, 1)))
        return self._replace(keeps=keeps * chance.uniform(0.5, 1.5), drops=drops * chance.uniform(0.5, 1.5))

    @staticmethod
    def calm(recovery: str = "fleet", **faults: float) -> Mix:
        """No faults but these."""
        return Mix(**{**dict.fromkeys(Mix._fields, 0.0), **faults, "recovery": recovery})  # type: ignore[arg-type]

    @property
    def troubles_calls(self) -> bool:
        """Whether calls fail of themselves."""
        return bool(self.aborted or self.lost or self.late or self.dies or self.commits)

    def fate(self, chance: random.Random, *, writes: bool, mortal: bool) -> Fate:
        """What becomes of one call."""
        point = chance.random()
        for likely, fate in ((self.aborted, Fate.ABORTED), (self.lost, Fate.LOST), (self.late, Fate.LATE)):
            if point < likely:
                return fate if fate is Fate.ABORTED or writes else Fate.WELL
            point -= likely
        if mortal and writes and point < self.dies:
            return chance.choice((Fate.DIES_BEFORE, Fate.DIES_UNANSWERED, Fate.DIES_ANSWERED))
        return Fate.WELL

    def skew(self, chance: random.Random) -> tuple[int, float]:
        """How wrong a process's clock is: microseconds, and the rate at which it runs."""
        if not self.skewed:
            return 0, 1.0
        skew = chance.randint(-HOUR_US, HOUR_US)
        sometimes("a clock was wrong by more than half an hour", abs(skew) > HOUR_US // 2)
        return skew, 1.0 + chance.uniform(-0.0002, 0.0002)


class Nemesis:
    """Strikes a world, by its mix, until it is told to stop."""

    def __init__(self, world: Any, mix: Mix) -> None:
        self._world = world
        self._chance: random.Random = world.chance
        self._over = False
        self._kinds: list[tuple[float, Callable[[], None]]] = [
            (rate, strike)
            for rate, strike in (
                (mix.kill, self._kill), (mix.stop, self._stop), (mix.cut, self._cut), (mix.drain, self._drain),
                (mix.outage, self._outage), (mix.stall, self._stall),
            )
            if rate
        ]  # fmt: skip

    def begin(self) -> None:
        """Strike from now on."""
        if self._kinds:
            self._next()

    def end(self) -> None:
        """Strike no more; what was done is undone by the world."""
        self._over = True

    def _next(self) -> None:
        total = sum(rate for rate, _ in self._kinds)
        self._world.loop.later(self._chance.expovariate(total), self._strike)

    def _strike(self) -> None:
        if self._over:
            return
        self._chance.choices([strike for _, strike in self._kinds], [rate for rate, _ in self._kinds])[0]()
        self._next()

    def _one(self) -> Any | None:
        living = self._world.living()
        return self._chance.choice(living) if living else None

    def _kill(self) -> None:
        if (process := self._one()) is not None:
            process.crash()

    def _stop(self) -> None:
        process = self._one()
        if process is None or process.paused:
            return
        self._world.stop(process, self._world.lease * self._chance.uniform(0.1, 2.5))

    def _cut(self) -> None:
        if (process := self._one()) is not None:
            seconds = self._world.lease * self._chance.uniform(0.1, 2.0)
            sometimes("a process was cut off from the database")
            self._world.faults.note("cut", process.identity, effective=process.busy, seconds=seconds)
            process.cut_until = max(process.cut_until, self._world.loop.us + int(seconds * 1e6))
            process.cut = self._world.cuts.choice(CUTS)

    def _drain(self) -> None:
        if (process := self._one()) is not None and not process.paused:
            sometimes("a process was drained")
            self._world.faults.note("drain", process.identity, effective=process.busy)
            process.drain()

    def _outage(self) -> None:
        seconds = self._chance.uniform(0.1, 2.0)
        sometimes("the database was down")
        self._world.faults.note("outage", seconds=seconds)
        self._world.down_until = self._world.loop.us + int(seconds * 1e6)

    def _stall(self) -> None:
        seconds = self._chance.uniform(0.1, 2.0)
        sometimes("the database stood still")
        self._world.faults.note("stall", seconds=seconds)
        self._world.slow_until = self._world.loop.us + int(seconds * 1e6)
