"""What a batch appends to streams, as columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perdure.model.writes import Unit

NAMES = ("a_id", "a_run", "a_name", "a_path", "a_n", "a_data", "a_nonce", "a_nth", "a_own")


def append_columns(units: Sequence[Unit]) -> dict[str, Sequence[Any]]:
    """The columns by the names that the SQL gives them; at least one unit appends something."""
    rows = [
        (
            unit.key.id, unit.key.run, a.name, a.path, a.n, None if a.data is None else a.data.decode(), unit.nonce,
            nth, None if unit.start is None else unit.key.id,
        )
        for unit in units
        for nth, a in enumerate(unit.appends)
    ]  # fmt: skip
    return dict(zip(NAMES, zip(*rows, strict=True), strict=True))
