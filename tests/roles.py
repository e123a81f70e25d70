"""A role of its own on a Postgres for tests, with rights that a test takes and gives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

from tests.postgres import Server

RIGHTS = (
    "grant usage on schema perdure to {role}",
    "grant select, insert, update, delete on all tables in schema perdure to {role}",
)


class Role:
    """May log in, and do what was granted."""

    def __init__(self, server: Server, database: str) -> None:
        self._server = server
        self._database = database
        self.name = f"svc_{database}"
        parts = urlsplit(server.url(database))
        place = parts.netloc.rpartition("@")[2]
        self.url = urlunsplit(parts._replace(netloc=f"{self.name}@{place}"))

    def sql(self, *statements: str) -> None:
        """As the owner of the database; ``{role}`` is this role."""
        self._server.sql(*(each.format(role=self.name) for each in statements), db=self._database)

    def grant_all(self) -> None:
        """What an executor needs."""
        self.sql(*RIGHTS)


@contextmanager
def a_role(server: Server, database_url: str) -> Iterator[Role]:
    role = Role(server, urlsplit(database_url).path.strip("/"))
    role.sql("create role {role} login")
    try:
        yield role
    finally:
        role.sql("drop owned by {role}", "drop role {role}")
