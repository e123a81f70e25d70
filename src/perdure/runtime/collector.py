"""The garbage collector beside thousands of live runs: it looks less often while at least one app of the process works.

What launch made stays, so the collector need not look at it again; and at 700 new objects a time (the default) it would
spend half of the process's time on the runs that are alive. The settings belong to the process, and apps close in any
order: the first to come keeps what was set before, the last to go puts it back.

Only what a full collection has just seen is kept out of the collector's sight, and no longer than an app works: else
the garbage of a process that opens again and again would stay for ever. So a process makes one full collection, when it
opens first (0.13 s for a million objects); one that opens again leaves what is there to the collector, unless a full
collection has come between. Who keeps something out of its sight himself (before a fork, say) is left to do so.
"""

from __future__ import annotations

import gc
import threading

COLLECT_AFTER = 20_000  # new objects between two looks


def full_collections() -> int:
    """How many there have been in this process."""
    return int(gc.get_stats()[-1]["collections"])


class Setting:
    """The process's one; how many wish for calm, and what was set before."""

    def __init__(self) -> None:
        self._guard = threading.RLock()  # a collection may run anything, even what leaves
        self._guests = 0
        self._before = gc.get_threshold()
        self._frozen = False
        self._thawed_at: int | None = None  # after so many full collections

    def enter(self) -> None:
        with self._guard:
            self._guests += 1
            if self._guests == 1:
                self._before = gc.get_threshold()
                if 0 < self._before[0] < COLLECT_AFTER:  # or the user looks less often still, or never
                    gc.set_threshold(COLLECT_AFTER, *self._before[1:])
                self._freeze()

    def leave(self) -> None:
        with self._guard:
            self._guests -= 1
            if not self._guests:
                gc.set_threshold(*self._before)
                self._thaw()

    def _freeze(self) -> None:
        if gc.get_freeze_count() or not gc.isenabled():
            return
        if self._thawed_at is None:
            gc.collect()
        elif full_collections() == self._thawed_at:
            return
        gc.freeze()
        self._frozen = True

    def _thaw(self) -> None:
        if self._frozen:
            self._frozen = False
            self._thawed_at = full_collections()
            gc.unfreeze()


SETTING = Setting()


class Calm:
    """One app's wish for it; ``begin`` and ``end`` may each be called again."""

    def __init__(self) -> None:
        self._wished = False

    def begin(self) -> None:
        """Keep what there is out of the collector's sight, and let it look less often."""
        if not self._wished:
            self._wished = True
            SETTING.enter()

    def end(self) -> None:
        """Look as before, if no other app of the process works."""
        if self._wished:
            self._wished = False
            SETTING.leave()
