"""An app on a fresh database, and the log records of Perdure."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Literal, cast

import pytest

import perdure.sync
from perdure import App, Client
from perdure.batches import Cancel
from perdure.runtime import adoption, suspects
from perdure.store.base import Store
from perdure.testing import Harness, harness
from tests.runtime.deploys import Round
from tests.runtime.interrupted import Shop
from tests.runtime.moving import store_of
from tests.runtime.releases import Declared, Replica
from tests.runtime.releases import shop as a_shop
from tests.runtime.support import Ledger

Bodies = Literal["threads", "greenlets"]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh database. Each test runs on both."""
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path / 'perdure.db'}"


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def a_round(monkeypatch: pytest.MonkeyPatch) -> Round:
    """Adoption's rounds by hand only: no executor makes one of its own."""
    real = adoption.Adopter.round

    async def none(self: adoption.Adopter, _roll: object = None) -> None: ...

    monkeypatch.setattr(adoption.Adopter, "round", none)
    return real


@pytest.fixture
async def app(database: str) -> AsyncIterator[App]:
    """An app to declare on; tests open it. Closed at the end whatever happens."""
    app = App("shop", database=database)
    yield app
    await app.close()


@pytest.fixture(params=["threads", "greenlets"])
def bodies(request: pytest.FixtureRequest) -> Bodies:
    """Where blocking bodies stand. Each test of the sync face runs with both, but those of ``IN_THREADS``."""
    return cast("Bodies", request.param)


@pytest.fixture
def sync_app(database: str, bodies: Bodies) -> Iterator[perdure.sync.App]:
    """The same for the sync face."""
    app = perdure.sync.App("shop", database=database, bodies=bodies)
    yield app
    app.close()


@pytest.fixture
def quick_eviction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting workflows leave memory after a twentieth of a second."""
    monkeypatch.setenv("PERDURE_GRACE", "0.05")


@pytest.fixture
def stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is taken over from the dead and only waits stays where it can be seen, as everything that waits does."""
    monkeypatch.setattr(suspects, "LOOK_SECONDS", 3600)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Everything that Perdure logs."""
    caplog.set_level(logging.INFO, logger="perdure")
    return caplog


@pytest.fixture
def shop(app: App, ledger: Ledger) -> Shop:
    return Shop(app, ledger)


@pytest.fixture
async def h(shop: Shop, database: str, request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    async with harness(shop.app, database=database) as h:
        yield h


@pytest.fixture
async def replica(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Replica]:
    """Opens a replica of a version; all that are still open are closed at the end. What waits leaves memory soon."""
    monkeypatch.setenv("PERDURE_GRACE", "0.05")
    opened: list[App] = []

    async def start(version: str, declared: Declared = None, child: Declared = None, **more: Any) -> App:
        app = a_shop(database, version, declared, child, **more)
        opened.append(app)
        await app.open()
        return app

    yield start
    for app in reversed(opened):
        await app.close()


@pytest.fixture
async def client(app: App) -> AsyncIterator[Client]:
    """Only calls; nobody works."""
    async with app.connect() as client:
        yield client


@pytest.fixture
def store(app: App, client: Client) -> Store:
    return store_of(app)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that cancels does so in chunks of three."""
    monkeypatch.setattr(Cancel, "many", 3)
