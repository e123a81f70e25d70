"""Tells of an event loop that stands still: how long, and in which line, while it still does.

The loop is asked from another thread (the lease's) to answer; as long as it does not, some callback has not returned: a
workflow body that computes or sleeps, an ``async def`` step that blocks. A burst can be cut between two callbacks only.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import secrets
import sys
import threading
import traceback
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, NamedTuple

from perdure.model.real import time
from perdure.runtime.loop import WorkflowLoop

log = logging.getLogger("perdure")

STALL_SECONDS = 5.0
STACK_MAX = 4000  # characters of a stack that are kept: its end


class Stuck(NamedTuple):
    """A workflow whose body blocks the loop."""

    execution: Any
    text: str
    nonce: bytes


def in_words(seconds: float, stack: str) -> str:
    """A turn that takes too long, for people."""
    text = f"its body has not come to rest for {seconds:.0f} s: it computes, blocks, or waits for what is not durable"
    return f"{text}. It stands at:\n{stack[-STACK_MAX:]}" if stack else text


_bursts: dict[CodeType, Callable[[FrameType], Any]] = {
    WorkflowLoop.burst.__code__: lambda frame: frame.f_locals["self"].run,
}


def known(burst: CodeType, whose: Callable[[FrameType], Any]) -> None:
    """Code in which bodies run on the loop, and how its frame tells whose."""
    _bursts[burst] = whose


def _whose_body(frame: FrameType | None) -> Any:
    """The execution whose burst a stack is in; None if it is in none."""
    while frame is not None:
        if (whose := _bursts.get(frame.f_code)) is not None:
            return whose(frame)
        frame = frame.f_back
    return None


class StallWatch:
    """Watches one loop, that of the thread which makes it. ``lag``: seconds that the loop took to answer last."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float] = time.monotonic) -> None:
        self._loop = loop
        self._clock = clock
        self._thread = threading.get_ident()
        self._asked: float | None = None
        self._told = False
        self._stuck: Stuck | None = None
        self._times: tuple[float, float] | None = None  # ours, and that of the loop, when it last moved
        self.lag = 0.0

    def look(self) -> None:
        """Ask, or say that the last question is still unanswered. From any other thread, every second or so."""
        asked = self._asked
        if asked is None:
            self._asked, self._told, self._stuck = self._clock(), False, None
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
            now = self._clock()
            self.lag = now - self._asked
            self._asked = None
            self._look_at_its_clock(now)

    def _look_at_its_clock(self, now: float) -> None:
        """A loop may turn, and no time pass for it: then nothing that waits for a time goes on, whoever waits."""
        its = self._loop.time()
        if self._times is None or self._times[1] != its:
            self._times = (now, its)
        elif STALL_SECONDS <= now - self._times[0] < math.inf:
            log.warning(
                "the event loop's clock has stood still for %.0f s: no sleep and no timeout of this loop ends. If "
                "freezegun has stopped it, leave asyncio its clock: freeze_time(…, real_asyncio=True)",
                now - self._times[0],
            )
            self._times = (-math.inf, its)  # once, until it moves

    def stuck(self) -> Stuck | None:
        """The workflow whose body has not let the loop go on, once that is told. From any other thread."""
        return self._stuck

    def noted(self, stuck: Stuck) -> None:
        """It is on record; the loop learns that as soon as it can. From any other thread."""
        self._stuck = None
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(stuck.execution.turn_noted)

    def _tell(self, seconds: float) -> None:
        frame = sys._current_frames().get(self._thread)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  there is no other way
        stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
        if (execution := _whose_body(frame)) is not None:
            self._stuck = Stuck(execution, in_words(seconds, stack), secrets.token_bytes(16))
        log.warning(
            "the event loop has stood still for %.0f s: nothing else of this process goes on meanwhile. Blocking work "
            "belongs in a def step, which has a thread, not in a workflow body or an async def step. It stands at:\n%s",
            seconds, stack,
        )  # fmt: skip
