"""psycopg 3: ``Connection`` and ``AsyncConnection``, from a pool or on their own."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from perdure.sessions.base import Dialect, Rows, rendered

_IDLE = 0  # libpq's PQTRANS_IDLE


def _tuples() -> Any:
    return importlib.import_module("psycopg.rows").tuple_row  # the driver is there: one of its objects is


class Psycopg:
    """A connection that blocks."""

    kind = "psycopg.Connection"
    dialect: Dialect = "postgres"

    def __init__(self, given: Any) -> None:
        self.given = given
        self._begun = given.info.transaction_status != _IDLE

    def execute(self, sql: str, parameters: Sequence[Any]) -> Rows:
        text, values = rendered(sql, parameters, "pyformat")
        with self.given.cursor(row_factory=_tuples()) as cursor:
            cursor.execute(text, values)
            return cursor.fetchall() if cursor.description is not None else []

    def job(self, run: Callable[[Any], Any]) -> Any:
        return run(self.given)

    def begin(self) -> None:
        if self.given.autocommit and self.given.info.transaction_status == _IDLE:
            self.given.execute("begin")  # else the driver begins with the first statement

    def restart(self) -> None:
        if not self._begun:
            self.given.rollback()

    def flush(self) -> None:
        pass

    def commit(self) -> None:
        self.given.commit()

    def rollback(self) -> None:
        self.given.rollback()

    def in_transaction(self) -> bool:
        return not self.given.autocommit or self.given.info.transaction_status != _IDLE


class AsyncPsycopg:
    """A connection that is awaited."""

    kind = "psycopg.AsyncConnection"
    dialect: Dialect = "postgres"

    def __init__(self, given: Any) -> None:
        self.given = given
        self._begun = given.info.transaction_status != _IDLE

    async def execute(self, sql: str, parameters: Sequence[Any]) -> Rows:
        text, values = rendered(sql, parameters, "pyformat")
        async with self.given.cursor(row_factory=_tuples()) as cursor:
            await cursor.execute(text, values)
            return await cursor.fetchall() if cursor.description is not None else []

    async def job(self, run: Callable[[Any], Any]) -> Any:
        return run(self.given)

    async def begin(self) -> None:
        if self.given.autocommit and self.given.info.transaction_status == _IDLE:
            await self.given.execute("begin")

    async def restart(self) -> None:
        if not self._begun:
            await self.given.rollback()

    async def flush(self) -> None:
        pass

    async def commit(self) -> None:
        await self.given.commit()

    async def rollback(self) -> None:
        await self.given.rollback()

    async def in_transaction(self) -> bool:
        return not self.given.autocommit or self.given.info.transaction_status != _IDLE
