"""Mutants of identities, leases and recovery."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar

import msgspec
import pytest

import perdure.runtime.executor
import perdure.runtime.reaper
import perdure.runtime.recovery
from perdure.runtime.engine import Engine
from perdure.runtime.execution import Execution
from perdure.runtime.reaper import Reaper
from perdure.store.sqlite import claim
from perdure.testing.simulation import shims
from tests.mutants.base import CALLS, DEATHS, SLEEPS, Mutant, change_query


class NameIsIdentity(Mutant):
    """An incarnation is known by its executor's name."""

    number = "12"
    faults: ClassVar[dict[str, float]] = {**DEATHS, "namesakes": 1.0}

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        plain = shims._sealed

        def named(world: Any, token: bytes, executor: str, version: str) -> Any:
            id = hashlib.blake2b(executor.encode(), digest_size=16).digest()
            return msgspec.structs.replace(plain(world, token, executor, version), id=id)

        patch.setattr(shims, "_sealed", named)


class OneShotReaper(Mutant):
    """The dead are looked for at launch only."""

    number = "13"
    known = 14
    faults: ClassVar[dict[str, float]] = {**DEATHS, "moving": 1.0}

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(Reaper, "start", lambda _self: None)
        patch.setattr(Reaper, "now", lambda _self: None)


class DeadRowsPruned(Mutant):
    """The rows of the dead are deleted before their work is found."""

    number = "14"
    faults: ClassVar[dict[str, float]] = {**DEATHS, "drain": 1.0}

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        change_query(patch, "incarnation_forget", "not exists", "1 or exists")
        change_query(patch, "workflow_next_owner", "status < 5", "status < 0")  # else it is found by its work alone
        patch.setattr(perdure.runtime.reaper, "FORGET_EVERY", 1)


class DeathIsNotFinal(Mutant):
    """A heartbeat brings the dead back."""

    number = "15"
    known = 3
    faults: ClassVar[dict[str, float]] = {**SLEEPS, "cut": 1.0}

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        change_query(patch, "incarnation_renew", " and state in ('alive', 'draining')", "")


class HeartbeatStopsFirst(Mutant):
    """A draining executor stops renewing its lease before its steps have ended."""

    number = "16"
    faults: ClassVar[dict[str, float]] = {"drain": 1.5, "slow": 0.8}
    kinds = ("chain", "group")

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        plain = Engine.close

        async def close(self: Engine, *, drain: float = 0.0) -> None:
            if self.lease is not None:
                self.lease.end()
            await plain(self, drain=drain)

        patch.setattr(Engine, "close", close)


class EveryClaimIsADeath(Mutant):
    """Attempts count claims."""

    number = "18"

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        plain = claim.take

        def take(conn: Any, app: str, ids: list[str], want: Any, now: int, **told: Any) -> Any:
            return plain(conn, app, ids, want, now, **{**told, "attempts": [1] * len(ids)})

        patch.setattr(claim, "take", take)


class DeathsAreForgotten(Mutant):
    """What is taken over from the dead is as new."""

    number = "x6"
    faults: ClassVar[dict[str, float]] = DEATHS

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        plain = claim.take

        def take(conn: Any, app: str, ids: list[str], want: Any, now: int, **told: Any) -> Any:
            return plain(conn, app, ids, want, now, **{**told, "attempts": [0] * len(ids)})

        patch.setattr(claim, "take", take)


class TakesFromTheLiving(Mutant):
    """The reaper takes everybody else for gone."""

    number = "x1"
    faults: ClassVar[dict[str, float]] = {"kill": 1.0, "slow": 0.4}
    kinds = ("chain", "group", "family")

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        async def all_gone(host: Any, _roll: Any) -> list[bytes]:
            return [who.id for who in await host.line.store.incarnations() if who.id != host.me.id]

        patch.setattr(perdure.runtime.recovery, "_bury_the_gone", all_gone)


class LostClaimsStayLost(Mutant):
    """Nobody looks for rows of ours that nobody runs."""

    number = "x2"
    faults: ClassVar[dict[str, float]] = CALLS

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        async def nothing(_self: Any, _keys: Any) -> None: ...

        patch.setattr(perdure.runtime.executor.Executor, "_readopt", nothing)


class NoBarrier(Mutant):
    """A step begins before what it rests on is durable."""

    number = "x3"
    known = 1
    faults: ClassVar[dict[str, float]] = {**DEATHS, **CALLS}

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        def at_once(self: Any, op: Any, has_news: bool) -> None:
            self.dirty()
            self.line.loop.call_soon(self._run_step, op)

        patch.setattr(Execution, "_barrier", at_once)
