"""Stores to test: each test here runs on every dialect, on a fresh database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from perdure.model.records import Incarnation
from perdure.store.base import Store
from perdure.store.sqlite import SQLiteStore
from tests.store.build import ME, OTHER

MakeStore = Callable[[str], Awaitable[Store]]


def make_postgres(url: str, app: str) -> Store:
    from perdure.store.postgres import PostgresStore

    store: Any = PostgresStore(url, app)
    store.test_url = url
    store.schema = "perdure"
    return store


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MakeStore]:
    """Makes an open, migrated store of an app; all of one test share a database."""
    made: list[Store] = []
    postgres_url = request.getfixturevalue("postgres_url") if request.param == "postgres" else ""

    async def make(app: str = "app") -> Store:
        store = make_postgres(postgres_url, app) if postgres_url else SQLiteStore(tmp_path / "test.db", app)
        await store.open()
        made.append(store)
        await store.migrate()
        return store

    yield make
    for store in made:
        await store.close()


@pytest.fixture
async def store(make_store: MakeStore) -> Store:
    return await make_store("app")


@pytest.fixture
async def sqlite_store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    """For what only SQLite can do wrong."""
    store = SQLiteStore(tmp_path / "test.db", "app")
    await store.open()
    await store.migrate()
    yield store
    await store.close()


@pytest.fixture
async def serving(store: Store) -> None:
    """``ME`` and ``OTHER`` are there to work: who is not takes nothing over."""
    for id, name in ((ME, "me"), (OTHER, "other")):
        await store.register(Incarnation(id=id, executor=name, version="v1"), 10**15)
