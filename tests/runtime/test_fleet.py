"""Several executors in one process: what each says of itself, modes, an operator's orders, owners that nobody knows."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

import perdure.sync
from perdure import App, recv
from perdure.errors import ConfigError, ExecutorAlive, ExecutorNotFound, NotOpen
from perdure.model.ids import TokenMaker
from perdure.model.records import Incarnation
from perdure.runtime.leases import new_incarnation
from perdure.runtime.reaper import Reaper
from perdure.runtime.recovery import reap
from tests.runtime.support import crash, executor, in_memory, row, until

pytestmark = pytest.mark.usefixtures("stay_in_memory")
LEASE = 60.0


def member(database: str, label: str, recovery: Any = "fleet") -> App:
    app = App("shop", database=database, executor_id=label, recovery=recovery, lease=LEASE)

    @app.workflow(name="order", max_deaths=3)
    async def order() -> str:
        return str(await recv("go"))

    return app


@asynccontextmanager
async def opened(*apps: App) -> AsyncIterator[None]:
    try:
        for app in apps:
            await app.open()
        yield
    finally:
        for app in apps:
            await app.close()


async def start(app: App, id: str) -> None:
    await app.client.workflow("order", returns=str).options(id=id).start()
    await until(lambda: in_memory(app, id))
    await app._home.engine().line.journal.drained()


async def who_is(app: App, label: str) -> Incarnation:
    known = await app._home.engine().line.store.incarnations()
    return next(who for who in known if who.executor == label)


async def leave_behind(database: str, label: str, *ids: str) -> None:
    app = member(database, label, "manual")
    await app.open()
    for id in ids:
        await start(app, id)
    await crash(app)


# -- what an executor says of itself


async def test_each_heartbeat_tells_how_late_the_event_loop_is(database: str) -> None:
    app = App("shop", database=database, lease=1)
    async with app:
        await until(lambda: executor(app).lease._lag() < 1)
        time.sleep(1.2)  # waits: a loop that stands still is the point  # noqa: ASYNC251

        async def told() -> bool:
            [who] = await app._home.engine().line.store.incarnations()
            return who.lag > 500_000 and who.beats > 0

        await until(told)


async def test_who_drains_says_so_and_is_company(database: str) -> None:
    app = App("shop", database=database, executor_id="first", lease=LEASE)
    began, go = asyncio.Event(), asyncio.Event()

    @app.step
    async def hold_on() -> str:
        began.set()
        await go.wait()
        return "done"

    @app.workflow(name="order")
    async def order() -> str:
        return await hold_on()

    watcher = member(database, "watcher", "manual")
    await app.open()
    await order.options(id="a").start()
    await began.wait()
    closing = asyncio.create_task(app.close())
    async with watcher:

        async def drains() -> bool:
            return (await who_is(watcher, "first")).state == "draining"

        await until(drains)
        await watcher.close()
        single = member(database, "single", "single")
        with pytest.raises(ConfigError, match=r"executor 'first' \(pid \d+ on .*\) is draining; stop it first"):
            await single.open()
        go.set()
        await closing
        async with single:
            assert await single.client.handle("a").result() == "done"


async def test_a_forked_child_is_no_executor(database: str) -> None:
    app = member(database, "parent")
    async with app:
        await start(app, "a")
        engine = app._home.engine()
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            told: dict[str, object] = {}
            try:
                try:
                    app._home.engine()
                except NotOpen as refused:
                    told["refused"] = str(refused)
                told["dead"] = engine.lease is not None and engine.lease.dead
                engine.line.journal.put(executor_source := engine.executor.executions["a"])  # type: ignore[union-attr]
                told["written"] = executor_source.in_flight
                os.write(writer, json.dumps(told).encode())
            finally:
                os._exit(0)
        os.close(writer)
        os.waitpid(pid, 0)  # noqa: ASYNC222 - the child ends at once
        told = json.loads(os.read(reader, 10_000))
        os.close(reader)
        assert f"app 'shop' was open when process {os.getpid()} forked this one ({pid})" in str(told["refused"])
        assert told["dead"], "it begins no step"
        assert not told["written"]
        await app.client.handle("a").send("on", "go")
        assert await app.client.handle("a").result() == "on", "the parent works on"
        assert not engine.lease.dead  # type: ignore[union-attr]


FORKS = """
import os, sys
import perdure.sync
app = perdure.sync.App("shop", database=sys.argv[1], executor_id="both", version="v1", lease=15)
with app:
    store = app._home.engine().line.store
    mine = app._home.engine().executor.me.id
    reader, writer = os.pipe()
    if os.fork() == 0:
        try:
            with app:
                os.write(writer, app._home.engine().executor.me.id)
        finally:
            os._exit(0)
    os.wait()
    theirs = os.read(reader, 100)
    assert theirs and theirs != mine, "somebody else"
    assert store is app._home.engine().line.store
