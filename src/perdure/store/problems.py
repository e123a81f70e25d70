"""What the rest of the house knows of problems in a database: the part of the store's protocol about them.

What a unit tells of its run's problems goes with ``Store.commit``, that an executor died with ``adopt`` and
``release_orphans``. Promises: those of ``Store``.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from perdure.model.ids import RunKey
from perdure.model.problems import ProblemRow
from perdure.model.records import WorkflowRow
from perdure.model.states import Reason


class ProblemStore(Protocol):
    """See the head of this file."""

    async def problems(self, ids: Collection[str]) -> list[ProblemRow]:
        """All that runs of these ids have had, what is over too; each id's by run, the oldest first."""
        ...

    async def note_turn(self, key: RunKey, claim: bytes, text: str, nonce: bytes, *, now: int | None = None) -> bool:
        """Note that the body of a run held under ``claim`` does not come to rest; False if it is held so no more.

        Repeated with the same nonce it is noted once.
        """
        ...

    async def held_due(self, reasons: Collection[Reason], version: str, since: int) -> int | None:
        """When the next of what ``release_held`` has left for its back-off may be tried; None if nothing was left."""
        ...

    async def held_elsewhere(
        self, reasons: Collection[Reason], version: str, limit: int, *, now: int | None = None
    ) -> list[WorkflowRow]:
        """Up to ``limit`` workflows of other versions, held for one of these reasons, that ``version`` may try now.

        None that is pinned, none that has a trial for ``version`` as it stands, none whose back-off there runs.
        """
        ...
