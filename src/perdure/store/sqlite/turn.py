"""The turnstile: a lock file beside the database, taken before ``BEGIN IMMEDIATE``.

SQLite's own wait for the write lock is a poll without order: of four busy writers one starved for seconds. The kernel
wakes those who wait for a ``flock`` as soon as it is free.

Promises: ``take`` waits no longer than it is told, although ``flock`` knows no timeout: a helper thread waits, and
hands back at once what nobody waits for any more. The lock dies with the process, and a forked child never keeps it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from enum import Enum, auto
from pathlib import Path

from perdure.errors import Overloaded
from perdure.store.sqlite.locks import locks_on


class _Wait(Enum):
    """What the helper thread is up to."""

    NONE = auto()
    WANTED = auto()  # it waits for the lock, and the writer for it
    GRANTED = auto()  # it has the lock, for the writer to use
    ABANDONED = auto()  # it waits for the lock, but the writer has given up


def flock_holder(path: Path, locks: str | None = None) -> str:
    """`` (pid 4711)`` for who has the lock of a file now; "" where the kernel does not say."""
    with contextlib.suppress(OSError):
        for _, kind, _, _, pid, *_ in locks_on(path, locks):
            if kind == "FLOCK" and pid not in {"0", "-1"}:
                return f" (pid {pid})"
    return ""


class Turn:
    """The right to begin a write transaction, among all processes. For one writer thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._wait = _Wait.NONE
        self._state = threading.Condition()
        self._asked = threading.Semaphore(0)
        self._helper: threading.Thread | None = None

    def try_take(self) -> bool:
        """Take the turn if it is free, without a wait; whether it was."""
        if self._wait is not _Wait.NONE:  # the helper of an earlier, abandoned wait is still in the queue
            return False
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    def take(self, timeout: float) -> None:
        """Wait for the turn; ``Overloaded`` if it does not come in ``timeout`` seconds."""
        if self.try_take():
            return
        with self._state:
            if self._wait is _Wait.NONE:
                self._ask()
            elif self._wait is _Wait.ABANDONED:  # join it
                self._wait = _Wait.WANTED
            granted = self._state.wait_for(lambda: self._wait is _Wait.GRANTED, timeout)
            self._wait = _Wait.NONE if granted else _Wait.ABANDONED
        if not granted:
            who = flock_holder(self._path)
            raise Overloaded(f"another process{who} has kept the turn to write ({self._path}) for {timeout:.1f} s")

    def release(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give the lock back, unless the helper still waits for it: then its end is the process's."""
        with self._state:
            if self._wait is _Wait.ABANDONED or self._fd < 0:
                return
            os.close(self._fd)
            self._fd = -1
            self._asked.release()  # the helper, if there is one, sees the closed file and ends

    def forget(self) -> None:
        """In a forked child: drop the inherited descriptor, or the parent's lock would outlive the parent."""
        with contextlib.suppress(OSError):
            os.close(self._fd)
        self._fd = -1

    def _ask(self) -> None:
        if self._helper is None:
            helper = threading.Thread(target=self._help, name="perdure-turn", daemon=True)
            try:
                helper.start()
            except RuntimeError as refused:  # a limit of processes or of memory: the next try may be luckier
                raise Overloaded(f"no thread to wait for the turn to write with ({self._path}): {refused}") from None
            self._helper = helper
        self._wait = _Wait.WANTED
        self._asked.release()

    def _help(self) -> None:
        while True:
            self._asked.acquire()
            if self._fd < 0:
                return
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            with self._state:
                if self._wait is _Wait.WANTED:
                    self._wait = _Wait.GRANTED
                    self._state.notify()
                else:
                    fcntl.flock(self._fd, fcntl.LOCK_UN)
                    self._wait = _Wait.NONE
