"""A failover of Postgres to a standby that was behind: acknowledged records are lost, and no run goes on after them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from perdure import App
from perdure.model.ids import RunKey
from tests.postgres import Cluster
from tests.runtime.support import until

pytestmark = [pytest.mark.crash, pytest.mark.postgres]

STEPS = 6
KEPT, LOST = 2, 4  # the standby has the first two steps, and never hears of the third and the fourth


@pytest.fixture
def pair() -> Iterator[tuple[Cluster, Cluster]]:
    """A server and its standby."""
    with Cluster() as primary:
        standby = primary.standby()
        try:
            yield primary, standby
        finally:
            standby.destroy()


@asynccontextmanager
async def connected(server: Cluster) -> AsyncIterator[asyncpg.Connection]:
    conn = await asyncpg.connect(server.url())
    try:
        yield conn
    finally:
        await conn.close()


async def caught_up(primary: Cluster, standby: Cluster) -> None:
    async with connected(primary) as here, connected(standby) as there:
        written = await here.fetchval("select pg_current_wal_flush_lsn()::text")

        async def replayed() -> bool:
            return bool(await there.fetchval("select pg_last_wal_replay_lsn() >= $1::text::pg_lsn", written))

        await until(replayed)


async def cut_off(standby: Cluster) -> None:
    """Let the standby hear no more of its primary."""
    async with connected(standby) as conn:
        await conn.execute("alter system set primary_conninfo = 'host=127.0.0.1 port=1'")
        await conn.execute("select pg_reload_conf()")

        async def deaf() -> bool:
            return not await conn.fetchval("select count(*) from pg_stat_wal_receiver")

        await until(deaf)


async def test_what_a_failover_lost_is_done_again(pair: tuple[Cluster, Cluster]) -> None:
    primary, standby = pair
    ports = ",".join(f"127.0.0.1:{server.port}" for server in pair)
    database = f"postgresql://postgres@{ports}/postgres?target_session_attrs=primary"
    ran: list[int] = []
    gates = [asyncio.Event() for _ in range(STEPS)]
    app = App("shop", database=database, version="v1", lease=2)

    @app.step(name="step")
    async def step(n: int) -> int:
        ran.append(n)
        await gates[n].wait()
        return n

    @app.workflow(name="body")
    async def body() -> int:
        return sum([await step(n) for n in range(STEPS)])

    async with app:
        handle = await body.options(id="w").start()
        for n in range(KEPT):
            gates[n].set()
        await until(lambda: KEPT in ran)
        await caught_up(primary, standby)
        await cut_off(standby)
        for n in range(KEPT, LOST):
            gates[n].set()
        await until(lambda: LOST in ran)  # so the two before it are acknowledged
        primary.kill()
        async with connected(standby) as conn:
            assert await conn.fetchval("select pg_promote()")
        for gate in gates:
            gate.set()
        assert await handle.result() == sum(range(STEPS))

        store = app._home.engine().line.store  # pyright: ignore[reportPrivateUsage]
        history = (await store.histories([RunKey("w", 1)]))[RunKey("w", 1)]
        assert [r.seq for r in history] == list(range(1, STEPS + 1))
    assert [ran.count(n) for n in range(KEPT)] == [1] * KEPT, "what the standby had is not run again"
    assert [ran.count(n) for n in range(KEPT, LOST)] == [2] * (LOST - KEPT), "what it had not, is"
