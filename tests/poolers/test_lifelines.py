"""Behind a transaction pooler no lease's connection has a name, and nobody is suspect: the lease decides, as before."""

from __future__ import annotations

from typing import Any

import pytest

from perdure import App
from perdure.store.postgres import PostgresStore
from tests.runtime.support import executor
from tests.store.build import ME, SECOND
from tests.store.test_executors import who

pytestmark = pytest.mark.postgres


async def test_a_lease_by_way_of_a_pooler_bears_no_name(pooled_url: str, postgres_url: str) -> None:
    direct, lease = PostgresStore(postgres_url, "app"), PostgresStore(pooled_url, "app")
    lease.lifeline(ME, lambda: None)
    await direct.open()
    await direct.migrate()
    await lease.open()
    await lease.register(who(ME), SECOND)
    for _ in range(20):
        assert await lease.heartbeat(ME, SECOND)
        assert (await direct.roll_call()).connected == frozenset()
    names = await direct._reading.fetch(
        "select application_name from pg_stat_activity where application_name like 'perdure lease%'"
    )
    assert not names
    await lease.close()
    await direct.close()


async def test_who_asks_by_way_of_a_pooler_cannot_tell(pooled_url: str, postgres_url: str) -> None:
    lease, pooled = PostgresStore(postgres_url, "app"), PostgresStore(pooled_url, "app")
    lease.lifeline(ME, lambda: None)
    await lease.open()
    await pooled.open()
    await pooled.migrate()
    assert (await pooled.roll_call()).connected is None
    await lease.close()
    await pooled.close()


@pytest.mark.parametrize("which", ["both", "the peer", "the reaper"])
async def test_an_executor_sees_no_suspect(pooled_url: str, postgres_url: str, which: str) -> None:
    """Whoever of the two is behind it."""
    peer: Any = App("shop", database=postgres_url if which == "the reaper" else pooled_url, executor_id="peer")
    reaper: Any = App("shop", database=postgres_url if which == "the peer" else pooled_url, executor_id="reaper")
    async with peer, reaper:
        host = executor(reaper)
        host.reaper.stop()
        for _ in range(3):
            await host._round()
        assert host.reaper.lifelines._seen == set()
        engine = peer._home.engine()
        engine.lease.end()  # as if it had died: its connection goes, its lease runs on
        engine.lease._thread.join()
        for _ in range(3):
            await host._round()
        assert host.reaper.lifelines.next_due is None
        states = {one.executor: one.state for one in await host.line.store.incarnations()}
        assert states == {"peer": "alive", "reaper": "alive"}
