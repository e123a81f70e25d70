"""Calls of other threads, made on one event loop. Calls that come close together share one ring.

Each ring is a system call, after which the interpreter goes from thread to thread: with a bell for every caller, a
hundred threads spend their time ringing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

log = logging.getLogger("perdure")


class Bell:
    """Any thread may ``call``; the loop makes the calls in order, each whatever became of the one before."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._ringing = False

    def call(self, callback: Callable[..., Any], *args: Any) -> bool:
        """Call back on the loop. False if it is closed: nobody will."""
        self._calls.append((callback, args))
        if self._ringing:
            return True
        self._ringing = True
        try:
            self._loop.call_soon_threadsafe(self._answer)
        except RuntimeError:
            self._ringing = False
            return False
        return True

    def _answer(self) -> None:
        self._ringing = False  # first: a call that comes in from here on rings again
        calls = self._calls
        while calls:
            callback, args = calls.popleft()
            try:
                callback(*args)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException:  # one caller's bug (or its Evicted) must not keep the others waiting
                log.exception("a call from another thread raised")
