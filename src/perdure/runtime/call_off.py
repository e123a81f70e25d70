"""What a thread does, and how who waits for it on an event loop calls it off."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

log = logging.getLogger("perdure")


class CallOff:
    """Said once, from any thread: the work is called off, or it is done; never both."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancel: Callable[[], object] | None = None
        self._called = False
        self.done = False

    def call(self) -> None:
        """Call it off, unless it is done."""
        with self._lock:
            if self.done or self._called:
                return
            self._called = True
            if self._cancel is not None:
                self._cancel()

    # -- from the thread that is at work

    def check(self) -> None:
        """Raise ``CancelledError`` if it was called off."""
        if self._called:
            raise asyncio.CancelledError

    def finish(self) -> None:
        """It is done, and cannot be called off any more. Raises ``CancelledError`` if it was."""
        with self._lock:
            self.check()
            self.done = True

    @contextmanager
    def by(self, cancel: Callable[[], object]) -> Generator[None]:
        """Calling off does this meanwhile. Raises ``CancelledError`` if it was called off before."""
        with self._lock:
            self.check()
            self._cancel = cancel
        try:
            yield
        finally:
            with self._lock:
                self._cancel = None


async def in_thread(work: Callable[[CallOff], None], off: CallOff) -> None:
    """Do what blocks in a thread. Cancelled, it is called off and waited for.

    Who cancels this, too, does not wait for the rest of it; it goes on.
    """
    loop, context = asyncio.get_running_loop(), contextvars.copy_context()
    # A future: who ends a loop cancels all its tasks, and what the thread undoes must be waited for then, too.
    future = loop.run_in_executor(None, lambda: context.run(work, off))
    try:
        await asyncio.shield(future)
    except asyncio.CancelledError:
        off.call()
        future.add_done_callback(_heard)
        await asyncio.wait([future])
        raise


def _heard(future: asyncio.Future[None]) -> None:
    raised = None if future.cancelled() else future.exception()
    if raised is not None and not isinstance(raised, asyncio.CancelledError):
        log.warning("what was called off has failed, too", exc_info=raised)
