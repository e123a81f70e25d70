"""A close that is cancelled, and an opening that fails: nothing lives on, and others take the work over at once."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import perdure.sync
from perdure import App, recv
from perdure.errors import DatabaseTrouble, NotOpen
from perdure.runtime import engine as engines
from perdure.runtime import executor as executors
from perdure.runtime.collector import SETTING
from perdure.runtime.engine import Engine
from tests.runtime.support import Ledger, executor, row, status, until, until_sync


class Shop:
    """An app with a workflow in a step that never ends here, and one that waits."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.engine: Engine
        self.began = asyncio.Event()
        self.free = False

        @app.step(name="slow")
        async def slow() -> str:
            self.began.set()
            if not self.free:
                await asyncio.Event().wait()
            return "slow"

        @app.workflow(name="body")
        async def body() -> str:
            return await slow()

        @app.workflow(name="waits")
        async def waits() -> str:
            return str(await recv())

        self.body, self.waits = body, waits

    async def at_work(self) -> None:
        await self.app.open()
        self.engine = self.app._home.engine()
        await self.body.options(id="a").start()
        await self.waits.options(id="b").start()
        await self.began.wait()

    async def closing(self) -> asyncio.Task[None]:
        """A close that waits for the step."""
        task = asyncio.create_task(self.app.close())
        await until(lambda: self.engine.executor is not None and self.engine.executor.draining)
        return task

    async def lives_no_more(self) -> None:
        engine = self.engine
        assert engine.executor is None
        assert engine.lease is not None
        await until(lambda: not thread_of(engine).is_alive())
        with pytest.raises(NotOpen):
            await self.body.handle("a").status()


def thread_of(engine: Engine) -> threading.Thread:
    assert engine.lease is not None
    return engine.lease._thread


async def incarnations(app: App) -> list[bytes]:
    return [one.id for one in (await app._home.engine().line.store.roll_call()).known if one.state == "alive"]


@pytest.mark.parametrize("how", ["cancelled", "out of time"])
async def test_a_close_that_is_cut_short_hands_back_and_leaves(app: App, database: str, how: str) -> None:
    shop, other = Shop(app), Shop(App("shop", database=database, lease=600))
    await shop.at_work()
    other.free = True
    async with other.app:
        if how == "cancelled":
            closing = await shop.closing()
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
        else:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await app.close()
        await shop.lives_no_more()
        await app.close()  # nothing is left to be closed
        assert await other.body.handle("a").result(timeout=15) == "slow"
        assert (await row(other.app, "a")).attempts == 0  # interrupted is not an attempt
        await other.waits.handle("b").send("x")
        assert await other.waits.handle("b").result(timeout=15) == "x"
    shop.free = True
    async with app:
        assert await shop.body.options(id="c")() == "slow"


@pytest.mark.parametrize("trouble", ["silent", "refuses", "breaks"])
async def test_who_cannot_leave_is_noticed_by_the_lease(
    app: App, monkeypatch: pytest.MonkeyPatch, said: pytest.LogCaptureFixture, trouble: str
) -> None:
    shop = Shop(app)
    await shop.at_work()
    monkeypatch.setattr(engines, "PART_SECONDS", 0.05)

    async def leave(_id: bytes) -> None:
        if trouble == "silent":
            await asyncio.Event().wait()
        raise DatabaseTrouble("no") if trouble == "refuses" else OSError("no")

    closing = await shop.closing()
    monkeypatch.setattr(shop.engine.line.store, "leave", leave)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await shop.lives_no_more()
    assert "others will notice by the lease" in said.text


