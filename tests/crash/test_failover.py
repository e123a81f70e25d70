"""Failovers of Postgres, to a standby of its own.

One that was behind: acknowledged records are lost, and no run goes on after them. One that is synchronous: what it has
never heard of was acknowledged to nobody, so nothing is lost.
"""

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


async def fail_over(primary: Cluster, standby: Cluster) -> None:
    primary.kill()
    async with connected(standby) as conn:
        assert await conn.fetchval("select pg_promote()")


def either(pair: tuple[Cluster, Cluster]) -> str:
    """The URL of whichever of them takes writes."""
    ports = ",".join(f"127.0.0.1:{server.port}" for server in pair)
    return f"postgresql://postgres@{ports}/postgres?target_session_attrs=primary"


async def test_what_a_failover_lost_is_done_again(pair: tuple[Cluster, Cluster]) -> None:
    primary, standby = pair
    ran: list[int] = []
    gates = [asyncio.Event() for _ in range(STEPS)]
    app = App("shop", database=either(pair), version="v1", lease=2)

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
        await fail_over(primary, standby)
        for gate in gates:
            gate.set()
        assert await handle.result() == sum(range(STEPS))

        store = app._home.engine().line.store  # pyright: ignore[reportPrivateUsage]
        history = (await store.histories([RunKey("w", 1)]))[RunKey("w", 1)]
        assert [r.seq for r in history] == list(range(1, STEPS + 1))
    assert [ran.count(n) for n in range(KEPT)] == [1] * KEPT, "what the standby had is not run again"
    assert [ran.count(n) for n in range(KEPT, LOST)] == [2] * (LOST - KEPT), "what it had not, is"


async def awaited(primary: Cluster, standby: Cluster) -> None:
    """Let commits wait for the standby, which has caught up."""
    async with connected(primary) as conn:
        await conn.execute("alter system set synchronous_standby_names = '*'")
        await conn.execute("select pg_reload_conf()")

        async def synchronous() -> bool:
            return bool(await conn.fetchval("select count(*) from pg_stat_replication where sync_state = 'sync'"))

        await until(synchronous)
    await caught_up(primary, standby)


async def test_a_synchronous_standby_loses_nothing(pair: tuple[Cluster, Cluster]) -> None:
    """Cut off, it leaves the primary with commits that are on its disk and told to nobody; then the primary dies."""
    primary, standby = pair
    await awaited(primary, standby)
    workflows = [f"w{n}" for n in range(20)]
    ran: list[tuple[str, int]] = []
    middle = asyncio.Event()
    app = App("shop", database=either(pair), version="v1", lease=2)

    @app.step(name="step")
    async def step(id: str, n: int) -> int:
        ran.append((id, n))
        if n == KEPT:
            await middle.wait()
        return n

    @app.workflow(name="body")
    async def body(id: str) -> int:
        return sum([await step(id, n) for n in range(STEPS)])

    async with app:
        handles = [await body.options(id=id).start(id) for id in workflows]
        await until(lambda: all((id, KEPT) in ran for id in workflows))
        await cut_off(standby)
        middle.set()
        async with connected(primary) as conn:

            async def written_and_not_told() -> bool:
                waiting = "select from pg_stat_activity where wait_event = 'SyncRep' and query ilike '%history%'"
                return bool(await conn.fetchval(f"select exists ({waiting})"))

            await until(written_and_not_told)
        assert not [n for _, n in ran if n > KEPT], "nothing goes on from a record that the standby may not have"
        await fail_over(primary, standby)
        assert [await handle.result() for handle in handles] == [sum(range(STEPS))] * len(workflows)

        store = app._home.engine().line.store  # pyright: ignore[reportPrivateUsage]
        histories = await store.histories([RunKey(id, 1) for id in workflows])
        assert [[r.seq for r in rows] for rows in histories.values()] == [list(range(1, STEPS + 1))] * len(workflows)
    assert sorted(ran) == [(id, n) for id in sorted(workflows) for n in range(STEPS)], "and no step has run again"
