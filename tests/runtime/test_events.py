"""Events: typed, latest value, readable after the end, recorded where a workflow read them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

import perdure.sync
from perdure import App, Event, recv, set_event, sleep
from perdure.client import watcher as watching
from tests.runtime.support import Ledger, executor, history, kinds, until


@dataclass
class Link:
    url: str


payment_url = Event[Link]("payment_url")


async def test_an_event_arrives_typed_while_the_workflow_goes_on(app: App) -> None:
    @app.workflow
    async def body() -> str:
        await set_event(payment_url, Link("https://pay"))
        return str(await recv())

    async with app:
        handle = await body.options(id="a").start()
        assert await handle.get_event(payment_url) == Link("https://pay")
        assert await handle.get_event("payment_url") == {"url": "https://pay"}  # by name alone: any value
        await handle.send("done")
        assert await handle.result() == "done"


async def test_the_latest_value_is_read_and_stays_after_the_end(app: App, database: str) -> None:
    stage = Event[str]("stage")

    @app.workflow
    async def body() -> None:
        await set_event(stage, "one")
        await recv()
        await set_event(stage, "two")
        await set_event(stage, "three")

    async with app:
        handle = await body.options(id="a").start()
        assert await handle.get_event(stage) == "one"
        await handle.send(True)
        await handle.result()
        assert await handle.get_event(stage) == "three"
    async with App("shop", database=database).connect() as client:
        assert await client.handle("a").get_event(stage) == "three"


async def test_who_waits_is_told_when_it_is_set(app: App) -> None:
    @app.workflow
    async def body() -> None:
        await recv()
        await set_event("ready", 1)
        await recv()

    async with app:
        handle = await body.options(id="a").start()
        waiting = asyncio.create_task(handle.get_event("ready"))
        await handle.send(True)
        assert await waiting == 1


async def test_none_at_the_timeout(app: App) -> None:
    @app.workflow
    async def body() -> None:
        await recv()

    async with app:
        handle = await body.options(id="a").start()
        assert await handle.get_event("never", timeout=0.05) is None


async def test_none_when_the_workflow_closed_without_it(app: App) -> None:
    @app.workflow
    async def body() -> None:
        await recv()

    async with app:
        handle = await body.options(id="a").start()
        waiting = asyncio.create_task(handle.get_event("never"))
        await asyncio.sleep(0)
        await handle.send(True)
        assert await waiting is None
        assert await handle.get_event("never") is None


async def test_an_event_set_right_before_the_end_is_never_missed(app: App) -> None:
    @app.workflow
    async def body() -> None:
        await set_event("last", "word")

    async with app:
        for n in range(20):
            handle = await body.options(id=f"w{n}").start()
            assert await handle.get_event("last", timeout=10) == "word"


async def test_what_a_workflow_read_is_served_from_its_history(app: App, ledger: Ledger) -> None:
    @app.workflow
    async def source() -> None:
        await set_event("stage", "early")
        await recv()
        await set_event("stage", "late")

    @app.workflow
    async def reader() -> str:
        value = await source.handle("s").get_event("stage")
        ledger.note(value)
        await recv("go")
        return str(value)

    async with app:
        await source.options(id="s").start()
        await reader.options(id="r").start()
        await until(lambda: history(app, "r"))
        await source.handle("s").send(True)
        await source.handle("s").result()
    async with app:
        await reader.handle("r").send(True, "go")
        assert await reader.handle("r").result() == "early"
        assert await source.handle("s").get_event("stage") == "late"
        assert (await kinds(app, "r"))[0] == "READ event stage of s VALUE"
    assert ledger == ["early", "early"]


async def test_get_event_in_a_workflow_times_out_durably(app: App) -> None:
    @app.workflow
    async def source() -> None:
        await recv()

    @app.workflow
    async def reader() -> str:
        first = await source.handle("s").get_event("never", timeout=0.05)
        await sleep(0.05)
        return str(first)

    async with app:
        await source.options(id="s").start()
        assert await reader() == "None"


async def test_setting_events_waits_for_no_commit_of_its_own(app: App) -> None:
    @app.workflow
    async def body() -> None:
        for n in range(50):
            await set_event("n", n)

    async with app:
        journal = app._home.engine().line.journal
        before = journal.commits
        handle = await body.options(id="a").start()
        await handle.result()
        assert await handle.get_event("n") == 49
        assert journal.commits - before <= 2


async def test_an_event_is_of_the_latest_run(app: App) -> None:
    @app.workflow
    async def body(n: int) -> None:
        if n == 1:
            await set_event("n", n)

    async with app:
        again = body.options(id="a", on_conflict="replace")
        await again(1)
        assert await body.handle("a").get_event("n") == 1
        await again(2)
        assert await body.handle("a").get_event("n") is None


async def test_an_end_does_not_go_through_all_that_wait_for_events(app: App) -> None:
    class Counted(dict[Any, Any]):
        read = 0

        def __iter__(self) -> Any:
            Counted.read += len(self)
            return super().__iter__()

    async with app:
        watcher: Any = executor(app).line.watcher
        watches = [watcher.event(f"w{n % 50}", f"e{n % 2}", print) for n in range(200)]
        watcher._events = Counted(watcher._events)
        for n in range(20):  # of others
            watcher.tell_end(SimpleNamespace(row=SimpleNamespace(id=f"x{n}")))
        assert not Counted.read
        for watch in watches:
            watch.cancel()
        assert not watcher._events
        assert not watcher.waits


async def test_what_was_told_to_be_held_is_not_remembered_for_ever(
    app: App, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watching, "TOLD_MAX", 10)
    async with app:
        watcher = executor(app).line.watcher
        for n in range(100):
            watcher.warn_held(f"w{n}", "order", "no_code", "")
        assert list(watcher._told_held) == [f"w{n}" for n in range(90, 100)]
    assert caplog.text.count("is held") == 100


def test_events_of_the_sync_face(sync_app: perdure.sync.App) -> None:
    @sync_app.workflow
    def body() -> str:
        perdure.sync.set_event(payment_url, Link("https://pay"))
        return str(perdure.sync.recv())

    @sync_app.workflow
    def reader() -> str:
        link = body.handle("a").get_event(payment_url)
        assert link is not None
        return link.url + str(body.handle("a").get_event("never", timeout=0.01))

    with sync_app:
        handle = body.options(id="a").start()
        assert handle.get_event(payment_url) == Link("https://pay")
        assert reader() == "https://payNone"
        assert handle.get_event("never", timeout=0.02) is None
        handle.send("done")
        assert handle.result() == "done"
        assert handle.get_event("never") is None
        assert handle.get_event(payment_url) == Link("https://pay")
