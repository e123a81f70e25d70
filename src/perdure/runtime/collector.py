"""The garbage collector beside thousands of live runs: it looks less often while at least one app of the process works.

What launch made stays, so the collector need not look at it again; and at 700 new objects a time (the default) it would
spend half of the process's time on the runs that are alive. The setting belongs to the process, and apps close in any
order: the first to come keeps what was set before, the last to go puts it back.
"""

from __future__ import annotations

import gc
import threading

COLLECT_AFTER = 20_000  # new objects between two looks


class Setting:
    """The process's one; how many wish for calm, and what was set before."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._guests = 0
        self._before = gc.get_threshold()

    def enter(self) -> None:
        with self._guard:
            self._guests += 1
            if self._guests == 1:
                self._before = gc.get_threshold()
                if 0 < self._before[0] < COLLECT_AFTER:  # or the user looks less often still, or never
                    gc.set_threshold(COLLECT_AFTER, *self._before[1:])

    def leave(self) -> None:
        with self._guard:
            self._guests -= 1
            if not self._guests:
                gc.set_threshold(*self._before)


SETTING = Setting()


class Calm:
    """One app's wish for it; ``begin`` and ``end`` may each be called again."""

    def __init__(self) -> None:
        self._wished = False

    def begin(self) -> None:
        """Keep what there is out of the collector's sight, and let it look less often."""
        gc.freeze()
        if not self._wished:
            self._wished = True
            SETTING.enter()

    def end(self) -> None:
        """Look as before, if no other app of the process works."""
        if self._wished:
            self._wished = False
            SETTING.leave()
