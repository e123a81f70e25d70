"""Lifelines: the connections by which others renew their leases. Who has lost it is suspect, no more.

When a process dies its connections close at once, and the server tells who is connected; the lease ends much later.
But a connection may close under a process that lives: an operator ends it, a network drops it. So the suspect has time
to prove itself. It sees the end of its connection, too, and renews at once by a new one; who does not is taken for
dead.

Pure: fed with what each call of the roll shows, by a clock that is passed in seconds. Promises, each with a test in
``tests/runtime/test_lifelines.py``:

- only a connection that was seen counts: who is behind a pooler, or gives it no name, is never suspect;
- a suspect is overdue no sooner than 3 s after it was seen to be one, and a second after its next renewal was due by
  its own rhythm; any renewal clears it;
- what was seen by another connection of one's own is worth nothing: the server may have been restarted, and have
  closed all.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from perdure.model.records import Incarnation
from perdure.runtime.leases import BEATS
from perdure.store.rollcall import RollCall

PROVE_SECONDS = 3.0  # in which a suspect must renew
MARGIN_SECONDS = 1.0  # that a renewal may be late


class Suspicion(msgspec.Struct, frozen=True):
    """Since when (own seconds), and what must change."""

    since: float
    beats: int


class Lifelines:
    """One reaper's memory of who was connected."""

    def __init__(self) -> None:
        self._session: int | None = None  # of one's own, by which all of this was seen
        self._seen: set[bytes] = set()
        self._suspects: dict[bytes, Suspicion] = {}
        self.next_due: float | None = None  # in so many seconds the first suspect is overdue, if it does not renew

    def look(self, others: Sequence[Incarnation], roll: RollCall, at: float) -> list[bytes]:
        """Which of the serving ``others`` are overdue at ``at``, by what the roll shows."""
        if roll.connected is None or roll.session != self._session:
            self._seen, self._suspects = set(), {}
        self._session = roll.session
        connected = roll.connected or frozenset()
        waits: dict[bytes, float] = {}
        for who in others:
            known = self._suspects.pop(who.id, None)
            if who.id in connected:
                self._seen.add(who.id)
            elif known is not None and known.beats != who.beats:
                self._seen.discard(who.id)  # it lives without, and counts again once it is seen
            elif who.id in self._seen:
                suspicion = self._suspects[who.id] = known or Suspicion(at, who.beats)
                waits[who.id] = max(suspicion.since + PROVE_SECONDS - at, _until_late(who, roll.now))
        there = {who.id for who in others}
        self._seen &= there
        self._suspects = {id: one for id, one in self._suspects.items() if id in there}
        self.next_due = min((wait for wait in waits.values() if wait > 0), default=None)
        return [id for id, wait in waits.items() if wait <= 0]


def _until_late(who: Incarnation, now: int) -> float:
    """In how many seconds its next renewal is late, by its own rhythm; by the database's clock on both sides."""
    renewed = who.lease_until - who.lease
    return (renewed - now + who.lease / BEATS) / 1e6 + MARGIN_SECONDS
