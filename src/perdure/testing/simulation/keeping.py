"""What keeps one workflow from being written while all others are: a row that is kept, a message that is dropped.

- *Kept*: another transaction has the workflow's row, its id or a key of it (a start with ``session=``, a program of the
  users' own). Who needs it waits for as long as Postgres lets him, and is told ``RowLocked`` then (``rows.py``). SQLite
  has no such thing: there everybody waits for the whole file.
- *Dropped*: a commit with a unit of that workflow fails, some times in a row, as one does whose message, or the answer
  to it, a proxy does not let through.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from perdure.testing.simulation import asking
from perdure.testing.simulation.sometimes import sometimes
from perdure.testing.simulation.wire import Fate

KEPT_SECONDS = (0.1, 4.0)
DROPS = (2, 20)  # in a row; a batch is parted after eight
DROPPED = (Fate.ABORTED, Fate.DROPPED, Fate.LOST)
NOT_YET = 0.15  # chance that what is kept is the id of a child that may be started


class Keeper:
    """See the head of this file. By a chance of its own, until it is told to stop."""

    def __init__(self, world: Any, chance: random.Random) -> None:
        self._world = world
        self._chance = chance
        self._dropped: dict[str, tuple[Fate, int]] = {}  # what becomes of commits with it, and of how many more

    def begin(self) -> None:
        """Strike from now on."""
        mix = self._world.mix
        if mix.keeps and self._world.dialect == "postgres":
            self._next(mix.keeps, self._keep)
        if mix.drops:
            self._next(mix.drops, self._drop)

    def end(self) -> None:
        """All is let go."""
        self._dropped.clear()
        self._world.database.gate.give_back_all()

    def fate(self, units: Any) -> Fate | None:
        """What becomes of a commit with these."""
        found = next((unit.key.id for unit in units if unit.key.id in self._dropped), None)
        if found is None:
            return None
        fate, left = self._dropped.pop(found)
        if left > 1:
            self._dropped[found] = fate, left - 1
        return fate

    def _next(self, rate: float, strike: Callable[[str], None]) -> None:
        self._world.loop.later(self._chance.expovariate(rate), self._strike, rate, strike)

    def _strike(self, rate: float, strike: Callable[[str], None]) -> None:
        if self._world.healed or self._world.over:
            return
        ids, who_ask = self._world.database.open_ids(), self._world.database.open_ids(asking.NAME)
        if ids:
            strike(self._chance.choice(who_ask if who_ask and self._chance.random() < 0.5 else ids))
        self._next(rate, strike)

    def _keep(self, id: str) -> None:
        if self._chance.random() < NOT_YET:
            id = f"{id}-named"
        seconds = self._chance.uniform(*KEPT_SECONDS)
        sometimes("another transaction kept a row")
        self._world.faults.note("keep", id, seconds=seconds)
        gate = self._world.database.gate
        self._world.loop.later(seconds, gate.give_back, gate.keep(id))

    def _drop(self, id: str) -> None:
        fate, times = self._chance.choice(DROPPED), self._chance.randint(*DROPS)
        self._world.faults.note("drop", id, times=times)
        self._dropped[id] = fate, times
