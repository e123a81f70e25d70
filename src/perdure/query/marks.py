"""The error about a query: the line that cannot be read, a caret under the place, what was expected."""

from __future__ import annotations

from perdure.errors import QueryError
from perdure.query.tree import Span


class Unfit(Exception):
    """What stands at ``at`` cannot be meant; whoever has the text makes a ``QueryError`` of it."""

    def __init__(self, at: Span, what: str) -> None:
        super().__init__(what)
        self.at = at
        self.what = what


LINE_MAX = 160  # characters of a line that are shown
SAID_MAX = 500  # of what is said about it


def error_at(text: str, at: Span, what: str) -> QueryError:
    """An error about a place of ``text``."""
    begin = text.rfind("\n", 0, at.start) + 1
    end = text.find("\n", at.start)
    line = text[begin : len(text) if end < 0 else end]
    column = at.start - begin
    number = text.count("\n", 0, at.start) + 1
    shown, caret = _window(line, column)
    length = max(1, min(at.end - at.start, len(shown) - caret))
    said = _plain(what if len(what) <= SAID_MAX else f"{what[:SAID_MAX]} …")
    where = f"column {column + 1}" if "\n" not in text else f"line {number}, column {column + 1}"
    return QueryError(
        f"the query cannot be read at {where}: {said}\n  {shown}\n  {' ' * caret}{'^' * length}",
        query=text, line=number, column=column + 1,
    )  # fmt: skip


def _window(line: str, column: int) -> tuple[str, int]:
    """A part of a long line around ``column``, and where the column is in it. Tabs and the like take one place."""
    plain = _plain(line)
    if len(plain) <= LINE_MAX:
        return plain, column
    first = min(max(0, column - LINE_MAX // 2), len(plain) - LINE_MAX + 1)
    return plain[first : first + LINE_MAX], column - first


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)
