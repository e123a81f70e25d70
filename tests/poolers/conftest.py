"""Stores, databases and fleets by way of a real PgBouncer in transaction mode, which shares four connections."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from perdure import App
from perdure.store.base import Store
from perdure.store.postgres import PostgresStore
from tests.crash.fleet import Fleet, fleet_over
from tests.pgbouncer import Pooler
from tests.postgres import Server
from tests.runtime.conftest import bodies, quick_eviction, said, sync_app
from tests.runtime.support import Ledger
from tests.store.conftest import MakeStore, serving

__all__ = ["bodies", "quick_eviction", "said", "serving", "sync_app"]


@pytest.fixture(scope="session")
def pooler(postgres_server: Server) -> Iterator[Pooler]:
    """Fails where there is none: nobody takes what was not run for passed."""
    with Pooler(postgres_server.url()) as pooler:
        yield pooler


@pytest.fixture
def pooled_url(pooler: Pooler, postgres_url: str) -> str:
    """The URL of an empty database, by way of the pooler. That it is one has to be seen."""
    return pooler.url(postgres_url.rpartition("/")[2])


@pytest.fixture
async def make_store(pooled_url: str, postgres_url: str) -> AsyncIterator[MakeStore]:
    made: list[Store] = []

    async def make(app: str = "app") -> Store:
        store: Any = PostgresStore(f"{pooled_url}?pooler=transaction", app)
        store.test_url = postgres_url  # where tests look past the store
        await store.open()
        made.append(store)
        await store.migrate()
        assert store._reading.pooled
        return store

    yield make
    for store in made:
        await store.close()


@pytest.fixture
async def store(make_store: MakeStore) -> Store:
    return await make_store("app")


@pytest.fixture
def database(pooled_url: str) -> str:
    return pooled_url


@pytest.fixture
async def app(database: str) -> AsyncIterator[App]:
    app = App("shop", database=database)
    yield app
    await app.close()


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
async def fleet(pooled_url: str, tmp_path: Path) -> AsyncIterator[Fleet]:
    async with fleet_over(pooled_url, tmp_path) as fleet:
        yield fleet
