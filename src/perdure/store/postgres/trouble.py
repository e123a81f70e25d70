"""What the driver raises, as what a store may raise: trouble to wait out, an overload, a lost answer, a wrong schema.

Promise: an error is called trouble only if waiting or reconnecting can cure it. Everything else is a bug or bad data
and goes up as it is, so that the journal can find the unit that causes it.
"""

from __future__ import annotations

import asyncio

from perdure.errors import DatabaseTrouble, LostAnswer, Overloaded, PerdureError, SchemaMismatch

FENCE = "moved_"  # how the checks are named that keep an app out that was moved to another database
AGAIN = frozenset({"40001", "40P01"})  # serialization failure, deadlock: the whole batch again
# Said of a statement or login that certainly did nothing.
_OVERLOADED = frozenset({"53000", "53100", "53200", "53300", "53400", "55P03", "57014"})
_SCHEMA = frozenset({"42P01", "42703", "3F000", "42883", "42P10"})
# The server went away in the middle: whether the statement was committed is unknown.
_ENDED = frozenset({"57P01", "57P02", "57P04", "57P05", "25P03", "25P04"})
# A server that takes no writes, a failover, a pooler that gave up, a plan that a migration made stale.
_ELSEWHERE = frozenset(
    {"25006", "57P03", "0A000", "26000", "42P05", "28000", "28P01", "3D000", "57000", "58000", "58030"}
)


def sqlstate(error: BaseException) -> str:
    code = getattr(error, "sqlstate", None)
    return code if isinstance(code, str) else ""


def translate(error: BaseException, where: str, *, writing: bool, closed: bool) -> BaseException:
    """The error to raise for ``error``. ``writing``: something may be committed; ``closed``: the connection is."""
    if isinstance(error, PerdureError) or not isinstance(error, Exception):
        return error
    code = sqlstate(error)
    said = f"{type(error).__name__}: {error}".strip()
    if code in _OVERLOADED:
        return Overloaded(f"Postgres at {where} refused for now ({code}): {said}")
    if code == "23514" and str(getattr(error, "constraint_name", "")).startswith(FENCE):
        return DatabaseTrouble(
            f"this app was moved from Postgres at {where} to another database; perdure db status tells to which"
        )
    if code in AGAIN:
        return DatabaseTrouble(f"Postgres at {where} rolled back, again and again ({code}): {said}")
    if code in _SCHEMA:
        return SchemaMismatch(
            f"the schema at {where} is not what this Perdure needs ({said}). Run perdure db migrate for this database."
        )
    broken = isinstance(error, OSError | asyncio.TimeoutError | EOFError) or code in _ENDED or code.startswith("08")
    if broken or (closed and not code):
        if writing:
            return LostAnswer(f"the connection to Postgres at {where} broke during a write: {said}")
        return DatabaseTrouble(f"the connection to Postgres at {where} broke: {said}")
    if code in _ELSEWHERE or code.startswith(("53", "57P", "40")):
        return DatabaseTrouble(f"Postgres at {where} cannot do this now ({code}): {said}")
    return error


def unreached(error: BaseException, where: str) -> str:
    """Why there is no connection to it, and what to do about that."""
    said = f"({type(error).__name__}: {error})"
    if sqlstate(error) == "53300":
        return (
            f"Postgres at {where} has no connection to give {said}. End some that idle, raise its max_connections, "
            "or put a pooler before it."
        )
    if sqlstate(error) == "57P03":
        return f"Postgres at {where} starts, stops or recovers {said}. Wait until it accepts connections."
    return (
        f"Postgres cannot be reached at {where} {said}. "
        "Check that the server runs and that host, port and database are right."
    )


def loses_connection(error: BaseException) -> bool:
    """Whether the connection must not be used again: broken, in an unknown state, or to a server in another role."""
    code = sqlstate(error)
    if not code:
        return True
    return code in _ENDED or code in _ELSEWHERE or code in _SCHEMA or code.startswith(("08", "57P", "XX"))
