"""A SQLite file for thousands of runs: in memory where the system has such a place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scratch(tmp_path: Path, name: str) -> Iterator[str]:
    """The URL of a database that is gone afterwards."""
    where = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path
    path = where / f"perdure-{name}-{os.getpid()}.db"
    try:
        yield f"sqlite:///{path}"
    finally:
        for file in where.glob(f"{path.name}*"):
            file.unlink()
