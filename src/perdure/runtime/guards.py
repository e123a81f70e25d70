"""Guards against false deaths: when a lease that looks expired may be taken for a death.

A lease can look expired although its holder is well: the database was away, so that nobody could renew; its clock has
jumped; whoever looks has slept. A *proven* death (see ``leases.provably_gone``) never waits for these guards.

Pure: fed with what was observed, by a clock that is passed in seconds and counts suspension. Promises, of each of which
``tests/runtime/test_guards.py`` shows the bound:

- **outage**: who could not reach the database for longer than a beat waits one lease after it is back;
- **clock**: when the database's time has moved more than 5 s further than one's own, no lease counts for one lease;
- **silence**: an incarnation whose renewals have stopped for lease + poll by one's own clock is expired, too, whatever
  the database's clock says (it may have jumped back); time without the database does not count as silence;
- **mass**: when more than half of the serving, and three at least, look expired together, it is more likely the
  database's trouble than theirs: they get one more lease, and an alarm is logged.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Sequence

import msgspec

from perdure.model.records import Incarnation

log = logging.getLogger("perdure")

JUMP_SECONDS = 5.0
MASS_LEAST = 3

Renewal = tuple[int, int]  # the count of them, and until when the lease runs since


class Verdict(msgspec.Struct, frozen=True):
    """Who may be taken for dead by its lease, and by its silence (with the count of renewals that was seen last).

    Silent is also who did not renew although its lifeline was cut.
    """

    expired: list[bytes]
    silent: dict[bytes, int]


class Guards:
    """One reaper's memory of what it saw. ``saw`` may be called from any thread."""

    def __init__(self, lease: float, poll: float, beat: float) -> None:
        self._lease = lease
        self._poll = poll
        self._beat = beat
        self._lock = threading.Lock()
        self._seen: tuple[float, float, int] | None = None  # asked, answered (own seconds), the database's microseconds
        self._calm_from = 0.0  # before this no lease counts
        self._beats: dict[bytes, tuple[Renewal, float]] = {}  # the last one seen, and since when
        self._mass_since: float | None = None

    def saw(self, now: int, asked: float, answered: float) -> None:
        """The database said that its time was ``now``, to a question between these two moments."""
        with self._lock:
            seen, self._seen = self._seen, (asked, answered, now)
            if seen is None:
                return
            if asked - seen[1] > self._poll + self._beat:
                self._wait(answered, f"the database could not be reached for {asked - seen[1]:.0f} s")
                self._beats = {id: (renewal, answered) for id, (renewal, _) in self._beats.items()}
            moved = (now - seen[2]) / 1e6
            if moved > answered - seen[0] + JUMP_SECONDS:
                self._wait(answered, f"the database's clock jumped ahead by {moved - (answered - seen[1]):.0f} s")

    def _wait(self, since: float, why: str) -> None:
        self._calm_from = max(self._calm_from, since + self._lease)
        log.warning("%s: for %.0f s no lease that looks expired is taken for a death", why, self._lease)

    def judge(self, others: Sequence[Incarnation], now: int, at: float, overdue: Collection[bytes] = ()) -> Verdict:
        """Who of the serving ``others`` (none of them proven dead) may be taken for dead, at ``now`` and ``at``.

        ``overdue``: those of them that are, by their ``lifelines``.
        """
        with self._lock:
            self._listen(others, at)
            expired = [who.id for who in others if who.lease_until <= now]
            silent = {
                who.id: who.beats
                for who in others
                if at - self._beats[who.id][1] >= (who.lease / 1e6 or self._lease) + self._poll or who.id in overdue
            }
            if at < self._calm_from or self._is_mass(others, {*expired, *silent}, at):
                return Verdict([], {})
            return Verdict(expired, {id: beats for id, beats in silent.items() if id not in expired})

    def _listen(self, others: Sequence[Incarnation], at: float) -> None:
        before = self._beats
        self._beats = {}
        for who in others:
            known = before.get(who.id)
            # A failover sets the count back, and the next renewal makes it what it was: but not the lease.
            renewal = (who.beats, who.lease_until)
            self._beats[who.id] = known if known is not None and known[0] == renewal else (renewal, at)

    def _is_mass(self, others: Sequence[Incarnation], suspects: Collection[bytes], at: float) -> bool:
        serving = len(others) + 1  # and this one
        if len(suspects) < MASS_LEAST or 2 * len(suspects) <= serving:
            self._mass_since = None
            return False
        if self._mass_since is None:
            self._mass_since = at
            log.error(
                "%d of %d executors look expired together: more likely the database's trouble, or the network's, than "
                "theirs. They are taken for dead if they are still silent in %.0f s",
                len(suspects), serving, self._lease,
            )  # fmt: skip
        return at < self._mass_since + self._lease

    def next_expiry(self, others: Sequence[Incarnation], now: int) -> float | None:
        """In how many seconds the first lease that still runs runs out; None if none runs."""
        left = [who.lease_until - now for who in others if who.lease_until > now]
        return min(left) / 1e6 if left else None
