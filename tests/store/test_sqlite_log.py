"""The write-ahead log of a SQLite file is removed, or the file replaced beside it, while connections use them."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from pathlib import Path
from typing import Any

import apsw
import pytest

from perdure.errors import DatabaseTrouble
from perdure.store.sqlite import SQLiteStore
from tests.runtime.support import until, until_sync
from tests.store.build import queued
from tests.store.test_sqlite import child, end, said


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


async def test_who_closes_while_it_is_saved_is_answered(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer's thread had lost its turn to the close that was asked for, and died of that."""
    loop, closing = asyncio.get_running_loop(), list[asyncio.Task[None]]()
    writer: Any = store._writer
    save = writer._log.save

    def saves(conn: Any) -> Any:
        loop.call_soon_threadsafe(lambda: closing.append(asyncio.create_task(store.close())))
        until_sync(lambda: writer.closed)
        return save(conn)

    monkeypatch.setattr(writer._log, "save", saves)
    store.on_hint(lambda _queues: None)
    await queued(store, "w")
    store.path.with_name(f"{store.path.name}-wal").unlink()
    await until(lambda: closing)
    await asyncio.wait_for(closing[0], 20)


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


STRANGER = """
import asyncio, sys
from pathlib import Path
from perdure.store.sqlite import SQLiteStore
from tests.store.build import queued
from tests.store.test_sqlite import child, end, said

async def main():
    store = SQLiteStore(Path(sys.argv[1]), "app")
    await store.open()
    for n in range(20):
        await queued(store, f"theirs{n}")
    await store.close()

asyncio.run(main())
print("written", flush=True)
"""


async def test_nothing_is_written_by_an_index_that_was_removed(store: SQLiteStore) -> None:
    """Another process makes another, and would have its commits overwritten."""
    await queued(store, "before")
    assert set(await store.rows(["before"])) == {"before"}, "both connections have it"
    store.path.with_name(f"{store.path.name}-shm").unlink()
    other = await asyncio.to_thread(child, STRANGER, str(store.path))
    assert await asyncio.to_thread(said, other) == "written"
    end(other)
    refused = []

    async def written() -> bool:
        try:
            await queued(store, "after")
        except DatabaseTrouble as trouble:
            refused.append(str(trouble))
            with contextlib.suppress(DatabaseTrouble):
                await store.rows(["before"])
            return False
        return True

    await until(written)
    assert all("-shm of the write-ahead log was removed" in each for each in refused)
    assert refused
    wanted = {"before", "after", *(f"theirs{n}" for n in range(20))}
    assert set(await store.rows(sorted(wanted))) == wanted
    conn = apsw.Connection(str(store.path))
    assert conn.pragma("integrity_check") == "ok"
    conn.close()
