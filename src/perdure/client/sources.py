"""Who stands in the journal's queue: a run (``runtime/execution.py``), a caller outside, and a mark of who waits."""

from __future__ import annotations

import asyncio
from typing import Protocol

from perdure.model.ids import RunKey
from perdure.model.writes import Unit, Verdict

NOTHING = Unit(key=RunKey("", 0))


class Source(Protocol):
    """Somebody with writes: a run, or a caller outside."""

    queued: bool

    def take(self) -> Unit:
        """All that waits; called when a batch is put together."""
        ...

    def written(self, unit: Unit, verdict: Verdict) -> None:
        """The unit is durable, or was refused."""
        ...

    def broken(self, unit: Unit, error: Exception) -> None:
        """The store cannot write this unit, and never will."""
        ...


class Outside:
    """One unit of a caller that is no run; ``future`` holds the verdict."""

    __slots__ = ("future", "queued", "unit", "withdrawn")

    def __init__(self, unit: Unit, future: asyncio.Future[Verdict]) -> None:
        self.unit = unit
        self.future = future
        self.queued = False
        self.withdrawn = False

    def take(self) -> Unit:
        return NOTHING if self.withdrawn else self.unit

    def written(self, unit: Unit, verdict: Verdict) -> None:
        if not self.future.done():
            self.future.set_result(verdict)

    def broken(self, unit: Unit, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Mark:
    """A place in the queue: ``future`` is settled once all that stood before it has been told."""

    __slots__ = ("future", "queued")

    def __init__(self, future: asyncio.Future[None]) -> None:
        self.future = future
        self.queued = False

    def take(self) -> Unit:
        return NOTHING

    def written(self, unit: Unit, verdict: Verdict) -> None:
        """It has no unit."""

    def broken(self, unit: Unit, error: Exception) -> None:
        """It has no unit."""
