"""Who may work: what is read after a claim, what stops with it, what a lease allows, and who is certainly gone."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from perdure import App, recv
from perdure.model.records import Incarnation
from perdure.runtime import collector, leases
from perdure.runtime.collector import COLLECT_AFTER
from perdure.runtime.leases import Lease, new_incarnation, provably_gone
from perdure.store.asks import ClaimRequest
from tests.runtime.support import Ledger, crash, executor, history, in_memory, row, until

OTHER = b"another executor"


async def test_history_is_read_once_the_claim_is_answered(app: App) -> None:
    """A statement that claimed and read in one could read what was there before a rival's last commit."""

    @app.step
    async def effect() -> int:
        return 1

    @app.workflow(name="body")
    async def body() -> int:
        done = await effect()
        await recv()
        return done

    seen: list[str] = []
    make = app._home.make_store
    await app.open()
    await body.options(id="a").start()
    await until(lambda: history(app, "a"))
    await crash(app)
    app._home.make_store = lambda *given: Noting(make(*given), seen)  # type: ignore[assignment,return-value]
    async with app:
        await until(lambda: in_memory(app, "a"))
        assert seen[:4] == ["adopt", "adopt answered", "histories", "histories answered"]


class Noting:
    """A store that notes when claims and reads of histories begin and are answered."""

    def __init__(self, store: Any, seen: list[str]) -> None:
        self._store, self._seen = store, seen

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name not in {"claim", "adopt", "reclaim", "histories"}:
            return method

        async def noted(*args: Any, **kwargs: Any) -> Any:
            self._seen.append(name)
            answer = await method(*args, **kwargs)
            self._seen.append(f"{name} answered")
            return answer

        return noted


async def test_a_run_that_lost_its_claim_stops_and_what_it_still_had_is_dropped(app: App, ledger: Ledger) -> None:
    go, entered = asyncio.Event(), asyncio.Event()

    @app.step
    async def effect(n: int) -> None:
        ledger.note(n)
        entered.set()
        await go.wait()

    @app.workflow(name="body")
    async def body() -> None:
        for n in range(3):
            await effect(n)

    async with app:
        await body.options(id="a").start()
        await entered.wait()
        engine = app._home.engine()
        me = executor(app).me
        taken = await engine.line.store.bury([me.id], expired_only=False)
        assert taken == [me.id]
        want = ClaimRequest(owner=OTHER, token=OTHER, version=me.version, limit=9)
        await engine.line.store.register(Incarnation(id=OTHER, executor="other"), 60_000_000)
        claimed = await engine.line.store.adopt([me.id], want)
        assert [c.row.id for c in claimed] == ["a"]
        go.set()
        await until(lambda: not in_memory(app, "a"))
        assert (await row(app, "a")).owner == OTHER
        assert await history(app, "a") == []
    assert ledger == ["0"]


