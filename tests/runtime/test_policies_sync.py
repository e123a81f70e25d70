"""Recovery policies of the blocking face: the same decisions, raised and seen in a thread."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import perdure.sync
from perdure.errors import DefinitionError
from perdure.recovery import Compensate, Compensating, Decision, Default, Incident, Resume
from perdure.sync import current
from perdure.testing import harness
from tests.runtime.support import Ledger


class Saga:
    """A blocking workflow that is interrupted in its second step."""

    def __init__(self, app: perdure.sync.App, ledger: Ledger) -> None:
        self.inside, self.leave = threading.Event(), threading.Event()
        self.seen: list[dict[str, Any]] = []

        @app.step(name="reserve")
        def reserve() -> str:
            ledger.note("reserve")
            return "r"

        @app.step(name="act")
        def act() -> str:
            ledger.note("act")
            self.inside.set()
            self.leave.wait(20)
            return "acted"

        @app.step(name="undo")
        def undo(what: str) -> None:
            ledger.note(f"undo {what}")

        @app.workflow(name="saga")
        def saga() -> str:
            reserved = reserve()
            self.seen.append(current().parameters)
            try:
                done = act()
            except Compensating as why:
                undo(reserved)
                return f"undone: {why}"
            self.seen.append(current().parameters)
            return done

        self.saga = saga

    async def interrupted(self, app: perdure.sync.App, database: str) -> Any:
        """Its result, after a crash in the second step."""
        anything: Any = app
        async with harness(anything, database=database) as h:
            handle = await asyncio.to_thread(self.saga.options(id="a").start)
            await asyncio.to_thread(self.inside.wait, 20)
            dead = h._work.crashed
            crash = asyncio.ensure_future(h.crash())
            await asyncio.wait([dead])
            self.leave.set()  # the dead process's thread ends, and nobody hears of it
            await crash
            with h.waiting():
                return await h.in_thread(handle.result), await h.store.decisions(["a"])


async def test_compensating_is_raised_where_the_thread_stood(
    sync_app: perdure.sync.App, database: str, ledger: Ledger
) -> None:
    saga = Saga(sync_app, ledger)

    @sync_app.recovery_policy(saga.saga)
    def policy(incident: Incident) -> Decision:
        return Compensate(because="sorry")

    result, rows = await saga.interrupted(sync_app, database)
    assert result == "undone: sorry"
    assert ledger == ["reserve", "act", "undo r"]
    assert [row.decision for row in rows] == ["compensate"]


async def test_what_a_decision_sets_is_seen_after_it(sync_app: perdure.sync.App, database: str, ledger: Ledger) -> None:
    saga = Saga(sync_app, ledger)

    @sync_app.recovery_policy(saga.saga)
    def policy(incident: Incident) -> Decision:
        return Resume(set={"again": True})

    result, _ = await saga.interrupted(sync_app, database)
    assert result == "acted"
    assert saga.seen == [{}, {}, {"again": True}]
    assert ledger == ["reserve", "act", "act"]


async def test_an_error_of_a_blocking_body_may_be_held_back(
    sync_app: perdure.sync.App, database: str, ledger: Ledger
) -> None:
    @sync_app.workflow(name="body")
    def body() -> None:
        raise ValueError("no")

    told: list[str] = []

    @sync_app.on_error(body)
    def policy(incident: Incident) -> Decision:
        told.append(str(incident.error))
        return Default()

    anything: Any = sync_app
    async with harness(anything, database=database) as h:
        handle = await asyncio.to_thread(body.options(id="a").start)
        with h.waiting(), pytest.raises(ValueError, match="no"):
            await h.in_thread(handle.result)
        assert told == ["no"]


def test_a_policy_of_the_blocking_face_blocks(sync_app: perdure.sync.App) -> None:
    async def policy(incident: Incident) -> Decision:
        return Default()

    with pytest.raises(DefinitionError, match=r"must be 'def' in perdure\.sync"):
        sync_app.recovery_policy()(policy)
