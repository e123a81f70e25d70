"""The connection that renews a lease bears its incarnation's name, so that others see when the server has it no longer.

Behind a transaction pooler it gets none: the name would be another client's a moment later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from perdure.store.postgres.connection import Connection, Link

PREFIX = "perdure lease "  # as in queries/incarnation.sql; with the id, shorter than the 63 bytes that a name may have


async def name(link: Link, id: bytes, lost: Callable[[], None], conn: Connection) -> None:
    """Name a new connection of ``link``, and tell of its end."""

    def ended(_conn: object) -> None:
        lost()

    conn.add_termination_listener(ended)
    if not link.pooled:
        await conn.execute(f"set application_name to '{PREFIX}{id.hex()}'")


def named(names: Iterable[str]) -> frozenset[bytes]:
    """The incarnations that names tell of; what others have called theirs tells of nobody."""
    found: set[bytes] = set()
    for one in names:
        try:
            found.add(bytes.fromhex(one.removeprefix(PREFIX)))
        except ValueError:
            continue
    return frozenset(found)
