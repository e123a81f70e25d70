"""SQLAlchemy 2: ``Session`` and ``Connection``, ``AsyncSession`` and ``AsyncConnection``, over Postgres or SQLite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from perdure.errors import Misuse
from perdure.sessions.base import MARK, Dialect, Rows, rendered, still_marked

_DIALECTS: dict[str, Dialect] = {"postgresql": "postgres", "sqlite": "sqlite"}


class SqlAlchemy:
    """A session or connection that blocks."""

    def __init__(self, given: Any, *, orm: bool) -> None:
        self.given = given
        self._orm = orm
        self._begun = given.in_transaction()
        self._transaction: Any = None
        self.kind = f"sqlalchemy {type(given).__name__}"
        name = (given.get_bind() if orm else given).dialect.name
        if name not in _DIALECTS:
            raise Misuse(
                f"a {self.kind} of the dialect {name!r} cannot hold a transaction of Perdure's: Postgres and SQLite can"
            )
        self.dialect: Dialect = _DIALECTS[name]

    @property
    def _connection(self) -> Any:
        return self.given.connection() if self._orm else self.given

    @property
    def _driver(self) -> Any:
        return self._connection.connection.driver_connection

    def execute(self, sql: str, parameters: Sequence[Any]) -> Rows:
        conn = self._connection
        result = conn.exec_driver_sql(*rendered(sql, parameters, conn.dialect.paramstyle))
        return [tuple(map(_plain, row)) for row in result.fetchall()] if result.returns_rows else []

    def job(self, run: Callable[[Any], Any]) -> Any:
        return run(self._driver)

    def begin(self) -> None:
        if not self.given.in_transaction():
            self.given.begin()
        if self.dialect == "sqlite" and not getattr(self._driver, "in_transaction", False):
            self._connection.exec_driver_sql("begin immediate")

    def restart(self) -> None:
        if not self._begun:
            self.given.rollback()

    def mark(self) -> None:
        self._transaction = self.given.get_transaction()
        if self.dialect == "sqlite":
            self._connection.exec_driver_sql(MARK)

    def kept(self) -> bool:
        if self.given.get_transaction() is not self._transaction:
            return False
        if self.dialect != "sqlite":
            if getattr(self._connection.connection.dbapi_connection, "autocommit", False):
                raise Misuse(
                    f"this {self.kind} is in AUTOCOMMIT: each statement is committed by itself, so what the body has "
                    "written and its record are not one commit. Give the transaction another isolation level"
                )
            return True
        return bool(self._driver.in_transaction) and still_marked(self._connection.exec_driver_sql)

    def flush(self) -> None:
        if self._orm:
            self.given.flush()

    def commit(self) -> None:
        self.given.commit()

    def rollback(self) -> None:
        self.given.rollback()

    def in_transaction(self) -> bool:
        conn = self._connection  # begins one where the toolkit begins by itself
        return bool(conn.in_transaction()) and conn.get_isolation_level() != "AUTOCOMMIT"


def _plain(value: Any) -> Any:
    return value.tobytes() if isinstance(value, memoryview) else value  # psycopg2's bytea


class AsyncSqlAlchemy:
    """The same, awaited: each call of the above, where the toolkit lets blocking calls be made."""

    def __init__(self, given: Any, *, orm: bool) -> None:
        self.given = given
        self._made = SqlAlchemy(given.sync_session if orm else given.sync_connection, orm=orm)
        self.kind = f"sqlalchemy {type(given).__name__}"
        self.dialect: Dialect = self._made.dialect

    async def _call(self, call: Callable[..., Any], *args: Any) -> Any:
        def here(_: Any) -> Any:
            return call(*args)

        return await self.given.run_sync(here)

    async def execute(self, sql: str, parameters: Sequence[Any]) -> Rows:
        rows: Rows = await self._call(self._made.execute, sql, parameters)
        return rows

    async def job(self, run: Callable[[Any], Any]) -> Any:
        return await self._call(self._made.job, run)

    async def begin(self) -> None:
        await self._call(self._made.begin)

    async def restart(self) -> None:
        await self._call(self._made.restart)

    async def mark(self) -> None:
        await self._call(self._made.mark)

    async def kept(self) -> bool:
        return bool(await self._call(self._made.kept))

    async def flush(self) -> None:
        await self._call(self._made.flush)

    async def commit(self) -> None:
        await self.given.commit()

    async def rollback(self) -> None:
        await self.given.rollback()

    async def in_transaction(self) -> bool:
        return bool(await self._call(self._made.in_transaction))