async def test_cancelled_once_more_it_goes_on_by_itself(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(app)
    await shop.at_work()
    leaving, go = asyncio.Event(), asyncio.Event()
    leave = shop.engine.line.store.leave

    async def slowly(id: bytes) -> None:
        leaving.set()
        await go.wait()
        await leave(id)

    monkeypatch.setattr(shop.engine.line.store, "leave", slowly)
    closing = await shop.closing()
    me = shop.engine.executor.me.id  # type: ignore[union-attr]
    closing.cancel()
    await leaving.wait()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    go.set()
    await until(lambda: shop.engine.executor is None)
    await shop.lives_no_more()
    async with app.connect():
        assert me not in await incarnations(app)
        assert await status(app, "a") == "queued"


async def test_a_close_that_raises_leaves_nothing_either(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(app)
    await shop.at_work()

    async def raises(_id: bytes) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(shop.engine.line.store, "drain", raises)
    with pytest.raises(RuntimeError, match="a bug"):
        await app.close()
    await shop.lives_no_more()
    async with app.connect():
        assert await status(app, "a") == "queued"


async def test_a_close_whose_loop_turns_no_more_ends_the_lease(app: App) -> None:
    shop = Shop(app)
    await shop.at_work()
    close = shop.engine.close()

    def turn() -> bool:
        close.send(None)
        return True

    turn()
    close.close()
    await until(lambda: not thread_of(shop.engine).is_alive())
    assert executor(app).over


def failing(monkeypatch: pytest.MonkeyPatch, fail: Callable[[], Any]) -> list[Engine]:
    """Opening goes wrong when it is about to work; the engines that it went wrong for."""
    seen: list[Engine] = []
    init = Engine.__init__

    def noted(self: Engine, *given: Any, **options: Any) -> None:
        init(self, *given, **options)
        seen.append(self)

    async def launch(_host: Any) -> None:
        await fail()

    monkeypatch.setattr(Engine, "__init__", noted)
    monkeypatch.setattr(executors, "launch", launch)
    return seen


@pytest.mark.parametrize("leaves", [True, False])
async def test_an_opening_that_fails_says_why_and_leaves_nothing(
    app: App, monkeypatch: pytest.MonkeyPatch, ledger: Ledger, *, leaves: bool
) -> None:
    @app.resource
    async def pool() -> AsyncIterator[int]:
        yield 1
        ledger.note("closed")

    async def fail() -> None:
        if not leaves:
            monkeypatch.setattr(opened[0].line.store, "leave", refuse)
        raise RuntimeError("a bug")

    async def refuse(_id: bytes) -> None:
        raise DatabaseTrouble("no")

    opened, guests = failing(monkeypatch, fail), SETTING._guests
    with pytest.raises(RuntimeError, match="a bug"):
        await app.open()
    await until(lambda: not thread_of(opened[0]).is_alive())
    assert (opened[0].executor, opened[0].is_open, SETTING._guests) == (None, False, guests)
    assert ledger == ["closed"]
    monkeypatch.undo()
    async with app:
        assert len(await incarnations(app)) == (1 if leaves else 2)


async def test_an_opening_that_is_cancelled_leaves_nothing(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    launching = asyncio.Event()

    async def hang() -> None:
        launching.set()
        await asyncio.Event().wait()

    opened = failing(monkeypatch, hang)
    opening = asyncio.create_task(app.open())
    await launching.wait()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await until(lambda: not thread_of(opened[0]).is_alive())
    monkeypatch.undo()
    async with app:
        assert len(await incarnations(app)) == 1


async def test_a_resource_that_cannot_close_keeps_no_other_open(app: App, ledger: Ledger) -> None:
    @app.resource
    async def first() -> AsyncIterator[str]:
        yield "first"
        ledger.note("closed")

    @app.resource
    async def second() -> AsyncIterator[str]:
        yield "second"
        ledger.note(f"closes after {first()}")
        raise ConnectionError("no server")

    for _ in range(2):
        await app.open()
        with pytest.raises(ConnectionError, match="no server"):
            await app.close()
    assert ledger == ["closes after first", "closed"] * 2


# -- the sync face


def interrupt_when(condition: Callable[[], Any]) -> threading.Thread:
    """Ctrl-C, as soon as something is so."""

    def watch() -> None:
        until_sync(condition)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)  # wakes it, too

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_a_sync_close_that_is_interrupted_hands_back_and_leaves(sync_app: perdure.sync.App) -> None:
    began, free = threading.Event(), threading.Event()

    @sync_app.step
    def slow() -> str:
        began.set()
        assert free.wait(20)
        return "slow"

    @sync_app.workflow
    def body() -> str:
        return slow()

    sync_app.open()
    engine = sync_app._home.engine()
    host, loop = engine.executor, engine.loop
    assert host is not None
    assert loop is not None
    body.options(id="a").start()
    assert began.wait(10)
    interrupting = interrupt_when(lambda: host.draining)
    with pytest.raises(KeyboardInterrupt):
        sync_app.close()
    interrupting.join()
    until_sync(lambda: not thread_of(engine).is_alive())
    assert host.over
    assert loop.is_closed()
    with sync_app.connect() as client:
        assert client.handle("a").status() == "queued"
    free.set()
    with sync_app:
        assert body.handle("a").result(timeout=15) == "slow"


@pytest.mark.parametrize("when", ["on its way", "done"])
def test_a_sync_opening_that_is_interrupted_leaves_nothing(
    sync_app: perdure.sync.App, monkeypatch: pytest.MonkeyPatch, ledger: Ledger, when: str
) -> None:
    @sync_app.resource
    def pool() -> Iterator[int]:
        yield 1
        ledger.note("closed")

    launching = threading.Event()

    async def hang() -> None:
        launching.set()
        await asyncio.Event().wait()

    if when == "done":
        opened: list[Engine] = []
        real = sync_app._home.opened

        def interrupted(engine: Engine | None) -> None:
            real(engine)
            if engine is not None and threading.current_thread() is threading.main_thread():
                opened.append(engine)
                raise KeyboardInterrupt

        monkeypatch.setattr(sync_app._home, "opened", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sync_app.open()
    else:
        opened = failing(monkeypatch, hang)
        interrupting = interrupt_when(launching.is_set)
        with pytest.raises(KeyboardInterrupt):
            sync_app.open()
        interrupting.join()
    until_sync(lambda: not thread_of(opened[0]).is_alive())
    assert opened[0].loop is not None
    assert opened[0].loop.is_closed()
    assert ledger == ["closed"]
    monkeypatch.undo()
    with sync_app:
        pass


def test_a_sync_resource_that_cannot_close_keeps_no_other_open(sync_app: perdure.sync.App, ledger: Ledger) -> None:
    @sync_app.resource
    def first() -> Iterator[str]:
        yield "first"
        ledger.note("closed")

    @sync_app.resource
    def second() -> Iterator[str]:
        yield "second"
        ledger.note(f"closes after {first()}")
        raise ConnectionError("no server")

    for _ in range(2):
        sync_app.open()
        with pytest.raises(ConnectionError, match="no server"):
            sync_app.close()
    assert ledger == ["closes after first", "closed"] * 2
