"""What one run knows of its problems: what its row tells of them, and what its next unit is to say.

Made for the run that has one, and for no other. Promise: nothing is over that the run has not lived past.
"""

from __future__ import annotations

from perdure.model.problems import OVER_ONCE_REPLAYED, Failing, ProblemKind, Trouble


class Troubles:
    """See the head of this file. ``kind``: what the row tells, or will with the next unit."""

    __slots__ = ("_over", "_pending", "_told", "kind")

    def __init__(self, kind: ProblemKind | None) -> None:
        self.kind = kind
        self._told: tuple[Failing, ...] = ()
        self._over = False
        self._pending: tuple[str, ...] = ()

    @property
    def unwritten(self) -> bool:
        """Whether the next unit has something to say of it."""
        return self._over or bool(self._told)

    def tell(self, failing: Failing) -> None:
        """An attempt has failed."""
        self._told += (failing,)
        self.kind = failing.kind

    def ease(self, pending: tuple[str, ...]) -> None:
        """The run has got on; the steps at ``pending`` are still to be tried again."""
        if self.kind is None:
            return
        self._over, self._pending = True, pending
        self._told = tuple(one for one in self._told if one.path in pending)
        self.kind = ProblemKind.STEP_FAILED if pending else None

    def replayed(self, pending: tuple[str, ...]) -> None:
        """The code that is here has lived through the history."""
        if self.kind in OVER_ONCE_REPLAYED:
            self.ease(pending)

    def take(self) -> Trouble | None:
        """What the unit being made says."""
        if not self.unwritten:
            return None
        trouble = Trouble(now=self.kind, told=self._told, over=self._over, pending=self._pending)
        self._told, self._over, self._pending = (), False, ()
        return trouble
