"""Faults that no world of the simulator holds: its database has one connection, no NOTIFY, and no server to start.

Each is put in here, and seen by what a test without it promises.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from perdure.runtime.guards import Guards
from perdure.store.postgres import PostgresStore
from perdure.store.postgres.hints import Hints
from tests.postgres import Cluster
from tests.runtime import test_guards
from tests.store import test_postgres_trouble
from tests.store.build import T, letin, queued
from tests.store.test_queues import ids, limited

pytestmark = pytest.mark.slow


def test_17_no_amnesty_after_an_outage(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    test_guards.test_after_an_outage_everybody_has_a_lease_to_renew(caplog)
    monkeypatch.setattr(Guards, "_wait", lambda *_: None)
    with pytest.raises(AssertionError, match="all leases look expired, and nobody is dead"):
        test_guards.test_after_an_outage_everybody_has_a_lease_to_renew(caplog)


@pytest.fixture
async def stores(postgres_url: str) -> AsyncIterator[list[PostgresStore]]:
    made = [PostgresStore(postgres_url, "app") for _ in range(4)]
    for store in made:
        await store.open()
        await store.migrate()
    yield made
    for store in made:
        await store.close()


def change(patch: pytest.MonkeyPatch, store: PostgresStore, name: str, old: str, new: str) -> None:
    """Change a query of one store."""
    place = store._place
    assert old in place.sql[name], f"{name} no longer says {old!r}: the mutant must follow it"
    changed = {**place.sql, name: place.sql[name].replace(old, new)}
    patch.setattr(store, "_place", place._replace(sql=changed))


@pytest.mark.postgres
async def test_17_no_amnesty_after_a_start_of_the_server(
    stores: list[PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    await test_postgres_trouble.test_after_a_start_of_the_server_a_lease_is_good_for_its_length(stores[0])
    change(monkeypatch, stores[1], "incarnation_bury", "extract(epoch from pg_postmaster_start_time())", "0")
    with pytest.raises(AssertionError):
        await test_postgres_trouble.test_after_a_start_of_the_server_a_lease_is_good_for_its_length(stores[1])


@pytest.mark.postgres
async def test_24_a_limit_counted_outside_of_the_lock(
    stores: list[PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def most_at_once(queue: str) -> int:
        """Four claim from a queue of three, again and again: how many had something in the end, at most."""
        most = 0
        for n in range(20):
            name = f"{queue}{n}"
            await limited(stores[0], name, concurrency=3)
            await queued(stores[0], *(f"{name}-{i}" for i in range(12)), queue=name)
            got = await asyncio.gather(*(store.claim_line(letin(name, 3), now=T) for store in stores))
            most = max(most, sum(len(ids(claim.claimed)) for claim in got))
            if most > 3:
                break
        return most

    assert await most_at_once("locked") == 3
    for store in stores:
        change(monkeypatch, store, "queue_lock", "for no key update", "")
    assert await most_at_once("open") > 3


@pytest.mark.postgres
async def test_23_no_listening_again(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[bool] = []
    listen_on = Hints._listen_on

    async def once(self: Hints, conn: object) -> None:
        if not heard:
            await listen_on(self, conn)  # type: ignore[arg-type]
            heard.append(True)

    async def hears_after_a_restart() -> bool:
        name = cluster.create_database()
        one, other = PostgresStore(cluster.url(name), "app"), PostgresStore(cluster.url(name), "app")
        told = asyncio.Event()
        await one.open()
        await one.migrate()
        await other.open()
        other.on_hint(lambda _queues: told.set())
        try:
            await _hint_until(one, told, 10)
            cluster.restart()
            return await _hint_until(one, told, 6)
        finally:
            await one.close()
            await other.close()

    assert await hears_after_a_restart()
    monkeypatch.setattr(Hints, "_listen_on", once)
    assert not await hears_after_a_restart()


async def _hint_until(store: PostgresStore, told: asyncio.Event, seconds: float) -> bool:
    """Send hints until one is heard: whether it was in time. The one that says "look, you were away" does not count."""
    for _ in range(3):
        told.clear()
        try:
            async with asyncio.timeout(seconds / 3):
                while not told.is_set():
                    store.hint()
                    await asyncio.sleep(0.02)  # waits: until heard, a lost hint is sent again
        except TimeoutError:
            return False
    return True
