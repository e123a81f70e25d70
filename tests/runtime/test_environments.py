"""Odd surroundings: what a process, its tools or its limits do to an app, and what is said where it cannot work."""

from __future__ import annotations

import _thread
import asyncio
import gc
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

import perdure.sync
from perdure.errors import ConfigError, Misuse
from perdure.runtime.stalls import STALL_SECONDS, StallWatch
from perdure.testing import harness
from tests.runtime.support import until_sync


def test_a_blocking_app_that_can_make_no_loop_says_so(
    sync_app: perdure.sync.App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no file may be opened, for instance: it must not wait for a thread that has ended."""
    make = asyncio.new_event_loop

    def refuse() -> asyncio.AbstractEventLoop:
        if threading.current_thread() is not threading.main_thread():
            raise OSError(24, "Too many open files")
        return make()

    monkeypatch.setattr(asyncio, "new_event_loop", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        sync_app.open()
    monkeypatch.undo()
    with sync_app:
        assert sync_app._home.is_open


class Frozen:
    """What freezegun does: other functions in the module ``time``, and wherever a module holds one of its own."""

    NAMES = ("monotonic", "monotonic_ns", "time", "time_ns")

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = {id(getattr(time, name)): name for name in self.NAMES}
        fakes = {name: (lambda: 10**18) if name.endswith("ns") else (lambda: 1e9) for name in self.NAMES}
        for module in list(sys.modules.values()):
            for name, value in list(vars(module).items()):
                if id(value) in real:
                    monkeypatch.setattr(module, name, fakes[real[id(value)]])


def test_a_blocking_app_works_on_while_time_is_frozen_around_it(
    sync_app: perdure.sync.App, monkeypatch: pytest.MonkeyPatch
) -> None:
    @sync_app.step
    def step() -> int:
        return 1

    @sync_app.workflow
    def child() -> int:
        perdure.sync.sleep(0.001)
        return step()

    @sync_app.workflow
    def body() -> int:
        return child() + step()

    with monkeypatch.context() as patch:
        Frozen(patch)
        with sync_app:
            assert body.start().result(timeout=30) == 2
    with sync_app, monkeypatch.context() as patch:
        Frozen(patch)
        assert body.start().result(timeout=30) == 2
        acknowledged = sync_app._home.engine().lease._acknowledged  # type: ignore[union-attr]
        until_sync(lambda: sync_app._home.engine().lease._acknowledged > acknowledged)  # type: ignore[union-attr]


async def test_an_app_works_on_while_time_is_frozen_around_it_but_for_asyncio(
    app: perdure.App, monkeypatch: pytest.MonkeyPatch
) -> None:
    @app.workflow
    async def body() -> int:
        await asyncio.sleep(0.001)
        return 2

    monkeypatch.setattr(asyncio.get_running_loop(), "time", time.monotonic)
    Frozen(monkeypatch)
    async with app:
        assert await body() == 2


async def test_a_harness_is_refused_where_time_is_frozen_for_asyncio_too(monkeypatch: pytest.MonkeyPatch) -> None:
    app = perdure.App("shop")
    with monkeypatch.context() as patch:
        Frozen(patch)
        with pytest.raises(Misuse, match=r"freeze_time\(…, real_asyncio=True\)"):
            async with harness(app):
                pass
    async with harness(app):
        pass


def test_a_loop_whose_clock_stands_still_is_told_of_once_each_time(caplog: pytest.LogCaptureFixture) -> None:
    now, its = 0.0, 7.0
    loop: Any = SimpleNamespace(time=lambda: its, call_soon_threadsafe=lambda call: call())
    watch = StallWatch(loop, lambda: now)

    def said() -> int:
        return caplog.text.count("real_asyncio=True")

    for _ in range(9):
        watch.look()
        now += STALL_SECONDS / 4
    assert said() == 1
    its += 1
    watch.look()
    assert said() == 1
    for _ in range(9):
        now += STALL_SECONDS / 4
        watch.look()
    assert said() == 2


def test_threads_that_are_greenlets_are_refused(sync_app: perdure.sync.App, monkeypatch: pytest.MonkeyPatch) -> None:
    """As gevent and eventlet make them: the lease could not be renewed beside a loop that never leaves its thread."""

    def start_new_thread() -> None: ...

    start_new_thread.__module__ = "gevent.thread"
    with monkeypatch.context() as patch:
        patch.setattr(_thread, "start_new_thread", start_new_thread)
        with pytest.raises(ConfigError, match=r"gevent has put its own .*patch_all\(thread=False, queue=False\)"):
            sync_app.open()
        with pytest.raises(ConfigError, match="gevent"):
            sync_app.client.open()
    with sync_app:
        pass


# What a loop left open when it was closed, connections for one, nobody can close any more: Python says so.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_app_whose_loop_is_closed_says_so_and_can_be_closed_and_opened_anew(
    app: perdure.App, said: pytest.LogCaptureFixture
) -> None:
    """As after asyncio.run(app.open())."""

    @app.workflow
    async def body() -> int:
        return 1

    async def whole() -> int:
        async with app:
            return await body()

    asyncio.run(app.open())
    lease = app._home.engine().lease
    with pytest.raises(Misuse, match=r"that one is closed: asyncio.run\(\) ends the loop that it makes"):
        asyncio.run(body.start())  # type: ignore[arg-type]
    asyncio.run(app.close())
    assert "was not closed before its event loop was" in said.text
    assert lease is not None
    lease._thread.join(20)
    assert not lease._thread.is_alive(), "nobody renews it for ever"
    assert asyncio.run(whole()) == 1
    del lease
    gc.collect()  # it is said here, and not in a later test


def test_an_app_whose_loop_does_not_run_meanwhile_says_so_and_stays_open(app: perdure.App) -> None:
    """As one that is opened by a fixture of a session, and used by a test with a loop of its own."""

    @app.workflow
    async def body() -> int:
        return 1

    async def call() -> int:
        return await body()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(app.open())
    for use in (call, body.start, app.close):
        with pytest.raises(Misuse, match=r"that one does not run while this one does.*loop_scope="):
            asyncio.run(use())  # type: ignore[arg-type]
    assert loop.run_until_complete(call()) == 1
    loop.run_until_complete(app.close())
    assert not app._home.is_open
    loop.close()


async def test_a_loop_that_takes_the_place_of_every_other_is_refused(
    app: perdure.App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of trio-asyncio: what a body asks of its own loop would come to the host's."""
    loop = asyncio.get_running_loop()
    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "get_running_loop", lambda: loop)
        with pytest.raises(ConfigError, match=r"takes the place of every other .*use perdure\.sync"):
            await app.open()
    async with app:
        pass


def test_without_a_loop_of_asyncio_the_error_says_what_to_use(app: perdure.App) -> None:
    """As under trio.run."""
    with pytest.raises(ConfigError, match=r"an event loop of asyncio \(uvloop, too\), and none runs here\. In trio"):
        app.open().send(None)
