"""The audit trail of a simulated database: the lines of ``histcheck.audit``'s triggers, told by SQLite's own hook.

A trigger writes a row for each row, as JSON that is read again later: half of what a write costs. The hook is called
before each change with the rows as they are. Promise: the lines are those that the triggers write (a test compares
them); what was rolled back leaves none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from perdure.errors import ConfigError
from perdure.testing.histcheck.audit import IDENTITIES, UNTOLD, Line

Told = Callable[[tuple[Any, ...]], dict[str, Any]]


class Trail:
    """Lines of one connection's changes. ``tx`` and ``at`` are those of the transaction under way."""

    def __init__(self, conn: Any) -> None:
        if not hasattr(conn, "preupdate_hook"):
            raise ConfigError(
                "the simulator needs an apsw with SQLite's preupdate hook, which this one is built without; "
                "that of PyPI has it: pip install --only-binary apsw apsw"
            )
        self._conn = conn
        self.lines: list[Line] = []
        self.tx = 0
        self.at = 0
        tables = conn.execute("select name from sqlite_schema where type = 'table' and name not like 'sqlite_%'")
        self._tables: dict[str, Told] = {
            name: _told(name, [column for _, column, *_ in conn.execute(f"pragma table_info({name})")])
            for (name,) in tables.fetchall()
            if name not in UNTOLD
        }
        conn.preupdate_hook(self._change)

    @property
    def tables(self) -> list[str]:
        """Those that are told of."""
        return list(self._tables)

    def wipe(self) -> None:
        """Empty all tables, and forget; nothing is told of that."""
        self._conn.preupdate_hook(None)
        self._conn.execute("begin")
        for table in self._tables:
            self._conn.execute(f"delete from {table}")  # noqa: S608 - our own names
        self._conn.execute("commit")
        self._conn.preupdate_hook(self._change)
        self.lines = []
        self.tx = 0

    def begin(self, at: int) -> int:
        """A transaction begins; a mark to which its lines can be undone."""
        self.tx += 1
        self.at = at
        return len(self.lines)

    def undo(self, mark: int) -> None:
        """The transaction was rolled back."""
        del self.lines[mark:]

    def _change(self, change: Any) -> None:
        told = self._tables.get(change.table_name)
        if told is not None:
            lines, op = self.lines, change.op.lower()
            row = told(change.old if op == "delete" else change.new)
            lines.append(
                {"n": len(lines) + 1, "tx": self.tx, "at": self.at, "table": change.table_name, "op": op, "row": row}
            )


def _told(table: str, columns: list[str]) -> Told:
    """How a row of a table is told: identities in hexadecimal, other bytes as their text."""
    names = [name for name in columns if name in IDENTITIES or (table, name) == ("incarnation", "id")]

    def told(values: tuple[Any, ...]) -> dict[str, Any]:
        row = dict(zip(columns, values, strict=True))
        for name in names:
            if (value := row[name]) is not None:
                row[name] = value.hex()
        for name, value in row.items():
            if type(value) is bytes:
                row[name] = value.decode(errors="replace")
        return row

    return told
