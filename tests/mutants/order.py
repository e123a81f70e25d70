"""Mutants of ids, order, wake-ups, and what is left."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import msgspec
import pytest

from perdure.model.states import CODE, Status
from perdure.runtime.async_body import AsyncExecution
from perdure.runtime.executor import Executor
from perdure.runtime.loop import WorkflowLoop
from perdure.store.sqlite import commands, commit
from tests.mutants.base import CALLS, DEATHS, SLEEPS, Mutant, change_query, wrap


class OneCounterForAll(Mutant):
    """Steps are numbered by one counter for all that runs in the process."""

    number = "20"
    faults: ClassVar[dict[str, float]] = DEATHS

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        count = itertools.count(1)
        patch.setattr(WorkflowLoop, "next_path", lambda _self: str(next(count)))


class OrderUnrecorded(Mutant):
    """Of a history only the outcomes count, not the order in which they came."""

    number = "21"
    known = 8
    kinds = ("race", "group")
    faults: ClassVar[dict[str, float]] = {**DEATHS, **SLEEPS}

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        async def by_path(_store: Any, plain: Any, keys: Any) -> Any:
            found = await plain(keys)
            for key, records in found.items():
                ordered = sorted(records, key=lambda r: ([int(p) if p.isdigit() else 0 for p in r.path.split(".")]))
                found[key] = [msgspec.structs.replace(r, seq=n) for n, r in enumerate(ordered, 1)]
            return found

        wrap(patch, "histories", by_path)


class PausedUnseen(Mutant):
    """While it is told to pause, a body is kept from what it waited for, and all of it is recorded."""

    number = "P1"
    kinds = ("paused",)
    known = 30

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        plain = AsyncExecution.pump

        def pump(self: AsyncExecution) -> None:
            if not self.paused():
                plain(self)

        patch.setattr(AsyncExecution, "pump", pump)


class HintsOnly(Mutant):
    """Executors look when they are told to, and at no other time."""

    number = "22"
    known = 2
    faults: ClassVar[dict[str, float]] = {"deaf": 1.0}
    kinds = ("chain", "letters", "mailbox", "delayed")

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        plain = Executor._looked

        def looked(self: Executor, task: Any) -> None:
            polling, self.polling = self.polling, False
            plain(self, task)
            self.polling = polling

        patch.setattr(Executor, "_looked", looked)


class SleepsWithMail(Mutant):
    """A workflow that lies down is not woken by what came meanwhile."""

    number = "x4"
    known = 6
    faults: ClassVar[dict[str, float]] = {"deaf": 0.5, **DEATHS}

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        for query in ("workflow_woken", "workflow_claimable"):
            change_query(patch, query, "f.status = 3", "f.status = 3 and f.until is null and 1 = 0")


class CancelWithoutCompare(Mutant):
    """A cancel ends what it finds, whoever holds it, and leaves them their token."""

    number = "28"
    kinds = ("cancelled",)

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        def cancel(
            conn: Any, app: str, id: str, reason: str, nonce: bytes, now: int, _unserved: str | None = None
        ) -> Any:
            row = commands.get(conn, app, id)
            if row is None or not row.status.open:
                return row
            ending = (CODE[Status.CANCELLED], row.claim, reason, row.detail, now)
            return commands.end(conn, app, row, ending, nonce)

        patch.setattr(commands, "cancel", cancel)


class DeadlineRecomputed(Mutant):
    """Whoever takes a workflow over gives it its whole time again."""

    number = "29"
    faults: ClassVar[dict[str, float]] = {**DEATHS, **SLEEPS}

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        change_query(patch, "workflow_take", "when started is null and timeout is not null", "when timeout is not null")
        change_query(patch, "workflow_take", "min(coalesce(deadline, 9223372036854775807), ?7 + timeout)",
                     "?7 + timeout")  # fmt: skip


class LastInFirstOut(Mutant):
    """Mail is read in another order than it was sent in."""

    number = "30"
    known = 5
    faults: ClassVar[dict[str, float]] = {"deaf": 0.5, "stop": 0.5}

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        change_query(patch, "message_inbox", "order by mid", "order by mid desc")


class WakesGoTooSoon(Mutant):
    """The wakes of an ended child's parent are never written."""

    number = "x5"
    faults: ClassVar[dict[str, float]] = {**DEATHS, **CALLS, "deaf": 0.5}

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(commit._Batch, "_wake_family", lambda _self, _change: None)
