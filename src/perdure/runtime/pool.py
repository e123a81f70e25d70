"""Bounded pools of threads for blocking bodies: one for steps called from async bodies, one for sync workflow bodies.

Threads are made when first needed and kept; work beyond the bound waits in order, and so does what the system grants no
thread for: until another has done its work or, where there is none yet, until one is granted. A thread cannot be
cancelled: what is cancelled before it began is never run, what runs is left to end and its outcome dropped.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from perdure.runtime.bell import Bell

log = logging.getLogger("perdure")

AGAIN_SECONDS = 1.0  # until a pool without any thread asks for one again


class ThreadPool:
    """At most ``bound`` threads, named after what they serve. Belongs to one event loop, called by its ``bell``."""

    def __init__(self, name: str, bound: int, loop: asyncio.AbstractEventLoop, bell: Bell) -> None:
        self.name = name
        self.bound = bound
        self._loop = loop
        self._bell = bell
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = 0  # threads that nothing is meant for; counted when work is given out, not when it is begun
        self._unserved = 0  # work that no thread is meant for yet
        self._lock = threading.Lock()
        self._asking = False  # for the first thread, again and again
        self._closed = False

    @property
    def crowded(self) -> bool:
        """Whether work waits for a thread that does other work."""
        return self._unserved > 0

    @property
    def backlog(self) -> int:
        """How many calls wait for a thread."""
        return self._unserved

    @property
    def used(self) -> bool:
        """Whether any thread was ever needed."""
        return bool(self._threads)

    def submit(self, work: Callable[[], None]) -> None:
        """Run ``work`` in a thread; it answers for its own errors."""
        with self._lock:
            if self._idle:
                self._idle -= 1
            elif len(self._threads) >= self.bound or not self._one_more():
                self._unserved += 1
            self._work.put(work)

    def _one_more(self) -> bool:
        """Whether there is a new thread."""
        thread = threading.Thread(target=self._serve, name=f"perdure-{self.name}", daemon=True)
        try:
            thread.start()
        except RuntimeError as refused:  # a limit of processes, of the machine or of a container
            if not self._threads:
                self._ask_later(refused)
                return False
            self.bound = len(self._threads)
            log.warning("the %s pool stays at %d threads: %s", self.name, self.bound, refused)
            return False
        self._threads.append(thread)
        return True

    def _ask_later(self, refused: RuntimeError) -> None:
        """No thread at all: what waits is no workflow's fault, and goes on once there is one."""
        if not self._asking:
            log.warning("the %s pool has no thread, and tries again: %s", self.name, refused)
            self._asking = True
        self.call(self._loop.call_later, AGAIN_SECONDS, self._ask_again)

    def _ask_again(self) -> None:
        with self._lock:
            if self._closed or self._threads:
                return
            while self._unserved and len(self._threads) < self.bound and self._one_more():
                self._unserved -= 1
            self._asking = not self._threads

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work()
            except BaseException:  # a pool's thread outlives whatever it is given
                log.exception("work of the %s pool raised", self.name)
            del work
            with self._lock:
                if self._unserved:
                    self._unserved -= 1
                else:
                    self._idle += 1

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
        """Call back on the loop, from a thread; silent once the pool is closed."""
        if not self._bell.call(callback, *args) and not self._closed:
            log.warning("the %s pool's event loop is closed; an outcome was dropped", self.name)

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
