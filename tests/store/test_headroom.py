"""Room ahead in SQLite's log: it is there before a commit needs it, and costs no commit anything else."""

from __future__ import annotations

import errno
import os
import random
import shutil
from itertools import pairwise
from pathlib import Path

import apsw
import pytest

from perdure.model.ids import RunKey
from perdure.store.sqlite import SQLiteStore, headroom
from tests.store import build

SEED = int(os.environ.get("PERDURE_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)


async def opened(path: Path) -> SQLiteStore:
    store = SQLiteStore(path, "room")
    await store.open()
    await store.migrate()
    return store


async def write(store: SQLiteStore, *numbers: int, size: int = 4000) -> None:
    for n in numbers:
        await build.one(store, build.own(f"w{n}", build.tok("claim"), records=[build.record(1, data=b"x" * size)]))


def log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


async def test_commits_fall_into_room_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"
    store = await opened(path)
    grown: list[int] = []
    lengthen = headroom.lengthen
    monkeypatch.setattr(headroom, "lengthen", lambda *args: grown.append(args[2]) or lengthen(*args))
    lengths = []
    for n in range(400):
        await write(store, n)
        lengths.append(log_of(path).stat().st_size)
    changed = sum(before != after for before, after in pairwise(lengths[20:]))
    assert changed <= len(grown) < 20, "commits lengthened the log themselves"
    assert headroom.PIECE_MIN <= grown[0] < headroom.PIECE_MAX == grown[-1]
    await store.close()


async def test_who_writes_little_needs_none(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = await opened(path)
    await store.close()  # and the log of the migrations is gone
    store = SQLiteStore(path, "room")
    await store.open()
    await write(store, 1, 2)
    assert log_of(path).stat().st_size < headroom.LITTLE
    await store.close()


async def test_the_log_is_checkpointed_and_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headroom, "FRAMES_MAX", 200)
    path = tmp_path / "a.db"
    store = await opened(path)
    for n in range(300):
        await write(store, n)
    assert log_of(path).stat().st_size < 400 * 4120, "the log grew for ever"
    assert path.stat().st_size > 300 * 4000, "nothing was checkpointed"
    await store.close()


async def test_a_log_that_a_reader_keeps_from_being_emptied_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(headroom, "FRAMES_MAX", 200)
    monkeypatch.setattr(headroom, "LOG_MAX", 500 * 4120)
    path = tmp_path / "a.db"
    store = await opened(path)
    for n in range(200):
        await write(store, n)
    assert not caplog.messages
    reader = apsw.Connection(str(path))
    reader.execute("begin; select * from meta").fetchall()
    for n in range(200, 500):
        await write(store, n)
    assert [said.partition(" has grown ")[0] for said in caplog.messages] == [f"the write-ahead log {log_of(path)}"]
    reader.close()
    await store.close()


async def test_a_kill_leaves_all_of_it_before_the_zeros(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = await opened(path)
    await write(store, *range(60))
    copy = tmp_path / "left"
    copy.mkdir()
    for file in (path, log_of(path)):  # as SIGKILL leaves them: the log with its zeros, and no index
        shutil.copy(file, copy / file.name)
    assert (copy / "a.db-wal").read_bytes().endswith(bytes(64 << 10))
    left = SQLiteStore(copy / "a.db", "room")
    await left.open()
    histories = await left.histories([RunKey(f"w{n}", 1) for n in range(60)])
    assert all(len(found) == 1 for found in histories.values())
    await left.close()
    await store.close()


async def test_what_others_write_between_is_never_overwritten(tmp_path: Path) -> None:
    """Another writer, which knows nothing of this, appends to the same log; and truncates it now and then."""
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    path = tmp_path / "a.db"
    store = await opened(path)
    other = apsw.Connection(str(path))
    other.execute("create table other (n integer primary key, data blob)")
    for n in range(300):
        await write(store, n, size=rng.choice((10, 4000, 40_000)))
        other.execute("insert into other values (?, randomblob(?))", (n, rng.choice((10, 30_000))))
        if rng.random() < 0.03:
            other.execute("pragma wal_checkpoint(truncate)").fetchall()
    assert other.pragma("integrity_check") == "ok"
    assert other.execute("select count(*) from other").get == 300
    histories = await store.histories([RunKey(f"w{n}", 1) for n in range(300)])
    assert all(len(found) == 1 for found in histories.values())
    other.close()
    await store.close()


async def test_a_disk_without_room_leaves_what_there_is_to_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    store = await opened(path)
    tries = []

    def full(fd: int, data: bytes, offset: int) -> int:
        tries.append(offset)
        if len(tries) == 1:
            return real(fd, data[: len(data) // 2], offset)
        raise OSError(errno.ENOSPC, "No space left on device")

    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", full)
    await write(store, *range(40))
    assert len(tries) == 1, "it tried again at each commit"
    assert not log_of(path).read_bytes().endswith(bytes(8 << 10)), "the half that the disk took was left there"
    await store.close()


def test_a_piece_is_appended_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "log"
    file.write_bytes(b"frames")

    def refuse(*_: object) -> int:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    with file.open("r+b") as log:
        headroom.lengthen(log.fileno(), 6, 4096)
        assert file.read_bytes() == b"frames" + bytes(4096)
        monkeypatch.setattr(os, "pwrite", refuse)
        with pytest.raises(OSError, match="quota"):
            headroom.lengthen(log.fileno(), 4102, 4096)
    assert file.stat().st_size == 4102
