"""The server is asked once in a process of what types its own catalogue has, not once per connection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from perdure.store.postgres import types
from perdure.store.postgres.connection import Link

pytestmark = pytest.mark.postgres


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[frozenset[int]]]:
    """What asyncpg itself was left to ask for, by a process that knows nothing yet."""
    made: list[frozenset[int]] = []

    async def noting(self: Any, typeoids: Any, timeout: float | None) -> Any:
        made.append(frozenset(typeoids))
        return await asks(self, typeoids, timeout)

    asks = asyncpg.Connection._introspect_types  # type: ignore[attr-defined]
    monkeypatch.setattr(asyncpg.Connection, "_introspect_types", noting)
    monkeypatch.setattr(types, "_told", {})
    types.connection_class.cache_clear()
    yield made
    types.connection_class.cache_clear()


async def both(link: Link) -> list[Any]:
    arrays = "select $1::bytea[], $2::int8[], $3::uuid[]"
    try:
        rows = [*await link.fetch(arrays, [b"a"], [1], []), *await link.fetch("select $1::text[]", ["b"])]
        return [tuple(row) for row in rows]
    finally:
        await link.close()


def link_to(url: str) -> Link:
    link = Link(url)
    link.open()
    return link


async def test_a_second_connection_asks_for_nothing_that_the_first_has_been_told(
    postgres_url: str, asked: list[frozenset[int]]
) -> None:
    first = await both(link_to(postgres_url))
    assert asked
    before = len(asked)
    assert await both(link_to(postgres_url)) == first == [([b"a"], [1], []), (["b"],)]
    assert len(asked) == before


async def test_what_users_make_is_asked_for_each_time(bare_postgres_url: str, asked: list[frozenset[int]]) -> None:
    """Its numbers are another thing in another database."""
    link = link_to(bare_postgres_url)
    await link.fetch("create type mood as enum ('calm', 'torn')")
    await link.close()
    for n in (1, 2):
        link = link_to(bare_postgres_url)
        assert [row["m"] for row in await link.fetch("select array['torn'::mood] as m")] == [["torn"]]
        await link.close()
        assert len(asked) == n
