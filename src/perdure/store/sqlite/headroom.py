"""Room ahead in the write-ahead log: bytes that are on the disk before a commit needs them.

To sync a file that has grown, a file system commits its new length to its own journal too. On ext4 that makes a small
commit two to five times as slow as one that overwrites. A log that was checkpointed is overwritten from its beginning,
so the price is paid while it grows to its full length for the first time. Instead it grows by zeros, in pieces.

SQLite reads a log up to the first frame whose salts and checksum do not fit, and what follows has no meaning: after
each checkpoint that is the rest of the log before (https://sqlite.org/fileformat2.html#walformat). Zeros never fit.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from pathlib import Path
from typing import Final

import apsw

from perdure.store.sqlite.driver import Connection
from perdure.store.sqlite.health import LOG_MAX

log = logging.getLogger("perdure")

FRAMES_MAX: Final = 4000  # of the log, before it is checkpointed and begun anew
HEADER, FRAME_HEADER = 32, 24
LITTLE: Final = 256 << 10  # bytes of the log: who writes no more needs no room
AHEAD: Final = 128 << 10  # bytes of room that are enough for the next commit
PIECE_MIN, PIECE_MAX = 256 << 10, 1 << 20  # bytes


class Headroom:
    """The log of one connection that writes. Takes the place of SQLite's automatic checkpoint, which uses its hook."""

    def __init__(self, conn: Connection, path: Path) -> None:
        self._frame = FRAME_HEADER + int(conn.pragma("page_size"))
        self._used = self._size = 0
        self._log = path.with_name(f"{path.name}-wal")
        self._fd = -1  # until there is a log that is worth it
        self._possible = True
        self._told = False
        conn.set_wal_hook(self._committed)

    def _committed(self, conn: Connection, _database: str, frames: int) -> int:
        self._used = HEADER + frames * self._frame
        if frames >= FRAMES_MAX:
            with contextlib.suppress(apsw.Error):  # what is wrong with the file is said by the next commit
                there, done = conn.wal_checkpoint()
                if done < there and self._used >= LOG_MAX and not self._told:
                    self._tell()
        return apsw.SQLITE_OK

    def _tell(self) -> None:
        self._told = True
        log.warning(
            "the write-ahead log %s has grown to %d MiB and cannot be emptied: a process keeps an older state of it to "
            "read; perdure doctor tells which", self._log, self._used >> 20,
        )  # fmt: skip

    @property
    def ample(self) -> bool:
        """Whether the next commit needs neither more room nor a checkpoint."""
        return self._used < LITTLE or self._used + AHEAD <= min(self._size, FRAMES_MAX * self._frame)

    def provide(self) -> None:
        """Lengthen the log if little room is left. For who holds the write lock: nobody else appends meanwhile."""
        if self._used < LITTLE or not self._possible:
            return
        try:
            if self._fd < 0:
                self._fd = os.open(self._log, os.O_RDWR | os.O_CLOEXEC)
            size = os.fstat(self._fd).st_size
            if size - self._used < AHEAD and size < FRAMES_MAX * self._frame:
                size += lengthen(self._fd, size, min(max(size, PIECE_MIN), PIECE_MAX))
            self._size = size
        except OSError:  # a full disk, for one: what room there is belongs to the commits, which say what is wrong
            self._possible = False

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


def lengthen(fd: int, size: int, by: int) -> int:
    """Append zeros to a file, all or none; how many."""
    try:
        if os.pwrite(fd, bytes(by), size) == by:
            return by
    except OSError:
        os.ftruncate(fd, size)
        raise
    os.ftruncate(fd, size)
    raise OSError(errno.ENOSPC, "the disk took a part")
