"""Where to cut a history: before a step, named as people name it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from perdure.errors import StepNotFound
from perdure.model.records import Kind, Record, WorkflowRow

LISTED_MAX = 30
_PATH = re.compile(r"t?\d+(\.\w+)*")
_CALLS = frozenset({Kind.STEP, Kind.ATTEMPT, Kind.CHILD})  # what has a name that people know


def records_before(row: WorkflowRow, history: Sequence[Record], step: str | int | None) -> int:
    """How many records come before a step: its name, its path (``3``, ``2.1``), its number (``#7``, or 7 as an int).

    None: all of them. A step that had begun, and has no record yet, comes after all. Raises ``StepNotFound`` for one
    that is not there, and for a name that several have.
    """
    if step is None:
        return len(history)
    if isinstance(step, int) or re.fullmatch(r"#\d+", step):
        seq = int(str(step).removeprefix("#"))
        if not 1 <= seq <= len(history) + 1:
            raise StepNotFound(f"run {row.run} of workflow {row.id!r} has {len(history)} records; there is no #{seq}")
        return seq - 1
    first = _firsts(row, history)
    if _PATH.fullmatch(step) and step in first:
        return first[step][0] - 1
    found = [(path, seq) for path, (seq, name) in first.items() if name == step]
    if len(found) == 1:
        return found[0][1] - 1
    if found:
        several = ", ".join(f"{path} (#{seq})" for path, seq in found[:LISTED_MAX])
        raise StepNotFound(
            f"workflow {row.id!r} called {step!r} {len(found)} times, at the paths {several}: say which by its path, "
            f"as in {found[0][0]!r}, or by its number, as in '#{found[0][1]}'"
        )
    known = [f"{name} (path {path}, #{seq})" for path, (seq, name) in first.items() if name]
    listed = ", ".join(known[:LISTED_MAX]) + (f" and {len(known) - LISTED_MAX} more" if len(known) > LISTED_MAX else "")
    raise StepNotFound(f"run {row.run} of workflow {row.id!r} has no step {step!r}; it has: {listed or 'none'}")


def _firsts(row: WorkflowRow, history: Sequence[Record]) -> dict[str, tuple[int, str]]:
    """By path: the number of its first record and its name, "" for what people do not name."""
    first: dict[str, tuple[int, str]] = {}
    for record in history:
        if record.path:
            first.setdefault(record.path, (record.seq, record.name if record.kind in _CALLS else ""))
    for intents in (row.intents, *(record.intents for record in history)):
        for intent in intents:
            first.setdefault(intent.path, (len(history) + 1, intent.name))
    return first
