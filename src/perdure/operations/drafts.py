"""A store that reads for many at once and writes nothing: what would be written to a target is kept as an act.

So what an operation decides of one workflow by hand, it decides of a batch's target by the same code. Promise: what is
asked about one of the targets is read once, for all of them; a write is answered as if it had been done, which is so
in the commit that carries the act out, or else the target is looked at again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, cast

import msgspec

from perdure.model.acts import Act, ForkIt, PauseIt, ReopenIt, RewindIt
from perdure.model.ids import RunKey
from perdure.model.records import Record, WorkflowRow
from perdure.model.writes import Pause, Reopen, Rewind, Start
from perdure.store.base import Store

_ONCE = frozenset({"poll", "incarnations", "routing"})  # the same for all targets of a chunk


class Drafts:
    """See the head of this file. Begun for each target by ``draft``; the act that came of it is ``act``."""

    def __init__(self, store: Store, rows: Sequence[WorkflowRow]) -> None:
        self.app = store.app
        self.act: Act | None = None
        self._store = store
        self._rows = {row.id: row for row in rows}
        self._read: dict[str, Any] = {}

    def draft(self) -> Store:
        """For one target."""
        self.act = None
        return cast("Store", self)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name not in _ONCE:
            return method

        async def once(*args: Any, **named: Any) -> Any:
            if name not in self._read:
                self._read[name] = await method(*args, **named)
            return self._read[name]

        return once

    # -- reading

    async def rows(self, ids: Collection[str]) -> dict[str, WorkflowRow]:
        if all(id in self._rows for id in ids):
            return {id: self._rows[id] for id in ids}
        return await self._store.rows(ids)

    async def histories(self, keys: Sequence[RunKey]) -> dict[RunKey, list[Record]]:
        return cast("dict[RunKey, list[Record]]", await self._all("histories", keys))

    async def inputs(self, keys: Collection[RunKey]) -> dict[RunKey, bytes]:
        return cast("dict[RunKey, bytes]", await self._all("inputs", keys))

    async def _all(self, name: str, keys: Collection[RunKey]) -> dict[RunKey, Any]:
        """Read of all targets, when it is asked of one."""
        known = {row.key for row in self._rows.values()}
        if not known.issuperset(keys):
            found: dict[RunKey, Any] = await getattr(self._store, name)(keys)
            return found
        if name not in self._read:
            self._read[name] = await getattr(self._store, name)(sorted(known))
        return {key: self._read[name][key] for key in keys if key in self._read[name]}

    # -- writing, or so it seems

    async def reopen(self, seen: WorkflowRow, order: Reopen, *, now: int | None = None) -> bool:
        self.act = ReopenIt(id=seen.id, run=seen.run, nonce=order.nonce, seen=seen, order=order)
        return True

    async def rewind(self, seen: WorkflowRow, change: Rewind, *, now: int | None = None) -> bool:
        self.act = RewindIt(id=seen.id, run=seen.run, nonce=change.next.nonce, seen=seen, change=change)
        return True

    async def pause(self, id: str, order: Pause | None, *, now: int | None = None) -> WorkflowRow | None:
        row = self._rows[id]
        nonce = row.lineage if order is None else order.nonce  # what is taken back has none
        self.act = PauseIt(id=id, run=row.run, nonce=nonce, order=order)
        return msgspec.structs.replace(row, pause=None if order is None else order.shown)

    async def fork(
        self, source: RunKey, start: Start, mark: Record, *, end: str | None = None, now: int | None = None
    ) -> WorkflowRow | None:
        taken = (await self._store.rows([start.id])).get(start.id)
        if taken is None:
            self.act = ForkIt(
                id=source.id, run=source.run, nonce=start.nonce, source=source, start=start, mark=mark, end=end
            )
        return taken

    def hint(self, queue: str = "") -> None:
        """Nothing has happened yet."""
