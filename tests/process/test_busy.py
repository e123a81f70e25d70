"""``Busy`` means that an action is under way: who is only held, or is to go on, is waited for, and not for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from perdure import App, recv
from perdure.api.process import Process, ProcessHandle
from perdure.errors import Busy, Interrupted, NotAvailable
from perdure.model.records import Claimed
from perdure.model.writes import Park, Release, Unit
from perdure.schemes.grammar import State
from perdure.store.asks import ClaimRequest
from perdure.testing import harness
from tests.process.test_lives import stands
from tests.process.world import World, names
from tests.runtime.moving import store_of
from tests.runtime.support import row, until


@asynccontextmanager
async def held(database: str) -> AsyncIterator[tuple[App, ProcessHandle[Any], Claimed]]:
    """A process in Draft that somebody has claimed, for another's message, and does nothing with."""
    world = World(App("hr", database=database))
    async with world.app:
        p = await world.S.options(id="a").start()
        await stands(p, "Idled", "Draft")
    app = App("hr", database=database)
    world = World(app)
    async with app.connect():
        p = world.S.handle("a")
        await p.send("hello", "another topic")
        version = (await row(app, "a")).version
        want = ClaimRequest(owner=b"o" * 16, token=b"t" * 16, version=version, limit=1)
        [claimed] = await store_of(app).claim(want)
        yield app, p, claimed


def unit(claimed: Claimed, change: Any) -> Unit:
    return Unit(
        key=claimed.row.key, claim=claimed.row.claim, nonce=b"n" * 16, version=claimed.row.version, change=change
    )


async def test_who_is_held_and_does_nothing_is_waited_for(database: str) -> None:
    async with held(database) as (app, p, claimed):
        assert (await p.status(), await names(p)) == ("Running", ["submit"])
        seeing = asyncio.ensure_future(p._at_rest())
        await asyncio.sleep(0.05)  # waits: two looks, which must not end it
        assert not seeing.done()
        await store_of(app).commit([unit(claimed, Park(None, "in state Draft"))])
        assert (await seeing).process_status == "Idled"


async def test_and_not_for_ever(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.api.process.SETTLE", 50_000)
    async with held(database) as (app, p, claimed):
        with pytest.raises(Busy, match=r"recorded nothing for 0.05 s .*handle.within\(seconds\)"):
            await p.execute("submit")
        await store_of(app).commit([unit(claimed, Release())])
        with pytest.raises(Busy, match=r"is queued to go on from Draft, and no executor .* \(perdure run MODULE:APP\)"):
            await p.execute("submit")


async def test_an_action_that_was_put_away_while_it_waits_is_under_way(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row waits, as one at rest does; it is none."""
    monkeypatch.setenv("PERDURE_GRACE", "0.05")
    app = App("hr", database=database)

    @app.process(name="Slow")
    class Slow(Process):
        a = State(initial=True)
        b = State()
        end = State(final=True)
        go = a.to(b)
        ends = b.to(end)

        async def on_enter_b(self) -> None:
            await recv("paper")

    async with app:
        p = await Slow.options(id="a").start()
        await stands(p, "Idled", "a")
        call = asyncio.ensure_future(p.execute("go"))

        async def put_away() -> bool:
            return "a message on 'paper'" in (await row(app, "a")).detail

        await until(put_away)
        assert (await p.status(), await p.state(), await names(p)) == ("Running", "a", [])
        with pytest.raises(Busy, match="go from a"):
            await p.execute("ends")
        await p.send("signed", "paper")
        await call
        assert (await p.status(), await p.state()) == ("Idled", "b")
        await p.execute("ends")
        assert await p.status() == "Finalized"


async def test_a_firing_that_comes_to_nothing_leaves_orders_on_their_way(app: App, database: str) -> None:
    @app.process(name="Beat")
    class Beat(Process):
        never: bool = False
        a = State(initial=True)
        b = State(final=True)
        beat = a.to(b, every=timedelta(seconds=3), cond="never")
        go = a.to(b)

    async with harness(app, database=database) as h:
        p = await Beat.options(id="a").start()
        await h.settle()
        seen = await p._at_rest()
        await h.advance(7)
        assert (await p._at_rest()).at.bursts == seen.at.bursts
        stale: Any = type(p)(p._home, p.id, p._registered)

        async def as_then() -> Any:
            return seen

        stale._at_rest = as_then
        await stale.execute("go")
        assert await p.status() == "Finalized"


async def test_an_order_to_one_that_is_held_meanwhile_says_so_and_is_obeyed_after_it(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(App("hr", database=database))
    async with world.app:
        await stands(await world.S.options(id="a").start(), "Idled", "Draft")
    monkeypatch.setattr("perdure.api.process.SETTLE", 100_000)
    world = World(App("hr", database=database))
    async with world.app.connect():  # nobody serves it
        p = world.S.handle("a")
        order = asyncio.ensure_future(p.execute("submit"))

        async def sent() -> bool:
            return bool(await store_of(world.app).inbox(["a"]))

        await until(sent)
        await p.pause()
        with pytest.raises(
            Interrupted, match=r"'submit' was sent, but process 'a' is held .*perdure workflow unpause a"
        ):
            await order
        with pytest.raises(NotAvailable, match=r"takes no orders: it is held .*perdure workflow unpause a"):
            await p.execute("submit")
        await p.unpause()
    world = World(App("hr", database=database))
    async with world.app:
        p = world.S.handle("a")
        await stands(p, "Idled", "Review")
        assert [step.target for step in await p.history()][-2:] == ["Check", "Review"]
