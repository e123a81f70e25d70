"""Commits of this process to one file that are news to nobody: the renewals of its own leases.

Whoever looks out for others' commits sees that there was one, not whose. Promise: a look that saw one which was begun
as unheard is told so, whether its thread has counted it by then or not.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from pathlib import Path


class Unheard:
    """Counted by the threads that write, read by those that look."""

    def __init__(self) -> None:
        self.done = 0
        self._under_way = 0
        self._lock = threading.Lock()  # of those that write: each app has a thread that renews

    def begin(self) -> None:
        with self._lock:
            self._under_way += 1

    def end(self) -> None:
        with self._lock:
            self.done += 1  # first: a look in between finds one of the two
            self._under_way -= 1

    def since(self, done: int) -> bool:
        """Whether there may have been one since there were so many."""
        return self._under_way > 0 or self.done != done


_of_files: defaultdict[Path, Unheard] = defaultdict(Unheard)


def unheard_of(path: Path) -> Unheard:
    """The one of a file, in this process."""
    return _of_files[path]
