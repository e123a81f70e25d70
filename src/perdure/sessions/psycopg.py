"""psycopg 3: ``Connection`` and ``AsyncConnection``, from a pool or on their own.

A transaction of ours is a ``transaction()`` block of the driver's own: in it ``commit()`` and ``rollback()`` are
refused, and a further block is a savepoint. If the source has begun one already, it is ended as it was begun.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from perdure.sessions.base import Dialect, Rows, rendered

_IDLE = 0  # libpq's PQTRANS_IDLE


def _tuples() -> Any:
    return importlib.import_module("psycopg.rows").tuple_row  # the driver is there: one of its objects is


def _undo() -> BaseException:
    rollback: BaseException = importlib.import_module("psycopg").Rollback()
    return rollback


def _refuse_closed(given: Any) -> None:
    if given.closed:
        raise importlib.import_module("psycopg").OperationalError("the connection is closed")


def _kept(given: Any) -> bool:
    """A COMMIT of the body's leaves none open; if the connection broke, whoever uses it next is told."""
    if given.closed:
        return bool(given.broken)
    return bool(given.info.transaction_status != _IDLE)


class Psycopg:
    """A connection that blocks."""

    kind = "psycopg.Connection"
    dialect: Dialect = "postgres"

    def __init__(self, given: Any) -> None:
        self.given = given
        self._begun = given.info.transaction_status != _IDLE
        self._block: Any = None

    def execute(self, sql: str, parameters: Sequence[Any]) -> Rows:
        text, values = rendered(sql, parameters, "pyformat")
        with self.given.cursor(row_factory=_tuples()) as cursor:
            cursor.execute(text, values)
            return cursor.fetchall() if cursor.description is not None else []

    def job(self, run: Callable[[Any], Any]) -> Any:
        return run(self.given)

    def begin(self) -> None:
        if self.given.info.transaction_status == _IDLE:
            self._block = self.given.transaction()
            self._block.__enter__()

    def restart(self) -> None:
        if not self._begun:
            self.rollback()

    def mark(self) -> None:
        pass

    def kept(self) -> bool:
        return _kept(self.given)

    def flush(self) -> None:
        pass

    def commit(self) -> None:
        block, self._block = self._block, None
        if block is None:
            self.given.commit()
        else:
            _refuse_closed(self.given)  # of which the block thinks that there is nothing to do
            block.__exit__(None, None, None)

    def rollback(self) -> None:
        block, self._block = self._block, None
        if block is None:
            self.given.rollback()
        else:
            undo = _undo()
            block.__exit__(type(undo), undo, None)

    def in_transaction(self) -> bool:
        return not self.given.autocommit or self.given.info.transaction_status != _IDLE


class AsyncPsycopg:
    """A connection that is awaited."""

    kind = "psycopg.AsyncConnection"
    dialect: Dialect = "postgres"

    def __init__(self, given: Any) -> None:
        self.given = given
        self._begun = given.info.transaction_status != _IDLE
        self._block: Any = None

    async def execute(self, sql: str, parameters: Sequence[Any]) -> Rows:
        text, values = rendered(sql, parameters, "pyformat")
        async with self.given.cursor(row_factory=_tuples()) as cursor:
            await cursor.execute(text, values)
            return await cursor.fetchall() if cursor.description is not None else []

    async def job(self, run: Callable[[Any], Any]) -> Any:
        return run(self.given)

    async def begin(self) -> None:
        if self.given.info.transaction_status == _IDLE:
            self._block = self.given.transaction()
            await self._block.__aenter__()

    async def restart(self) -> None:
        if not self._begun:
            await self.rollback()

    async def mark(self) -> None:
        pass

    async def kept(self) -> bool:
        return _kept(self.given)

    async def flush(self) -> None:
        pass

    async def commit(self) -> None:
        block, self._block = self._block, None
        if block is None:
            await self.given.commit()
        else:
            _refuse_closed(self.given)
            await block.__aexit__(None, None, None)

    async def rollback(self) -> None:
        block, self._block = self._block, None
        if block is None:
            await self.given.rollback()
        else:
            undo = _undo()
            await block.__aexit__(type(undo), undo, None)

    async def in_transaction(self) -> bool:
        return not self.given.autocommit or self.given.info.transaction_status != _IDLE
