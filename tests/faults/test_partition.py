"""Perdure through a proxy that fails: answers lost after the commit, half-open connections, a hole in the network."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from perdure import App, Client, Event, Topic, recv, set_event, sleep
from perdure.store.postgres import connection
from perdure.store.postgres.store import PostgresStore
from tests.faults.conftest import Proxied
from tests.runtime.support import Ledger, until

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

letters = Topic[str]("letters")
stage = Event[str]("stage")
NO_LEASES = r"^(?!.*\bincarnation\b)"


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
async def app(proxied: Proxied) -> AsyncIterator[App]:
    app = App("shop", database=proxied.url, lease=3)
    yield app
    proxied.proxy.heal()
    await app.close()


def declare(app: App, ledger: Ledger) -> Any:
    """A workflow with everything that is written for it: steps, a child, messages, an event, a timer."""

    @app.step
    async def act(what: str) -> str:
        ledger.note(what)
        return what

    @app.workflow
    async def child(what: str) -> str:
        heard = await recv(letters)
        return await act(f"{what} {heard}")

    @app.workflow
    async def work(what: str) -> list[str]:
        first = await act(f"{what} first")
        await set_event(stage, first)
        handle = await child.start(what)
        await handle.send("letter", letters)
        await sleep(0.01)
        return [first, await handle.result(), await act(f"{what} last")]

    return work


def results(what: str) -> list[str]:
    return [f"{what} first", f"{what} letter", f"{what} last"]


async def test_the_answers_of_commits_are_lost(proxied: Proxied, app: App, ledger: Ledger) -> None:
    """One after another, whatever is written: each write is recognised when it is made again."""
    work = declare(app, ledger)
    async with app:
        lost = 0
        for n in range(12):
            order = proxied.proxy.lose_answer(NO_LEASES, rows=1)
            handle = await work.options(id=f"w{n}").start(f"w{n}")
            lost += order.done()
            assert await handle.result(timeout=30) == results(f"w{n}")
        assert lost >= 6
        assert len(proxied.proxy.lost) >= 10
    assert sorted(ledger) == sorted(what for n in range(12) for what in results(f"w{n}"))


@pytest.mark.parametrize("pattern", ["picked", r"insert into \S+history", r"insert into \S+message"])
async def test_the_answer_of_this_write_is_lost(proxied: Proxied, app: App, ledger: Ledger, pattern: str) -> None:
    """A claim, a checkpoint, a message: by a client past the proxy, so that it is the executor's answer."""
    declare(app, ledger)
    async with app, Client(proxied.direct, app="shop") as client:
        order = proxied.proxy.lose_answer(pattern, rows=1)
        handle = await client.workflow("declare.work", returns=list[str]).options(id="w").start("w")
        assert await handle.result(timeout=30) == results("w")
        assert order.done()
    assert sorted(ledger) == sorted(results("w"))


async def test_the_answer_of_an_adoption_is_lost(proxied: Proxied, ledger: Ledger) -> None:
    """What was adopted under a name that heard nothing of it is found and run."""
    first = App("shop", database=proxied.direct, lease=3)
    waiting = asyncio.Event()
    begun = asyncio.Event()

    def define(app: App) -> Any:
        @app.step
        async def act() -> str:
            ledger.note("effect")
            begun.set()
            if app is first:
                await waiting.wait()
            return "done"

        @app.workflow
        async def work() -> str:
            return await act()

        return work

    work = define(first)
    second = App("shop", database=proxied.url, lease=3)
    define(second)
    async with first:
        await work.options(id="w").start()
        await begun.wait()
        first._home.engine().crash()
        await first._home.engine().line.store.bury([first._home.engine().executor.me.id], expired_only=False)
        order = proxied.proxy.lose_answer("noted as ", rows=1)
        async with second:
            assert await second.client.handle("w").result(timeout=30) == "done"
            assert order.done()
    assert ledger == ["effect", "effect"]


async def test_a_hole_of_twenty_seconds(proxied: Proxied, app: App, ledger: Ledger) -> None:
    """Longer than the lease, by far: no step begins in it, nothing fails, and all goes on when it ends."""
    gate, held = asyncio.Event(), asyncio.Event()

    @app.step
    async def slow() -> str:
        held.set()
        await gate.wait()
        return "slow"

    @app.step
    async def act(n: int) -> int:
        ledger.note(n)
        return n

    @app.workflow
    async def work() -> list[Any]:
        return [await slow(), await act(1), await act(2)]

    async with app:
        handle = await work.start()
        await held.wait()
        proxied.proxy.blackhole()
        gate.set()
        engine = app._home.engine()
        await until(lambda: not engine.executor.may_begin(), seconds=10)
        began = time.monotonic()
        await asyncio.sleep(20 - 2.4)  # waits: a hole of this length is the point
        assert ledger == []
        assert not engine.executor.may_begin()
        proxied.proxy.resume()
        assert await handle.result(timeout=30) == ["slow", 1, 2]
        assert time.monotonic() - began < 17.6 + 10
    assert ledger == ["1", "2"]


async def test_a_half_open_connection_is_noticed(
    proxied: Proxied, app: App, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has ended the session and the client was not told: no call waits out the driver's forty seconds."""
    monkeypatch.setattr(connection, "DOUBT_SECONDS", 1.0)
    work = declare(app, ledger)
    async with app:
        handle = await work.options(id="w0").start("w0")
        assert await handle.result(timeout=20) == results("w0")
        assert proxied.proxy.half_close() >= 2
        began = time.monotonic()
        handle = await work.options(id="w1").start("w1")
        assert await handle.result(timeout=20) == results("w1")
        assert time.monotonic() - began < 10


async def test_waits_end_without_hints(proxied: Proxied, app: App, ledger: Ledger) -> None:
    """The listener's connection is half open: every wait ends within the longest interval between two looks."""
    work = declare(app, ledger)
    async with app, Client(proxied.direct, app="shop") as client:
        handle = await work.options(id="w0").start("w0")
        await handle.result(timeout=20)
        cut = proxied.proxy.half_close(lambda pair: pair.talk.listens)
        assert cut == 1
        for n in range(1, 4):
            began = time.monotonic()
            handle = await client.workflow("declare.work", returns=list[str]).options(id=f"w{n}").start(f"w{n}")
            assert await handle.result(timeout=20) == results(f"w{n}")
            assert time.monotonic() - began < 5


async def test_a_slow_answer_is_waited_for(proxied: Proxied, monkeypatch: pytest.MonkeyPatch) -> None:
    """Doubt alone ends nothing: the server says that it knows the session."""
    monkeypatch.setattr(connection, "DOUBT_SECONDS", 0.1)
    store = PostgresStore(proxied.url, "shop")
    await store.open()
    try:
        link = store._writing
        assert (await link.fetch("select 1 from pg_sleep(1)"))[0][0] == 1
        assert proxied.proxy.accepted >= 2  # it was asked about
    finally:
        await store.close()
