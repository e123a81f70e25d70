"""Who holds a lock on a file, as the kernel tells (``/proc/locks``): opening the file to ask would drop our own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def locks_on(path: Path, table: str | None = None) -> Iterator[list[str]]:
    """The locks on a file: kind, flavour, mode, pid, file, first and last byte, after a number. No waiting ones.

    Raises ``OSError`` where the kernel does not say. ``table``: as read already.

    A line: ``1: POSIX  ADVISORY  WRITE 4711 08:02:123456 120 120``; one that waits has ``->`` and a field more.
    """
    status = os.stat(path)
    if table is None:
        table = Path("/proc/locks").read_text(encoding="ascii")
    file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in table.splitlines():
        fields = line.split()
        if len(fields) == 8 and fields[5] == file:
            yield fields
