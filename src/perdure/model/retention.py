"""Retention: how long what has ended is kept, by workflow and status. Without a rule it is kept for ever."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal, cast

import msgspec

from perdure.errors import DefinitionError, did_you_mean
from perdure.model.durations import Duration, to_us
from perdure.model.states import CLOSED, Status

Forever = Literal["forever"]
Retain = Duration | Forever | Mapping[str, Duration | Forever]
"""A duration since the end, ``"forever"``, or one of these for each status: ``{"completed": 7 * 86400, "past": …}``."""

PAST = "past"  # earlier runs of an id, whatever their end
ENDS: tuple[str, ...] = (*(s.value for s in Status if s in CLOSED - {Status.SUPERSEDED, Status.CONTINUED}), PAST)
FOREVER = -1
BURST_US = 86_400 * 1_000_000  # how long the runs of a process' earlier bursts are kept where nobody says otherwise
DECIDED_US = 90 * BURST_US  # … of those that a recovery decided about


class Retention(msgspec.Struct, frozen=True):
    """Ages in microseconds by status, and ``past``; ``FOREVER``, or absent: whatever the rule behind it says."""

    ages: dict[str, int]


def read_retention(retain: Retain, what: str = "retain") -> Retention:
    """Read what a user gave. Raises ``DefinitionError`` showing the value.

    >>> read_retention({"failed": 60}).ages
    {'failed': 60000000}
    """
    given = cast("object", retain)
    if not isinstance(given, Mapping):
        return Retention(dict.fromkeys(ENDS, _age(retain, what)))
    for key in cast("Mapping[object, object]", given):
        if key not in ENDS:
            guess = did_you_mean(key, ENDS)
            raise DefinitionError(
                f"{what}={retain!r}: {key!r} is no end of a workflow{guess}; one of {', '.join(ENDS)}"
            )
    each = cast("Mapping[str, Duration | Forever]", given)
    return Retention({key: _age(value, f"{what}[{key!r}]") for key, value in each.items()})


def _age(value: object, what: str) -> int:
    if value == "forever":
        return FOREVER
    return to_us(cast("Duration", value), what)


class Rules(msgspec.Struct, frozen=True):
    """The rule of each workflow by name, and the one behind them."""

    by_name: Mapping[str, Retention] = {}
    default: Retention = Retention({})
    processes: frozenset[str] = frozenset()  # names of workflows each burst of which is a run

    def age(self, name: str, end: str, *, decided: bool = False) -> int | None:
        """How long after its end it is kept; None: for ever. ``decided``: of an earlier run, whether a recovery was."""
        own = self.by_name.get(name)
        if end == PAST and name in self.processes and not self._says_past(own):
            return DECIDED_US if decided else BURST_US
        age = self.default.ages.get(end, FOREVER)
        if own is not None:
            age = own.ages.get(end, age)
        return None if age == FOREVER else age

    @property
    def shortest(self) -> int | None:
        """The shortest age of whole workflows; None: all are kept for ever."""
        return min(self._ages([end for end in ENDS if end != PAST]), default=None)

    @property
    def shortest_past(self) -> int | None:
        """The same of earlier runs."""
        ages = self._ages((PAST,))
        if any(not self._says_past(self.by_name.get(name)) for name in self.processes):
            ages.append(BURST_US)
        return min(ages, default=None)

    @property
    def keeps_all(self) -> bool:
        """Whether there is nothing to purge, ever."""
        return self.shortest is None and self.shortest_past is None

    def _says_past(self, own: Retention | None) -> bool:
        return PAST in self.default.ages or (own is not None and PAST in own.ages)

    def _ages(self, ends: Collection[str]) -> list[int]:
        return [
            age for r in (self.default, *self.by_name.values()) for end, age in r.ages.items()
            if end in ends and age != FOREVER
        ]  # fmt: skip
