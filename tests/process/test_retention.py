"""Runs of a living process' earlier bursts go by age; its history, as people see it, stays whole."""

from __future__ import annotations

from typing import Any

import pytest

from perdure import App
from perdure.model.retention import BURST_US, DECIDED_US, Rules
from perdure.operations.retention import purge
from perdure.testing import Harness, harness
from tests.process.world import World, moves


async def lived(world: World, h: Harness, bursts: int = 6) -> Any:
    """In Review, after so many bursts, one of them cut off by a death."""
    p = await world.start(h)
    await world.killed_in(h, "Check", p.execute("submit"))
    await p.execute("submit")
    for _ in range(bursts // 2):
        await p.execute("reject")
        await p.execute("submit")
    return p


async def runs(h: Harness) -> list[int]:
    return [one.run for one in await h.store.upkeep.past(("", 0), 100)]


def rules(app: App) -> Rules:
    found: Rules = app._registry.rules
    return found


async def test_earlier_bursts_go_after_a_day_and_the_history_stays(world: World, h: Harness) -> None:
    p = await lived(world, h)
    before, ran = await p.history(), await runs(h)
    assert len(before) == 13
    [decided] = [row.run for row in await h.store.decisions(["a"])]
    now = h.clock.now()
    assert await purge(h.store.upkeep, rules(world.app), now=now + BURST_US - 10_000_000) == []
    assert await runs(h) == ran
    [gone] = await purge(h.store.upkeep, rules(world.app), now=now + BURST_US)
    assert (gone.name, gone.status, gone.count) == ("S", "past", len(ran) - 1)
    assert await runs(h) == [decided]
    assert [row.run for row in await h.store.decisions(["a"])] == [decided]
    assert await p.history() == before
    await p.execute("reject")
    assert (await moves(p))[-1] == "Review>Draft command"
    await h.crash()
    assert (await p.history())[: len(before)] == before
    await p.execute("submit")
    await p.execute("approve")
    assert (await p.status(), len(await p.history())) == ("Finalized", len(before) + 5)
    await purge(h.store.upkeep, rules(world.app), now=now + DECIDED_US)
    assert await runs(h) == []
    assert (await p.history())[: len(before)] == before


async def test_an_executor_does_so_by_itself(world: World, h: Harness) -> None:
    p = await lived(world, h)
    await h.advance(BURST_US / 1e6 + 60)
    executor: Any = h._work.engine.executor
    executor.sweeper._ask_at.clear()
    await executor.sweeper.round()
    assert await runs(h) == [row.run for row in await h.store.decisions(["a"])]
    assert len(await p.history()) == 14  # with the timer, which has fired since


@pytest.mark.parametrize(("retain", "kept"), [("forever", None), ({"past": 60}, 60_000_000)])
async def test_whoever_says_otherwise_has_it_so(database: str, retain: Any, kept: int | None) -> None:
    app = App("hr", database=database)
    world = World(app, retain=retain)
    assert rules(app).age("S", "past") == rules(app).age("S", "past", decided=True) == kept
    assert rules(app).keeps_all == (kept is None)
    async with harness(app, database=database) as h:
        await lived(world, h)
        ran = await runs(h)
        await purge(h.store.upkeep, rules(app), now=h.clock.now() + DECIDED_US)
        assert await runs(h) == ([] if kept is not None else ran)
