"""What this dialect uses of apsw, with types: apsw's own are unknown to type checkers on Pythons before 3.12."""

from __future__ import annotations

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
    def set_busy_timeout(self, milliseconds: int, /) -> None: ...
    def config(self, option: int, value: int, /) -> int: ...
    def close(self) -> None: ...


def connect(path: Path) -> Connection:
    """Open a file that is there. Nothing is read from it yet."""
    make = cast("Callable[..., Connection]", apsw.Connection)
    conn = make(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    # A statement is planned once, whatever is bound to it. Without this SQLite plans some of ours anew for each row (to
    # see what the values say of partial indexes and statistics), which costs up to ten times the row's own work.
    conn.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    return conn
