"""A deploy in mid-run: executors are replaced, one after the other, by ones with another edition of the code.

What the new edition can replay is adopted, what it cannot is stranded, and said to be. Then, as the guide for deploys
tells operators, an executor of the old version is begun once more to drain it.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

from perdure.model.states import VERSIONING, Versioning
from perdure.testing.simulation.sometimes import sometimes

OLD, NEW = 1, 2
DRAINER = "drainer"


class Open(NamedTuple):
    """An open workflow, as a person sees it who looks for stranded work."""

    id: str
    version: str
    owned: bool
    pinned: bool
    tried: bool  # and found not to replay, as it stands, by some other version


def version(edition: int) -> str:
    """The version's name."""
    return f"v{edition}"


class Rollout:
    """Which edition each executor is begun with, and how that changes."""

    def __init__(self, world: Any, chance: random.Random) -> None:
        self._world = world
        self._chance = chance
        self._editions: dict[str, int] = {}
        self._drained: set[str] = set()

    def edition(self, name: str) -> int:
        """What an executor of this name runs, if it begins now."""
        return self._editions.get(name, OLD)

    def begin(self, names: list[str]) -> None:
        """Plan it all."""
        chance, later = self._chance, self._world.loop.later
        at = chance.uniform(0.3, 3.5)
        later(at, self._deploy, names if chance.random() < 0.7 else names[1:], NEW)
        if chance.random() < 0.3:
            later(at + chance.uniform(0.5, 2.5), self._deploy, names, OLD)

    def _deploy(self, names: list[str], edition: int) -> None:
        sometimes("a rollout was undone", edition == OLD)
        gap = self._chance.choice((0.0, 0.1, 0.6))
        for n, name in enumerate(names):
            self._world.loop.later(n * gap, self._replace, name, edition)

    def _replace(self, name: str, edition: int) -> None:
        self._editions[name] = edition
        for process in self._world.living():
            if process.name != name:
                continue
            if process.paused or self._chance.random() < 0.2:
                process.crash()
            else:
                process.drain()

    def look(self) -> None:
        """Once healed: if all that is left to nobody is stranded, and told so, bring its version back."""
        world = self._world
        living = world.living()
        served = {process.settings.version for process in living}
        left = [one for one in world.database.unfinished() if one.version not in {"", *served}]
        if not living or not left or not all(not one.owned and (one.pinned or one.tried) for one in left):
            return
        for lost in sorted({one.version for one in left} - self._drained):
            sometimes("work was stranded by a rollout", any(one.tried and one.version == lost for one in left))
            sometimes("pinned work waited for its version", any(one.pinned and one.version == lost for one in left))
            self._drained.add(lost)
            name = f"{DRAINER}-{lost}"
            self._editions[name] = int(lost[1:])
            world.begin(name)


UNFINISHED = f"""
select f.id, f.version, f.owner is not null, f.versioning = {VERSIONING[Versioning.PINNED]}, exists (
    select 1 from trial t
    where t.app = f.app and t.id = f.id and t.run = f.run and t.last_seq = f.last_seq and t.version <> f.version)
from workflow f where f.status < 4 order by f.id
"""  # noqa: S608 - a number of ours
