"""The write-ahead log as a file that somebody may remove, or leave behind, under the connections that use it.

A log without a name takes commits as before, and whoever opens the database later sees none of them. Promises: no
commit is answered that went to such a log; what went there before its name was gone is saved into the database file,
as long as nobody has begun another log in its place; and a file that took the place of ours is not read with our log.

The index of the log (``-shm``) holds the locks and says where the log ends. With two of one log, writers overwrite each
other's commits. Promise: nothing is written by an index without a name, nor by the end of a connection that has it. The
connections of a process share it, so none is made anew before all have let go of it.

All writers of Perdure look under the turn, so that none appends while another saves.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import apsw

from perdure.errors import DatabaseTrouble
from perdure.store.sqlite.driver import Connection

log = logging.getLogger("perdure")

HEADER = 32  # bytes
Identity = tuple[int, int]


def identity(path: Path) -> Identity | None:
    """Which file has this name now; None: none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


class Used:
    """A file beside the database that a connection uses, and that may lose its name meanwhile."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is: Identity | None = None

    def opened(self) -> None:
        """The connection was made just now; it may make the file later."""
        self._is = identity(self.path)

    @property
    def lost(self) -> bool:
        """Whether the one in use has this name no more."""
        now = identity(self.path)
        if self._is is None:
            self._is = now
        return now != self._is

    @property
    def there(self) -> bool:
        """Whether one is in use, and has its name."""
        return self._is is not None and identity(self.path) == self._is


class Log:
    """The log that one connection uses."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._log = Used(database.with_name(f"{database.name}-wal"))
        self._index = Used(database.with_name(f"{database.name}-shm"))
        self._path = self._log.path
        self._left = b""  # the header of the log when it was last let go of: an inode is soon used again

    def opened(self) -> None:
        """The connection was made just now."""
        self._log.opened()
        self._index.opened()

    @property
    def index_lost(self) -> bool:
        """Whether the index of the log in use has its name no more: who opens the database makes another."""
        return self._index.lost

    @property
    def lost(self) -> bool:
        """Whether the log in use has its name no more."""
        return self._log.lost

    @property
    def missing(self) -> bool:
        return not self._path.exists()

    def let_go(self) -> None:
        """The connection is about to be closed."""
        self._left = self._header() if self._log.there else b""

    @property
    def left_behind(self) -> bool:
        """Whether the one that was used lies there still, with something in it."""
        return self._left != b"" and self._header() == self._left

    def _header(self) -> bytes:
        """With its salts, which no two logs have in common; empty if there is no log, or nothing in it."""
        try:
            with self._path.open("rb") as file:  # SQLite holds no lock on a log that this could drop
                return file.read(HEADER)
        except OSError:
            return b""

    def save(self, conn: Connection) -> str:
        """For who holds the turn: bring what is in the lost log into the database file; what has happened, in words.

        Afterwards the connection is not to be used. Raises ``DatabaseTrouble`` if that is to be tried again.
        """
        if not self.missing and self._path.stat().st_size:
            words = f"{self.trouble()} Another log is in its place: work goes on with that"
            log.error("%s", words)
            return words
        try:
            conn.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.BusyError as busy:
            raise DatabaseTrouble(f"{self.trouble()} Somebody reads it just now ({busy}); tried again") from busy
        words = f"{self.trouble()} What it held has been saved into the database file, and work goes on with a new log"
        log.error("%s", words)
        return words

    def trouble(self) -> str:
        """What has happened, and what not to do."""
        return (
            f"the write-ahead log {self._path} was removed or replaced while it was in use: it is part of the "
            "database. Remove neither it nor the -shm file while an executor runs."
        )

    def trouble_with_index(self) -> DatabaseTrouble:
        """What has happened, and what is done about it."""
        return DatabaseTrouble(
            f"the index {self._index.path} of the write-ahead log was removed or replaced while it was in use: nothing "
            "is written by the old one. Work goes on with a new one once all connections of this process have let go "
            "of it. Remove neither it nor the -wal file while an executor runs."
        )

    def refuse_behind(self) -> None:
        """The database file is another: not to be read with the log of the one before. Raises ``DatabaseTrouble``."""
        if self.left_behind:
            raise DatabaseTrouble(
                f"{self._database} was replaced while it was in use, and {self._path} is the log of the file before: "
                f"nothing is read or written. Stop what uses it, and remove {self._path} (or put the file back that it "
                "belongs to)."
            )
