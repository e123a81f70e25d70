"""Calls of other threads, made on one event loop. Calls that come close together share one ring.

Each ring is a system call, after which the interpreter goes from thread to thread: with a bell for every caller, a
hundred threads spend their time ringing. Linux has a file for it, which costs the loop one read; the loop's own way is
a pair of sockets, and costs it two and an exception.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
from collections import deque
from collections.abc import Callable
from typing import Any

log = logging.getLogger("perdure")


class Wire:
    """From threads to a loop that listens at ``fd`` (Linux). Closed once nobody holds it: whoever rings does."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def ring(self) -> None:
        os.eventfd_write(self.fd, 1)

    def hear(self) -> None:
        """All rings so far, which were one at least."""
        os.eventfd_read(self.fd)

    def __del__(self) -> None:
        os.close(self.fd)


class Bell:
    """Any thread may ``call``; the loop makes the calls in order, each whatever became of the one before.

    They are made in the context in which the bell was made, not in that of the caller, or of whoever rang for him.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, answered: Callable[[], None] | None = None) -> None:
        self._loop = loop
        self._answered = answered
        self._context = contextvars.copy_context()
        self._calls: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._ringing = False
        self._wire: Wire | None = None  # laid at the first ring: many an app has no thread to call from
        self._can_be_wired = hasattr(os, "eventfd")

    def call(self, callback: Callable[..., Any], *args: Any) -> bool:
        """Call back on the loop. False if it is closed: nobody will."""
        self._calls.append((callback, args))
        if self._ringing:
            return True
        self._ringing = True
        wire = self._wire
        try:
            if wire is None or self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._answer, context=self._context)
            else:
                wire.ring()
        except RuntimeError:
            self._ringing = False
            return False
        return True

    def close(self) -> None:
        """On the loop: listen at no wire any more. Who calls from here on rings the loop's own way."""
        self._can_be_wired = False
        wire, self._wire = self._wire, None
        if wire is not None:
            self._loop.remove_reader(wire.fd)
            self._loop.call_soon(self._answer, context=self._context)  # who has just rung was not heard

    def _lay_wire(self) -> None:
        self._can_be_wired = False
        try:
            wire = Wire(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
            self._loop.add_reader(wire.fd, self._hear, wire)
        except (OSError, NotImplementedError):  # too many files are open; a loop that listens to none
            return
        self._wire = wire

    def _hear(self, wire: Wire) -> None:
        wire.hear()
        self._answer()

    def _answer(self) -> None:
        self._ringing = False  # first: a call that comes in from here on rings again
        if self._can_be_wired:
            self._lay_wire()
        calls = self._calls
        while calls:
            callback, args = calls.popleft()
            try:
                callback(*args)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException:  # one caller's bug (or its Evicted) must not keep the others waiting
                log.exception("a call from another thread raised")
        if self._answered is not None:
            self._answered()
