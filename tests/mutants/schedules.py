"""Mutants of schedules: each time once, none forgotten, and none beside another that is not to be."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
import pytest

import perdure.operations.schedules
import perdure.schedules.judge
from perdure.model.ids import RunKey
from perdure.model.schedules import Reschedule
from perdure.model.writes import Unit
from perdure.schedules.judge import Judged
from perdure.schedules.times import times_of
from tests.mutants.base import DEATHS, Mutant, wrap


class WhoeverComes(Mutant):
    """The row is written over, whatever was seen of it: two executors fire one time."""

    number = "T1"
    kinds = ("scheduled",)

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        async def over(store: Any, plain: Any, order: Reschedule, *, now: int | None = None) -> Any:
            rows = await store.schedules([order.name])
            return await plain(msgspec.structs.replace(order, before=rows[0].revision if rows else 0), now=now)

        wrap(patch, "change_schedule", over)


class TheSecondMovesOn(Mutant):
    """Who finds that another was quicker takes it that the time it saw is done, and goes on to the next."""

    number = "T2"
    kinds = ("scheduled",)

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        async def on(store: Any, plain: Any, order: Reschedule, *, now: int | None = None) -> Any:
            done = await plain(order, now=now)
            if not done and order.firings:
                row = (await store.schedules([order.name]))[0]
                after = times_of(row.spec, row.anchor).after(row.next) if row.next is not None else None
                moved = msgspec.structs.replace(row, next=after, revision=row.revision + 1)
                await plain(Reschedule(name=row.name, before=row.revision, after=moved), now=now)
            return done

        wrap(patch, "change_schedule", on)


class AllButOne(Mutant):
    """Of several times that were missed the second is forgotten."""

    number = "T3"
    known = 2
    faults: ClassVar[dict[str, Any]] = {**DEATHS, "outage": 1.0}
    kinds = ("scheduled",)

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        plain = perdure.schedules.judge.judge

        def judge(row: Any, now: int) -> Judged:
            judged = plain(row, now)
            kept = [one for n, one in enumerate(judged.firings) if n != 1 or len(judged.firings) == 2]
            return msgspec.structs.replace(judged, firings=tuple(kept))

        patch.setattr(perdure.operations.schedules, "judge", judge)


class AlwaysRoom(Mutant):
    """Nobody looks whether the one before is over."""

    number = "T4"
    kinds = ("scheduled",)

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        plain = perdure.schedules.judge._placed

        def placed(row: Any, at: int, *, busy: bool, waiting: int) -> Any:
            return plain(row, at, busy=busy and row.spec.overlap == "allow", waiting=waiting)

        patch.setattr(perdure.schedules.judge, "_placed", placed)


class SaidAndThenStarted(Mutant):
    """A firing is noted first, and its workflow started in a commit of its own."""

    number = "T5"
    kinds = ("scheduled",)

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        async def split(store: Any, plain: Any, order: Reschedule, *, now: int | None = None) -> Any:
            done = await plain(msgspec.structs.replace(order, starts=()), now=now)
            if done and order.starts:
                await store.commit([Unit(key=RunKey("", 0), children=list(order.starts))], now=now)
            return done

        wrap(patch, "change_schedule", split)
