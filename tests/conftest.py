"""What all tests share: a real Postgres, started at most once per worker, and databases made in milliseconds."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.databases import Databases
from tests.postgres import Cluster, Server


@pytest.fixture(scope="session")
def _cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def postgres_server(request: pytest.FixtureRequest) -> Server:
    """The Postgres to test on: the one at ``PERDURE_TEST_POSTGRES``, else one of our own. Fails if there is none."""
    if url := os.environ.get("PERDURE_TEST_POSTGRES"):
        return Server(url)
    server: Server = request.getfixturevalue("_cluster")
    return server


@pytest.fixture(scope="session")
def _databases(postgres_server: Server) -> Iterator[Databases]:
    databases = Databases(postgres_server)
    yield databases
    databases.close()


@pytest.fixture
def postgres_url(postgres_server: Server, _databases: Databases) -> Iterator[str]:
    """The URL of a database without rows that no other test uses meanwhile; its schema may be there already."""
    name = _databases.take()
    yield postgres_server.url(name)
    _databases.give_back(name)


@pytest.fixture
def bare_postgres_url(postgres_server: Server, _databases: Databases) -> Iterator[str]:
    """The URL of a new database, with nothing in it."""
    name = _databases.take(bare=True)
    yield postgres_server.url(name)
    _databases.give_back(name)


@pytest.fixture
def cluster(_cluster: Cluster) -> Iterator[Cluster]:
    """A server that the test may stop, kill, freeze and restart; up again afterwards."""
    _cluster.start()
    yield _cluster
    _cluster.thaw()
    _cluster.start()
