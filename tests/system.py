"""What the system that runs the tests tells of itself."""

from __future__ import annotations

from pathlib import Path


def _locks_are_told() -> bool:
    try:
        Path("/proc/locks").read_text()  # empty while there are none
    except OSError:
        return False
    return True


LOCKS_ARE_TOLD = _locks_are_told()  # who holds a lock on a file
