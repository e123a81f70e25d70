"""Settings that an administrator gives a role, a database or the server: Perdure's sessions have what they need."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from perdure.model.writes import Park, SetEvent
from perdure.query.read import read_query
from perdure.store.postgres import PostgresStore
from perdure.store.postgres.migrate import migrations
from tests.postgres import Cluster, Server, candidates
from tests.store.build import one, outside, record, running, start, unit, want
from tests.store.test_postgres_races import Make, Third, make, third

__all__ = ["make", "third"]

pytestmark = pytest.mark.postgres


class Administrator:
    """Sets what holds by default for whoever connects to one database."""

    def __init__(self, server: Server, database: str) -> None:
        self._server = server
        self.database = database

    def sets(self, name: str, value: str) -> None:
        self._server.sql(f"alter database \"{self.database}\" set {name} = '{value}'")


@pytest.fixture
async def administrator(postgres_server: Server, postgres_url: str) -> AsyncIterator[Administrator]:
    administrator = Administrator(postgres_server, postgres_url.rpartition("/")[2])
    yield administrator
    postgres_server.sql(f'alter database "{administrator.database}" reset all')


ISOLATION = pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])


@ISOLATION
async def test_who_parks_while_what_it_waits_for_is_told_is_woken(
    make: Make, third: Third, administrator: Administrator, isolation: str
) -> None:
    """A transaction looks, after it has waited for a lock, at what is so by then: on an older snapshot nobody wakes."""
    administrator.sets("default_transaction_isolation", isolation)
    ours, theirs = await make(), await make()
    claim = await running(ours, "waiter", now=None)
    target = await running(theirs, "target", now=None)
    await third.hold("target")
    told = unit("target", target, records=[record(1)], events=[SetEvent("e", b"1")])
    tells = asyncio.create_task(theirs.commit([told]))
    await third.waiting(1)
    parks = asyncio.create_task(
        ours.commit([unit("waiter", claim, change=Park(None, "", ("target",), (("target", "e"),)))])
    )
    await third.waiting(2)
    await third.let_go()
    await asyncio.gather(tells, parks)
    assert [c.row.id for c in await ours.claim(want())] == ["waiter"]


@ISOLATION
async def test_those_that_migrate_at_once_wait_for_each_other(
    postgres_server: Server, bare_postgres_url: str, isolation: str
) -> None:
    administrator = Administrator(postgres_server, bare_postgres_url.rpartition("/")[2])
    administrator.sets("default_transaction_isolation", isolation)
    stores = [PostgresStore(bare_postgres_url, "app") for _ in range(3)]
    for store in stores:
        await store.open()
    applied = await asyncio.gather(*(store.migrate() for store in stores))
    for store in stores:
        await store.close()
    assert sorted(applied) == [[], [], [name for _, name, _ in migrations()]]


async def test_no_connection_of_ours_is_ended_for_being_idle(make: Make, administrator: Administrator) -> None:
    administrator.sets("idle_session_timeout", "1min")
    store = await make()
    for link in (store._reading, store._writing, store._hints._link, store.upkeep.link):
        assert (await link.fetchrow("select current_setting('idle_session_timeout')"))[0] == "0"


@pytest.fixture(scope="module")
def recent_server() -> Iterator[Cluster]:
    """A server of 17 or newer: only those end a transaction for its age."""
    for place in candidates():
        if (place / "postgres").exists():
            said = subprocess.run([place / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
            if int(re.findall(r"\d+", said)[0]) >= 17:
                break
    else:
        pytest.skip("no server of 17 or newer on this machine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERDURE_TEST_PG_BIN", str(place))
        with Cluster() as cluster:
            yield cluster


@pytest.mark.parametrize("pooled", ["", "?pooler=transaction"], ids=["direct", "pooled"])
async def test_no_transaction_of_ours_is_ended_for_its_age(recent_server: Cluster, pooled: str) -> None:
    administrator = Administrator(recent_server, recent_server.create_database())
    administrator.sets("transaction_timeout", "300ms")
    store = PostgresStore(recent_server.url(administrator.database) + pooled, "app")
    await store.open()
    assert await store.migrate()
    async with store._writing.transaction() as tx:
        await tx.fetch("select pg_sleep(0.5)")
    await store.close()


async def test_what_is_asked_of_attributes_is_read_the_same(make: Make, administrator: Administrator) -> None:
    """A backslash in a literal is one, also where the server takes it for an escape."""
    administrator.sets("standard_conforming_strings", "off")
    store: Any = await make()
    await one(store, outside(children=[start("w", attributes=b'{"colour":"red"}')]))
    assert [row.id for row in (await store.list(read_query("attributes.colour = 'red'", "app"))).rows] == ["w"]
