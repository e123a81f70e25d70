"""Messages to runs of this process: handed over as sent where that is sound, read from the inbox where it is not."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection
from datetime import timedelta
from typing import Any

import pytest

from perdure import App, recv
from perdure.errors import DatabaseTrouble
from perdure.runtime.eviction import evict_if_idle
from tests.runtime.support import executor, hold_looks, until


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each store method was called, since it was watched."""
    return Counter()


def watch(app: App, reads: Counter[str], monkeypatch: pytest.MonkeyPatch, *names: str) -> Any:
    """Count these calls of the store of an open app."""
    store: Any = app._home.engine().line.store

    def counted(name: str) -> Any:
        real = getattr(store, name)

        async def call(*args: Any, **options: Any) -> Any:
            reads[name] += 1
            return await real(*args, **options)

        return call

    for name in names:
        monkeypatch.setattr(store, name, counted(name))
    return store


def takes(app: App, count: int) -> Any:
    """A workflow that receives so many."""

    @app.workflow
    async def body() -> list[int]:
        return [int(await recv("n", timeout=60)) for _ in range(count)]

    return body


async def test_what_was_just_sent_is_not_asked_for(
    app: App, reads: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    body = takes(app, 20)
    async with app:
        handle = await body.start()
        store = watch(app, reads, monkeypatch, "inbox", "commit")
        look = hold_looks(app, monkeypatch)  # one in between may see a wake row before it goes
        for n in range(20):
            await handle.send(n, "n")
            await asyncio.sleep(0.01)  # waits: until it is received, so that each has commits of its own
        assert await handle.result() == list(range(20))
        look.set()
        assert not reads["inbox"], reads
        assert reads["commit"] <= 42, reads  # no commit for wake rows alone
        poll = await store.poll(executor(app).me.id, None, now=None)
        assert not poll.wakes, "the wake rows went with the records of what they were about"


def busy(app: App, count: int, timeout: float | None = None) -> tuple[Any, asyncio.Event]:
    """The same, once a step has seen the gate open."""
    gate = asyncio.Event()

    @app.step
    async def works() -> None:
        await gate.wait()

    @app.workflow
    async def body() -> list[Any]:
        await works()
        return [await recv("n", timeout=timeout) for _ in range(count)]

    return body, gate


async def looked(app: App) -> None:
    """Returns when no wake is left, since a look has acted on them all."""
    host = executor(app)
    while (await host.line.store.poll(host.me.id, None, now=None)).wakes:
        host.look()
        await until(lambda: not host._looking)
        await host.line.journal.drained()


async def test_mail_for_who_is_busy_is_read_once_when_it_receives(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sent one after the other, with looks in between: no send and no look reads all that was sent before."""
    body, gate = busy(app, 60)
    async with app:
        handle = await body.start()
        store: Any = app._home.engine().line.store
        inbox, rows = store.inbox, 0

        async def counted(ids: Collection[str]) -> Any:
            nonlocal rows
            found = await inbox(ids)
            rows += len(found)
            return found

        monkeypatch.setattr(store, "inbox", counted)
        for n in range(60):
            await handle.send(n, "n", key=str(n) if n % 3 else None)
            if not n % 20:
                await looked(app)
        await looked(app)  # of a wake that is left a look would tell while the mail is read, which is then read again
        assert rows == 0, f"it does not receive, and {rows} were read for it"
        look = hold_looks(app, monkeypatch)
        gate.set()
        assert await handle.result() == list(range(60))
        assert 0 < rows <= 60, rows
        look.set()


async def test_what_was_durable_before_is_received_by_a_mere_look(app: App) -> None:
    body, gate = busy(app, 2, timeout=0)
    async with app:
        handle = await body.start()
        await handle.send(1, "n", key="first")
        gate.set()
        assert await handle.result() == [1, None]


async def test_who_is_owed_mail_stays_until_it_is_read_however_often_that_fails(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No wake is left that would find it again: a look has let it go while the run was busy."""
    body, gate = busy(app, 1)
    async with app:
        handle = await body.start()
        host = executor(app)
        store: Any = host.line.store
        inbox, failed, broken = store.inbox, 0, True

        async def fails(ids: Collection[str]) -> Any:
            nonlocal failed
            if broken:
                failed += 1
                raise DatabaseTrouble("no answer")
            return await inbox(ids)

        monkeypatch.setattr(store, "inbox", fails)
        await handle.send(1, "n", key="first")
        await looked(app)
        assert not failed
        gate.set()
        await until(lambda: failed > 1)
        await host.line.journal.drained()
        evict_if_idle(host.executions[handle.id], host.line.loop.time() + 1)
        assert host.runs(handle.id)
        broken = False
        assert await handle.result() == [1]


async def test_nothing_is_handed_over_past_a_read_that_is_to_come(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second message needs no read, but its sender's first does, which is slow."""
    body = takes(app, 2)
    async with app:
        handle = await body.start()
        store: Any = app._home.engine().line.store
        inbox, slow = store.inbox, asyncio.Event()

        async def late(ids: Collection[str]) -> Any:
            await slow.wait()
            return await inbox(ids)

        monkeypatch.setattr(store, "inbox", late)
        await handle.send(1, "n", key="first")
        await handle.send(2, "n")
        await asyncio.sleep(0.05)  # waits: for the second, which must not arrive
        slow.set()
        assert await handle.result() == [1, 2]


@pytest.mark.parametrize("way", ["in line", "delayed", "left behind"])
async def test_what_is_sent_while_a_claim_is_under_way_comes_in_order(
    app: App, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim has looked for mail; the first is durable after that, the second once it runs here, before a look."""
    body = takes(app, 2)
    app.queue("line")
    async with app:
        store: Any = app._home.engine().line.store
        claimed, go = asyncio.Event(), asyncio.Event()
        name = {"in line": "claim_line", "delayed": "claim", "left behind": "reclaim"}[way]
        claim = getattr(store, name)

        async def slow(*args: Any, **options: Any) -> Any:
            found = await claim(*args, **options)
            if found if isinstance(found, list) else found.claimed:
                claimed.set()
                await go.wait()
            return found

        monkeypatch.setattr(store, name, slow)
        if way == "in line":
            handle = await body.options(queue="line").start()
        elif way == "delayed":
            handle = await body.options(delay=timedelta(milliseconds=20)).start()
        else:
            handle = await body.start()
            await until(lambda: executor(app).executions[handle.id].receiving)
            executor(app).executions[handle.id].drop()
            executor(app).answer_lost()
            executor(app).look()
        await claimed.wait()
        look = hold_looks(app, monkeypatch)
        await handle.send(1, "n")
        go.set()
        await until(lambda: executor(app).has(handle.id))
        await handle.send(2, "n")
        await asyncio.sleep(0.05)  # waits: for the second, which must not arrive alone
        look.set()
        assert await handle.result() == [1, 2]


async def test_the_same_after_a_read_that_failed(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    body = takes(app, 2)
    async with app:
        handle = await body.start()
        store: Any = app._home.engine().line.store
        inbox, broken = store.inbox, True

        async def fails(ids: Collection[str]) -> Any:
            if broken:
                raise DatabaseTrouble("no answer")
            return await inbox(ids)

        monkeypatch.setattr(store, "inbox", fails)
        await handle.send(1, "n", key="first")
        await asyncio.sleep(0.05)  # waits: until the read has failed
        await handle.send(2, "n")
        await asyncio.sleep(0.05)  # waits: for the second, which must not arrive
        broken = False
        assert await handle.result() == [1, 2]


async def test_a_key_that_another_has_used_delivers_once(app: App) -> None:
    body = takes(app, 2)
    async with app:
        handle = await body.start()
        await handle.send(1, "n", key="same")
        await handle.send(2, "n", key="same")
        await handle.send(3, "n")
        assert await handle.result() == [1, 3]


async def test_a_message_whose_commit_was_tried_twice_is_read(
    app: App, reads: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first try may have been received before, by a run of this id that has left memory since."""
    body = takes(app, 1)
    async with app:
        handle = await body.start()
        journal = app._home.engine().line.journal
        await journal.drained()
        store = watch(app, reads, monkeypatch, "inbox")
        commit = store.commit

        async def loses_the_answer(*args: Any, **options: Any) -> Any:
            monkeypatch.setattr(store, "commit", commit)
            await commit(*args, **options)
            raise DatabaseTrouble("the answer was lost")

        monkeypatch.setattr(store, "commit", loses_the_answer)
        handed: list[object] = []
        monkeypatch.setattr(executor(app).post, "deliver", handed.append)
        await handle.send(1, "n")
        assert await handle.result() == [1]
        assert not handed
        assert reads["inbox"]


async def test_what_was_handed_over_and_read_as_well_counts_once(app: App) -> None:
    @app.workflow
    async def body() -> list[Any]:
        return [await recv("n", timeout=60), await recv("n", timeout=0.1)]

    async with app:
        handle = await body.start()
        await until(lambda: executor(app).has(handle.id))
        await handle.send(1, "n")
        executor(app).post.announce([handle.id])
        executor(app).look()
        assert await handle.result() == [1, None]


async def test_mail_for_nobody_waiting_is_found_again_after_an_eviction(app: App, quick_eviction: None) -> None:
    """Handed over, but not received: its wake row stays, and so does the message."""

    @app.workflow
    async def body() -> list[str]:
        return [await recv("first"), await recv("second")]

    async with app:
        handle = await body.start()
        await handle.send("b", "second")
        await until(lambda: not executor(app).has(handle.id))
        await handle.send("a", "first")
        assert await handle.result() == ["a", "b"]
