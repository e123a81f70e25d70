"""What ``doctor`` wants to know of a SQLite database: facts with a verdict, most severe first."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import apsw

from perdure.store.asks import Health
from perdure.store.sqlite import migrate
from perdure.store.sqlite.driver import Connection
from perdure.store.sqlite.locks import locks_on

SOUND = (3, 51, 3)  # before it, two connections that reset the write-ahead log at once could corrupt the file
ROOM_MIN = 256 << 20  # bytes: a log may take 64 MiB, and a checkpoint writes as much into the file
LOG_MAX = 256 << 20  # bytes: it is emptied every 16 MiB, if no reader keeps it
_WRITE_LOCK = 120  # the byte of the -shm file that a writer locks in WAL mode
_READ_LOCKS = range(124, 128)  # those of who reads from the log


def health(conn: Connection, path: Path) -> Health:
    running = apsw.sqlite_lib_version()
    journal = str(conn.pragma("journal_mode"))
    synchronous = conn.pragma("synchronous")
    full = conn.pragma("fullfsync") == 1  # void but on macOS
    have, want = migrate.version(conn), migrate.known()
    wal = path.with_name(path.name + "-wal")
    free, ample = room(path)
    long, usual = log_size(path, wal)
    facts = [
        ("SQLite", running, tuple(map(int, running.split(".")[:3])) >= SOUND),
        ("journal mode", journal, journal == "wal"),
        (
            "synchronous",
            {0: "off", 1: "normal", 2: "full", 3: "extra"}.get(int(str(synchronous)), "?"),
            synchronous == 2,
        ),
        ("fullfsync", "on" if full else "off", full),
        ("schema version", f"{have} (known: {want})", have == want),
        ("room", free, ample),
        ("write lock", lock_holder(path), True),
        ("log size", long, usual),
        ("file", f"{path}, {_size(path)} bytes, log {_size(wal)} bytes", True),
    ]
    return Health(facts=sorted(facts, key=lambda fact: fact[2]))


def room(path: Path) -> tuple[str, bool]:
    """How much the file system of the file can still take, as this user; and whether that is enough."""
    try:
        disk = os.statvfs(path)
    except OSError as e:
        return f"unknown: {e.strerror}", True
    free, whole = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    words = f"{free >> 20} MiB free of {whole >> 20} MiB (wanted: {ROOM_MIN >> 20} MiB)"
    return words, free >= ROOM_MIN


def log_size(path: Path, wal: Path, locks: str | None = None) -> tuple[str, bool]:
    """How long the log is, and whether that is usual. If not, who reads from it now."""
    size = _size(wal)
    words = f"{size >> 20} MiB (usual: less than {LOG_MAX >> 20} MiB)"
    if size < LOG_MAX:
        return words, True
    pids: set[str] = set()
    with contextlib.suppress(OSError):
        for _, _, _, _, pid, _, first, last in locks_on(path.with_name(path.name + "-shm"), locks):
            if int(first) in _READ_LOCKS and first == last and int(pid) != os.getpid():
                pids.add(pid)
    return f"{words}, read just now by process {', '.join(sorted(pids, key=int)) or 'none'}", False


def lock_holder(path: Path, locks: str | None = None) -> str:
    """Who holds the write lock now, in words: that of the log, or the whole file."""
    found, shm = "unknown", path.with_name(path.name + "-shm")
    with contextlib.suppress(OSError):
        for _, _, _, mode, pid, _, first, last in locks_on(shm, locks):
            covers = int(first) <= _WRITE_LOCK and (last == "EOF" or int(last) >= _WRITE_LOCK)
            if mode == "WRITE" and covers:
                return f"held by process {pid}"
        found = "free"
    with contextlib.suppress(OSError):
        alone = not shm.exists()  # in another journal mode also readers keep writers out
        for _, _, _, mode, pid, *_ in locks_on(path, locks):
            if (mode == "WRITE" or alone) and int(pid) != os.getpid():
                return f"held by process {pid}, which locks the whole file"
    return found


def log_removed(path: Path, locks: str | None = None) -> str:
    """That processes use the file while its log is not there, in words; "" if not so, or if the kernel does not say.

    Asked before the file is opened, which would make another log.
    """
    if not path.exists() or path.with_name(path.name + "-wal").exists():
        return ""
    try:
        pids = {int(lock[4]) for lock in locks_on(path.with_name(path.name + "-shm"), locks)} - {os.getpid()}
    except OSError:
        return ""
    if not pids or path.with_name(path.name + "-wal").exists():
        return ""
    return f"{path}-wal was removed while in use by process {', '.join(map(str, sorted(pids)))}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
