"""The schema: numbered files, applied in order, each in the transaction that notes it.

Promises: two processes that migrate at once apply each file once (the write lock is the lock); a crash in the middle
leaves the file as it was before.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from perdure.errors import SchemaMismatch
from perdure.store.sqlite.driver import Connection
from perdure.store.sqlite.file import APPLICATION_ID


@cache
def migrations() -> tuple[tuple[int, str, str], ...]:
    """(number, name, text) of each, in order."""
    folder = files("perdure.store.sqlite") / "migrations"
    found = [f for f in folder.iterdir() if f.name.endswith(".sql")]
    return tuple(
        (int(f.name[:4]), f.name.removesuffix(".sql"), f.read_text(encoding="utf-8"))
        for f in sorted(found, key=lambda f: f.name)
    )


def known() -> int:
    return migrations()[-1][0]


def version(conn: Connection) -> int:
    number = conn.pragma("user_version")
    assert isinstance(number, int)
    return number


def check(conn: Connection, path: object) -> None:
    """Refuse a schema that a later Perdure made."""
    if version(conn) > known():
        raise SchemaMismatch(
            f"{path} has schema version {version(conn)}, this Perdure knows up to {known()}. Upgrade Perdure here."
        )


def migrate(conn: Connection) -> list[str]:
    """Apply what is missing, within a write transaction."""
    applied: list[str] = []
    for number, name, text in migrations():
        if number <= version(conn):
            continue
        conn.execute(text)
        conn.pragma("user_version", number)
        conn.execute("insert into meta values ('schema', ?1) on conflict do update set value = ?1", (str(number),))
        applied.append(name)
    conn.pragma("application_id", APPLICATION_ID)
    return applied
