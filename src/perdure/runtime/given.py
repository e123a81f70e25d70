"""What a person gave to this executor, and it cannot run: work of a version that is not its own. It says so.

Nobody else takes what was given to one, and adoption leaves it alone, too: without a word it would wait for ever. With
``manual``, which adopts nothing, that goes for what was given to any, if nobody runs its version.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Protocol

from perdure.client.line import Line
from perdure.model.records import Incarnation
from perdure.model.states import Status
from perdure.query.conditions import where
from perdure.store.pages import pages

log = logging.getLogger("perdure")

LOOKED_AT = 10_000  # running workflows, at most: to say that there are some, nobody needs them all
PAGE = 1000


class Host(Protocol):
    """What this needs of an executor."""

    line: Line
    version: str
    executor_id: str
    recovery: str


class Given:
    """The orders that one executor has looked at."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._seen: set[tuple[bytes, str | None]] = set()  # incarnations whose work was given, and to whom

    async def look(self, owners: Collection[bytes], known: Sequence[Incarnation], live: Sequence[Incarnation]) -> None:
        """Say once of each order what of it waits for other code. Raises ``DatabaseTrouble``; then it looks again."""
        host = self._host
        heirs = (None, host.executor_id) if host.recovery == "manual" else (host.executor_id,)
        released = [who for who in known if who.state == "released" and who.heir in heirs]
        given = {who.id: who for who in released if who.id in owners and (who.id, who.heir) not in self._seen}
        if not given:
            return
        waits: Counter[tuple[bytes, str]] = Counter()
        looked = 0
        async for page in pages(host.line.store, where(statuses=[Status.RUNNING]), PAGE):
            waits.update((row.owner, row.version) for row in page if row.owner in given)
            looked += len(page)
            if looked >= LOOKED_AT:
                break
        for (id, version), count in sorted(waits.items()):
            who = given[id]
            serves = any(one.version == version and who.heir in (None, one.executor) for one in live)
            if not serves and version != host.version:
                self._say(who, version, count)
        self._seen.update((who.id, who.heir) for who in given.values())

    def _say(self, who: Incarnation, version: str, count: int) -> None:
        host = self._host
        some = f"{count} workflow{'' if count == 1 else 's'}"
        if who.heir is None:
            log.warning(
                "%s that executor %r left and that may go to any are of version %s, which nobody runs (this one runs "
                "%s, and adopts nothing with recovery='manual'): start an executor of that version",
                some, who.executor, version, host.version,
            )  # fmt: skip
        else:
            log.warning(
                "%s that executor %r left and that were given to this one, %r, are of version %s, which it does not "
                "run (it runs %s): they wait. Start one called %r of that version, or give them to any: perdure "
                "executor recover %s",
                some, who.executor, host.executor_id, version, host.version, host.executor_id, who.id.hex(),
            )  # fmt: skip
