"""The database file: where it may lie, whose it is, who may read it.

Promises: a file that Perdure did not make is never written to; a new file is readable by its owner only; file systems
whose locks or shared memory cannot be trusted are refused at the start, not found out by a corrupt file.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import apsw

from perdure.errors import DatabaseUnusable
from perdure.store.sqlite import mounts
from perdure.store.sqlite.driver import Connection

APPLICATION_ID = 0x50455244  # "PERD", in the file's header


def prepare(path: Path) -> None:
    """Make the file and its directory if missing; refuse a place that cannot hold it. Raises ``DatabaseUnusable``."""
    folder = path.parent
    if not os.path.exists(folder):  # noqa: PTH110 - Path's raises where this user may not look
        try:
            folder.mkdir(mode=0o700, parents=True)
        except OSError as e:
            raise DatabaseUnusable(
                f"cannot make the directory {folder}: {e.strerror}. Make it, or give another path."
            ) from e
    if kind := mounts.unsafe_kind(folder):
        raise DatabaseUnusable(
            f"{path} lies on a {kind} file system, where SQLite's locks and shared memory are not reliable. "
            "Put the file on a local disk, or use Postgres."
        )
    if os.path.isdir(path):  # noqa: PTH112 - as above
        raise DatabaseUnusable(f"{path} is a directory. Give the path of a file in it, such as {path / 'perdure.db'}.")
    try:
        # Only ever a new file is opened here: closing a second descriptor of a database drops all its POSIX locks.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        pass
    except OSError as e:
        raise DatabaseUnusable(
            f"cannot make the file {path}: {e.strerror}. Give a path that this user can write."
        ) from e
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        raise DatabaseUnusable(
            f"{path} lies on a file system that is mounted read-only. Mount it for writing, or copy the file with its "
            "-wal file to where it can be written."
        )
    if not os.access(path, os.R_OK | os.W_OK):
        raise DatabaseUnusable(
            f"cannot read and write {path} as this user. Change its owner or mode, or give another path."
        )
    turn = turn_path(path)
    beside = turn if turn.exists() else folder
    if not (os.access(folder, os.W_OK | os.X_OK) and os.access(beside, os.R_OK | os.W_OK)):
        raise DatabaseUnusable(
            f"cannot write {beside} as this user: a database has files beside it ({path.name}-wal, -shm, -turn). Let "
            "all that use it write the folder and these files, as one user or by a group."
        )


def turn_path(path: Path) -> Path:
    """The file that writers lock in turn."""
    return path.with_name(path.name + "-turn")


def to_mend(path: Path) -> str:
    """What to do about a damaged file."""
    name, new = shlex.quote(str(path)), shlex.quote(f"{path}.recovered.db")
    return (
        "stop what uses it, keep the file with its -wal file, and put a copy (backup) in its place; without one, save "
        f"what can be read: sqlite3 {name} .recover | sqlite3 {new}"
    )


def check_ours(conn: Connection, path: Path) -> None:
    """Refuse a database that another program made, before anything is written to it. Raises ``DatabaseUnusable``."""
    try:
        mark = conn.pragma("application_id")
        empty = not conn.execute("select exists (select 1 from sqlite_master)").get
    except apsw.NotADBError as e:
        raise DatabaseUnusable(
            f"{path} is not a SQLite database. Give the path of a new file or of one made by Perdure. If it was one, "
            f"it is damaged: {to_mend(path)}"
        ) from e
    if mark != APPLICATION_ID and not (empty and mark == 0):
        raise DatabaseUnusable(
            f"{path} belongs to another program (application id {mark:#x}). Perdure keeps a file of its own: give "
            "the path of a new file or of one made by Perdure."
        )
