"""A clock that stands still until it is moved. It is the database's time too, for whoever shares it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from perdure.model.info import from_datetime

START = datetime(2030, 1, 1, tzinfo=UTC)


class VirtualClock:
    """Implements ``perdure.clock.Clock``. Moving it tells those in ``on_move``, who then fire what is due.

    >>> clock = VirtualClock()
    >>> clock.advance(5_000_000)                # five seconds
    """

    def __init__(self, start: datetime = START) -> None:
        self._now = from_datetime(start)
        self.on_move: list[Callable[[], None]] = []

    def now(self) -> int:
        return self._now

    def stamp(self) -> int | None:
        return self._now

    def observe(self, database: int) -> None:
        """The database has no time of its own here: every statement is given ours."""

    def advance(self, by: int) -> None:
        """Move on by microseconds."""
        self.move_to(self._now + by)

    def move_to(self, when: int) -> None:
        """Move on to a time; never back."""
        self._now = max(self._now, when)
        for tell in list(self.on_move):
            tell()
