"""asyncpg: a connection of its own, or one that a pool has lent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from perdure.sessions.base import Dialect, Rows


class Asyncpg:
    """A connection; its transactions are objects, and each statement outside one is committed at once."""

    kind = "asyncpg.Connection"
    dialect: Dialect = "postgres"

    def __init__(self, given: Any) -> None:
        self.given = given
        self._transaction: Any = None

    async def execute(self, sql: str, parameters: Sequence[Any]) -> Rows:
        return [tuple(row) for row in await self.given.fetch(sql, *parameters)]

    async def job(self, run: Callable[[Any], Any]) -> Any:
        return run(self.given)

    async def begin(self) -> None:
        if not self.given.is_in_transaction():
            self._transaction = self.given.transaction()
            await self._transaction.start()

    async def restart(self) -> None:
        await self.rollback()  # of a transaction begun here: a question alone begins none

    async def mark(self) -> None:
        pass

    async def kept(self) -> bool:
        """What follows a COMMIT of the body's is committed by itself: no transaction is open then."""
        return bool(self.given.is_closed() or self.given.is_in_transaction())

    async def flush(self) -> None:
        pass

    async def commit(self) -> None:
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            await transaction.commit()

    async def rollback(self) -> None:
        transaction, self._transaction = self._transaction, None
        if transaction is not None and not self.given.is_closed():
            await transaction.rollback()

    async def in_transaction(self) -> bool:
        return bool(self.given.is_in_transaction())
