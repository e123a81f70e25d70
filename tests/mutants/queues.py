"""Mutants of queues: what is counted, by which clock, in what order, and under which key."""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar

import pytest

from perdure.runtime.queues import Queues
from perdure.store.lines import Dealer
from tests.mutants.base import DEATHS, Mutant, change_query


class ClaimedUncounted(Mutant):
    """What is let through takes no slot."""

    number = "Q1"
    kinds = ("queued",)

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        change_query(patch, "slot_insert", "values (?1, ?2, ?3)", "select ?1, ?2, ?3 where false")


class WaitingFreesASlot(Mutant):
    """Who waits gives its slot back, and has it again when it wakes."""

    number = "Q2"
    known = 6
    faults: ClassVar[dict[str, Any]] = {"drain": 1.0}
    kinds = ("queued",)

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        change_query(patch, "slot_live", "f.status in (1, 2, 3)", "f.status in (1, 2)")


class SlotsAreKept(Mutant):
    """What is over still counts."""

    number = "Q3"
    known = 2
    kinds = ("queued",)

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        change_query(patch, "slot_live", "f.status in (1, 2, 3)", "f.status in (1, 2, 3, 5)")
        change_query(patch, "slot_prune", "f.status in (1, 2, 3)", "f.status in (1, 2, 3, 5)")


class PartitionsAreUnlimited(Mutant):
    """A partition has the limits of its queue, and none of its own."""

    number = "Q4"
    kinds = ("queued",)

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(Dealer, "free", lambda dealer, _partition: dealer.room)


class WindowUncounted(Mutant):
    """A rate knows nothing of what it has let through."""

    number = "Q5"
    kinds = ("queued",)

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        change_query(patch, "pace_since", "and at >= ?3", "and at < 0 and at >= ?3")


class WindowByASlowClock(Mutant):
    """Starts are noted by a clock that is behind that of the database."""

    number = "Q6"
    kinds = ("queued",)

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        change_query(patch, "pace_add", "?4, ?5)", "?4 - 700000, ?5)")


class TheLastShallBeFirst(Mutant):
    """Of those in line the one of the worst priority goes first."""

    number = "Q7"
    kinds = ("queued",)

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        change_query(patch, "lane_items", "order by lane, until", "order by lane desc, until desc")


class KeysAreFree(Mutant):
    """A second start does not look whose the key is."""

    number = "Q8"
    kinds = ("keyed",)

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        change_query(patch, "dedup_get", "and key = ?3", "and key = ?3 and false")


class NobodyKnowsWhatIsHere(Mutant):
    """An executor counts nothing of what it has of a queue."""

    number = "Q9"
    kinds = ("portioned",)

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(Queues, "_held", lambda _self: Counter[str]())


class LostIsNotHere(Mutant):
    """What a claim took whose answer was lost counts only once it is found."""

    number = "Q11"
    known = 2
    faults: ClassVar[dict[str, Any]] = {"kill": 1.0, "lost": 0.1, "late": 0.1, "deaf": 0.5}
    kinds = ("portioned",)

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(Queues, "unsure", property(lambda _self: False, lambda _self, _value: None), raising=False)


class SureTooSoon(Mutant):
    """After a lost answer an executor looks once, and does not care for a claim that is under way still."""

    number = "Q12"
    known = 2
    faults: ClassVar[dict[str, Any]] = {"late": 0.3}
    kinds = ("portioned",)

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        async def sure(_self: Queues) -> None: ...

        patch.setattr(Queues, "be_sure", sure)


class AdoptsBeforeItKnows(Mutant):
    """What is taken over at a launch obeys no limit: none has been read yet."""

    number = "Q10"
    known = 17
    faults: ClassVar[dict[str, Any]] = DEATHS
    kinds = ("portioned",)

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        async def later(_self: Queues) -> None: ...

        patch.setattr(Queues, "know_first", later)
