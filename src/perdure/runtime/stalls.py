"""Tells of an event loop that stands still: how long, and in which line, while it still does.

The loop is asked from another thread (the lease's) to answer; as long as it does not, some callback has not returned: a
workflow body that computes or sleeps, an ``async def`` step that blocks. A burst can be cut between two callbacks only.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
import traceback
from collections.abc import Callable
from time import monotonic

log = logging.getLogger("perdure")

STALL_SECONDS = 5.0


class StallWatch:
    """Watches one loop, that of the thread which makes it. ``lag``: seconds that the loop took to answer last."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float] = monotonic) -> None:
        self._loop = loop
        self._clock = clock
        self._thread = threading.get_ident()
        self._asked: float | None = None
        self._told = False
        self.lag = 0.0

    def look(self) -> None:
        """Ask, or say that the last question is still unanswered. From any other thread, every second or so."""
        asked = self._asked
        if asked is None:
            self._asked, self._told = self._clock(), False
            with contextlib.suppress(RuntimeError):  # closed: nobody answers any more
                self._loop.call_soon_threadsafe(self._answer)
        elif self._clock() - asked >= STALL_SECONDS and not self._told:
            self._told = True
            self._tell(self._clock() - asked)

    def lateness(self) -> float:
        """Seconds that the loop took to answer last, or has not answered for by now. From any thread."""
        asked = self._asked
        return self.lag if asked is None else max(self.lag, self._clock() - asked)

    def _answer(self) -> None:
        if self._asked is not None:
            self.lag = self._clock() - self._asked
            self._asked = None

    def _tell(self, seconds: float) -> None:
        frame = sys._current_frames().get(self._thread)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  there is no other way
        stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
        log.warning(
            "the event loop has stood still for %.0f s: nothing else of this process goes on meanwhile. Blocking work "
            "belongs in a def step, which has a thread, not in a workflow body or an async def step. It stands at:\n%s",
            seconds, stack,
        )  # fmt: skip
