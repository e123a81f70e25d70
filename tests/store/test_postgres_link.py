"""A connection that is made, and breaks before it is ready."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.errors import DatabaseTrouble
from perdure.store.postgres.connection import Link

pytestmark = pytest.mark.postgres


async def test_a_connection_that_ends_while_it_is_made_ready_is_trouble(postgres_url: str) -> None:
    """And the next call makes another, which is made ready, too: it would not listen else, or have no name."""
    link = Link(postgres_url)
    link.open()
    made: list[int] = []

    async def end_the_first(conn: Any) -> None:
        made.append(conn.get_server_pid())
        if len(made) == 1:
            await conn.execute("select pg_terminate_backend(pg_backend_pid())")

    link.when_made(end_the_first)
    with pytest.raises(DatabaseTrouble, match="terminating connection"):
        await link.check()
    assert [tuple(row) for row in await link.fetch("select 1")] == [(1,)]
    assert len(made) == 2
    await link.close()
