"""The parts of a batch in trouble: which is tried next, and what each came to.

- The database fails (``failed``): the whole batch some times, since most trouble is soon over; then in ever smaller
  parts, in turn, so that none keeps the others waiting. A unit that fails alone while others are written has no
  verdict: it is set aside. If nothing tells it from an outage, it is tried for ever; but where each has failed alone
  (``stuck``) the database is asked whether it answers at all, and if it does the rest may be set aside (``leave``).
  A lock of another transaction is no outage, and each try has waited for it: then the batch is parted at once.
- Any other error (``refused``) is a unit's own: the part is halved, at once, until that unit stands alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence

from perdure.errors import DatabaseTrouble, LostAnswer, RowLocked
from perdure.model.writes import Unit, Verdict, size_of

TRIES_WHOLE = 8  # of a batch in trouble, over a second or so: what is no outage may be of one part
LOCKED_PARTS = 16  # into which a batch is parted that has waited for a lock: each wait holds up all
RETRY_SECONDS, RETRY_SECONDS_MAX = 0.01, 1.0
MESSAGE_BYTES_MAX = 1_000_000_000  # Postgres takes no message of 1 GiB; a unit of more than this has no other way
WITHDRAWN = RuntimeError("withdrawn: nobody waits for it any more")


class Parts:
    """See the head of this file; ``withdrawn``: units that are not to be tried again, more of them meanwhile."""

    def __init__(self, units: Sequence[Unit], withdrawn: Collection[int]) -> None:
        self.verdicts: dict[int, Verdict | Exception] = {}  # by unit; what has none in the end is set aside
        self._parts = deque([units])
        self._lone = len(units) == 1
        self._withdrawn = withdrawn
        self._failures = 0
        self._failed_alone: set[int] = set()
        self._wrote = False
        self._pause_max = RETRY_SECONDS_MAX
        self._pause = 0.0  # the first retry at once: a broken connection is replaced by a new one

    def pop(self) -> Sequence[Unit]:
        """The part to be tried now, without what was withdrawn; empty when all is done."""
        while self._parts:
            part = self._parts.popleft()
            self.verdicts.update((id(unit), WITHDRAWN) for unit in part if id(unit) in self._withdrawn)
            if wanted := [unit for unit in part if id(unit) not in self._withdrawn]:
                return wanted
        return ()

    def written(self, part: Sequence[Unit], verdicts: Sequence[Verdict]) -> None:
        """It is durable."""
        self.verdicts.update(zip(map(id, part), verdicts, strict=True))
        self._wrote = True
        self._pause = 0.0

    def failed(self, part: Sequence[Unit], trouble: DatabaseTrouble, *, others_wait: bool) -> bool:
        """It was not written; whether the trouble is its own, since others were."""
        self._failures += 1
        locked = isinstance(trouble, RowLocked)  # no outage, and it has waited for that
        self._pause_max = RETRY_SECONDS if locked else RETRY_SECONDS_MAX
        if len(part) == 1:
            self._failed_alone.add(id(part[0]))
        if (error := overlong(part, trouble)) is not None:
            self.verdicts[id(part[0])] = error
        elif self._failures < TRIES_WHOLE and not locked:
            self._parts.appendleft(part)
        elif len(part) > 1:
            self._parts.extend(_split(part, LOCKED_PARTS if locked else 2))
        elif self._wrote:
            return True
        elif not (others_wait and (self._lone or locked)):  # else the others show whether it is an outage
            self._parts.append(part)
        return False

    @property
    def stuck(self) -> bool:
        """Whether each unit that is left has failed alone, and none was written: none tells whose the trouble is."""
        left = [unit for part in self._parts for unit in part]
        alone = len(left) == len(self._parts) and not self._lone and self._failures >= TRIES_WHOLE
        return alone and bool(left) and not self._wrote and all(id(unit) in self._failed_alone for unit in left)

    def leave(self) -> None:
        """Set aside what is left: others show whether anything can be written."""
        self._parts.clear()

    def refused(self, part: Sequence[Unit], error: Exception) -> bool:
        """The store cannot write it; whether that is known of a unit now."""
        if len(part) > 1:
            self._parts.extendleft(reversed(_split(part, 2)))
            return False
        self.verdicts[id(part[0])] = error
        return True

    def pause(self) -> float:
        """Seconds until the next try, after trouble: longer each time, until something is written."""
        pause, self._pause = self._pause, min(max(self._pause * 2, RETRY_SECONDS), self._pause_max)
        return pause


def _split(part: Sequence[Unit], many: int) -> list[Sequence[Unit]]:
    size = -(-len(part) // many)
    return [part[at : at + size] for at in range(0, len(part), size)]


def overlong(part: Sequence[Unit], trouble: DatabaseTrouble) -> Exception | None:
    """The error for a unit that is more than a database takes at once: it would break every connection, for ever."""
    if len(part) > 1 or not isinstance(trouble, LostAnswer) or (size := size_of(part[0])) <= MESSAGE_BYTES_MAX:
        return None
    return ValueError(
        f"a single write of {size / 1e6:,.0f} MB is more than the database takes at once (about "
        f"{MESSAGE_BYTES_MAX / 1e6:,.0f} MB): let fewer large values be written together. It said: {trouble}"
    )
