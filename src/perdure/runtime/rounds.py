"""A round of an executor: routing, recovery, and beside them requests, adoption and retention. The roll is called once.

Idle, a round is three questions, however much there is in the database; what each of its parts does is idempotent, and
interrupted anywhere it is simply done again.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from perdure.errors import DatabaseTrouble
from perdure.runtime import recovery, requests, turns, upgrades
from perdure.runtime.held import retry_held
from perdure.runtime.recovery import call_the_roll, reap
from perdure.runtime.requests import serve_requests
from perdure.runtime.sweeper import Sweeper
from perdure.runtime.turns import look_at_turns
from perdure.runtime.upgrades import follow
from perdure.store.rollcall import RollCall


class Host(upgrades.Host, recovery.Host, requests.Host, turns.Host, Protocol):
    """What a round needs of an executor."""

    sweeper: Sweeper

    def keep(self, task: asyncio.Task[Any]) -> None: ...


async def first_round(host: Host) -> None:
    """At launch: one batch. The rounds go on with what is left, while this executor works already."""
    await retry_held(host)
    if (roll := await _roll(host)) is not None:
        await follow(host, roll)
        await reap(host, roll, batches=1)


async def whole_round(host: Host) -> None:
    """All of it. What may take its time is begun, and goes on beside the next."""
    look_at_turns(host)
    if (roll := await _roll(host)) is not None:
        await follow(host, roll)
        await reap(host, roll)
        await retry_held(host)
        # Who was buried is still alive in the roll.
        for aside in (
            serve_requests(host), host.adopter.round(None if host.reaper.buried else roll), host.sweeper.round(),
        ):  # fmt: skip
            host.keep(asyncio.Task(aside, loop=host.line.loop))


async def _roll(host: Host) -> RollCall | None:
    try:
        roll = await call_the_roll(host)
    except DatabaseTrouble as trouble:
        host.reaper.outage.met(trouble)
        return None
    host.reaper.outage.passed()
    return roll
