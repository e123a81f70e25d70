"""Chance that a replay repeats: random numbers and uuids that follow from a run's lineage and the order of draws."""

from __future__ import annotations

import random
import uuid

from perdure.model.ids import derived_uuid


class Chance:
    """Of one run; made when its body first asks."""

    __slots__ = ("_lineage", "_uuids", "random")

    def __init__(self, lineage: bytes) -> None:
        self.random = random.Random(lineage)
        self._lineage = lineage
        self._uuids = 0

    def uuid4(self) -> uuid.UUID:
        """The next one, derived from the lineage and a counter."""
        self._uuids += 1
        return derived_uuid(self._lineage, self._uuids)
