"""A connection that is made, and breaks before it is ready."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.errors import DatabaseTrouble
from perdure.store.postgres.connection import Link

pytestmark = pytest.mark.postgres


@pytest.mark.parametrize("ends", [1, 2])
async def test_a_connection_that_ends_while_it_is_made_ready(postgres_url: str, ends: int) -> None:
    """Another is made at once; one that is not made ready would not listen, or have no name. Twice it is trouble."""
    link = Link(postgres_url)
    link.open()
    made: list[int] = []

    async def end_the_first(conn: Any) -> None:
        made.append(conn.get_server_pid())
        if len(made) <= ends:
            await conn.execute("select pg_terminate_backend(pg_backend_pid())")

    link.when_made(end_the_first)
    if ends == 2:
        with pytest.raises(DatabaseTrouble, match="terminating connection"):
            await link.check()
    assert [tuple(row) for row in await link.fetch("select 1")] == [(1,)]
    assert len(made) == ends + 1
    await link.close()
