"""Mutants of what a person orders, of problems, and of a lease that nobody heeds."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
import pytest

import perdure.model.resets
import perdure.operations.fork
import perdure.versions.deployments
from perdure.model.batches import Fate
from perdure.store import batched
from perdure.store.sqlite import batches, problems
from perdure.testing.simulation.shims import SimulatedLease
from tests.mutants.base import Mutant, change_query

ORDERS: dict[str, Any] = {"orders": True}


class ResetTwice(Mutant):
    """Nobody asks whether a run began by this very order."""

    number = "x20"
    faults: ClassVar[dict[str, Any]] = ORDERS
    kinds = ("chain", "sleeper")

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        plain = perdure.model.resets.rule_reset

        def rule_reset(row: Any, history: Any, order: Any) -> Any:
            return plain(row, history, msgspec.structs.replace(order, again=True))

        patch.setattr(perdure.model.resets, "rule_reset", rule_reset)


class KeptAnew(Mutant):
    """The records that a reset keeps are written as if they were its own."""

    number = "x21"
    known = 2
    faults: ClassVar[dict[str, Any]] = ORDERS
    kinds = ("chain", "group")

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        change_query(patch, "history_copy", "intents, version, nonce\nfrom", "intents, version, randomblob(16)\nfrom")


class ReceivedForGood(Mutant):
    """What the dropped part has received is not received again."""

    number = "x22"
    known = 3
    faults: ClassVar[dict[str, Any]] = ORDERS
    kinds = ("mailbox",)

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        change_query(patch, "message_untake", "end,\n", "else taken_run end,\n")


class ForkOfOneLineage(Mutant):
    """A fork has the lineage of its source: its steps have the same idempotency keys."""

    number = "x23"
    known = 2
    faults: ClassVar[dict[str, Any]] = ORDERS
    kinds = ("chain",)

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        plain = perdure.operations.fork._start_of

        def start_of(row: Any, *given: Any) -> Any:
            return msgspec.structs.replace(plain(row, *given), lineage=row.lineage)

        patch.setattr(perdure.operations.fork, "_start_of", start_of)


class SkipKeepsTheToken(Mutant):
    """Who runs the step that is skipped may write on."""

    number = "x24"
    known = 6
    faults: ClassVar[dict[str, Any]] = {**ORDERS, "slow": 0.6}
    kinds = ("chain", "group")
    seeds = 150

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        change_query(patch, "workflow_ordered", "claim = ?6, owner = null", "claim = coalesce(claim, ?6)")
        change_query(patch, "workflow_ordered", "status = 2 or reason in (select value from json_each(?10))) then 1",
                     "reason in (select value from json_each(?10))) then 1")  # fmt: skip


class EachTargetAgain(Mutant):
    """A chunk acts on whatever it was given, waiting or not."""

    number = "x25"
    known = 8
    faults: ClassVar[dict[str, Any]] = {**ORDERS, "lost": 0.3}

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        change_query(patch, "target_waiting", " and state = 0", "")


class DoneWithoutALine(Mutant):
    """What a batch does to a workflow is told by nobody."""

    number = "x26"
    known = 2
    faults: ClassVar[dict[str, Any]] = ORDERS

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(batched, "lines", lambda *_: [])


class SkippedAreNotCounted(Mutant):
    """A batch counts what it has done, and not what it has left alone."""

    number = "x27"
    known = 3
    faults: ClassVar[dict[str, Any]] = ORDERS

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        plain = batched.after_chunk

        def after_chunk(row: Any, owner: bytes, settled: Any, now: int) -> Any:
            return plain(row, owner, [one for one in settled if one.fate is not Fate.SKIPPED], now)

        patch.setattr(batched, "after_chunk", after_chunk)


class FrozenAgain(Mutant):
    """The same order, given again, adds what its query names by now."""

    number = "x28"
    known = 12
    faults: ClassVar[dict[str, Any]] = ORDERS

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        plain = batches._create

        def create(app: str, new: Any, freeze: str, search: Any, now: int, conn: Any) -> Any:
            row, made = plain(app, new, freeze, search, now, conn)
            if not made:
                conn.execute(freeze.replace("insert into", "insert or ignore into"), tuple(search.arguments))
            return row, made

        patch.setattr(batches, "_create", create)


class ChangedAgain(Mutant):
    """An order about where new work goes is carried out though it holds already."""

    number = "x29"
    known = 4
    faults: ClassVar[dict[str, Any]] = {**ORDERS, "rollout": True}

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(perdure.versions.deployments, "_is_so", lambda *_: False)


class FailsInSilence(Mutant):
    """A failed attempt is recorded, and is nobody's problem."""

    number = "x30"
    kinds = ("stubborn",)

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        plain = problems.write

        def write(conn: Any, app: str, units: Any, now: int) -> None:
            plain(conn, app, [_silent(unit) for unit in units], now)

        patch.setattr(problems, "write", write)


def _silent(unit: Any) -> Any:
    replaced = msgspec.structs.replace
    return replaced(unit, trouble=replaced(unit.trouble, told=())) if unit.trouble else unit


class ForEverAProblem(Mutant):
    """What has got past its trouble still has it."""

    number = "x31"
    kinds = ("stubborn",)

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        change_query(patch, "problem_over", "where app = ?1", "where 0 and app = ?1")


class LeaseUnheeded(Mutant):
    """Who could not renew its lease begins steps all the same."""

    number = "x32"
    faults: ClassVar[dict[str, Any]] = {"cut": 2.0}

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(SimulatedLease, "allowed", property(lambda _self: True))
