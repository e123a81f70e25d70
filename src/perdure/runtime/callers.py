"""Blocking callers whom somebody watches: whoever moves the time of a test has to know that a thread only waits.

A thread that was just started, or has just been answered, is slow to go on; to the loop it looks like one that waits.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol


class Caller(Protocol):
    """A thread that makes blocking calls."""

    def waits(self) -> None:
        """In the thread: it has asked, and waits for the loop from here on."""

    def goes_on(self) -> None:
        """On the loop: its answer is there. Told before the thread is."""


CALLER: ContextVar[Caller | None] = ContextVar("perdure_caller", default=None)
