"""Where a file lies and who else has it: what cannot work is said at the opening, and who is in the way has a pid."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from perdure.errors import ConfigError, DatabaseUnusable, Overloaded
from perdure.store.open import open_store, sqlite_path
from perdure.store.sqlite import SQLiteStore, health
from tests.store.test_sqlite import child, end, impatient, said
from tests.system import LOCKS_ARE_TOLD

__all__ = ["impatient"]

EXCLUSIVE = """
import apsw, sys
conn = apsw.Connection(sys.argv[1])
for statement in sys.argv[2:]:
    conn.execute(statement).fetchall()
print("locked", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize(
    "url", ["sqlite:///x.db?mode=ro", "sqlite:///x.db?timeout=30", "sqlite:///per%cent.db", "sqlite:x.db", "file:x.db"]
)
def test_a_url_that_may_mean_another_file_makes_none(url: str) -> None:
    """Options would have become a part of the name: a new, empty file, and the data lies in another."""
    with pytest.raises(ConfigError, match="not a database that Perdure knows"):
        open_store(url, "app")


def test_names_with_odd_characters_have_a_url() -> None:
    assert sqlite_path("sqlite:///a%3Fb%25c%20d.db") == "a?b%c d.db"
    assert sqlite_path("sqlite:////tmp/ü#;.db") == "/tmp/ü#;.db"
    assert sqlite_path("what?.db") == "what?.db"


@pytest.mark.parametrize("beside", ["", "x.db-turn"], ids=["folder", "turnstile"])
async def test_a_folder_or_a_file_beside_it_that_this_user_cannot_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: str
) -> None:
    for name in ("x.db", "x.db-turn"):
        (tmp_path / name).touch()
    real, locked = os.access, tmp_path / beside
    # The owner of this process may be let in anywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != locked and real(path, mode))
    with pytest.raises(DatabaseUnusable, match=r"files beside it .*by a group"):
        await SQLiteStore(tmp_path / "x.db", "app").open()


@pytest.mark.skipif(not LOCKS_ARE_TOLD, reason="the kernel does not say who has a lock")
@pytest.mark.parametrize(
    "statements",
    [
        ("pragma locking_mode = exclusive", "begin immediate", "commit"),
        ("pragma journal_mode = delete", "begin", "select * from meta"),
    ],
    ids=["exclusive", "rollback journal"],
)
@pytest.mark.usefixtures("impatient")
async def test_who_locks_the_whole_file_is_named(tmp_path: Path, statements: tuple[str, ...]) -> None:
    store = SQLiteStore(tmp_path / "x.db", "app")
    await store.open()
    await store.migrate()
    await store.close()
    other = child(EXCLUSIVE, str(store.path), *statements)
    assert said(other) == "locked"
    try:
        with pytest.raises(Overloaded, match=f"held by process {other.pid}, which locks the whole file"):
            await store.open()
    finally:
        end(other)
    await store.open()
    await store.close()


@pytest.mark.skipif(not LOCKS_ARE_TOLD, reason="the kernel does not say who has a lock")
async def test_a_log_that_a_reader_keeps_from_being_emptied(
    sqlite_store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "LOG_MAX", 4096)
    other = child(EXCLUSIVE, str(sqlite_store.path), "begin", "select * from meta")
    assert said(other) == "locked"
    try:
        facts = {what: (value, good) for what, value, good in (await sqlite_store.health()).facts}
    finally:
        end(other)
    value, good = facts["log size"]
    assert not good
    assert value.endswith(f"read just now by process {other.pid}")
