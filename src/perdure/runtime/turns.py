"""Bodies that do not come to rest: one that computes for ever, blocks, or waits for something that is not durable.

Looked for in each round of the executor, without a query. What stands in the way of the round itself, a body that
blocks the event loop, is seen by the lease's thread (``stalls.py``). Either way the body is left alone: nobody can tell
whether it is lost or merely slow. It is told as a problem of its workflow, with its stack.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import traceback
from collections.abc import Hashable, Mapping
from typing import Any, Protocol

from perdure.core.troubles import Troubles
from perdure.model.problems import ProblemKind
from perdure.runtime.pausing import Pausing
from perdure.runtime.stalls import STALL_SECONDS, in_words

log = logging.getLogger("perdure")


class Turning(Pausing):
    """See the head of this file."""

    thread: int | None = None  # that of the body, if it has one

    _seen: tuple[Hashable, float] | None = None  # the turn that a look found under way, and when the first did
    _told: Hashable = None  # the turn that was told

    @property
    def turn(self) -> Hashable:
        """What is another as soon as the body gets anywhere; None while it is at rest, or a step of it runs."""
        return None

    def look_at_turn(self, now: float) -> None:
        """Tell of a turn that has lasted for too long; once. ``now``: by the loop's clock."""
        turn = self.turn
        if turn is None or self.gone:
            self._seen = None
            return
        if self._seen is None or self._seen[0] != turn:
            self._seen = turn, now
        elif now - self._seen[1] >= STALL_SECONDS and self._told != turn:
            self._told = turn
            log.warning("the body of workflow %s has not come to rest for %.0f s", self.id, now - self._seen[1])
            self.tell_of_turn(in_words(now - self._seen[1], _stack_of(self.thread)))

    def tell_of_turn(self, text: str) -> None:
        """Let the next unit say so, which is made now."""
        self.run.tell(ProblemKind.TURN_TIMEOUT, text=text)
        super().dirty()  # as from the host, whoever has the baton

    def turn_noted(self) -> None:
        """The lease's thread has told of it, while this loop stood still in the body."""
        if self.run.troubles is None:
            self.run.troubles = Troubles(None)
        self.run.troubles.kind = ProblemKind.TURN_TIMEOUT


class Host(Protocol):
    """What a look needs of an executor."""

    @property
    def executions(self) -> Mapping[str, Any]: ...


def look_at_turns(host: Host) -> None:
    """A look at all that runs here; on the loop."""
    now = asyncio.get_running_loop().time()
    for execution in list(host.executions.values()):
        execution.look_at_turn(now)


def _stack_of(thread: int | None) -> str:
    """Where a thread stands; a body on the loop stands nowhere while others have their turn."""
    frame = None if thread is None else sys._current_frames().get(thread)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  there is no other way
    return "" if frame is None else "".join(traceback.format_stack(frame))
