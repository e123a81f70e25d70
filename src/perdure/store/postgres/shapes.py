"""The constant statements of a commit: a few shapes, each joined from the parts in ``queries/commit.sql``.

A batch takes the smallest shape that can carry it: what is not in the statement costs nothing. Each shape is prepared
once per connection; its text never depends on data.

The parts speak of arrays; a column travels as one JSON array in one text parameter. The driver spends 0.2 to 0.4
microseconds on each element of an array, on the host's loop; JSON costs a twentieth of that here, and no more in the
server than arrays do.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import msgspec

from perdure.store.postgres.columns import Columns
from perdure.store.postgres.text import statements

_PARAMETER = re.compile(r"(?<!:):([a-z_]+)")
_UNNEST = re.compile(r"unnest\(([^()]+)\)\s+u \(([a-z_,\s]+)\)")
_ARRAY = re.compile(r":([a-z_]+)::([a-z]+)\[\]")
_json = msgspec.json.Encoder()

PARTS: dict[str, tuple[str, ...]] = {
    # Checkpoints of running workflows, and nothing else (one alone has its own statement: lone.py, as have others).
    "records": ("lock", "fence", "history", "answer_fence"),
    # Runs that park, close or are handed back, most with a last record.
    "changes": (
        "clock", "lock", "fence_unwatched", "history", "change", "outcome", "clear", "wake", "answer_fence",
    ),
    # New workflows.
    "starts": ("clock", "no_fence", "start", "answer_start_only"),
    # New workflows, some of which are over already or may be watched.
    "starts_closed": ("clock", "no_fence", "start", "own", "wake_start", "answer_start_only"),
    # A busy executor's batch: some start, some go on, some end.
    "mixed": (
        "clock", "lock", "fence_unwatched", "start", "own", "history", "change", "outcome", "clear", "wake_both",
        "answer_start",
    ),
    # Values of streams, of runs that go on.
    "appends": ("clock", "lock", "fence_unwatched", "history", "fresh", "append", "answer_fence"),
    # Whatever a batch may hold.
    "all": (
        "clock", "lock", "fence_unwatched", "start", "own", "history_own", "commands", "change_noted", "outcome",
        "clear", "wake_both", "woken", "taken", "send", "answer_all",
    ),
    # The same, with values of streams.
    "all_appends": (
        "clock", "lock", "fence_unwatched", "start", "own", "history_own", "commands", "change_noted", "outcome",
        "clear", "wake_both", "woken", "taken", "fresh_own", "append", "send", "answer_all",
    ),
}  # fmt: skip


def _cast(value: str, type: str) -> str:
    """SQL for a JSON element as a value of its type."""
    return {"text": value, "bytea": f"decode({value}, 'base64')"}.get(type, f"{value}::{type}")


def _unnested(match: re.Match[str]) -> str:
    """``unnest(:a::text[], …) u (x, …)`` over JSON arrays."""
    arrays = _ARRAY.findall(match[1])
    names = [name.strip() for name in match[2].split(",")]
    sources = ", ".join(f"json_array_elements_text(:{parameter}::json)" for parameter, _ in arrays)
    columns = ", ".join(f"{_cast('r.' + name, type)} as {name}" for name, (_, type) in zip(names, arrays, strict=True))
    # S608: all of it is our own text
    return f"(select {columns} from rows from ({sources}) r ({', '.join(names)})) u"  # noqa: S608


def _array(match: re.Match[str]) -> str:
    """``:a::text[]`` elsewhere."""
    return f"array(select {_cast('v', match[2])} from json_array_elements_text(:{match[1]}::json) v)"  # noqa: S608 - as above


def numbered(text: str) -> tuple[str, tuple[str, ...]]:
    """``:name`` as ``$1``, and the names in order."""
    numbers: dict[str, int] = {}

    def number(match: re.Match[str]) -> str:
        return f"${numbers.setdefault(match[1], len(numbers) + 1)}"

    return _PARAMETER.sub(number, text), tuple(numbers)


class Shape:
    """One statement: its text and the names of its parameters in order."""

    __slots__ = ("arrays", "name", "names", "sql")

    def __init__(self, name: str, schema: str) -> None:
        texts = statements(schema)
        *parts, answer = PARTS[name]
        text = "with " + ",\n".join(texts["part_" + part] for part in parts) + "\n" + texts[answer]
        self.name = name
        self.sql, self.names = numbered(_ARRAY.sub(_array, _UNNEST.sub(_unnested, text)))

    def arguments(self, columns: Columns, app: str, now: int | None, *, watchers_seen: bool) -> list[Any]:
        values = columns.values
        scalars = {"app": app, "now": now, "watchers_seen": watchers_seen, "f_count": len(columns.fences)}
        encode = _json.encode
        return [encode(values[name]).decode() if name in values else scalars.get(name, "[]") for name in self.names]


@cache
def shape(name: str, schema: str) -> Shape:
    return Shape(name, schema)


def choose(columns: Columns) -> str:
    """The smallest shape that carries the batch."""
    if columns.appending:
        return "all_appends" if columns.rest or columns.starts or columns.held else "appends"
    if columns.rest or columns.dependent:
        return "all"
    if not columns.starts:
        return "changes" if columns.held else "records"
    if columns.fences:
        return "mixed"
    return "starts_closed" if columns.closing else "starts"
