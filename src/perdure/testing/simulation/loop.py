"""An event loop in virtual time, shared by all simulated processes of one world.

Time stands still while anything can run, and jumps to the next timer when nothing can. A callback belongs to the
process in whose context it was made (``PROCESS``): while that is paused its callbacks wait, in order, as those of a
stopped process do. Promises: no real time passes in a wait, no file or socket is touched, and the order of callbacks
depends on nothing but what was scheduled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from heapq import heappop, heappush
from typing import Any, Protocol, TypeVarTuple

SPINS_MAX = 100_000  # turns without a moment of time; more is a world that spins


class Pausable(Protocol):
    """What the loop needs of a simulated process."""

    paused: bool
    stash: list[asyncio.Handle]  # callbacks that wait for its resumption


Ts = TypeVarTuple("Ts")
PROCESS: ContextVar[Any] = ContextVar("perdure_simulated_process", default=None)
NOBODY = Context()  # the nemesis: of no process


class Stuck(Exception):
    """Nothing can run, and no timer will ever change that; or something runs, and no time passes."""


class _Handle(asyncio.Handle):
    """A handle that is made at once: asyncio's own look first whether the loop is being debugged."""

    __slots__ = ()

    def __init__(self, callback: Any, args: Any, loop: Any, context: Context | None) -> None:
        self._callback, self._args, self._loop = callback, args, loop
        self._context = copy_context() if context is None else context
        self._cancelled, self._repr, self._source_traceback = False, None, None


class _Timer(asyncio.TimerHandle):
    """The same, of a timer."""

    __slots__ = ()

    def __init__(self, when: float, callback: Any, args: Any, loop: Any, context: Context | None) -> None:
        self._callback, self._args, self._loop = callback, args, loop
        self._context = copy_context() if context is None else context
        self._cancelled, self._repr, self._source_traceback = False, None, None
        self._when, self._scheduled = when, True

    def cancel(self) -> None:
        self._cancelled = True
        self._callback = self._args = None  # type: ignore[assignment]  # as asyncio does


class VirtualLoop(asyncio.BaseEventLoop):
    """See the head of this file. ``us``: the time, microseconds since it began."""

    _ready: Any
    _stopping: bool
    _closed: bool

    def __init__(self) -> None:
        super().__init__()
        self.us = 0
        # Due at, in the order made, what: a handle (and None), or a callback of nobody's (and its arguments).
        self._timers: list[tuple[int, int, Any, Any]] = []
        self._made = 0
        self._spins = 0
        self.set_exception_handler(self._note_trouble)
        self.trouble: list[dict[str, Any]] = []

    def time(self) -> float:
        return self.us / 1e6

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        if self._closed:
            raise RuntimeError("the world has ended")
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.us / 1e6 + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """A timer takes time, if it is a microsecond: who waits for a rest too small to count would wait for ever."""
        if self._closed:
            raise RuntimeError("the world has ended")
        timer = _Timer(when, callback, args, self, context)
        self._made += 1
        heappush(self._timers, (max(round(when * 1e6), self.us + 1), self._made, timer, None))
        return timer

    def later(self, seconds: float, callback: Callable[..., Any], *args: Any) -> None:
        """Call back as nobody's: the network, the nemesis. What it raises ends the run."""
        self._made += 1
        heappush(self._timers, (self.us + int(seconds * 1e6) + 1, self._made, callback, args))

    def _run_once(self) -> None:
        """Turns until it is to stop: all that is ready now, or the next timer."""
        timers, ready = self._timers, self._ready
        while not self._stopping:
            if ready:
                self._turn()
                continue
            if not timers:
                raise Stuck("nothing is ready, and no timer is set")
            due, _, what, args = heappop(timers)
            if args is None and what._cancelled:  # noqa: SLF001  the loop's own handle
                continue
            if due > self.us:
                self.us, self._spins = due, 0
            if args is None:
                ready.append(what)
            else:
                what(*args)
        if ready:
            self._turn()

    def _turn(self) -> None:
        ready = self._ready
        self._spins += 1
        if self._spins > SPINS_MAX:
            self._spins = 0
            raise Stuck(f"{SPINS_MAX} turns of the loop in one moment: it spins")
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:  # noqa: SLF001
                continue
            context = handle._context  # noqa: SLF001
            process = context.get(PROCESS)
            if process is not None and process.paused:
                process.stash.append(handle)
                continue
            try:
                context.run(handle._callback, *handle._args)  # noqa: SLF001
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self.call_exception_handler({"message": "a callback failed", "exception": error, "handle": handle})

    def resume(self, process: Pausable) -> None:
        """Let the callbacks of a process run that waited for this."""
        process.paused = False
        stash, process.stash = process.stash, []
        self._ready.extend(stash)

    def _note_trouble(self, _loop: Any, context: dict[str, Any]) -> None:
        """What nobody awaited. The tasks of killed processes are cut short, and say so."""
        if isinstance(context.get("exception"), Exception):
            self.trouble.append(context)

    def _process_events(self, _events: Any) -> None: ...

    def _write_to_self(self) -> None:
        """There is no other thread."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """There is none."""
