"""apsw: a connection to a SQLite file, by the same copy of SQLite that Perdure's own connections are of."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

from perdure.sessions.base import MARK, Dialect, Rows, rendered, still_marked


class Apsw:
    """A connection. Tracers that its user has set see none of our statements."""

    kind = "apsw.Connection"
    dialect: Dialect = "sqlite"

    def __init__(self, given: Any) -> None:
        self.given = given
        self._begun = given.in_transaction

    @contextmanager
    def _plain(self) -> Generator[Any]:
        conn = self.given
        tracers = conn.exec_trace, conn.row_trace
        conn.exec_trace = conn.row_trace = None
        try:
            yield conn
        finally:
            conn.exec_trace, conn.row_trace = tracers

    def execute(self, sql: str, parameters: Sequence[Any]) -> Rows:
        with self._plain() as conn:
            return list(conn.execute(*rendered(sql, parameters, "qmark")).fetchall())

    def job(self, run: Callable[[Any], Any]) -> Any:
        with self._plain() as conn:
            return run(conn)

    def begin(self) -> None:
        if not self.given.in_transaction:
            self.given.execute("begin immediate")

    def restart(self) -> None:
        if not self._begun:
            self.rollback()

    def mark(self) -> None:
        self.execute(MARK, ())

    def kept(self) -> bool:
        return bool(self.given.in_transaction) and still_marked(lambda sql: self.execute(sql, ()))

    def flush(self) -> None:
        pass

    def commit(self) -> None:
        self.given.execute("commit")

    def rollback(self) -> None:
        if self.given.in_transaction:
            self.given.execute("rollback")

    def in_transaction(self) -> bool:
        return bool(self.given.in_transaction)
