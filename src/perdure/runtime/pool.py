"""Bounded pools of threads for blocking bodies: one for steps called from async bodies, one for sync workflow bodies.

Threads are made when first needed and kept; work beyond the bound waits in order. A thread cannot be cancelled: what
is cancelled before it began is never run, what runs is left to end and its outcome dropped.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

log = logging.getLogger("perdure")


class ThreadPool:
    """At most ``bound`` threads, named after what they serve. Belongs to one event loop."""

    def __init__(self, name: str, bound: int, loop: asyncio.AbstractEventLoop) -> None:
        self.name = name
        self.bound = bound
        self._loop = loop
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._lock = threading.Lock()
        self._closed = False
        self._calls: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._ringing = False

    @property
    def crowded(self) -> bool:
        """Whether work waits for a thread."""
        return not self._work.empty()

    @property
    def used(self) -> bool:
        """Whether any thread was ever needed."""
        return bool(self._threads)

    def submit(self, work: Callable[[], None]) -> None:
        """Run ``work`` in a thread; it answers for its own errors."""
        self._work.put(work)
        with self._lock:
            if self._idle < self._work.qsize() and len(self._threads) < self.bound:
                thread = threading.Thread(target=self._serve, name=f"perdure-{self.name}", daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self) -> None:
        while (work := self._next()) is not None:
            try:
                work()
            except BaseException:  # a pool's thread outlives whatever it is given
                log.exception("work of the %s pool raised", self.name)
            del work

    def _next(self) -> Callable[[], None] | None:
        with self._lock:
            self._idle += 1
        work = self._work.get()
        with self._lock:
            self._idle -= 1
        return work

    def run(
        self, context: contextvars.Context, fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> asyncio.Future[Any]:
        """Run a function; the future belongs to the loop."""
        future: asyncio.Future[Any] = self._loop.create_future()

        def work() -> None:
            if future.cancelled():
                return
            try:
                value, error = context.run(fn, *args, **kwargs), None
            except BaseException as raised:
                value, error = None, raised
            self.call(settle, future, value, error)

        self.submit(work)
        return future

    def call(self, callback: Callable[..., Any], *args: Any) -> None:
        """Call back on the loop, from a thread; silent once the loop is closed.

        Calls of many threads share one ring of the loop's bell: each ring is a system call that hands the interpreter
        from thread to thread.
        """
        self._calls.append((callback, args))
        if self._ringing:
            return
        self._ringing = True
        try:
            self._loop.call_soon_threadsafe(self._answer_calls)
        except RuntimeError:
            if not self._closed:
                log.warning("the %s pool's event loop is closed; an outcome was dropped", self.name)

    def _answer_calls(self) -> None:
        self._ringing = False  # first: a call that comes in from here on rings again
        calls = self._calls
        while calls:
            callback, args = calls.popleft()
            try:
                callback(*args)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException:  # one caller's bug (or its Evicted) must not keep the others waiting
                log.exception("a call from the %s pool raised", self.name)

    def close(self) -> None:
        """Let the threads end when they are done. Does not wait: a blocked body must not block the exit."""
        self._closed = True
        for _ in self._threads:
            self._work.put(None)

    def join(self, seconds: float) -> None:
        """Wait for the threads of a closed pool. For tests: a crash in place leaves no thread at work."""
        for thread in self._threads:
            thread.join(seconds)


def settle(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    """Settle a future of the loop unless nobody waits any more."""
    if future.done():
        return
    if error is None:
        future.set_result(value)
    elif isinstance(error, StopIteration):  # a future refuses it
        future.set_exception(RuntimeError(f"StopIteration: {error}"))
    else:
        future.set_exception(error)
