"""The garbage collector beside thousands of live runs: it looks less often while at least one app of the process works.

What launch made stays, so the collector need not look at it again; and at 700 new objects a time (the default) it would
spend half of the process's time on the runs that are alive. The setting belongs to the process, and apps close in any
order: the first to come keeps what was set before, the last to go puts it back.
"""

from __future__ import annotations

import gc
import threading

COLLECT_AFTER = 20_000  # new objects between two looks

_guard = threading.Lock()
_guests = 0
_before = gc.get_threshold()


class Calm:
    """One app's wish for it. ``begin`` and ``end`` may each be called again, and from any thread."""

    def __init__(self) -> None:
        self._wished = False

    def begin(self) -> None:
        """Freeze what is there; look less often, unless the user looks less often still, or never."""
        global _guests, _before
        gc.freeze()
        with _guard:
            if self._wished:
                return
            self._wished = True
            if not _guests:
                _before = gc.get_threshold()
                if 0 < _before[0] < COLLECT_AFTER:
                    gc.set_threshold(COLLECT_AFTER, *_before[1:])
            _guests += 1

    def end(self) -> None:
        """Put back what was set before, if nobody else wishes for it."""
        global _guests
        with _guard:
            if not self._wished:
                return
            self._wished = False
            _guests -= 1
            if not _guests:
                gc.set_threshold(*_before)
