"""Mutants of streams: what is appended once, in order, and before what tells that it was."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from perdure.model.records import Kind
from perdure.runtime.async_body import AsyncExecution
from perdure.runtime.streaming import Streaming
from tests.mutants.base import CALLS, DEATHS, Mutant, change_query


class ValuesComeLater(Mutant):
    """What a step has written is held back from the unit that holds its outcome, and goes with the next."""

    number = "S1"
    kinds = ("teller",)

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        take = Streaming.take

        def late(self: Any) -> Any:
            unit = take(self)
            if any(record.kind is Kind.STEP for record in unit.records) and unit.appends:
                kept = [a for a in unit.appends if a.path in {r.path for r in unit.records if r.kind is Kind.STEP}]
                unit.appends = [a for a in unit.appends if a not in kept]
                self.outbox.waiting.extend(kept)
            return unit

        patch.setattr(AsyncExecution, "take", late, raising=False)


class EveryAttemptSpeaks(Mutant):
    """A step that runs again does not look for what it has written."""

    number = "S2"
    faults: ClassVar[dict[str, float]] = {**DEATHS}
    kinds = ("teller",)

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        change_query(patch, "stream_written", "and n = ?7", "and n = ?7 and ?5 < 0")


class CountsOneTooMany(Mutant):
    """A stream's count is ahead of its values."""

    number = "S3"
    faults: ClassVar[dict[str, float]] = {**CALLS}
    kinds = ("teller",)

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        change_query(
            patch, "stream_put", "set next = excluded.next,", "set next = excluded.next + (excluded.next = 4),"
        )
