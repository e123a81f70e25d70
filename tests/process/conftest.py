"""An app with the scheme of the acceptance cases, at work under a harness. Each test runs on both databases."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from perdure import App
from perdure.testing import Harness, harness
from tests.process.servers import Servers, servers_over
from tests.process.world import World


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh database."""
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path / 'perdure.db'}"


@pytest.fixture
async def app(database: str) -> AsyncIterator[App]:
    """An app to declare on; tests open it."""
    app = App("hr", database=database)
    yield app
    await app.close()


@pytest.fixture
def world(app: App) -> World:
    return World(app)


@pytest.fixture
async def h(world: World, database: str) -> AsyncIterator[Harness]:
    async with harness(world.app, database=database) as h:
        yield h


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Everything that Perdure logs."""
    caplog.set_level(logging.INFO, logger="perdure")
    return caplog


@pytest.fixture
async def servers(postgres_url: str, tmp_path: Path) -> AsyncIterator[Servers]:
    async with servers_over(postgres_url, tmp_path) as servers:
        yield servers


@pytest.fixture
async def servers_on_either(database: str, tmp_path: Path) -> AsyncIterator[Servers]:
    async with servers_over(database, tmp_path) as servers:
        yield servers
