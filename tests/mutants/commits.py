"""Mutants of the commit: what is one transaction, and what its answer means."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import msgspec
import pytest

from perdure.errors import DatabaseTrouble
from perdure.model.ids import MessageIds, RunKey
from perdure.model.writes import Receipt, Send, Unit, Verdict
from tests.mutants.base import CALLS, DEATHS, Mutant, wrap


class AckBeforeCommit(Mutant):
    """Writers are told that their writes are durable, and then they are made so."""

    number = "7"
    faults: ClassVar[dict[str, float]] = {**DEATHS, **CALLS}

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        kept: list[asyncio.Task[Any]] = []

        async def hasty(store: Any, plain: Any, batch: Any, *, now: int | None = None) -> Any:
            async def later() -> None:
                await asyncio.sleep(0.05)  # waits: in virtual time
                try:
                    await plain(batch, now=now)
                except DatabaseTrouble:
                    return

            kept.append(asyncio.get_running_loop().create_task(later()))
            return Receipt(store._way.now(), [Verdict(applied=True) for _ in batch])

        wrap(patch, "commit", hasty)


class RetryUnderANewName(Mutant):
    """A batch whose answer was lost is sent again with other names, so that nobody knows it again."""

    number = "9"
    faults: ClassVar[dict[str, float]] = {"lost": 0.3}
    kinds = ("mailbox", "letters")

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        make = MessageIds()
        tried: set[bytes] = set()

        def again(send: Send) -> Send:
            if send.wake in tried:
                return msgspec.structs.replace(send, mid=make(), key=None)
            tried.add(send.wake)
            return send

        async def renamed(_store: Any, plain: Any, batch: Any, *, now: int | None = None) -> Any:
            units = [msgspec.structs.replace(unit, sends=[again(send) for send in unit.sends]) for unit in batch]
            return await plain(units, now=now)

        wrap(patch, "commit", renamed)


class ChildInItsOwnCommit(Mutant):
    """A child is inserted first, its parent's record of it after that."""

    number = "11"
    faults: ClassVar[dict[str, float]] = DEATHS

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        async def split(_store: Any, plain: Any, batch: Any, *, now: int | None = None) -> Any:
            children = [child for unit in batch if unit.claim is not None for child in unit.children]
            if children:
                await plain([Unit(key=RunKey("", 0), children=children)], now=now)
            return await plain(batch, now=now)

        wrap(patch, "commit", split)
