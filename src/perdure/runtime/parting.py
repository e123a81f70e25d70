"""The end of a drain: what was handed back is written, or it is said that it was not.

Promise: a drain waits past its time only while the database writes on; hurried, not at all for one that is in trouble.
What it could not hand back is left to the lease, like the work of the dead.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sized
from typing import Protocol

from perdure.client.line import Line

log = logging.getLogger("perdure")

STILL_SECONDS = 3.0  # past its time a drain waits for a database that writes nothing, at most
LOOK_SECONDS = 0.02


class Host(Protocol):
    """What handing back needs of an executor."""

    line: Line
    hurried: bool

    @property
    def executions(self) -> Sized: ...


async def written(host: Host, deadline: float) -> bool:
    """Whether all that waits was written: by the deadline, or later as long as the database gets on with it."""
    journal, loop = host.line.journal, host.line.loop
    drained = loop.create_task(journal.drained())
    moved, seen = loop.time(), journal.commits
    try:
        while not drained.done():
            if journal.commits != seen:
                moved, seen = loop.time(), journal.commits
            over = host.hurried or loop.time() >= deadline
            still = loop.time() - moved >= STILL_SECONDS
            if over and (still or (host.hurried and journal.trouble is not None)):
                _say(host)
                return False
            await asyncio.wait([drained], timeout=LOOK_SECONDS)
        return True
    finally:
        drained.cancel()


def _say(host: Host) -> None:
    count = len(host.executions)
    why = host.line.journal.trouble or "it does not answer"
    log.error(
        "the database takes no writes (%s): %d workflow%s not handed back, and outcomes that were not written are "
        "lost. The work is taken over when the lease of this executor has run out, and those steps run again",
        why, count, " was" if count == 1 else "s were",
    )  # fmt: skip
