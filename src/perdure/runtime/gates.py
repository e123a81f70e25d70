"""Threads of blocking bodies that wait for the loop: let go together, and looked after if they do not come back soon.

What a thread that was let go writes waits for what it does next (see ``thread_body``), a moment at most. One timer
serves all: most have come back before it rings, and a timer for each would cost every step as much as its record.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Protocol

from perdure.client.company import Company


class LetGo(Protocol):
    """A body whose thread goes on."""

    @property
    def back(self) -> bool:
        """Whether it waits again, has ended, or is gone."""
        ...

    def look_after(self) -> None:
        """It takes its time."""


class Gates:
    """Of one executor, on its loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, company: Company) -> None:
        self._loop = loop
        self._company = company
        self._gates: list[threading.Lock] = []
        self._out: dict[LetGo, float] = {}  # until when each may take its time, soonest first
        self._timer: asyncio.TimerHandle | None = None

    def open(self, gate: threading.Lock) -> None:
        """Let a waiting thread go on, at the end of this turn of the loop.

        A thread let go in the middle of it would fight this one for the interpreter.
        """
        if not self._gates:
            self._loop.call_soon(self.open_now)
        self._gates.append(gate)

    def open_now(self) -> None:
        gates, self._gates = self._gates, []
        for gate in gates:
            self._company.let_go()
            gate.release()

    def expect(self, body: LetGo, seconds: float) -> None:
        """Look after a body if it is not back in so many seconds, the same for all; anew each time it is let go."""
        self._out.pop(body, None)
        until = self._out[body] = self._loop.time() + seconds
        if self._timer is None:
            self._timer = self._loop.call_at(until, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        late: list[LetGo] = []
        while self._out:
            body, until = next(iter(self._out.items()))
            if until > now and not body.back:
                self._timer = self._loop.call_at(until, self._look)
                break
            del self._out[body]
            if not body.back:
                late.append(body)
        for body in late:
            body.look_after()
