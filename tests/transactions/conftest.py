"""An app, and a bank in its own database or in another; for every kind of session."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest

import perdure.sync
from perdure import App
from tests.postgres import Server
from tests.transactions.banks import POSTGRES, SQLITE, SQLITE_HOME, Bank, bank, furnish


class Where(NamedTuple):
    """Which kind of session, whether its database is the app's, and which the app's is."""

    kind: str
    home: bool
    app: str


HOME = [Where(kind, True, "postgres") for kind in POSTGRES] + [Where(kind, True, "sqlite") for kind in SQLITE_HOME]
AWAY = [Where(kind, False, "sqlite") for kind in (*POSTGRES, *SQLITE)] + [
    Where(kind, False, "postgres") for kind in ("asyncpg", "psycopg", "apsw", "sqlite3")
]


def _id(where: Where) -> str:
    return f"{where.kind}-{'home' if where.home else f'away from {where.app}'}"


def places(*wheres: Where) -> pytest.MarkDecorator:
    """Run a test in each of these places."""
    return pytest.mark.parametrize(
        "where",
        [
            pytest.param(
                where, id=_id(where),
                marks=[pytest.mark.postgres] if where.app == "postgres" or where.kind in POSTGRES else [],
            )
            for where in wheres
        ],
        indirect=True,
    )  # fmt: skip


@pytest.fixture
def where(request: pytest.FixtureRequest) -> Where:
    found: Where = request.param
    return found


@pytest.fixture
def database(where: Where, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The app's."""
    if where.app == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path / 'perdure.db'}"


@pytest.fixture
async def app(database: str) -> AsyncIterator[App]:
    app = App("shop", database=database)
    yield app
    await app.close()


@pytest.fixture
async def sync_app(database: str) -> AsyncIterator[perdure.sync.App]:
    app = perdure.sync.App("shop", database=database)
    yield app
    app.close()


@pytest.fixture
async def money(where: Where, database: str, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Bank]:
    """The bank. At home its tables are beside Perdure's, made by a first launch."""
    made = None
    if where.home:
        url = database
        async with App("first", database=database):
            pass
    elif where.kind in POSTGRES:
        server: Server = request.getfixturevalue("postgres_server")
        made = server.create_database()
        url = server.url(made)
    else:
        url = f"sqlite:///{tmp_path / 'bank.db'}"
    await furnish(url)
    async with bank(where.kind, url) as found:
        yield found
    if made is not None:
        request.getfixturevalue("postgres_server").drop_database(made)
