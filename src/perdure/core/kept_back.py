"""Outcomes that came while a cancel waited for the steps under way: the body sees them with the cancel, no sooner.

They are recorded before the cancel, which says how many they are. A replay hands all of them over at once, as it was.
"""

from __future__ import annotations

from collections.abc import Sequence

from perdure.model.records import Kind, Record

OUTCOMES = frozenset({Kind.STEP, Kind.TIMER, Kind.RECV, Kind.RESULT, Kind.READ})


def kept_back(history: Sequence[Record], cancel: Record) -> frozenset[int]:
    """The ``seq`` of each outcome that a recorded cancel kept back: the last ones before it, as many as it says."""
    before = [record.seq for record in history if record.seq < cancel.seq and record.kind in OUTCOMES]
    return frozenset(before[len(before) - int(cancel.data or b"0") :])
