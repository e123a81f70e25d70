"""Where a benchmark runs: the database that ``--db`` names."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator

from tests.postgres import Cluster


@contextlib.contextmanager
def database(named: str | None) -> Iterator[str]:
    """The URL of an empty one: ``sqlite``, a new file; ``postgres`` or none, one that is found and started."""
    if named == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{folder}/bench.db"
    elif named in (None, "postgres"):
        with Cluster() as cluster:
            yield cluster.url(cluster.create_database())
    else:
        yield named
