"""Declared dead, and at work again: whatever was in the way, and in whatever database by then."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure import App, Client
from perdure.runtime import executor as executors
from tests.postgres import Server
from tests.runtime.support import executor, until


def an_app(url: str) -> tuple[App, Any]:
    app = App("shop", database=url, lease=2)

    @app.workflow(name="order")
    async def order() -> str:
        return "paid"

    return app, order


async def test_a_bug_or_whatever_in_beginning_anew_is_tried_again(
    database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app, order = an_app(database)
    async with app:
        store: Any = app._home.engine().line.store
        register, failing = store.register, [True]

        async def fails(*args: Any, **named: Any) -> None:
            if failing:
                raise ValueError("whatever")
            await register(*args, **named)

        monkeypatch.setattr(store, "register", fails)
        await store.bury([executor(app).me.id], expired_only=False)
        await until(lambda: "cannot begin anew yet, and tries again: whatever" in caplog.text)
        failing.clear()
        await until(lambda: executor(app).alive)
        assert await order() == "paid"


async def test_who_begins_anew_takes_on_what_a_look_of_before_has_claimed(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look asks as the dead one, and claims as the one who came after it, which declares things meanwhile."""
    app, order = an_app(database)
    polled, claims, declared = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def declare(*_: Any) -> None:
        claims.set()
        await declared.wait()

    monkeypatch.setattr(executors, "declare_anew", declare)
    async with app, Client(database, app="shop") as client:
        engine: Any = app._home.engine()
        store, was = engine.line.store, executor(app).me.id
        poll = store.poll

        async def slow_poll(*args: Any, **named: Any) -> Any:
            found = await poll(*args, **named)
            if found.claimable is not None and args[0] == was:
                polled.set()
                await claims.wait()
            return found

        await until(lambda: executor(app)._looking is None)  # or the look of the launch finds what is started next
        monkeypatch.setattr(store, "poll", slow_poll)
        await client.workflow("order", returns=str).options(id="a").start()
        await polled.wait()
        await store.bury([was], expired_only=False)
        await claims.wait()
        assert await order.handle("a").result(timeout=20) == "paid"
        declared.set()


async def test_who_is_declared_dead_does_not_launch_its_version_again(database: str) -> None:
    """Where new work goes is for launches and operators to say."""
    app, _ = an_app(database)
    async with app:
        store: Any = app._home.engine().line.store
        launched = (await store.versions())[0].launched
        before = executor(app).me.id
        await store.bury([before], expired_only=False)
        await until(lambda: executor(app).alive and executor(app).me.id != before)
        assert [one.launched for one in await store.versions()] == [launched]


@pytest.mark.postgres
async def test_in_a_database_made_anew_all_is_declared_again(bare_postgres_url: str, postgres_server: Server) -> None:
    app, order = an_app(bare_postgres_url)
    app.queue("mails", concurrency=3)

    @app.schedule("0 2 * * *")
    @app.workflow(name="nightly")
    async def nightly() -> None: ...

    async with app:
        store: Any = app._home.engine().line.store

        async def declared() -> bool:
            queues = {one.name: one.limits.concurrency for one in await store.queues()}
            versions = [one.name for one in await store.versions()]
            return (queues, versions, [one.name for one in await store.schedules()]) == (
                {"mails": 3}, [executor(app).version], ["nightly"]
            )  # fmt: skip

        await until(declared)
        before = executor(app).me.id
        postgres_server.sql("drop schema perdure cascade", db=bare_postgres_url.rpartition("/")[2])
        await store.migrate()
        await until(lambda: executor(app).alive and executor(app).me.id != before)
        await until(declared)
        assert await order() == "paid"
