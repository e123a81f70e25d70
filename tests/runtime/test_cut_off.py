"""On a real Postgres: whose lease lost its connection, and lives; behind a pooler; and what the server is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from perdure import App, recv
from perdure.runtime import leases
from perdure.store.postgres.lifeline import PREFIX
from tests.runtime.support import executor, in_memory, until

pytestmark = pytest.mark.postgres

CUT = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = $1"


LEASE = 60.0  # so that no renewal comes by itself


def member(database: str, label: str) -> App:
    app = App("shop", database=database, executor_id=label, lease=LEASE)

    @app.workflow(name="order")
    async def order() -> str:
        return str(await recv("go"))

    return app


@asynccontextmanager
async def two(database: str) -> AsyncIterator[tuple[App, App, Any]]:
    """An executor at work, another whose reaper moves by hand, and an operator's connection."""
    first, second = member(database, "first"), member(database, "second")
    operator = await asyncpg.connect(database)
    try:
        async with first, second:
            for app in (first, second):
                executor(app).reaper.stop()
            yield first, second, operator
    finally:
        await operator.close()


async def beats(operator: Any, id: bytes) -> int:
    return int(await operator.fetchval("select beats from perdure.incarnation where id = $1", id))


async def connected(operator: Any, id: bytes) -> bool:
    seen = "select exists (select from pg_stat_activity where application_name = $1)"
    return bool(await operator.fetchval(seen, PREFIX + id.hex()))


async def cut(operator: Any, id: bytes) -> None:
    """End the connection of a lease; returns when it has come back and renewed."""
    before = await beats(operator, id)
    assert await operator.fetchval(CUT, PREFIX + id.hex()) == 1

    async def back() -> bool:
        return await beats(operator, id) > before and await connected(operator, id)

    await until(back, 5.0)


async def in_sight(app: App, peer: App) -> None:
    """Rounds, until the peer's connection was seen."""

    async def seen() -> bool:
        await executor(app)._round()
        return executor(peer).me.id in executor(app).reaper.lifelines._seen

    await until(seen)


async def test_who_is_cut_off_by_an_operator_and_lives_keeps_its_work(postgres_url: str) -> None:
    """It renews at once by another connection; whoever looks meanwhile does nothing."""
    async with two(postgres_url) as (first, second, operator):
        me = executor(first).me.id
        handle = await first.client.workflow("order", returns=str).options(id="w").start()
        await until(lambda: in_memory(first, "w"))
        await in_sight(second, first)
        back = asyncio.create_task(cut(operator, me))
        while not back.done():
            await executor(second)._round()  # it is suspect, or back already
        await back
        for _ in range(3):
            await executor(second)._round()
        assert executor(second).reaper.lifelines.next_due is None
        assert executor(first).me.id == me
        assert in_memory(first, "w")
        await handle.send("on", "go")
        assert await handle.result() == "on"
        assert executor(second).recovered == 0


async def test_cut_off_again_and_again_it_keeps_its_work(postgres_url: str) -> None:
    async with two(postgres_url) as (first, second, operator):
        me = executor(first).me.id
        await first.client.workflow("order", returns=str).options(id="w").start()
        await until(lambda: in_memory(first, "w"))
        for _ in range(4):
            await in_sight(second, first)
            await cut(operator, me)
        await executor(second)._round()
        assert (executor(first).me.id, executor(second).recovered) == (me, 0)
        assert in_memory(first, "w")


async def test_a_suspect_that_does_not_renew_is_taken_over_though_its_lease_runs(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reaper's clock is moved on; the renewal that is missing is seen by the count, and its time in the row."""
    monkeypatch.setattr(leases, "same_place", lambda _who: False)  # as on another host
    monkeypatch.setattr("perdure.runtime.reaper.same_place", lambda _who: False)
    async with two(postgres_url) as (first, second, operator):
        me, reaper = executor(first).me.id, executor(second).reaper
        await first.client.workflow("order", returns=str).options(id="w").start()
        await until(lambda: in_memory(first, "w"))
        await first._home.engine().line.journal.drained()
        await in_sight(second, first)
        engine = first._home.engine()
        engine.crash()
        first._home.opened(None)
        await until(lambda: gone(operator, me))
        await executor(second)._round()
        assert executor(second).recovered == 0, "suspect, no more"
        due = reaper.lifelines.next_due
        assert due is not None
        assert 0 < due <= LEASE / 3 + 1
        own = reaper.elapsed
        reaper.elapsed = lambda: own() + 3.1
        await operator.execute("update perdure.incarnation set lease_until = lease_until - 21100000 where id = $1", me)
        await executor(second)._round()
        assert executor(second).recovered == 1
        assert in_memory(second, "w")
        await engine.line.store.close()


async def gone(operator: Any, id: bytes) -> bool:
    return not await connected(operator, id)
