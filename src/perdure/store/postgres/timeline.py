"""Noticing a failover: a standby that was behind took over, and what was acknowledged last may be lost.

The token does not protect from that: the row still has it, and a run that is ahead of its history would write on,
leaving a gap (`models/claim.pml`). So whoever finds the server on another timeline when it connects anew proves each
run before its next write: its history must end where the run's own memory of it does. A run that cannot prove it is
refused, and replayed from what the server has.

Promise: between a noticed failover and a run's next write lies its proof. Not noticed is a failover behind a pooler
that keeps the client's connection; there ``synchronous_commit`` with a synchronous standby is what loses nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from perdure.errors import DatabaseTrouble
from perdure.model.writes import Unit
from perdure.store.postgres.connection import Connection

log = logging.getLogger("perdure")

_TIMELINE = "select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"


class Timeline:
    """What history of the server this store's runs were claimed in."""

    def __init__(self) -> None:
        self._known: str | None = None
        self._proven: set[tuple[str, bytes]] | None = None  # since the failover: (id, token); None: there was none

    async def look(self, conn: Connection) -> None:
        """On each new connection."""
        try:
            found = await conn.fetchval(_TIMELINE)
        except Exception as error:
            if conn.is_closed():
                raise
            log.debug("the server does not tell its timeline, a failover cannot be noticed: %s", error)
            return
        if self._known is not None and found != self._known:
            log.warning(
                "the database failed over (timeline %s, was %s): each run is compared with its history before it "
                "writes on; what the new server does not have is done again",
                found, self._known,
            )  # fmt: skip
            self._proven = set()
            self._known = found
            raise DatabaseTrouble(f"the database failed over to timeline {found}")  # what was to be sent is not
        self._known = found

    def unproven(self, batch: Sequence[Unit]) -> list[Unit]:
        """Units of runs that have not shown since the failover that nothing of them is lost."""
        proven = self._proven
        if proven is None:
            return []
        return [u for u in batch if u.claim is not None and u.start is None and _key(u) not in proven]

    def prove(self, units: Collection[Unit]) -> None:
        """These were written."""
        if self._proven is not None:
            self._proven.update(_key(unit) for unit in units)


def _key(unit: Unit) -> tuple[str, bytes]:
    assert unit.claim is not None, "only claimed runs are proven"
    return unit.key.id, unit.claim
