"""A clock that stands still until it is moved. It is the database's time too, for whoever shares it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from perdure.errors import Misuse
from perdure.model.info import from_datetime
from perdure.model.real import time

START = datetime(2030, 1, 1, tzinfo=UTC)


class VirtualClock:
    """Implements ``perdure.clock.Clock``. Moving it tells those in ``on_move``, who then fire what is due.

    >>> clock = VirtualClock()
    >>> clock.advance(5_000_000)                # five seconds
    """

    def __init__(self, start: datetime = START) -> None:
        self._now = from_datetime(start)
        self.on_move: list[Callable[[], None]] = []

    def now(self) -> int:
        return self._now

    def stamp(self) -> int | None:
        return self._now

    def observe(self, database: int) -> None:
        """The database has no time of its own here: every statement is given ours."""

    def advance(self, by: int) -> None:
        """Move on by microseconds."""
        self.move_to(self._now + by)

    def move_to(self, when: int) -> None:
        """Move on to a time; never back."""
        self._now = max(self._now, when)
        for tell in list(self.on_move):
            tell()


async def refuse_stopped_time() -> None:
    """Raise ``Misuse`` if no time passes for the event loop that runs: nothing that a harness waits for would come."""
    loop = asyncio.get_running_loop()
    before = loop.time()
    time.sleep(0.002)  # the real one
    await asyncio.sleep(0)  # some loops look at their clock once in each turn
    if loop.time() == before:
        raise Misuse(
            "the event loop's clock stands still, so no wait of a harness would end. If freezegun has stopped it, "
            "leave asyncio its clock: freeze_time(…, real_asyncio=True); what workflows see moves by h.advance(…)"
        )
