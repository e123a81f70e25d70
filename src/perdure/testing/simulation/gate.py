"""Who keeps others from writing to a simulated database: the turn, the lock, commits that are still on their way.

As with SQLite: whoever writes takes the turnstile first, then the lock of the file. As with Postgres: who wants to know
what became of a commit waits for the locks that it holds, and who needs a row for whoever has kept it. Nobody waits
longer than ``PATIENCE`` for a turn or a lock; for a row, as long as he says.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from perdure.store.sqlite.connection import PATIENCE
from perdure.testing.simulation.loop import VirtualLoop

Go = Callable[[], object]


class Gate:
    """See the head of this file. ``turn`` and ``lock`` are whoever has them."""

    def __init__(self) -> None:
        self.open()

    def open(self) -> None:
        """Nobody has anything, nobody waits."""
        self.turn: Any = None
        self.lock: Any = None
        self.coming: set[Any] = set()  # commits whose senders were told that they are lost
        self.kept: dict[str, int] = {}  # rows that another transaction has, and how many transactions
        self._waiting: list[tuple[Callable[[], bool], Go]] = []

    def is_free(self) -> bool:
        """For who writes in one go."""
        return self.turn is None and self.lock is None

    def is_quiet(self) -> bool:
        """For who asks what became of a commit."""
        return self.is_free() and not self.coming

    def is_turn_free(self) -> bool:
        return self.turn is None

    def is_unlocked(self) -> bool:
        return self.lock is None

    def keep(self, row: str) -> str:
        """Another transaction has it from now on: give it back as often as it was kept."""
        self.kept[row] = self.kept.get(row, 0) + 1
        return row

    def give_back(self, row: str) -> None:
        """That transaction has ended."""
        left = self.kept.pop(row, 0) - 1
        if left > 0:
            self.kept[row] = left
        self._go_on()

    def give_back_all(self) -> None:
        """There are none any more."""
        self.kept.clear()
        self._go_on()

    def are_kept(self, rows: Collection[str]) -> bool:
        """Whether another transaction has one of them."""
        return any(row in self.kept for row in rows)

    def when(
        self, ready: Callable[[], bool], go: Go, give_up: Go, loop: VirtualLoop, patience: float = PATIENCE
    ) -> None:
        """Go on as soon as it is ready, those first who came first; or give up."""
        if ready():
            go()
            return
        waiting = (ready, go)
        self._waiting.append(waiting)
        loop.later(patience, self._expire, waiting, give_up)

    def _expire(self, waiting: tuple[Callable[[], bool], Go], give_up: Go) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)
            give_up()

    def let_go(self, who: Any) -> None:
        """Take back from somebody what he has of it."""
        self.turn = None if self.turn is who else self.turn
        self.lock = None if self.lock is who else self.lock
        self.coming.discard(who)
        self._go_on()

    def _go_on(self) -> None:
        while (found := next((one for one in self._waiting if one[0]()), None)) is not None:
            self._waiting.remove(found)
            found[1]()
