"""The password of an executor's role is changed under it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from perdure import App
from tests.postgres import Cluster
from tests.roles import Role, a_role
from tests.runtime.support import until

pytestmark = pytest.mark.postgres


@contextmanager
def asked_for_a_password(cluster: Cluster, role: Role) -> Iterator[None]:
    assert cluster.home is not None
    rules = cluster.home / "data" / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text(f"host all {role.name} 127.0.0.1/32 scram-sha-256\n{before}")
    cluster.sql("select pg_reload_conf()")
    try:
        yield
    finally:
        rules.write_text(before)
        cluster.sql("select pg_reload_conf()")


def an_app(url: str) -> App:
    app = App("shop", database=url, lease=2)

    @app.step(name="charge")
    async def charge() -> str:
        return "paid"

    @app.workflow(name="order")
    async def order() -> str:
        return await charge()

    return app


async def test_a_password_file_is_read_at_each_connection(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "passwords"
    file.touch(0o600)
    monkeypatch.setenv("PGPASSFILE", str(file))
    url = cluster.url(cluster.create_database())
    async with an_app(url):
        pass  # the schema is there
    with a_role(cluster, url) as role, asked_for_a_password(cluster, role):
        role.grant_all()
        role.sql("alter role {role} password 'old'")
        file.write_text(f"127.0.0.1:*:*:{role.name}:old\n")
        async with an_app(role.url) as app:
            order = app.client.workflow("order", returns=str)
            assert await (await order.start()).result() == "paid"
            role.sql(
                "alter role {role} password 'new'",
                "select pg_terminate_backend(pid) from pg_stat_activity where usename = '{role}'",
            )
            waiting = asyncio.create_task(order.start())
            await until(lambda: "password authentication failed" in caplog.text)
            file.write_text(f"127.0.0.1:*:*:{role.name}:new\n")
            assert await (await waiting).result() == "paid"
