"""A person who looks after the fleet: lets go on what a policy parked, and gives away what the gone have left."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

from perdure.errors import DatabaseTrouble, PerdureError
from perdure.store.rollcall import FORGOTTEN
from perdure.testing.simulation.sometimes import sometimes

LOOK_SECONDS = 0.5


class Operator:
    """Works in the client's process, for as long as the world lasts."""

    def __init__(self, world: Any, chance: random.Random, names: list[str]) -> None:
        self._world = world
        self._chance = chance
        self._names = names
        self._urgent = world.mix.recovery == "manual"

    async def work(self, client: Any) -> None:
        """Look again and again."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if not client.opened:
                continue
            with contextlib.suppress(
                DatabaseTrouble, PerdureError
            ):  # refused, or in trouble: the next look tries again
                await self._release(client)
            if self._urgent or self._world.healed or self._chance.random() < self._world.mix.hand_over:
                with contextlib.suppress(DatabaseTrouble, PerdureError):
                    await self._give(client)

    async def _release(self, client: Any) -> None:
        for id, reason, _detail in self._world.database.held():
            if reason == "policy" and (self._world.healed or self._chance.random() < 0.5):
                await client.app.client.handle(id).resume(reason="looked at")
                sometimes("a person let go on what a policy held")

    async def _give(self, client: Any) -> None:
        """What one executor left, or has (``force``), to some other or to any."""
        chance, world = self._chance, self._world
        name = chance.choice(self._names)
        # Whom it was given to may have other code by now: in the end it is given to any.
        heir = None if world.healed else chance.choice([None, *self._names])
        force = not world.healed and chance.random() < 0.2
        if world.mix.namesakes:
            name, heir = "x", None
        if world.healed and world.database.ownerless():
            name = FORGOTTEN
        if force:
            world.faults.note("force", name)
        given = await client.app.client.recover_executors(name, by=heir, force=force)
        sometimes("a person gave away the work of the gone", given)
        sometimes("a person gave away the work of the living", given and force)
