"""A slow machine: a burst of a body is cut after few callbacks, and the rest of it takes its time.

So outcomes, messages and cancels come in its middle. Virtual time stands still otherwise until a burst has drained, and
nothing ever would. Worlds of programs alone are on one, and a part of the others, by their seed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Generator
from random import Random
from typing import Any

from perdure.runtime.async_body import AsyncExecution
from perdure.runtime.loop import WorkflowLoop

CUTS = (1, 2, 5, 13, 30, 10_000)  # callbacks of one burst
WAIT_FOR_A_BURST = (AsyncExecution.pump, AsyncExecution.match_mail)  # what comes again until it has drained
PART = 0.2  # of the worlds of other scripts
RESTS = (0.0, 0.0, 0.001, 0.005, 0.02)  # seconds until a burst that was cut goes on


@contextlib.contextmanager
def slow_machine(loop: Any, seed: int, kinds: Collection[str]) -> Generator[None]:
    """For as long as a world runs, if its scripts are programs alone or its seed says so."""
    if set(kinds) != {"program"} and Random(f"slow machine {seed}").random() >= PART:
        yield
        return
    chance = Random(f"cut bursts {seed}")
    usual, call_soon = WorkflowLoop.burst_callbacks_max, loop.call_soon

    def call(callback: Any, *args: Any, context: Any = None) -> Any:
        if getattr(callback, "__func__", None) in WAIT_FOR_A_BURST:
            return loop.call_later(chance.choice(RESTS), callback, *args, context=context)
        return call_soon(callback, *args, context=context)

    WorkflowLoop.burst_callbacks_max, loop.call_soon = chance.choice(CUTS), call
    try:
        yield
    finally:
        WorkflowLoop.burst_callbacks_max = usual
        del loop.call_soon
