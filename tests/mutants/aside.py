"""Mutants of what the journal sets aside: one unit that fails while others are written."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import pytest

from perdure.client.aside import Aside
from perdure.client.journal import Journal
from tests.mutants.base import Mutant

NOT_WRITTEN = {"keeps": 2.0, "drops": 1.0}


class BehindIsTakenForWritten(Mutant):
    """Who waits for what is set aside of a run takes what stands behind it for written with it."""

    number = "x33"
    faults: ClassVar[dict[str, Any]] = NOT_WRITTEN
    kinds = ("asker",)
    known = 7

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        async def caught_up(journal: Any, source: Any = None) -> None:
            await journal._passed()
            while source is not None and (one := journal._aside.of(source)) is not None:
                await asyncio.shield(one.told)

        patch.setattr(Journal, "caught_up", caught_up)


class Overtaken(Mutant):
    """What a run writes next overtakes what is set aside of it."""

    number = "x34"
    faults: ClassVar[dict[str, Any]] = NOT_WRITTEN
    kinds = ("asker", "family", "chain")
    known = 12

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(Aside, "holds_up", lambda _aside, _source: False)


class BehindIsForgotten(Mutant):
    """A run with more to write is not put into the queue again when what was set aside is written."""

    number = "x35"
    faults: ClassVar[dict[str, Any]] = NOT_WRITTEN
    kinds = ("asker",)
    known = 19

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(Aside, "holds_up", lambda aside, source: id(source) in aside.units)
