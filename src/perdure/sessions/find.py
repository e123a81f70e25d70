"""From an object at hand to its adapter, and from what a source gives to an object at hand.

Classes are known by module and name, so that no driver is imported for the sake of asking.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, cast

from perdure.errors import Misuse
from perdure.sessions.apsw import Apsw
from perdure.sessions.asyncpg import Asyncpg
from perdure.sessions.base import AsyncSession, Session
from perdure.sessions.psycopg import AsyncPsycopg, Psycopg
from perdure.sessions.sqlalchemy import AsyncSqlAlchemy, SqlAlchemy
from perdure.sessions.sqlite3 import Sqlite3

LEAVE_SECONDS = 10.0  # that a session may take to be rolled back, and to be closed
KINDS = (
    "a SQLAlchemy Session or Connection (or their async sisters), a psycopg 3 Connection or AsyncConnection, an "
    "asyncpg Connection, an apsw.Connection or a sqlite3.Connection"
)
_BLOCKING: dict[tuple[str, str], Callable[[Any], Session]] = {
    ("psycopg", "Connection"): Psycopg,
    ("apsw", "Connection"): Apsw,
    ("sqlite3", "Connection"): Sqlite3,
    ("sqlalchemy", "Session"): lambda given: SqlAlchemy(given, orm=True),
    ("sqlalchemy", "Connection"): lambda given: SqlAlchemy(given, orm=False),
}
_AWAITED: dict[tuple[str, str], Callable[[Any], AsyncSession]] = {
    ("psycopg", "AsyncConnection"): AsyncPsycopg,
    ("asyncpg", "Connection"): Asyncpg,
    ("asyncpg", "PoolConnectionProxy"): Asyncpg,
    ("sqlalchemy", "AsyncSession"): lambda given: AsyncSqlAlchemy(given, orm=True),
    ("sqlalchemy", "AsyncConnection"): lambda given: AsyncSqlAlchemy(given, orm=False),
}
_RAW = frozenset({("apsw", "Connection"), ("sqlite3", "Connection")})  # as context managers they only end transactions


def _names(given: Any) -> list[tuple[str, str]]:
    return [(kind.__module__.partition(".")[0], kind.__name__) for kind in type(given).__mro__]


def session_of(given: Any) -> Session | AsyncSession:
    """The adapter of a session. Raises ``Misuse`` for what is none that is known."""
    registry = getattr(given, "registry", None)  # SQLAlchemy's scoped_session stands for the session of its scope
    if registry is not None and any("scoped_session" in name for _, name in _names(given)):
        given = registry()
    for name in _names(given):
        if name in _BLOCKING:
            return _BLOCKING[name](given)
        if name in _AWAITED:
            return _AWAITED[name](given)
    raise Misuse(f"{given!r} is no session that Perdure knows: give {KINDS}")


def awaited(session: Session | AsyncSession) -> AsyncSession | None:
    """The session, if its calls are awaited."""
    return cast("AsyncSession", session) if inspect.iscoroutinefunction(session.execute) else None


def blocking(session: Session | AsyncSession) -> Session | None:
    """The session, if its calls block."""
    return None if inspect.iscoroutinefunction(session.execute) else cast("Session", session)


def _blocks(given: Any, source: Any) -> Session:
    session = blocking(session_of(given))
    if session is None:
        raise Misuse(_cannot(source, given, awaited=True))
    return session


def _waits(given: Any, source: Any) -> AsyncSession:
    session = awaited(session_of(given))
    if session is None:
        raise Misuse(_cannot(source, given, awaited=False))
    return session


@contextmanager
def opened(source: Callable[[], Any]) -> Generator[Session]:
    """Open a session that blocks, by its source; it is left as its source's context manager leaves it, or closed."""
    given = source()
    if not _RAW.isdisjoint(_names(given)):
        try:
            yield _blocks(given, source)
        finally:
            given.close()
    elif hasattr(given, "__enter__"):
        with given as entered:
            yield _blocks(entered, source)
    else:
        is_awaited = hasattr(given, "__aenter__") or inspect.isawaitable(given)
        if inspect.iscoroutine(given):
            given.close()
        raise Misuse(_cannot(source, given, awaited=is_awaited))


@asynccontextmanager
async def aopened(source: Callable[[], Any]) -> AsyncGenerator[AsyncSession]:
    """The same of one that is awaited."""
    given = source()
    if not _BLOCKING.keys().isdisjoint(_names(given)):
        raise Misuse(_cannot(source, given, awaited=False))
    if not hasattr(given, "__aenter__") and inspect.isawaitable(given):
        given = await given
    if hasattr(given, "__aenter__"):
        async with given as entered:
            yield _waits(entered, source)
    elif not _AWAITED.keys().isdisjoint(_names(given)):
        try:
            yield _waits(given, source)
        finally:
            with suppress(TimeoutError):  # a server that is gone without a word never says goodbye
                async with asyncio.timeout(LEAVE_SECONDS):
                    await given.close()
    else:
        raise Misuse(_cannot(source, given, awaited=False))


def _cannot(source: Any, given: Any, *, awaited: bool) -> str:
    if awaited:
        return f"{source!r} gives {given!r}, which is awaited: write the transaction with async def"
    if hasattr(given, "__enter__"):
        return f"{source!r} gives {given!r}, which blocks: write the transaction with def, and it runs in a thread"
    return f"{source!r} gives {given!r}, which opens no session: give a callable that opens {KINDS}"
