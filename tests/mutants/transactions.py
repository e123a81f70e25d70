"""Mutants of transactions: what is one commit with the user's work, and who may still make it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, ClassVar

import msgspec
import pytest

from perdure.model.records import Outcome
from perdure.runtime import attempts, sweep, transactions
from perdure.runtime.lending import Lending
from perdure.sessions import foreign
from perdure.store.sqlite import commit
from tests.mutants.base import Mutant

Flow = Generator[Any, Any, Any]
COMMITS = {"commits": 0.4}
MOVED = {"commits": 0.4, "kill": 0.8, "stop": 1.5, "slow": 0.3}


class OfTransactions(Mutant):
    """A change of the code that runs them."""

    kinds = ("transfers",)
    seeds = 150
    faults: ClassVar[dict[str, float]] = COMMITS


class RecordAfterTheCommit(OfTransactions):
    """The user's work is committed, and then its record is written like any step's."""

    number = "70"

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        def split(desk: Any, *, early: bool) -> Flow:
            yield attempts.Act("restart")
            yield attempts.Act("begin")
            concluded = yield from attempts._body(desk)
            if concluded.outcome is not Outcome.ERROR:
                yield attempts.Act("commit")
            return concluded

        patch.setattr(attempts, "_at_home", split)


class LostIsNotCommitted(OfTransactions):
    """A COMMIT whose answer is lost is taken for one that was rolled back."""

    number = "71"
    known = 32

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        async def never(_self: Any, _sealed: Any) -> None:
            return None

        patch.setattr(transactions.Transaction, "_ask_again", never)


class AskedTooSoon(OfTransactions):
    """Whether a COMMIT happened is asked of another database while it may still happen."""

    number = "72"
    known = 32

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        def hasty(desk: Any, session: Any) -> Flow:
            yield attempts.Act("begin")
            found = yield from foreign.look(session.dialect, desk.call, known=True)
            yield attempts.Act("rollback")
            return found.recorded

        patch.setattr(transactions, "asked_again", hasty)


class NoFenceElsewhere(OfTransactions):
    """In another database a record is taken of whoever makes it."""

    number = "73"
    known = 90
    faults: ClassVar[dict[str, float]] = MOVED

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        def unfenced(_dialect: Any, _call: Any) -> Flow:
            yield from ()
            return True

        patch.setattr(foreign, "lock", unfenced)


class NotAskedElsewhere(OfTransactions):
    """What another database has recorded of a call is not asked before its body runs."""

    number = "74"
    known = 2
    faults: ClassVar[dict[str, float]] = MOVED

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        plain = foreign.look

        def forgetful(dialect: Any, call: Any, *, known: bool) -> Flow:
            found = yield from plain(dialect, call, known=known)
            return found._replace(recorded=None)

        patch.setattr(foreign, "look", forgetful)


class StillMineTakenForGranted(OfTransactions):
    """Before a commit elsewhere nobody looks whether the run is still held."""

    number = "75"
    known = 28
    faults: ClassVar[dict[str, float]] = {"slow": 0.6, "deaf": 1.0}

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        async def granted(_self: Any) -> None: ...

        patch.setattr(transactions.Transaction, "_still_mine", granted)


class AnyClaimAtHome(OfTransactions):
    """The record of a transaction is taken whoever holds the run."""

    number = "76"
    known = 16
    faults: ClassVar[dict[str, float]] = MOVED

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        plain = commit._Batch._judge_claim

        def judge(self: Any, unit: Any) -> tuple[bool, bool]:
            head = self.heads.get(unit.key.id)
            if head is not None and unit.records and unit.records[0].name == "declare.pay":
                unit = msgspec.structs.replace(unit, claim=head.claim)
            return plain(self, unit)

        patch.setattr(commit._Batch, "_judge_claim", judge)


class NotLent(OfTransactions):
    """The run's next record is the transaction's, and the run writes on."""

    number = "77"
    seeds = 250
    known = 212

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        async def at_once(_self: Any) -> None: ...

        patch.setattr(Lending, "lend", at_once)
        patch.setattr(Lending, "give_back", lambda _self: None)


class SweptTooEarly(OfTransactions):
    """What another database has recorded goes before the record at home is durable."""

    number = "78"
    known = 23
    faults: ClassVar[dict[str, float]] = {"commits": 0.7}

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(sweep, "_is_over", lambda *_: True)


class TurnKept(OfTransactions):
    """The turn to write is not given back after the commit."""

    number = "79"
    known = 2

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(transactions.Transaction, "_end_turn", lambda _self: None)


class TimedOutOnceSealed(OfTransactions):
    """A timeout ends what is about to commit."""

    number = "80"
    known = 17

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        def strike(self: Any) -> None:
            self.timed_out = True
            self._give_up()

        patch.setattr(transactions.Transaction, "_time_out", strike)


class ConflictIsTheOutcome(OfTransactions):
    """A serialization failure is the transaction's own."""

    number = "81"
    known = 3

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(transactions, "CONFLICTS_MAX", 0)


class TurnBeforeLending(OfTransactions):
    """The turn to write is taken before what the run has to write is written."""

    number = "82"

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        lend, turn = transactions.Transaction.lend, transactions.Transaction.turn
        patch.setattr(transactions.Transaction, "lend", turn)
        patch.setattr(transactions.Transaction, "turn", lend)


class RowOfTheFirstRun(OfTransactions):
    """A run that was reset goes by what the run before it has recorded elsewhere."""

    number = "83"
    known = 16

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(foreign, "_LOOK", foreign._LOOK.replace("run = $3 and path", "run > 0 and $3 > 0 and path"))


class TimedOutBeforeItsFence(OfTransactions):
    """A timeout of a call that a former holder may be about to commit is its outcome at once."""

    number = "84"
    seeds = 500  # a COMMIT must be on its way when its holder is declared dead, and the call's timeout be over
    known = 461

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(transactions, "_may_be_under_way", lambda *_: False)
