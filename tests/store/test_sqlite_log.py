"""The write-ahead log of a SQLite file is removed, or the file replaced beside it, while connections use them."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

import apsw
import pytest

from perdure.errors import DatabaseTrouble
from perdure.store.sqlite import SQLiteStore
from tests.runtime.support import until
from tests.store.build import queued


@pytest.fixture
def store(sqlite_store: SQLiteStore) -> SQLiteStore:
    return sqlite_store


async def test_no_commit_is_answered_that_went_to_a_removed_log(store: SQLiteStore, tmp_path: Path) -> None:
    """What it held is saved into the file, for everybody; each connection goes on with the log that is there then."""
    other = SQLiteStore(store.path, store.app)
    await other.open()
    try:
        await queued(other, "v")
        await queued(store, "w")
        log = store.path.with_name(f"{store.path.name}-wal")
        log.unlink()
        with pytest.raises(DatabaseTrouble, match="was removed or replaced while it was in use"):
            await queued(store, "x")
        assert alone(store.path, tmp_path / "copy.db") == ["v", "w"], "the file has all that was answered"
        await queued(store, "x")
        for _ in range(2):  # one that writes, one that reads
            with contextlib.suppress(DatabaseTrouble):
                await queued(other, "y")
        assert set(await other.rows(["v", "w", "x", "y"])) == {"v", "w", "x", "y"}
    finally:
        await other.close()
    assert set(await store.rows(["v", "w", "x", "y"])) == {"v", "w", "x", "y"}
    assert log.exists()
    await store.close()
    assert alone(store.path, tmp_path / "last.db") == ["v", "w", "x", "y"]


async def test_a_removed_log_is_saved_also_while_nobody_writes(store: SQLiteStore, tmp_path: Path) -> None:
    await queued(store, "w")
    store.on_hint(lambda _queues: None)  # as an executor does
    store.path.with_name(f"{store.path.name}-wal").unlink()
    await until(lambda: alone(store.path, tmp_path / "copy.db") == ["w"])


async def test_a_file_that_replaced_ours_is_not_read_with_our_log(store: SQLiteStore, tmp_path: Path) -> None:
    new = SQLiteStore(tmp_path / "new.db", store.app)
    await new.open()
    await new.migrate()
    await queued(new, "n")
    await new.close()
    await queued(store, "w")
    (tmp_path / "new.db").rename(store.path)
    for _ in range(2):
        with pytest.raises(DatabaseTrouble, match=r"was replaced while it was in use.*remove"):
            await queued(store, "x")
        with pytest.raises(DatabaseTrouble, match=r"was replaced while it was in use.*remove"):
            await store.rows(["x"])
    store.path.with_name(f"{store.path.name}-wal").unlink()
    await queued(store, "x")
    assert set(await store.rows(["n", "w", "x"])) == {"n", "x"}


def alone(path: Path, copy: Path) -> list[str]:
    """The workflows that the database file has, without any log beside it."""
    subprocess.run(["cp", path, copy], check=True)  # elsewhere: to close the file here would drop our locks on it
    for beside in ("-wal", "-shm"):
        copy.with_name(copy.name + beside).unlink(missing_ok=True)
    conn = apsw.Connection(str(copy))
    try:
        found = conn.execute("select name from sqlite_master where name = 'workflow'").fetchall()
        return [id for (id,) in conn.execute("select id from workflow order by id")] if found else []
    finally:
        conn.close()
