"""The system's clocks, as they were when Perdure was imported.

Promise: what a tool puts in their place later, in the module ``time`` and wherever a module holds one of its functions
(freezegun does so, in tests), is not seen here: a deadline of ours is a real one, or a lease would not be renewed and a
wait would never end. Modules of ours import this in place of the module ``time``.
"""

from __future__ import annotations

import asyncio
import time as _time


class time:  # noqa: N801 - in place of a module
    """Those functions of it that we use. Who replaces them looks into modules, not into classes."""

    monotonic = staticmethod(_time.monotonic)
    monotonic_ns = staticmethod(_time.monotonic_ns)
    time_ns = staticmethod(_time.time_ns)
    sleep = staticmethod(_time.sleep)


def own_runner() -> asyncio.Runner:
    """For an event loop of our own, of the kind that the program uses. Its timers go by the real clock, too."""
    return asyncio.Runner(loop_factory=_own_loop)


def _own_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    if isinstance(loop, asyncio.BaseEventLoop):  # others have a clock that nobody replaces
        loop.time = time.monotonic  # type: ignore[method-assign]
    return loop
