"""Wakes in their thousands: each look reads a bounded number, and a turn of looks sees them all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from perdure import App, Status, Topic, recv, sleep
from perdure.client import watcher
from perdure.errors import DatabaseTrouble, WorkflowCancelled
from perdure.model.records import Wake
from perdure.runtime import wakes
from perdure.runtime.eviction import evict_if_idle
from perdure.runtime.wakes import Window
from perdure.store import asks
from perdure.store.asks import Poll
from tests.runtime.support import executor, until

word = Topic[int]("word")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look reads three wakes."""
    monkeypatch.setattr(asks, "WAKES", 3)


def mailboxes(version: str, database: str) -> Any:
    app: Any = App("shop", database=database, version=version, adopt="never")

    @app.workflow(name="mailbox", versioning="pinned")
    async def mailbox(count: int) -> int:
        return sum([await recv(word) for _ in range(count)])

    app.mailbox = mailbox
    return app


async def test_all_that_are_written_to_are_woken(few: None, quick_eviction: None, database: str) -> None:
    app = mailboxes("v1", database)
    async with app:
        ids = [f"w{n}" for n in range(20)]
        for id in ids:
            await app.mailbox.options(id=id).start(2)
        await until(lambda: gone(app))
        for number in (1, 10):
            for id in ids:
                await app.client.handle(id).send(number, word)
        assert [await app.client.handle(id).result() for id in ids] == [11] * 20


async def test_those_that_nobody_here_can_wake_stand_in_nobodys_way(
    few: None, quick_eviction: None, database: str
) -> None:
    old, new = mailboxes("v1", database), mailboxes("v2", database)
    async with old:
        for n in range(9):
            await old.mailbox.options(id=f"a{n}").start(1)
        await until(lambda: gone(old))
    async with new:
        for n in range(9):
            await new.client.handle(f"a{n}").send(1, word)  # they wait for an executor of their version
        handle = await new.mailbox.options(id="z").start(1)
        await until(lambda: gone(new))
        await handle.send(7, word)
        assert await handle.result() == 7
        work = executor(new)
        work.look()
        await until(lambda: ended(work))


async def gone(app: Any) -> bool:
    """Whether all that runs here has left memory."""
    return not executor(app).executions


async def ended(work: Any) -> bool:
    """Whether it waits for the next poll: a turn ends, though there are always more wakes than a look reads."""
    return work._looking is None and not work._again and work.window.after == ""


class Slow:
    """A store whose first look for an end is answered late."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.looked, self.answers = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def ended(self, ids: Any) -> Any:
        found = await self._store.ended(ids)
        if not self.looked.is_set():
            self.looked.set()
            await self.answers.wait()
        return found


def posts(database: str, name: str, listen: list[str], gate: asyncio.Event) -> Any:
    """A parent that waits for a child in a line; who listens there runs the child, until the gate opens."""
    app: Any = App("shop", database=database, executor_id=name, listen=listen)
    line = app.queue("line")

    @app.step(name="act")
    async def act() -> int:
        await gate.wait()
        return 7

    @app.workflow(name="child", queue=line)
    async def child() -> int:
        return await act()

    @app.workflow(name="parent")
    async def parent() -> int:
        return await (await child.options(id="child").start()).result()

    app.parent, app.child = parent, child
    return app


def slowed(app: Any) -> list[Slow]:
    """Its stores, once it has any."""
    made: list[Slow] = []
    make = app._home.make_store

    def slow(*given: Any) -> Any:
        made.append(Slow(make(*given)))
        return made[-1]

    app._home.make_store = slow
    return made


@asynccontextmanager
async def looking(database: str, gate: asyncio.Event) -> AsyncGenerator[tuple[Any, Any, Any, Slow], None]:
    """Who has a parent, who has its child, the parent's handle, and the store that has not answered its look yet."""
    boss, worker = posts(database, "boss", [], gate), posts(database, "worker", ["line"], gate)
    made = slowed(boss)
    async with boss, worker:
        handle = await boss.parent.options(id="parent").start()
        slow = made[0]  # the others renew its lease
        await slow.looked.wait()
        yield boss, worker, handle, slow


async def test_an_end_between_a_look_and_its_answer_wakes_who_was_put_away_meanwhile(
    quick_eviction: None, database: str
) -> None:
    """The wake comes while the answer is on its way: it must not be used up, for nobody waits yet who could be told."""
    gate = asyncio.Event()
    async with looking(database, gate) as (boss, worker, handle, slow):
        gate.set()
        assert await worker.child.handle("child").result() == 7
        looks = executor(boss).looks
        executor(boss).look()
        await until(lambda: executor(boss).looks > looks + 1)
        await executor(boss).line.journal.drained()
        executor(boss).executions["parent"].idle_since = 0.0  # it has been idle for longer than anybody is kept
        slow.fates = trouble
        slow.answers.set()
        await until(lambda: gone(boss))
        del slow.fates
        assert await handle.result() == 7


async def test_a_command_does_not_wait_for_the_answer_to_a_look(database: str) -> None:
    gate = asyncio.Event()
    async with looking(database, gate) as (_, worker, handle, slow):
        assert await worker.client.handle("parent").cancel() is Status.CANCELLED
        assert not slow.answers.is_set()
        slow.answers.set()
        with pytest.raises(WorkflowCancelled):
            await handle.result()
        gate.set()


async def trouble(_ids: Any) -> Any:
    raise DatabaseTrouble("not now")


