"""Permission: no effect begins unless the lease was acknowledged lately; who may not begin waits for the database."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from perdure.client.line import Line
from perdure.runtime.leases import Lease

log = logging.getLogger("perdure")

LOOK_SECONDS = 0.1


class Host(Protocol):
    """What permission needs of an executor."""

    line: Line
    lease: Lease | None  # None: a test's, which never runs out

    @property
    def over(self) -> bool:
        """Whether it has stopped."""
        ...


class Permission:
    """See the head of this file. Everything runs on the line's event loop."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._waiting: list[Callable[[], None]] = []

    def given(self) -> bool:
        """Whether an effect may begin now."""
        return self._host.lease is None or self._host.lease.allowed

    def when_given(self, callback: Callable[[], None]) -> None:
        """Call back when the lease is good again."""
        self._waiting.append(callback)
        if len(self._waiting) == 1:
            log.warning("no step begins: the lease has not been renewed in time; waiting for the database")
            self._look()

    def _look(self) -> None:
        if self._host.over:
            return
        if not self.given():
            self._host.line.loop.call_later(LOOK_SECONDS, self._look)
            return
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()
