"""Writing a batch: one statement, one transaction, one round trip; the rare ones by a longer way.

What a caller or a run waits for alone has statements of its own (``lone.py``). What one statement cannot do soundly
(``Columns.unsound``, and closing a run that others watch) goes through ``longer.py``. Promises: those of
``Store.commit``. A deadlock or serialization failure is retried whole, a few times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perdure.model.writes import Receipt, Unit, Verdict
from perdure.store.postgres import lone
from perdure.store.postgres.columns import Columns
from perdure.store.postgres.commit import Place, Watched, fenced_in, finish, write
from perdure.store.postgres.connection import Link
from perdure.store.postgres.longer import Longer, record_is_taken
from perdure.store.postgres.timeline import Timeline
from perdure.store.postgres.trouble import TRIES, rolled_back


class Writer:
    """The store's way to write."""

    def __init__(self, link: Link, place: Place) -> None:
        self.link = link
        self.place = place
        self.timeline = Timeline()
        link.when_made(self.timeline.look)

    async def commit(self, batch: Sequence[Unit], now: int | None) -> Receipt:
        if not batch:
            row = await self.link.fetchrow(self.place.sql["clock"])
            return Receipt(now if now is not None else row[0], [])
        doubtful = bool(self.timeline.unproven(batch))
        for tries in range(TRIES):
            try:
                if not doubtful and (receipt := await self._lone(batch, now)) is not None:
                    return receipt
                columns = Columns(batch)
                if not (doubtful or columns.unsound):
                    try:
                        return await self._straight(batch, columns, now)
                    except Watched:
                        pass
                return await self._longer(batch, now, doubtful=doubtful)
            except Exception as e:
                if await rolled_back(e, tries):
                    continue
                if doubtful or not record_is_taken(e.__cause__ or e):
                    raise
                doubtful = True
        raise AssertionError("the last try returns or raises")

    async def _lone(self, batch: Sequence[Unit], now: int | None) -> Receipt | None:
        """A batch that has a statement of its own; None if it has none, or that would not do."""
        fitting = lone.fitting(batch)
        return None if fitting is None else await lone.write(_Direct(self.link), self.place, batch, fitting, now)

    async def _longer(self, batch: Sequence[Unit], now: int | None, *, doubtful: bool) -> Receipt:
        unproven = self.timeline.unproven(batch)
        receipt = await Longer(self.link, self.place, now).commit(batch, doubtful=doubtful, unproven=unproven)
        self.timeline.prove([u for u in unproven if receipt.verdicts[batch.index(u)].applied])
        return receipt

    async def _straight(self, batch: Sequence[Unit], columns: Columns, now: int | None) -> Receipt:
        """One statement; more only if a fence refused, a start did not take or a message did not arrive."""
        written = await write(_Direct(self.link), self.place, columns, now, watchers_seen=False)
        if not written.refused and written.took is None and written.mail is None:
            return Receipt(written.now, [Verdict(applied=True) for _ in batch])
        refused: set[str] = set(written.refused)
        while written.refused:
            left = [u for u in batch if not fenced_in(u, refused)]
            if not left:
                return Receipt(written.now, [Verdict(applied=False) for _ in batch])
            columns = Columns(left)
            written = await write(_Direct(self.link), self.place, columns, now, watchers_seen=False)
            refused |= written.refused
        verdicts = [Verdict(applied=not fenced_in(u, refused)) for u in batch]
        await finish(_Direct(self.link), self.place, zip(batch, verdicts, strict=True), written)
        return Receipt(written.now, verdicts)


class _Direct:
    """The writer's connection, each statement its own transaction."""

    __slots__ = ("link",)

    def __init__(self, link: Link) -> None:
        self.link = link

    async def fetch(self, sql: str, *args: Any) -> list[Any]:
        return await self.link.fetch(sql, *args, writing=True)

    async def fetchrow(self, sql: str, *args: Any) -> Any:
        return await self.link.fetchrow(sql, *args, writing=True)
