"""A crash, or trouble, at every single write of a process' life: it stands where its history says, and ends."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from perdure import App
from perdure.errors import Busy, Interrupted, NotAvailable
from perdure.recovery import Decision, Rerun, Resume, RunFrom
from perdure.testing import Harness, harness
from perdure.testing.crash import Mode
from tests.effort import by_effort
from tests.process.world import World

pytestmark = [pytest.mark.crash, pytest.mark.slow]
STRUCK = by_effort(0.35, 0.7, 1.0)  # of all writes, by chance
SEED = int(os.environ.get("PERDURE_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
PERSISTENT = 50  # tries of one who orders until it is done


async def until_done(order: Callable[[], Awaitable[Any]], done: Callable[[], Awaitable[bool]]) -> int:
    """Order again after each answer that says that it was not done; how many times it was interrupted."""
    interrupted = 0
    for _ in range(PERSISTENT):
        if await done():
            return interrupted
        try:
            await order()
        except Interrupted:
            interrupted += 1
        except (Busy, NotAvailable):
            await asyncio.sleep(0)
    raise AssertionError("it was never done")


async def live(world: World, h: Harness) -> int:
    """A whole life; how many orders were interrupted."""
    p = await world.S.options(id="a").start()
    interrupted = 0

    async def beyond(*states: str) -> bool:
        await h.settle()
        return await p.state() in states

    interrupted += await until_done(
        lambda: p.within(60).execute("submit"), lambda: beyond("Check", "Review", "Booking", "Done")
    )
    if await p.state() == "Check":  # a death in Review's action: Check has an automatic exit alone
        await until_done(p.within(60).resume, lambda: beyond("Review"))
    interrupted += await until_done(lambda: p.within(60).execute("approve"), lambda: beyond("Booking", "Done"))
    if await p.state() == "Booking":
        await until_done(p.within(60).resume, lambda: beyond("Done"))
    return interrupted


async def check(world: World, h: Harness, what: str) -> None:
    p = world.S.handle("a")
    assert (await p.status(), await p.state()) == ("Finalized", "Done"), what
    steps = await p.history()
    state = ""
    for step in steps:
        assert step.source == state or (step.trigger == "recovery" and state == ""), f"{what}: {steps}"
        state = step.target
    moved = [step.target for step in steps if step.source != step.target and step.trigger != "recovery"]
    assert moved == ["Draft", "Check", "Review", "Booking", "Done"] or h.crashes, f"{what}: {moved}"
    assert (await p.parameters()).note.replace("DD", "D") in ("DCRBD", "CRBD"), f"{what}: {await p.parameters()}"
    assert all(n <= 1 + h.crashes for n in world.counts.values()), f"{what}: {world.counts}, {h.crashes} crashes"
    decisions = await h.store.decisions(["a"])
    claims = [(row.run, row.claim) for row in decisions]
    assert len(set(claims)) == len(claims), f"{what}: {decisions}"


@pytest.mark.parametrize("mode", list(Mode), ids=lambda mode: mode.name.lower())
async def test_struck_at_every_write(database: str, mode: Mode) -> None:
    chance = random.Random(f"{SEED} {mode}")
    print(f"PERDURE_SEED={SEED}")
    app = App("hr", database=database)
    world = World(app)
    async with harness(app, database=database) as h:
        await live(world, h)
        await check(world, h, "in peace")
        assert h.crashes == 0
        points = len(h.plan.points)
        for point in range(1, points + 1):
            if chance.random() >= STRUCK:
                continue
            await h.renew()
            world.ledger.clear()
            h.plan.orders[point] = mode
            await asyncio.wait_for(live(world, h), 30)
            h.plan.orders.clear()
            await check(world, h, f"{mode} at write {point} of {points}, PERDURE_SEED={SEED}")


@pytest.mark.parametrize("answer", [Rerun(), Resume(), RunFrom("Review", set={"was_failed": True})], ids=str)
async def test_a_policy_struck_at_every_write(database: str, answer: Decision) -> None:
    """Killed in Done's action, then at each write of the recovery: decided, with its data, or not at all."""
    app = App("hr", database=database)
    world = World(app)
    world.policy(answer)
    async with harness(app, database=database) as h:
        for after in range(1, 7):
            for mode in (Mode.BEFORE, Mode.UNANSWERED, Mode.LOST):
                await h.renew()
                world.ledger.clear()
                p = await world.start(h)
                await p.execute("submit")
                world.shut("Done")
                call = asyncio.ensure_future(p.execute("approve"))
                await world.in_action("Done")
                h.plan.orders[len(h.plan.points) + after] = mode
                world.open("Done")
                world.gates["Done"].clear()
                await h.crash()
                world.open("Done")
                await h.settle()
                told = (await asyncio.gather(call, return_exceptions=True))[0]
                what = f"{answer} {after} {mode}: {told!r}, {world.counts}"
                assert isinstance(told, Interrupted), what
                if isinstance(answer, RunFrom):
                    assert (await p.state(), (await p.parameters()).was_failed) == ("Review", True), what
                else:
                    assert await p.status() == "Finalized", what
                rows = [row for row in await h.store.decisions(["a"]) if row.policy]
                assert len({(row.run, row.claim) for row in rows}) == len(rows) >= 1, what
