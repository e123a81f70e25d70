"""Rates: how often something may begin."""

from __future__ import annotations

from perdure.errors import DefinitionError
from perdure.model.amounts import MOST, is_amount, shown
from perdure.model.durations import Duration, to_us


class Rate:
    """So many starts in every window of a length: ``Rate(100, per=60)`` is at most 100 in any minute.

    Every window counts, not only those that begin on the minute, by the database's clock. ``per``: a timedelta or
    seconds. Raises ``DefinitionError`` for less than one start or an empty window.
    """

    __slots__ = ("limit", "period")

    def __init__(self, limit: int, *, per: Duration) -> None:
        if not is_amount(limit):
            raise DefinitionError(
                f"Rate({shown(limit)}, per={per!r}) is no rate: give a whole number from 1 to {MOST} for its starts"
            )
        self.limit = limit
        self.period = to_us(per, "per")  # microseconds
        if self.period < 1:
            raise DefinitionError(f"Rate({limit}, per={per!r}) has no window: give a time, such as per=60")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rate) and (self.limit, self.period) == (other.limit, other.period)

    def __hash__(self) -> int:
        return hash((self.limit, self.period))

    def __repr__(self) -> str:
        return f"Rate({self.limit}, per={self.period / 1e6:g})"
