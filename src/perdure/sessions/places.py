"""Which database a session speaks to: asked of the session, and compared with what the store is told by its own.

Of a Postgres server that is running, the moment at which it started, and the database's oid in it: whatever route,
pooler or socket leads there. Of a SQLite file, device and inode: whatever name leads there.

Two copies of SQLite in one process (apsw brings its own, Python's sqlite3 uses the system's) do not see each other's
locks on one file, and each drops the other's when it closes a connection: both hold "the" write lock at once, and the
file is soon corrupt. So the app's own file is for apsw only.
"""

from __future__ import annotations

import os

from perdure.errors import Misuse
from perdure.sessions.base import AsyncSession, Session, ask
from perdure.store.within import Within

POSTGRES = (
    "select extract(epoch from pg_postmaster_start_time())::text, "
    "(select oid::text from pg_database where datname = current_database())"
)


def place(session: Session | AsyncSession) -> Within[str]:
    """The database that a session speaks to; "" for one that nobody else can speak to."""
    if session.dialect == "postgres":
        ((started, oid),) = yield from ask(POSTGRES)
        return f"postgres {started} {oid}"
    files = yield from ask("pragma database_list")
    path = next((row[2] for row in files if row[1] == "main"), "")
    return place_of_file(path) if path else ""


def place_of_file(path: str | os.PathLike[str]) -> str:
    found = os.stat(path)
    return f"sqlite {found.st_dev}:{found.st_ino}"


def check_copy(session: Session | AsyncSession, home: str, there: str) -> None:
    """Raise ``Misuse`` for a session that opened the app's own file with another copy of SQLite."""
    if session.dialect == "sqlite" and home == there and session.kind != "apsw.Connection":
        raise Misuse(
            f"this {session.kind} has opened the app's own SQLite file, with another copy of SQLite than Perdure's: in "
            "one process two copies do not see each other's locks, and the file is soon corrupt. Open it with "
            "apsw.Connection(path), or keep your tables in a file of their own"
        )
