"""Batches in a database: a part of the store's protocol of its own, since only operators ask for it.

Promises, for both dialects: an order is frozen once under its key; a target that is not waiting is never acted on; what
becomes of a target, the change of its workflow and its line of audit are one commit; every method may be repeated after
``LostAnswer``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from perdure.model.acts import Act
from perdure.model.batches import Applied, Ask, AuditRow, BatchRow, Fate, NewBatch, TargetRow
from perdure.query.conditions import Query


class Batches(Protocol):
    """One app's batches."""

    async def create(self, new: NewBatch, query: Query, *, now: int | None = None) -> tuple[BatchRow, bool]:
        """Freeze what a query names, as of one moment, under a key; whether it was this order that did.

        If the key is taken: the batch that has it, and a line of its audit says that it was ordered again, by the same
        words. Raises ``ConfigError`` for more targets than a batch may have; then nothing is written.
        """
        ...

    async def apply(self, key: str, owner: bytes, acts: Sequence[Act], *, now: int | None = None) -> Applied:
        """Carry out a chunk, in one transaction: what its targets come to, their workflows, the audit, the sums.

        Nothing if the batch is not running, is another's, or begins its next chunk later.
        """
        ...

    async def change(self, key: str, ask: Ask, *, now: int | None = None) -> BatchRow | None:
        """Carry out an order about a batch; the batch afterwards, None if there is none."""
        ...

    async def get(self, key: str) -> BatchRow | None: ...

    async def listing(self, limit: int) -> list[BatchRow]:
        """The latest first."""
        ...

    async def targets(self, key: str, fate: Fate | None, after: str, limit: int) -> list[TargetRow]:
        """In the order of ids, after ``after``; those that came to ``fate``."""
        ...

    async def audits(self, key: str, ids: Collection[str]) -> list[AuditRow]:
        """What was done to these of its targets, and ("") to the batch itself."""
        ...