def test_a_window_moves_on_unless_not_all_in_it_was_claimed() -> None:
    window = Window()
    poll = Poll(now=0, wakes=[Wake("a", b"n", None, None)], claimable=0, lost=[], after="m")
    assert window.moved(poll, stays=True)
    assert window.after == ""
    assert window.moved(poll, stays=False)
    assert window.after == "m"
    assert not window.moved(Poll(now=0, wakes=[], claimable=None, lost=[]), stays=False)
    assert window.after == "", "round again"


async def test_a_look_goes_once_through_what_is_waited_for_whatever_the_number_of_wakes(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parent of thousands is woken by each of their ends."""
    seen: list[str] = []
    looks = wakes._looks
    monkeypatch.setattr(wakes, "_looks", lambda execution: seen.append(execution.id) or looks(execution))

    @app.workflow
    async def mailbox() -> int:
        return await recv(word)

    async with app:
        handle = await mailbox.options(id="w").start()
        await until(lambda: executor(app).executions["w"].waiting)
        many = [Wake("w", n.to_bytes(16)) for n in range(100)]
        await wakes.take_wakes(executor(app), many)
        assert seen == ["w"]
        await handle.send(7, word)
        assert await handle.result() == 7


async def test_a_message_is_not_looked_for_among_all_that_is_waited_for(app: App) -> None:
    class Counted(dict[str, Any]):
        read = 0

        def values(self) -> Any:
            Counted.read += len(self)
            return super().values()

    @app.workflow
    async def mailbox() -> int:
        sleeps = [asyncio.ensure_future(sleep(86_400)) for _ in range(50)]
        got = sum([await recv(word) for _ in range(20)])
        for one in sleeps:
            one.cancel()
        return got

    async with app:
        handle = await mailbox.options(id="w").start()
        execution = await until(lambda: executor(app).executions.get("w"))
        await until(lambda: len(execution.waiting) == 51)
        execution.waiting = Counted(execution.waiting)
        for _ in range(20):
            await handle.send(1, word)
        assert await handle.result() == 20
    assert Counted.read < 51 * 10  # of other looks, of which there are few


async def test_a_look_asks_for_no_ends_that_were_told_here(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of children that end one after the other, each wake made a look ask for all that the parent waited for."""
    app: Any = App("shop", database=database)

    @app.workflow
    async def child() -> int:
        return await recv(word)

    @app.workflow
    async def parent(count: int) -> int:
        handles = [await child.options(id=f"c{n}").start() for n in range(count)]
        return sum(await asyncio.gather(*[handle.result() for handle in handles]))

    async with app:
        handle = await parent.start(20)
        host = executor(app)
        ended, asked = host.line.store.ended, 0

        async def counted(ids: Any) -> Any:
            nonlocal asked
            asked += len(ids)
            return await ended(ids)

        await until(lambda: host.has(handle.id) and len(host.executions[handle.id].waiting) == 20)
        monkeypatch.setattr(host.line.store, "ended", counted)
        boss = host.executions[handle.id]
        host.polling = False
        host._stop_polling()
        for n in range(19):
            await app.client.handle(f"c{n}").send(n, word)
            await until(lambda n=n: len(boss.waiting) == 19 - n)
            while (await host.line.store.poll(host.me.id, None, now=None)).wakes:
                host.look()
                await until(lambda: not host._looking)
                await host.line.journal.drained()
        assert asked <= 40, "at the most what a look asked that came between an end and its being told"
        assert not boss.heard
        await app.client.handle("c19").send(19, word)
        assert await handle.result() == sum(range(20))


async def test_of_children_that_end_elsewhere_a_look_asks_for_those_that_have(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wake says which it was: not for all that the parent waits for, be it by the wake or by the hint."""
    monkeypatch.setattr(watcher, "CHILDREN_MAX", 0)
    monkeypatch.setattr(watcher, "CHILDREN_SECONDS", 1_000_000.0)

    def build() -> Any:
        app: Any = App("shop", database=database, version="v")

        @app.workflow(name="child")
        async def child() -> int:
            return await recv(word)

        @app.workflow(name="parent")
        async def parent(count: int) -> int:
            handles = [await child.options(id=f"c{n}").start() for n in range(count)]
            return sum(await asyncio.gather(*[handle.result() for handle in handles]))

        app.parent = parent
        return app

    asked: list[str] = []
    async with build() as app:
        handle = await app.parent.options(id="p").start(20)
        host = executor(app)
        await until(lambda: host.has("p") and len(host.executions["p"].waiting) == 20)

        async def none() -> bool:
            return False

        monkeypatch.setattr(host, "_claim", none)
        ended, fates = host.line.store.ended, host.line.store.fates
        monkeypatch.setattr(host.line.store, "ended", lambda ids: asked.extend(ids) or ended(ids))
        monkeypatch.setattr(host.line.store, "fates", lambda ids: asked.extend(ids) or fates(ids))
        host.line.watcher.look()  # the one in a long time that asks for all

        def away() -> bool:
            for n in range(20):
                if host.has(f"c{n}"):
                    evict_if_idle(host.executions[f"c{n}"], float("inf"))
            return len(host.executions) == 1 and not host.line.watcher._look

        await until(away)
        asked.clear()
        async with build() as other:
            for n in range(20):
                await other.client.handle(f"c{n}").send(n, word)
                await until(lambda n=n: not host.has("p") or len(host.executions["p"].waiting) == 19 - n)
            assert await handle.result() == sum(range(20))
    assert len([id for id in asked if id != "p"]) <= 40, asked