async def test_no_step_begins_while_the_lease_is_not_acknowledged(
    app: App, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    allowed: list[bool] = []
    monkeypatch.setattr(Lease, "allowed", property(lambda _: bool(allowed)))

    @app.step
    async def effect() -> str:
        ledger.note("ran")
        return "done"

    @app.workflow
    async def body() -> str:
        return await effect()

    async with app:
        handle = await body.start()
        await until(lambda: "no step begins" in caplog.text)
        assert ledger == []
        allowed.append(True)
        assert await handle.result() == "done"
    assert ledger == ["ran"]


async def test_nothing_is_claimed_while_the_lease_is_not_acknowledged(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others may: it could not be run here."""
    allowed: list[bool] = []
    monkeypatch.setattr(Lease, "allowed", property(lambda _: bool(allowed)))

    @app.workflow
    async def body() -> str:
        return "done"

    async with app:
        await body.options(id="a", delay=0).start()
        for _ in range(3):
            await executor(app)._look_once()
        assert (await row(app, "a")).status == "scheduled"
        allowed.append(True)
        assert await body.handle("a").result() == "done"


def test_a_lease_allows_less_than_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes on while the machine sleeps."""
    now = [1000.0]
    monkeypatch.setattr(leases, "elapsed", lambda: now[0])
    nothing: Any = None
    lease = Lease(nothing, new_incarnation(b"i", "e", ""), 10, nothing, nothing, nothing)
    allowed: list[bool] = []
    for at in (1000.0, 1007.9, 1008.1, 1020.0):
        now[0] = at
        allowed.append(lease.allowed)
    assert allowed == [True, True, False, False]


@pytest.mark.parametrize("wrong", [None, RuntimeError("a driver's bug")])
async def test_a_renewal_that_is_not_answered_is_tried_again(
    wrong: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection may be dead without a word; and nothing may end the thread that renews."""
    monkeypatch.setattr(leases, "ANSWER_SECONDS", 0.05)
    renewed = asyncio.Event()
    loop = asyncio.get_running_loop()
    tries: list[int] = []

    class Silent:
        async def open(self) -> None: ...

        async def close(self) -> None: ...

        def lifeline(self, _id: bytes, _lost: object) -> None: ...

        async def heartbeat(self, _id: bytes, _lease: int, *, lag: int) -> int:
            tries.append(lag)
            if len(tries) == 1:
                if wrong is not None:
                    raise wrong
                await asyncio.Event().wait()
            return 7

    nothing: Any = None
    make: Any = Silent
    told = lambda _now: loop.call_soon_threadsafe(renewed.set)  # noqa: E731
    lease = Lease(make, new_incarnation(b"i", "e", ""), 0.3, nothing, told, lambda: None, lambda: 0.5)
    lease.begin()
    await asyncio.wait_for(renewed.wait(), 10)
    lease.end()
    assert tries[:2] == [500_000, 500_000]
    assert lease.allowed


async def test_the_thread_that_renews_outlives_a_loop_that_cannot_be_made_or_closed(
    monkeypatch: pytest.MonkeyPatch, said: pytest.LogCaptureFixture
) -> None:
    """No file is left to open, or no thread to be had: the lease would run out, and no step begin ever again."""
    monkeypatch.setattr(leases, "AGAIN_SECONDS", 0.001)
    loop, renewed = asyncio.get_running_loop(), asyncio.Event()
    closed: list[int] = []

    class Troubled:
        async def open(self) -> None: ...

        async def close(self) -> None:
            closed.append(1)
            raise RuntimeError("can't start new thread")

        def lifeline(self, _id: bytes, _lost: object) -> None: ...

        async def heartbeat(self, _id: bytes, _lease: int, *, lag: int) -> int:
            return 7

    nothing: Any = None
    make_loop, refusals = asyncio.new_event_loop, 3

    def refuse() -> asyncio.AbstractEventLoop:
        nonlocal refusals
        if threading.current_thread().name == "perdure-lease" and (refusals := refusals - 1) >= 0:
            raise OSError("too many open files")
        return make_loop()

    def made() -> Any:
        if not closed:  # within a loop that was made, at first
            closed.append(0)
            raise RuntimeError("can't start new thread")
        return Troubled()

    monkeypatch.setattr(asyncio, "new_event_loop", refuse)
    monkeypatch.setattr(asyncio.events, "new_event_loop", refuse)
    told = lambda _now: loop.call_soon_threadsafe(renewed.set)  # noqa: E731
    lease = Lease(made, new_incarnation(b"i", "e", ""), 0.3, nothing, told, lambda: None)
    lease.begin()
    await asyncio.wait_for(renewed.wait(), 10)
    assert lease.allowed
    lease.end()
    await asyncio.to_thread(lease._thread.join, 10)
    assert not lease._thread.is_alive()
    assert "the lease cannot be renewed now, which is tried again: too many open files" in said.text
    assert "can't start new thread" in said.text


@pytest.mark.parametrize("max_stall", [0.0, 5.0])
async def test_a_loop_that_stands_still_is_renewed_no_more_only_if_asked_for(
    max_stall: float, said: pytest.LogCaptureFixture
) -> None:
    loop, renewed, looked = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    beats: list[int] = []
    lag = 7.0

    class Counting:
        async def open(self) -> None: ...
        async def close(self) -> None: ...
        def lifeline(self, _id: bytes, _lost: object) -> None: ...

        async def heartbeat(self, _id: bytes, _lease: int, *, lag: int) -> int:
            beats.append(lag)
            return 7

    nothing: Any = None
    make: Any = Counting
    looks: list[int] = []

    def look() -> None:
        looks.append(1)
        if len(looks) >= 5:
            loop.call_soon_threadsafe(looked.set)

    told = lambda _now: loop.call_soon_threadsafe(renewed.set)  # noqa: E731
    who = new_incarnation(b"i", "e", "")
    lease = Lease(make, who, 0.3, nothing, told, look, lambda: lag, max_stall=max_stall)
    lease.begin()
    await asyncio.wait_for(looked.wait(), 10)
    assert bool(beats) is not bool(max_stall)
    assert said.text.count("the event loop has stood still for 7 s (max_stall is 5 s)") == bool(max_stall)
    lag = 0.1
    renewed.clear()
    await asyncio.wait_for(renewed.wait(), 10)
    lease.end()
    assert lease.allowed


@pytest.mark.skipif(not leases.boot_id(), reason="this system does not tell one boot from another")
@pytest.mark.parametrize(
    ("change", "gone"),
    [
        ({}, False),
        ({"pid_started": 1}, True),  # the pid is another process's by now
        ({"pid": 2**22 + 1}, True),  # no such process: beyond what Linux gives out
        ({"pid": 2**22 + 1, "boot": "another"}, False),
        ({"pid": 2**22 + 1, "space": "another"}, False),
        ({"pid": 2**22 + 1, "boot": ""}, False),
        ({"pid": 2**22 + 1, "pid_started": 0}, False),
    ],
)
def test_a_death_is_proven_only_on_the_same_boot_and_in_the_same_pid_namespace(
    change: dict[str, Any], gone: bool
) -> None:
    me = new_incarnation(b"i", "e", "")
    assert me.pid == os.getpid()
    assert provably_gone(msgspec.structs.replace(me, **change)) is gone


async def test_above_the_bound_the_longest_waiting_leaves_memory(app: App) -> None:
    @app.workflow(name="body")
    async def body() -> str:
        return str(await recv())

    async with app:
        executor(app)._live_max = 5
        for n in range(5):
            await body.options(id=f"w{n}").start()
            await until(lambda n=n: in_memory(app, f"w{n}"))
        await app._home.engine().line.journal.drained()
        await body.options(id="late", delay=0.01).start()  # not begun at the call: claimed, and needs room
        await until(lambda: in_memory(app, "late"))
        await until(lambda: not in_memory(app, "w0"))  # its park and the claim are on their way at the same time
        assert [in_memory(app, f"w{n}") for n in range(5)] == [False, True, True, True, True]
        await body.handle("w0").send("back")
        assert await body.handle("w0").result() == "back"


@pytest.fixture
def defaults_of_the_collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int, int]]:
    """Whatever other tests of this process left."""
    before = gc.get_threshold()
    monkeypatch.setattr(collector, "SETTING", collector.Setting())
    gc.set_threshold(700, 10, 10)
    gc.unfreeze()
    yield (700, 10, 10)
    gc.set_threshold(*before)


async def test_the_collector_leaves_alone_what_launch_made(
    app: App, defaults_of_the_collector: tuple[int, int, int]
) -> None:
    frozen = gc.get_freeze_count()
    async with app:
        assert gc.get_freeze_count() > frozen
        assert gc.get_threshold()[0] == COLLECT_AFTER
    assert gc.get_threshold() == defaults_of_the_collector

    assert gc.get_freeze_count() == frozen


@pytest.mark.usefixtures("defaults_of_the_collector")
async def test_no_garbage_is_kept_for_ever_by_opening(database: str) -> None:
    """Neither what was garbage already, nor what dies while an app works: at the first opening, or at a later one."""

    class Knot:
        def __init__(self) -> None:
            self.me = self

    dropped: list[weakref.ref[Knot]] = []
    gc.set_threshold(10**6)  # full collections are those of this test

    def drop(knot: Knot) -> None:
        dropped.append(weakref.ref(knot))

    drop(Knot())
    for nth in range(3):
        knot = Knot()
        async with App("shop", database=database):
            drop(knot)
            del knot
            if not nth:
                assert dropped[0]() is None  # opening collects before it keeps anything
                drop(Knot())
            assert bool(gc.get_freeze_count()) is not (nth == 1)  # no full collection since the first was closed
            async with App("another", database=database):
                drop(Knot())
            gc.collect()
    gc.collect()
    assert len(dropped) == 8
    assert [one() for one in dropped] == [None] * 8


async def test_who_keeps_something_from_the_collector_is_left_to_do_so(
    app: App, defaults_of_the_collector: tuple[int, int, int]
) -> None:
    gc.freeze()
    kept = gc.get_freeze_count()
    try:
        async with app:
            pass
        assert gc.get_freeze_count() > kept // 2
        assert gc.get_threshold() == defaults_of_the_collector
    finally:
        gc.unfreeze()


async def test_of_two_apps_in_one_process_the_last_to_close_puts_the_collector_back(
    app: App, database: str, defaults_of_the_collector: tuple[int, int, int]
) -> None:
    await app.open()
    async with App("another", database=database):
        await app.close()
        assert gc.get_threshold()[0] == COLLECT_AFTER
    assert gc.get_threshold() == defaults_of_the_collector


async def test_the_collector_is_calm_before_recovery_begins_thousands(
    app: App, defaults_of_the_collector: tuple[int, int, int]
) -> None:
    seen: list[int] = []

    @app.workflow
    async def body() -> None:
        seen.append(gc.get_threshold()[0])
        await recv()

    await app.open()
    await body.options(id="a").start()
    await app._home.engine().line.journal.drained()
    await crash(app)
    assert gc.get_threshold() == defaults_of_the_collector
    async with app:
        await until(lambda: len(seen) == 2)
    assert seen[1] == COLLECT_AFTER
