"""A trouble that lasts: told when it begins, once a minute while it goes on, and when it is over."""

from __future__ import annotations

import logging
from collections.abc import Callable

log = logging.getLogger("perdure")

AGAIN_SECONDS = 60  # an outage of an hour is sixty lines, with what the database says by then


class Outage:
    """One trouble of one kind, met at every try; ``what`` does not work, ``over`` that it does again."""

    __slots__ = ("_began", "_clock", "_level", "_over", "_told", "_what")

    def __init__(self, what: str, over: str, level: int, clock: Callable[[], float]) -> None:
        self._what = what
        self._over = over
        self._level = level
        self._clock = clock
        self._began: float | None = None
        self._told = 0.0

    def met(self, why: object) -> None:
        """A try has come to nothing."""
        now = self._clock()
        if self._began is None:
            self._began = now
            log.log(self._level, "%s: %s", self._what, why)
        elif now - self._told >= AGAIN_SECONDS:
            log.log(self._level, "%s, for %.0f s now: %s", self._what, now - self._began, why)
        else:
            return
        self._told = now

    def passed(self) -> None:
        """A try has succeeded."""
        if self._began is not None:
            log.log(self._level, "%s, after %.0f s", self._over, self._clock() - self._began)
            self._began = None
