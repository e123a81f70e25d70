"""``app.lifespan`` of a blocking app, cancelled while it opens or closes: what was opened is closed, and no more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import perdure.sync
from perdure.errors import NotOpen
from perdure.runtime import executor as executors
from perdure.runtime.call_off import CallOff
from perdure.runtime.engine import Engine
from tests.runtime.support import Ledger, until, until_sync


class Server:
    """An ASGI server, as far as it goes: it opens the app, serves, and is shut down."""

    def __init__(self, app: perdure.sync.App) -> None:
        self.app = app
        self.engines: list[Engine] = []
        self.serves = asyncio.Event()
        self.ends = asyncio.Event()
        new_engine = app._home.new_engine

        def noted(*, works: bool) -> Engine:
            self.engines.append(engine := new_engine(works=works))
            return engine

        app._home.new_engine = noted  # type: ignore[method-assign]
        self.task = asyncio.create_task(self.serve())

    async def serve(self) -> None:
        async with self.app.lifespan(None):
            self.serves.set()
            await self.ends.wait()

    async def is_cancelled(self) -> None:
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task
        self.lives_no_more()

    def lives_no_more(self) -> None:
        for engine in self.engines:
            assert not engine.is_open
            assert engine.executor is None
            assert engine.loop is None or engine.loop.is_closed()
            assert engine.lease is None or until_sync(lambda lease=engine.lease: not lease._thread.is_alive())
        with pytest.raises(NotOpen):
            self.app._home.engine()


def opened_anew(app: perdure.sync.App) -> int:
    """How many are at work once it is opened: nobody but itself."""
    app._home.__dict__.pop("new_engine")
    with app:
        engine: Any = app._home.engine()
        roll = asyncio.run_coroutine_threadsafe(engine.line.store.roll_call(), engine.loop).result()
        return sum(one.state == "alive" for one in roll.known)


def with_a_resource(app: perdure.sync.App, ledger: Ledger, begun: Callable[[], None] = lambda: None) -> None:
    @app.resource
    def pool() -> Iterator[int]:
        ledger.note("opened")
        begun()
        yield 1
        ledger.note("closed")


def waiting(begun: threading.Event, go: threading.Event) -> Callable[[], None]:
    def wait() -> None:
        begun.set()
        assert go.wait(20)

    return wait


async def test_cancelled_in_a_resource_that_opens(sync_app: perdure.sync.App, ledger: Ledger) -> None:
    begun, go = threading.Event(), threading.Event()
    with_a_resource(sync_app, ledger, waiting(begun, go))
    server = Server(sync_app)
    await until(begun.is_set)
    asyncio.get_running_loop().call_later(0, go.set)
    await server.is_cancelled()
    assert ledger == ["opened", "closed"]
    assert await asyncio.to_thread(opened_anew, sync_app) == 1


async def test_cancelled_while_it_recovers(
    sync_app: perdure.sync.App, monkeypatch: pytest.MonkeyPatch, ledger: Ledger
) -> None:
    launching = threading.Event()

    async def hang(_host: Any) -> None:
        launching.set()
        await asyncio.Event().wait()

    with_a_resource(sync_app, ledger)
    monkeypatch.setattr(executors, "launch", hang)
    server = Server(sync_app)
    await until(launching.is_set)
    await server.is_cancelled()
    assert ledger == ["opened", "closed"]
    monkeypatch.undo()
    assert await asyncio.to_thread(opened_anew, sync_app) == 1


@pytest.mark.parametrize("moment", ["just before", "just after"])
async def test_cancelled_when_it_has_opened(
    sync_app: perdure.sync.App, monkeypatch: pytest.MonkeyPatch, ledger: Ledger, moment: str
) -> None:
    called = threading.Event()
    loop = asyncio.get_running_loop()

    class Watched(CallOff):
        def call(self) -> None:
            super().call()
            called.set()

        def finish(self) -> None:
            if moment == "just after":
                super().finish()
            loop.call_soon_threadsafe(server.task.cancel)
            assert called.wait(20)
            if moment == "just before":
                super().finish()

    monkeypatch.setattr("perdure.runtime.sface.CallOff", Watched)
    with_a_resource(sync_app, ledger)
    server = Server(sync_app)
    with pytest.raises(asyncio.CancelledError):
        await server.task
    server.lives_no_more()
    assert ledger == ["opened", "closed"]
    monkeypatch.undo()
    assert await asyncio.to_thread(opened_anew, sync_app) == 1


async def test_cancelled_twice_it_is_undone_all_the_same(sync_app: perdure.sync.App, ledger: Ledger) -> None:
    begun, go = threading.Event(), threading.Event()
    with_a_resource(sync_app, ledger, waiting(begun, go))
    server = Server(sync_app)
    await until(begun.is_set)
    server.task.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    server.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await server.task
    go.set()
    await until(lambda: ledger == ["opened", "closed"])
    server.lives_no_more()


def test_its_loop_is_ended_while_it_opens(sync_app: perdure.sync.App, ledger: Ledger) -> None:
    """As asyncio.run() does it: all tasks are cancelled at once, and what threads do is waited for."""
    begun, go = threading.Event(), threading.Event()
    with_a_resource(sync_app, ledger, waiting(begun, go))
    servers: list[Server] = []

    async def main() -> None:
        servers.append(Server(sync_app))
        await until(begun.is_set)
        asyncio.get_running_loop().call_soon(go.set)

    asyncio.run(main())
    servers[0].lives_no_more()
    assert ledger == ["opened", "closed"]


async def test_cancelled_while_it_closes(sync_app: perdure.sync.App, ledger: Ledger) -> None:
    """It hands back at once, as an async app does."""
    began, free = threading.Event(), threading.Event()
    with_a_resource(sync_app, ledger)

    @sync_app.step
    def slow() -> None:
        began.set()
        assert free.wait(20)

    @sync_app.workflow
    def body() -> None:
        slow()

    server = Server(sync_app)
    await server.serves.wait()
    handle = await asyncio.to_thread(body.options(id="a").start)
    await until(began.is_set)
    host: Any = server.engines[0].executor
    server.ends.set()
    await until(lambda: host.draining)
    await server.is_cancelled()
    assert ledger == ["opened", "closed"]
    free.set()
    await asyncio.to_thread(sync_app.open)
    await asyncio.to_thread(handle.result, timeout=15)
    await asyncio.to_thread(sync_app.close)
