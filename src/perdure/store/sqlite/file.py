"""The database file: where it may lie, whose it is, who may read it.

Promises: a file that Perdure did not make is never written to; a new file is readable by its owner only; file systems
whose locks or shared memory cannot be trusted are refused at the start, not found out by a corrupt file.
"""

from __future__ import annotations

import os
from pathlib import Path

import apsw

from perdure.errors import ConfigError
from perdure.store.sqlite import mounts
from perdure.store.sqlite.driver import Connection

APPLICATION_ID = 0x50455244  # "PERD", in the file's header


def prepare(path: Path) -> None:
    """Make the file and its directory if missing; refuse a place that cannot hold it. Raises ``ConfigError``."""
    folder = path.parent
    if not folder.exists():
        try:
            folder.mkdir(mode=0o700, parents=True)
        except OSError as e:
            raise ConfigError(
                f"cannot make the directory {folder}: {e.strerror}. Make it, or give another path."
            ) from e
    if kind := mounts.unsafe_kind(folder):
        raise ConfigError(
            f"{path} lies on a {kind} file system, where SQLite's locks and shared memory are not reliable. "
            "Put the file on a local disk, or use Postgres."
        )
    if path.is_dir():
        raise ConfigError(f"{path} is a directory. Give the path of a file in it, such as {path / 'perdure.db'}.")
    try:
        # Only ever a new file is opened here: closing a second descriptor of a database drops all its POSIX locks.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        pass
    except OSError as e:
        raise ConfigError(f"cannot make the file {path}: {e.strerror}. Give a path that this user can write.") from e
    if not os.access(path, os.R_OK | os.W_OK):
        raise ConfigError(f"cannot read and write {path} as this user. Change its owner or mode, or give another path.")


def check_ours(conn: Connection, path: Path) -> None:
    """Refuse a database that another program made, before anything is written to it. Raises ``ConfigError``."""
    try:
        mark = conn.pragma("application_id")
        empty = not conn.execute("select exists (select 1 from sqlite_master)").get
    except apsw.NotADBError as e:
        raise ConfigError(
            f"{path} is not a SQLite database. Give the path of a new file or of one made by Perdure."
        ) from e
    if mark != APPLICATION_ID and not (empty and mark == 0):
        raise ConfigError(
            f"{path} belongs to another program (application id {mark:#x}). Perdure keeps a file of its own: give "
            "the path of a new file or of one made by Perdure."
        )
