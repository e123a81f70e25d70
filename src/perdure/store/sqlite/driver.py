"""What this dialect uses of apsw, with types: apsw's own are unknown to type checkers on Pythons before 3.12."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, cast

import apsw

Row = tuple[Any, ...]
Bindings = tuple[Any, ...]


class Cursor(Protocol):
    """The rows of a statement. Nothing after the first row of a statement runs until they are read."""

    def __iter__(self) -> Iterator[Row]: ...
    def fetchone(self) -> Row | None: ...
    def fetchall(self) -> list[Row]: ...
    @property
    def get(self) -> Any:
        """The one value of the one row, None if there is none."""
        ...


class Connection(Protocol):
    """A connection; its statements are prepared once and kept."""

    in_transaction: bool

    def execute(self, statements: str, bindings: Bindings = ..., /) -> Cursor: ...
    def executemany(self, statements: str, bindings: Iterable[Bindings], /) -> Cursor: ...
    def pragma(self, name: str, value: str | int | bool = ..., /) -> Any: ...
    def set_wal_hook(self, callable: Callable[[Any, str, int], int], /) -> None: ...
    def wal_checkpoint(self, dbname: str | None = ..., mode: int = ...) -> tuple[int, int]: ...
    def set_busy_timeout(self, milliseconds: int, /) -> None: ...
    def close(self) -> None: ...


def connect(path: Path) -> Connection:
    """Open a file that is there. Nothing is read from it yet."""
    return steady(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE))


def steady(conn: Any) -> Connection:
    """Let its statements keep their plans.

    Otherwise SQLite plans a statement anew at each execution if a binding might change the plan. Where a partial index
    could serve that is any parameter it is compared with: a look at what is due took ten times as long.
    """
    conn.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    conn.create_scalar_function("ramp_point", _ramp_point, 1, deterministic=True)
    return cast("Connection", conn)


def leave_log(conn: Any) -> None:
    """Let the end of the connection leave the log as it is: nothing of it is written to the file, nor is it removed."""
    conn.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)


def _ramp_point(text: str) -> bytes:
    """Where a ramp sees a workflow, of its app and id: see ``versions.routing.share``."""
    return hashlib.sha256(text.encode()).digest()[:8]
