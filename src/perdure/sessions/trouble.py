"""What an error of a session means: do it again on a new snapshot, wait for the database, or let it be the outcome.

Promise: only what the database itself calls a conflict is one. An error of the user's stays his.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto

CONFLICTS = frozenset({"40001", "40P01"})
TAKEN = frozenset({"23505", "42710", "42P07"})  # a key; a type or table that two make at once
UNDECIDED = frozenset({"40003", "08007"})  # the server itself does not know whether it committed
_GONE = frozenset({"57P01", "57P02", "57P03", "57P04", "57P05", "25P03", "25P04"})
_BUSY = frozenset({5, 6})  # SQLITE_BUSY and SQLITE_LOCKED, with all their extended codes


class Meaning(Enum):
    """Of an error that ended an attempt."""

    CONFLICT = auto()  # the database rolled it back so that another could go on
    TROUBLE = auto()  # the database cannot be spoken to just now
    TAKEN = auto()  # what was to be made is there already
    OUTCOME = auto()  # anything else


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and what toolkits have wrapped in it."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        wrapped = getattr(found, "orig", None)
        found = wrapped if isinstance(wrapped, BaseException) else found.__cause__


def sqlstate(error: BaseException) -> str:
    """Postgres' code of an error, "" if it has none."""
    for each in chain(error):
        for name in ("sqlstate", "pgcode"):
            code = getattr(each, name, None)
            if isinstance(code, str) and code:
                return code
    return ""


def meaning(error: BaseException) -> Meaning:
    code = sqlstate(error)
    if code in CONFLICTS:
        return Meaning.CONFLICT
    if code in TAKEN:
        return Meaning.TAKEN
    if code[:2] == "08" or code in _GONE:
        return Meaning.TROUBLE
    for each in chain(error):
        if _is_busy(each) or _RELEASED in str(each):
            return Meaning.CONFLICT
        if not code and _is_broken(each):
            return Meaning.TROUBLE
    return Meaning.OUTCOME


_CODES = {"sqlite3": "sqlite_errorcode", "apsw": "extendedresult"}


def _is_busy(error: BaseException) -> bool:
    number = getattr(error, _CODES.get(type(error).__module__.partition(".")[0], ""), None)
    return isinstance(number, int) and number & 0xFF in _BUSY


_BROKEN = {
    "psycopg": ("OperationalError",),
    "psycopg2": ("OperationalError",),
    # The second is about the driver's own state, after the server has ended the connection; calls at once have another.
    "asyncpg": ("PostgresConnectionError", "InternalClientError"),
    "psycopg_pool": ("PoolTimeout",),
}
_RELEASED = "released back to the pool"  # asyncpg, of a connection that broke; or of a mistake, so not without end
_CLOSED = "connection is closed"  # asyncpg says so with the class that it has for wrong calls, too


def _is_broken(error: BaseException) -> bool:
    """Whether a driver says, without a word of the server's, that its connection is no more or cannot be made."""
    package = type(error).__module__.partition(".")[0]
    if package in _BROKEN:
        names = {kind.__name__ for kind in type(error).__mro__}
        return not names.isdisjoint(_BROKEN[package]) or (package == "asyncpg" and _CLOSED in str(error))
    return isinstance(error, ConnectionError)
