"""Work that is held because the code could not go on is tried again when other code is there.

At launch, and once its back-off has passed: what this version itself held before this launch. In rounds: what other
versions hold and new work of that id would bring here (``adoption.py``). Never by time alone: who has held it is not
asked again by itself. A replay has no effects, so a try costs nothing but its time.
"""

from __future__ import annotations

import logging
from typing import Protocol

from perdure.client.line import Line
from perdure.errors import DatabaseTrouble
from perdure.model.orders import BY_CODE

log = logging.getLogger("perdure")


class Later:
    """What a launch has left for its back-off."""

    def __init__(self) -> None:
        self.since: int | None = None  # when this executor first looked: what is held later is not for it
        self.due: int | None = None  # when the next of them may be tried


class Memory(Protocol):
    """What an executor remembers from round to round."""

    later: Later


class Host(Protocol):
    """What trying again needs of an executor."""

    line: Line
    version: str

    @property
    def following(self) -> Memory: ...

    def look(self) -> None: ...


async def retry_held(host: Host) -> None:
    """At launch, and in each round: no query unless something is due."""
    later, clock, store = host.following.later, host.line.clock, host.line.store
    if later.since is not None and (later.due is None or later.due > clock.now()):
        return
    since = clock.now() if later.since is None else later.since
    try:
        tried = await store.release_held(BY_CODE, host.version, since=later.since, now=clock.stamp())
        later.due = await store.held_due(BY_CODE, host.version, since)
    except DatabaseTrouble as trouble:
        log.info("the database is in trouble, held work is tried again later: %s", trouble)
        later.due = 0
    else:
        if tried:
            log.info("trying %d held workflow%s against the code that is here now", tried, "" if tried == 1 else "s")
            host.look()
    later.since = since
