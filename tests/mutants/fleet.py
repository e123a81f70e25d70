"""Mutants of deploys, policies and modes of recovery."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
import pytest

import perdure.runtime.adoption
import perdure.runtime.engine
import perdure.runtime.recovery
from perdure.runtime.replay_check import Finding, Verdict
from perdure.store.sqlite import commit
from perdure.testing.simulation import failover, shims
from tests.mutants.base import DEATHS, SLEEPS, Mutant, change_query, wrap


class UpgradeKeepsTheToken(Mutant):
    """Who held what was moved to another version may write on under the old one."""

    number = "x7"
    known = 5
    faults: ClassVar[dict[str, Any]] = {**DEATHS, **SLEEPS, "rollout": 1.0}
    kinds = ("looper",)

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        change_query(patch, "upgrade", "when status = 2 or reason", "when reason")


class AdoptsUnseen(Mutant):
    """Work of other versions is adopted whether it replays or not."""

    number = "x8"
    known = 19
    faults: ClassVar[dict[str, Any]] = {**DEATHS, "rollout": 1.0}
    kinds = ("sleeper", "stubborn")

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        async def check_all(_self: Any, pasts: Any) -> list[Verdict]:
            return [Verdict(Finding.SAFE) for _ in pasts]

        patch.setattr(shims.SimulatedReplayer, "check_all", check_all)


class StrandedInSilence(Mutant):
    """What does not replay is left alone, and nobody is told."""

    number = "x9"
    known = 16
    faults: ClassVar[dict[str, Any]] = {**DEATHS, "rollout": 1.0}
    kinds = ("sleeper", "stubborn")

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        async def forget(_store: Any, _plain: Any, _trials: Any, *, now: int | None = None) -> None: ...

        wrap(patch, "note_trials", forget)


class SaidNotDone(Mutant):
    """A decision is written first, and done in a commit of its own."""

    number = "19"
    known = 3
    faults: ClassVar[dict[str, Any]] = {**DEATHS, "drain": 1.0, "judged": 1.0}
    kinds = ("judged",)

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        async def split(_store: Any, plain: Any, batch: Any, *, now: int | None = None) -> Any:
            said = [
                msgspec.structs.replace(unit, records=(), change=None)
                for unit in batch
                if unit.decision is not None and unit.change is not None
            ]
            if said:
                await plain(said, now=now)
            return await plain(batch, now=now)

        wrap(patch, "commit", split)


class ManualIsFleet(Mutant):
    """Executors that are to wait for a person's order take over by themselves."""

    number = "x11"
    faults: ClassVar[dict[str, Any]] = {**DEATHS, "recovery": "manual"}

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        _as_fleet(patch)


class OwnIsFleet(Mutant):
    """Executors that are to look after their own take over from each other."""

    number = "x12"
    faults: ClassVar[dict[str, Any]] = {**DEATHS, "recovery": "own"}

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        _as_fleet(patch)


class SingleHasCompany(Mutant):
    """Who is to be alone does not look whether it is."""

    number = "x13"
    faults: ClassVar[dict[str, Any]] = {"stop": 1.0, "drain": 1.0, "cut": 1.0, "recovery": "single"}

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        async def welcome(_host: Any) -> None: ...

        patch.setattr(perdure.runtime.executor, "refuse_company", welcome)


class HeirIsAnybody(Mutant):
    """What a person gave to one executor is taken by any."""

    number = "x14"
    known = 4
    faults: ClassVar[dict[str, Any]] = {**DEATHS, "hand_over": 0.5, "moving": 1.0, "recovery": "manual"}

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        change_query(patch, "incarnation_list", "heir\nfrom", "null\nfrom")
        change_query(patch, "incarnation_given", "heir <> ", "heir is null and heir <> ")  # it is looked at twice


class SingleComesBack(Mutant):
    """A single executor that was declared dead registers anew whoever has taken its place."""

    number = "x15"
    known = 9
    faults: ClassVar[dict[str, Any]] = {"stop": 2.0, "kill": 0.5, "moving": 1.0, "recovery": "single"}

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        async def nobody(*_: Any) -> None: ...

        patch.setattr(perdure.runtime.engine, "until_alone", nobody)
        patch.setattr(perdure.runtime.engine, "company", nobody)


class StraysAreOfOneVersion(Mutant):
    """What an owner left of whom no row tells is taken over by its own version alone."""

    number = "x16"
    known = 32
    faults: ClassVar[dict[str, Any]] = {**DEATHS, "rollout": 1.0, "drain": 1.0, "late": 0.3}

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(perdure.runtime.adoption, "strays", lambda *_: [])


class NobodyNotices(Mutant):
    """After a failover runs write on, whatever the new server has of them."""

    number = "5"
    known = 20
    faults: ClassVar[dict[str, Any]] = {"failover": 1.0}

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(failover.Timeline, "_is_ahead", lambda *_: False)
        patch.setattr(commit._Batch, "_judge_records", lambda _self, _unit: (True, True))


def _as_fleet(patch: pytest.MonkeyPatch) -> None:
    plain = perdure.runtime.recovery._bury_the_gone

    async def bury(host: Any, roll: Any) -> list[bytes]:
        mode, host.recovery = host.recovery, "fleet"
        try:
            return await plain(host, roll)
        finally:
            host.recovery = mode

    patch.setattr(perdure.runtime.recovery, "_bury_the_gone", bury)