print("both worked")
"""


def test_a_forked_child_may_open_the_app_as_somebody_else(database: str) -> None:
    """In a process of its own: what forks should have no threads but ours."""
    program = [sys.executable, "-c", FORKS, database]
    done = subprocess.run(program, capture_output=True, text=True, timeout=200, check=False)
    assert done.stdout == "both worked\n", done.stderr


OUTLIVES_MAIN = """
import asyncio, sys, threading
import perdure
from perdure.sync import App

app = App("later", database=sys.argv[1], lease=2, version="1")
outside = perdure.App("later", database=sys.argv[1], version="1")
ready = threading.Event()


@app.step
def step(n: int) -> int:
    return n + 1


@app.workflow
def body(n: int) -> int:
    return step(n)


async def leased() -> int:
    (me,) = (await outside._home.engine().line.store.roll_call()).known
    return me.lease_until


async def watch() -> None:
    async with outside.connect():
        ready.set()
        threading.main_thread().join()  # the interpreter has begun to end: the standard library's pools take no call
        before = await leased()
        async with asyncio.timeout(30):
            while await leased() < before + 1_000_000:
                await asyncio.sleep(0.05)


def work() -> None:
    asyncio.run(watch())
    print("renewed, and", body(1))
    app.close()


app.open()
threading.Thread(target=work).start()
ready.wait()
"""


def test_a_lease_is_renewed_for_as_long_as_a_thread_works(database: str) -> None:
    """Also after the main thread has ended, as where a server's threads outlive it."""
    program = [sys.executable, "-c", OUTLIVES_MAIN, database]
    done = subprocess.run(program, capture_output=True, text=True, timeout=100, check=False)
    assert (done.stdout, done.stderr) == ("renewed, and 2\n", "")


