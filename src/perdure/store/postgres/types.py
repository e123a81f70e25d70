"""What the server says of its own types, asked once in a process and not once per connection.

asyncpg asks for each array type that a statement takes, in each new connection: a query that costs the server more than
all the rest of making the connection. The types of the catalogue have the same numbers in every server (below 16384,
``FirstNormalObjectId``), so an answer about them serves all connections.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import cache
from typing import Any, NamedTuple

OF_USERS = 16384  # the first number that a server gives to what users make


class Asked(NamedTuple):
    """Stands for the statement that asked; one with a name leaves the others of its connection prepared."""

    name: str


_told: dict[frozenset[int], list[Any]] = {}


@cache
def connection_class(base: Any) -> Any:
    """A subclass of asyncpg's connection that asks for what nobody in this process has asked for."""
    ask: Callable[..., Awaitable[tuple[list[Any], Any]]] = base._introspect_types  # noqa: SLF001  its seam

    class Knowing(base):  # type: ignore[misc]  # asyncpg has no types
        __slots__ = ()

        async def _introspect_types(self, typeoids: Iterable[int], timeout: float | None) -> Any:
            wanted = frozenset(typeoids)
            if wanted in _told:
                return _told[wanted], Asked("told")
            rows, statement = await ask(self, typeoids, timeout)
            if all(row["oid"] < OF_USERS for row in rows):
                _told[wanted] = rows
            return rows, statement

    return Knowing
