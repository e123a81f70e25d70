"""An event loop in virtual time, shared by all simulated processes of one world.

Time stands still while anything can run, and jumps to the next timer when nothing can. A callback belongs to the
process in whose context it was made (``PROCESS``): while that is paused its callbacks wait, in order, as those of a
stopped process do. Promises: no real time passes in a wait, no file or socket is touched, and the order of callbacks
depends on nothing but what was scheduled.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import Any, Protocol, TypeVarTuple


class Pausable(Protocol):
    """What the loop needs of a simulated process."""

    paused: bool
    stash: list[asyncio.Handle]  # callbacks that wait for its resumption


Ts = TypeVarTuple("Ts")
PROCESS: ContextVar[Any] = ContextVar("perdure_simulated_process", default=None)
NOBODY = Context()  # the network, the nemesis: of no process


class Stuck(Exception):
    """Nothing can run, and no timer will ever change that."""


class VirtualLoop(asyncio.BaseEventLoop):
    """See the head of this file. ``us``: the time, microseconds since it began."""

    _ready: Any
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self.us = 0
        self._timers: list[tuple[int, int, Any]] = []  # due at, in the order made, what
        self._made = 0
        self.turns = 0
        self.callbacks = 0
        self.set_exception_handler(self._note_trouble)
        self.trouble: list[dict[str, Any]] = []

    def time(self) -> float:
        return self.us / 1e6

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """A timer takes time, if it is a microsecond: who waits for a rest too small to count would wait for ever."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._made += 1
        heapq.heappush(self._timers, (max(round(when * 1e6), self.us + 1), self._made, timer))
        return timer

    def _run_once(self) -> None:
        """One turn: what is due, then all that is ready now."""
        timers = self._timers
        while timers and timers[0][2]._cancelled:  # noqa: SLF001  the loop's own handles
            heapq.heappop(timers)
        if not self._ready and not self._stopping:
            if not timers:
                raise Stuck("nothing is ready, and no timer is set")
            self.us = max(self.us, timers[0][0])
        now = self.us
        while timers and timers[0][0] <= now:
            handle = heapq.heappop(timers)[2]
            if not handle._cancelled:  # noqa: SLF001
                self._ready.append(handle)
        self.turns += 1
        for _ in range(len(self._ready)):
            handle = self._ready.popleft()
            if handle._cancelled:  # noqa: SLF001
                continue
            process = handle._context.get(PROCESS)  # noqa: SLF001
            if process is not None and process.paused:
                process.stash.append(handle)
                continue
            self.callbacks += 1
            handle._run()  # noqa: SLF001

    def resume(self, process: Pausable) -> None:
        """Let the callbacks of a process run that waited for this."""
        process.paused = False
        stash, process.stash = process.stash, []
        self._ready.extend(stash)

    def later(self, seconds: float, callback: Callable[..., Any], *args: Any) -> asyncio.TimerHandle:
        """Call back as nobody's."""
        return self.call_later(seconds, callback, *args, context=NOBODY)

    def _note_trouble(self, _loop: Any, context: dict[str, Any]) -> None:
        """What nobody awaited. The tasks of killed processes are cut short, and say so."""
        if isinstance(context.get("exception"), Exception):
            self.trouble.append(context)

    def _process_events(self, _events: Any) -> None: ...

    def _write_to_self(self) -> None:
        """There is no other thread."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """There is none."""