async def test_the_dead_who_own_nothing_cost_no_write(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await leave_behind(database, "poor")
    heir = member(database, "heir")
    async with heir:
        store = executor(heir).line.store
        await store.bury([(await who_is(heir, "poor")).id], expired_only=False)

        async def refuse(*_args: object, **_options: object) -> None:
            raise AssertionError("nothing is left to take")

        for write in ("adopt", "bury", "release_orphans"):
            monkeypatch.setattr(store, write, refuse)
        assert await reap(executor(heir)) == 0
        await executor(heir).adopter.round()


async def test_nothing_is_claimed_before_it_is_known_to_be_alone(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hint comes at any time, also to an executor that is about to be refused."""
    looks: list[Any] = []

    async def refuse(host: Any) -> None:
        host.hinted()
        looks.append(host._looking)
        raise ConfigError("not alone")

    monkeypatch.setattr("perdure.runtime.executor.refuse_company", refuse)
    with pytest.raises(ConfigError, match="not alone"):
        await member(database, "second", "single").open()
    assert looks == [None]


# -- owners that nobody knows


async def test_work_whose_owner_is_forgotten_is_taken_over(database: str) -> None:
    """A process that was declared dead and forgotten may still start something before it learns of it."""
    app = member(database, "zombie")
    heir = member(database, "heir")
    async with opened(app, heir):
        store = heir._home.engine().line.store
        me = executor(app).me.id
        await store.bury([me], expired_only=False)
        await store.leave(me)
        assert me not in {who.id for who in await store.incarnations()}
        await start(app, "late")
        assert (await store.roll_call()).owners == [me]
        assert await reap(executor(heir)) == 1
        assert in_memory(heir, "late")


async def test_what_was_started_while_forgotten_is_ones_own_in_every_mode(database: str) -> None:
    """Nobody could name the owner to give it away: with ``manual`` it would stay for ever."""
    app = member(database, "zombie", "manual")
    async with app:
        engine = app._home.engine()
        store, me = engine.line.store, executor(app).me.id
        await store.bury([me], expired_only=False)
        await store.leave(me)
        await start(app, "late")
        assert engine.lease is not None
        engine.lease.end()
        engine._begin_anew()  # as its next heartbeat would
        await until(lambda: executor(app).me.id != me and executor(app).alive)
        await reap(executor(app))
        await until(lambda: in_memory(app, "late"))
        assert (await row(app, "late")).owner == executor(app).me.id


@pytest.mark.parametrize("recovery", ["fleet", "own", "manual"])
async def test_what_was_given_to_another_meanwhile_is_the_others(database: str, recovery: Any) -> None:
    """A living one's work is given away, by force; what it starts before it learns of that goes the same way."""
    app, heir = member(database, "a", recovery), member(database, "b", "manual")
    async with opened(app, heir):
        engine, me = app._home.engine(), executor(app).me.id
        await heir.client.recover_executors("a", by="b", force=True)
        await start(app, "late")
        assert engine.lease is not None
        engine.lease.end()
        engine._begin_anew()  # as its next heartbeat would
        await until(lambda: executor(app).me.id != me and executor(app).alive)
        await reap(executor(app))
        assert not in_memory(app, "late")
        await reap(executor(heir))
        assert in_memory(heir, "late")


async def test_what_is_recovered_at_launch_may_use_the_app(database: str) -> None:
    def build() -> tuple[App, Any]:
        app = App("shop", database=database, lease=LEASE)

        @app.step
        async def look() -> str:
            entered.set()
            await go.wait()
            return str(await app.client.handle("w").status())

        @app.workflow(name="order")
        async def order() -> str:
            return await look()

        return app, order

    entered, go = asyncio.Event(), asyncio.Event()
    app, order = build()
    await app.open()
    await order.options(id="w").start()
    await entered.wait()
    await crash(app)
    go.set()
    again, _ = build()
    async with again:
        assert await again.client.handle("w").result() == "running"


# -- guards, with a store


async def stranger(app: App, id: bytes, lease: float, ahead: float = 0.0) -> None:
    """An executor of another machine that does not renew."""
    engine = app._home.engine()
    now = (await engine.line.store.poll(None, None)).now
    who = Incarnation(id=id.ljust(16, b"."), executor=id.decode(), host="elsewhere", boot="b", pid=1, pid_started=1)
    await engine.line.store.register(who, int(lease * 1e6), now=now + int(ahead * 1e6))


class OwnClock:
    """The seconds that an executor's reaper goes by."""

    def __init__(self, app: App) -> None:
        self.at = executor(app).reaper.elapsed()
        self.app = app
        executor(app).reaper.elapsed = lambda: self.at

    async def rounds(self, seconds: float) -> None:
        """Look every few seconds for so long."""
        for _ in range(int(seconds / 5)):
            self.at += 5
            await reap(executor(self.app))


async def test_who_lost_the_database_takes_no_silence_for_a_death_for_one_lease(database: str) -> None:
    app = member(database, "b")
    async with app:
        clock = OwnClock(app)
        await clock.rounds(5)
        clock.at += 600
        await stranger(app, b"silent", 1, ahead=-30)
        await reap(executor(app))
        await clock.rounds(LEASE - 5)
        assert (await who_is(app, "silent")).state == "alive"
        await clock.rounds(10)
        assert (await who_is(app, "silent")).state == "dead"


async def test_a_lease_far_in_the_future_keeps_no_dead_alive(database: str) -> None:
    """As one is when the database's clock has jumped back since it was renewed."""
    app = member(database, "b")
    async with app:
        clock = OwnClock(app)
        await stranger(app, b"silent", 30, ahead=3600)
        await stranger(app, b"renews", 30, ahead=3600)
        store = app._home.engine().line.store
        for _ in range(9):
            await clock.rounds(5)
            await store.heartbeat(b"renews".ljust(16, b"."), 30_000_000)
        assert (await who_is(app, "silent")).state == "dead"
        assert (await who_is(app, "renews")).state == "alive"


async def test_when_most_are_silent_they_get_one_more_lease(database: str) -> None:
    app = member(database, "b")
    async with app:
        clock = OwnClock(app)
        for id in (b"x", b"y", b"z"):
            await stranger(app, id, 1, ahead=-30)
        await clock.rounds(LEASE)
        assert {(await who_is(app, label)).state for label in "xyz"} == {"alive"}
        await clock.rounds(10)
        assert {(await who_is(app, label)).state for label in "xyz"} == {"dead"}


async def test_a_death_that_is_seen_in_mid_round_has_a_round_of_its_own() -> None:
    rounds: list[int] = []
    go = asyncio.Event()

    async def reap_slowly() -> None:
        rounds.append(1)
        await go.wait()

    nothing: Any = None
    reaper = Reaper(asyncio.get_running_loop(), reap_slowly, nothing, 15, time.monotonic)
    reaper.start()
    for _ in range(3):
        reaper.now()
    await until(lambda: rounds)
    go.set()
    await until(lambda: len(rounds) == 2)
    await until(lambda: not reaper.under_way)
    reaper.stop()
    assert len(rounds) == 2


async def test_one_that_has_just_been_launched_is_known_at_a_hint(database: str) -> None:
    app, other = member(database, "a"), member(database, "b")
    async with app:
        executor(app).reaper._met -= 10
        async with other:
            new = executor(other).me.id
            await until(lambda: any(who.id == new for who in executor(app).reaper._peers))


def test_rounds_come_before_a_lease_that_runs_out_and_soon_where_something_is_left() -> None:
    loop: Any = None
    nothing: Any = None
    reaper = Reaper(loop, nothing, nothing, 15, time.monotonic)
    for _ in range(50):
        reaper.soon, reaper.next_expiry = None, None
        assert 4 <= reaper.pause() <= 6
        reaper.next_expiry = 2.0
        assert 2 <= reaper.pause() <= 3, "a second after it, at most"
        reaper.soon = 0.25
        assert reaper.pause() == 0.25
    fast = Reaper(loop, nothing, nothing, 6, time.monotonic)
    fast.next_expiry = 0.0
    assert max(fast.pause() for _ in range(50)) <= 1.2


# -- modes


@pytest.mark.parametrize(
    ("recovery", "label", "heir", "taken"),
    [
        ("fleet", "b", None, True), ("own", "b", None, True), ("manual", "b", None, True), ("single", "b", None, True),
        ("fleet", "b", "b", True), ("own", "b", "b", True), ("manual", "b", "b", True), ("single", "b", "b", True),
        ("fleet", "b", "c", False), ("own", "b", "c", False), ("manual", "b", "c", False),
        ("own", "a", "c", False), ("single", "b", "c", False),
    ],
)  # fmt: skip
async def test_what_was_released_goes_to_its_heir_in_every_mode(
    database: str, recovery: Any, label: str, heir: str | None, taken: bool
) -> None:
    await leave_behind(database, "a", "left")
    watcher = member(database, "operator", "manual")
    async with watcher.connect():
        assert await watcher.client.recover_executors("a", by=heir) == ("left",)
    app = member(database, label, recovery)
    async with app:
        assert in_memory(app, "left") is taken
        assert (await row(app, "left")).attempts == int(taken)


async def test_who_lives_beside_the_dead_takes_according_to_its_mode(database: str) -> None:
    own, manual, fleet = member(database, "b", "own"), member(database, "c", "manual"), member(database, "d", "fleet")
    async with opened(own, manual, fleet):
        await leave_behind(database, "a", "of-a")
        await leave_behind(database, "b", "of-b")
        for app in (own, manual, fleet):
            await reap(executor(app))
        assert [in_memory(own, id) for id in ("of-a", "of-b")] == [False, True]
        assert [in_memory(manual, id) for id in ("of-a", "of-b")] == [False, False]
        assert [in_memory(fleet, id) for id in ("of-a", "of-b")] == [True, False]


# -- by hand


async def test_a_live_executor_keeps_its_work_unless_it_is_forced(database: str) -> None:
    app, heir = member(database, "a"), member(database, "b", "manual")
    async with opened(app, heir):
        await start(app, "w")
        me = executor(app).me.id.hex()
        for asked in ("a", me[:31], me.upper()):
            with pytest.raises(
                ExecutorAlive, match=rf"incarnation {me} \(pid \d+ on .*\), alive, its lease runs \d+ s"
            ):
                await heir.client.recover_executors(asked)
        assert not executor(app).lease.dead
        assert await heir.client.recover_executors("a", by="b", force=True) == ("w",)
        await reap(executor(heir))
        assert in_memory(heir, "w")
        await app.client.handle("w").send("on", "go")
        assert await heir.client.handle("w").result() == "on"


async def test_of_one_name_only_the_gone_are_recovered(database: str) -> None:
    await leave_behind(database, "a", "left")
    app = member(database, "a", "manual")
    async with app:
        await start(app, "mine")
        assert await app.client.recover_executors("a") == ("left",)
        await reap(executor(app))
        assert [in_memory(app, id) for id in ("left", "mine")] == [True, True]
        assert (await row(app, "mine")).epoch == 1


async def test_one_whose_lease_ran_out_is_gone_though_nobody_has_noted_it(database: str) -> None:
    app = member(database, "b", "manual")
    async with app:
        store = app._home.engine().line.store
        new = TokenMaker()
        silent = msgspec.structs.replace(new_incarnation(new(), "a", ""), boot="of another machine")
        await store.register(silent, 1)
        await until(lambda: store.heartbeat(silent.id, 1))
        assert await app.client.recover_executors("a") == ()
        assert (await who_is(app, "a")).state == "released"


@pytest.mark.parametrize("by_id", [False, True])
async def test_what_a_forgotten_one_left_can_be_given_away(database: str, by_id: bool) -> None:
    """It had started something before it learned that it was dead, and then it was killed: nobody's row tells of it."""
    app, heir = member(database, "zombie", "manual"), member(database, "b", "manual")
    await app.open()
    store, me = app._home.engine().line.store, executor(app).me.id
    await store.bury([me], expired_only=False)
    await store.leave(me)
    await start(app, "late")
    await crash(app)
    async with heir:
        assert await reap(executor(heir)) == 0
        named = me.hex() if by_id else "forgotten"
        assert await heir.client.recover_executors(named) == ("late",)
        assert await reap(executor(heir)) == 1
        assert in_memory(heir, "late")
        with pytest.raises(ExecutorNotFound, match="known: b, forgotten"):
            await heir.client.recover_executors("c")


async def test_whoever_is_unknown_is_an_error_that_tells_who_is_known(database: str) -> None:
    await leave_behind(database, "a", "left")
    app = member(database, "b", "manual")
    async with app:
        with pytest.raises(ExecutorNotFound, match=r"no executor is called 'c', and no .*; known: a, b"):
            await app.client.recover_executors("a", "c")
        assert (await who_is(app, "a")).state == "dead", "nothing was changed"
        store = app._home.engine().line.store
        for n in (1, 2):
            await store.register(Incarnation(id=b"\xab\xcd\xef" + bytes(12) + bytes([n]), executor="x"), 1)
        with pytest.raises(
            ExecutorNotFound, match=r"'abcd' is the beginning of several incarnations: abcdef0+1, abcdef"
        ):
            await app.client.recover_executors("abcd")


def test_the_sync_face_recovers_too(database: str) -> None:
    asyncio.run(leave_behind(database, "a", "left"))
    with perdure.sync.Client(database, app="shop") as client:
        assert client.recover_executors("a") == ("left",)
        with pytest.raises(ExecutorNotFound):
            client.recover_executors("b")
