"""Python's own sqlite3: for files of the user's. On the app's own file it is refused (``places.py``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from perdure.sessions.base import MARK, Dialect, Rows, rendered, still_marked


class Sqlite3:
    """A connection, in whichever of the module's ways of beginning transactions."""

    kind = "sqlite3.Connection"
    dialect: Dialect = "sqlite"

    def __init__(self, given: Any) -> None:
        self.given = given
        self._begun = given.in_transaction

    def execute(self, sql: str, parameters: Sequence[Any]) -> Rows:
        cursor = self.given.cursor()
        cursor.row_factory = None
        try:
            return list(cursor.execute(*rendered(sql, parameters, "qmark")).fetchall())
        finally:
            cursor.close()

    def job(self, run: Callable[[Any], Any]) -> Any:
        return run(self.given)

    def begin(self) -> None:
        if not self.given.in_transaction:
            self.given.execute("begin immediate")

    def restart(self) -> None:
        if not self._begun:
            self.rollback()

    def mark(self) -> None:
        self.given.execute(MARK)

    def kept(self) -> bool:
        return bool(self.given.in_transaction) and still_marked(self.given.execute)

    def flush(self) -> None:
        pass

    def commit(self) -> None:
        if getattr(self.given, "autocommit", None) is True:  # from 3.12 on: commit() does nothing then
            self.given.execute("commit")
        else:
            self.given.commit()

    def rollback(self) -> None:
        if getattr(self.given, "autocommit", None) is True:
            if self.given.in_transaction:
                self.given.execute("rollback")
        else:
            self.given.rollback()

    def in_transaction(self) -> bool:
        return bool(self.given.in_transaction)
