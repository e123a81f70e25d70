"""The pace of a disk: whether a write may be made where it is asked for.

To hand a write to a thread and its answer back costs two wake-ups, a fifth of a step on a quick disk; to make it on the
host loop stops the loop as long as it takes. A millisecond is less than a turn of a busy loop. What slow ones take
beyond that is paid back: for twenty times as long all writes go to the thread. So however slow the disk, what it takes
of the loop beyond a millisecond for each write is a twentieth of the time at most.
"""

from __future__ import annotations

from typing import Final

QUICK_SECONDS: Final = 0.001
PAID_BACK: Final = 20  # seconds off for each second too long


class Pace:
    """Of one writer. By a clock that is passed, in seconds."""

    def __init__(self) -> None:
        self._off_until = float("-inf")

    def allows(self, now: float) -> bool:
        """Whether the next write may be made on the loop."""
        return now >= self._off_until

    def took(self, seconds: float, now: float) -> None:
        """One on the loop has taken so long."""
        if seconds > QUICK_SECONDS:
            self._off_until = max(self._off_until, now) + (seconds - QUICK_SECONDS) * PAID_BACK
