"""Mutants of the fence: who may write, and what comes next."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import msgspec
import pytest

from perdure.model.writes import Unit
from perdure.store.sqlite import commit
from tests.mutants.base import CALLS, Mutant, change_query, wrap


class NoClaimTest(Mutant):
    """Whoever has the run's number may write."""

    number = "1"
    known = 10
    faults: ClassVar[dict[str, float]] = {"stop": 2.0, "slow": 0.4}
    kinds = ("chain", "group", "family")

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        def judge(self: Any, unit: Unit) -> tuple[bool, bool]:
            head = self.heads.get(unit.key.id)
            if head is None or head.run != unit.key.run:
                return False, False
            return self._judge_records(unit) if unit.records else (True, True)

        patch.setattr(commit._Batch, "_judge_claim", judge)


class ReadThenWrite(Mutant):
    """The claim is compared in one transaction, and the write is made in the next."""

    number = "3"
    known = 16
    faults: ClassVar[dict[str, float]] = {"stop": 2.0, "slow": 0.4, "stall": 2.0}
    kinds = ("chain", "group", "family")
    seeds = 150

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        plain_judge = commit._Batch._judge_claim

        async def checked(store: Any, plain: Any, batch: Any, *, now: int | None = None) -> Any:
            rows = await store.rows([unit.key.id for unit in batch])
            await asyncio.sleep(0.2)  # waits: in virtual time
            good = {id for id, row in rows.items() if any(u.key.id == id and u.claim == row.claim for u in batch)}
            receipt = await plain([unit for unit in batch if unit.claim is None or unit.key.id in good], now=now)
            verdicts = iter(receipt.verdicts)
            refused = msgspec.structs.replace(receipt.verdicts[0], applied=False) if receipt.verdicts else None
            told = [next(verdicts) if unit.claim is None or unit.key.id in good else refused for unit in batch]
            return msgspec.structs.replace(receipt, verdicts=told)

        def judge(self: Any, unit: Unit) -> tuple[bool, bool]:
            head = self.heads.get(unit.key.id)
            if head is not None and head.run == unit.key.run:
                head.claim = unit.claim
            return plain_judge(self, unit)

        wrap(patch, "commit", checked)
        patch.setattr(commit._Batch, "_judge_claim", judge)


class NoKey(Mutant):
    """Two records may have one place in a history."""

    number = "4"
    faults: ClassVar[dict[str, float]] = CALLS

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(commit._Batch, "_judge_records", lambda _self, _unit: (True, True))
        change_query(patch, "history_insert", "insert into", "insert or replace into")
