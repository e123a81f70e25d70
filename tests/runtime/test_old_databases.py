"""Databases of older schemas, with work under way: the present code opens them and goes on with it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from perdure import App
from perdure.store.open import open_store
from perdure.store.postgres import migrate as of_postgres
from perdure.store.sqlite import migrate as of_sqlite
from tests.postgres import Server

# What every schema has: work in the hands of one that is gone, of whose code nothing was told, and work in line.
ROWS = """
insert into {0}incarnation
    (id, app, executor, version, host, boot, space, pid, pid_started, state, started, lease_until)
values ({1}, 'shop', 'pod-1', '', 'elsewhere', 'b', 's', 1, 1, 'alive', 1, 2);
insert into {0}workflow
    (app, id, run, lineage, name, version, status, claim, owner, until, epoch, created, updated, fingerprint, nonce)
values ('shop', 'runs', 1, {1}, 'order', '', 2, {1}, {1}, null, 1, 1, 1, {1}, {1}),
    ('shop', 'waits', 1, {1}, 'order', '', 1, null, null, 1, 0, 1, 1, {1}, {1});
insert into {0}payload (app, id, run, input) values ('shop', 'runs', 1, {2}), ('shop', 'waits', 1, {2})
"""
TOKEN = "01" * 16


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Callable[[], None]]:
    """An empty database, and what writes the rows once it has an old schema."""
    if request.param == "postgres":
        url = str(request.getfixturevalue("bare_postgres_url"))
        server: Server = request.getfixturevalue("postgres_server")
        rows = ROWS.format("perdure.", rf"'\x{TOKEN}'", "'[]'")
        return url, lambda: server.sql(rows, db=urlsplit(url).path.strip("/"))
    path = tmp_path / "old.db"

    def write() -> None:
        with closing(sqlite3.connect(path)) as file, file:
            file.executescript(ROWS.format("", f"x'{TOKEN}'", "cast('[]' as blob)"))

    return f"sqlite:///{path}", write


@pytest.mark.parametrize("schema", [1, 2, 8])
async def test_what_was_under_way_goes_on(
    old: tuple[str, Callable[[], None]], monkeypatch: pytest.MonkeyPatch, schema: int
) -> None:
    database, fill = old
    with monkeypatch.context() as then:
        for dialect in (of_sqlite, of_postgres):
            files = dialect.migrations()[:schema]
            then.setattr(dialect, "migrations", lambda files=files: files)
        store = open_store(database, "shop")
        await store.open()
        assert len(await store.migrate()) == schema
        await store.close()
    fill()
    app = App("shop", database=database)

    @app.step
    async def charge() -> str:
        return "paid"

    @app.workflow(name="order")
    async def order() -> str:
        return await charge()

    async with app:
        assert [await order.handle(id).result(timeout=20) for id in ("runs", "waits")] == ["paid", "paid"]
