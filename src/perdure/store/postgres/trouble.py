"""What the driver raises, as what a store may raise: trouble to wait out, an overload, a lost answer, a wrong schema.

Promise: an error goes up as it is, so that the journal can find the unit that causes it, only if it speaks of values
(SQLSTATE classes 21 to 23, 44, 54), of a bug (42601 …, no SQLSTATE at all) or of something that may be no more than one
row (XX: an internal error, a corrupt page). What speaks of the server, the session, the role or the schema is trouble:
no unit is to blame, and each is good once a person has mended the database. So is all that a trigger says which a user
has put on our tables, whatever its code: one that audits, and misses a partition, refuses everything.
"""

from __future__ import annotations

import asyncio
import random

from perdure.errors import (
    DatabaseTrouble,
    LostAnswer,
    Overloaded,
    PerdureError,
    RightsMissing,
    RowLocked,
    SchemaMismatch,
)

FENCE = "moved_"  # how the checks are named that keep an app out that was moved to another database
AGAIN = frozenset({"40001", "40P01"})  # serialization failure, deadlock: all of it again
TRIES = 6
# Said of a statement or login that certainly did nothing.
_OVERLOADED = frozenset({"53000", "53100", "53200", "53300", "53400", "57014"})
LOCKED = "55P03"  # it waited for a lock until its time was over
# Statements are fixed: whatever they name wrongly, or means something else by now, the schema has changed.
_SCHEMA = frozenset({
    "3F000", "42P01", "42P10", "42702", "42703", "42704", "42725", "42804", "42809", "42883",
})  # fmt: skip
# The server went away in the middle: whether the statement was committed is unknown.
_ENDED = frozenset({"57P01", "57P02", "57P04", "57P05", "25P03", "25P04", "40003"})
_RIGHTS = ("42501", "0L", "0P")  # insufficient privilege; a role that cannot grant, or is gone
# A server that takes no writes (25006), a session in another state than we left it (25), a plan that a migration made
# stale (0A, 26, 42P05), a login that is refused (28), a database that is gone (3D), a failover or a pooler that gave up
# (57), the server's own disk (58) and settings (F0).
_ELSEWHERE = ("0A", "25", "26", "28", "3D", "42P05", "57", "58", "F0")
_ROW_SECURITY = "check_enable_rls"  # the server's function that refuses; its words may be in any language
# The same connection may be used again: a rollback (40), no room (53), what is in use or not ready (55), too old (72).
_FOR_NOW = ("40", "53", "55", "72")


def sqlstate(error: BaseException) -> str:
    code = getattr(error, "sqlstate", None)
    return code if isinstance(code, str) else ""


async def rolled_back(error: Exception, tries: int) -> bool:
    """Whether a transaction is to be made again, after a pause: it lost to others, for less than so many times."""
    if sqlstate(error.__cause__ or error) not in AGAIN or tries + 1 >= TRIES:
        return False
    await asyncio.sleep(random.uniform(0.001, 0.01) * (tries + 1))
    return True


def translate(error: BaseException, where: str, *, writing: bool, closed: bool, role: str = "") -> BaseException:
    """The error to raise for ``error``. ``writing``: something may be committed; ``closed``: the connection is."""
    if isinstance(error, PerdureError) or not isinstance(error, Exception):
        return error
    code = sqlstate(error)
    said = f"{type(error).__name__}: {error}".strip()
    if code in _OVERLOADED or code == LOCKED:
        refused = RowLocked if code == LOCKED else Overloaded
        return refused(f"Postgres at {where} refused for now ({code}): {said}")
    if code == "23514" and str(getattr(error, "constraint_name", "")).startswith(FENCE):
        return DatabaseTrouble(
            f"this app was moved from Postgres at {where} to another database; perdure db status tells to which"
        )
    if code in AGAIN:
        return DatabaseTrouble(f"Postgres at {where} rolled back, again and again ({code}): {said}")
    broken = isinstance(error, OSError | asyncio.TimeoutError | EOFError) or code in _ENDED or code.startswith("08")
    if not broken and (whose := _others_code(error, code)):
        return DatabaseTrouble(
            f"Postgres at {where} refuses this ({code}): {said}. That comes from {whose}, which is not Perdure's: "
            "mend or drop the trigger that calls it. Work goes on by itself then."
        )
    if code in _SCHEMA:
        return SchemaMismatch(
            f"the schema at {where} is not what this Perdure needs ({said}). Run perdure db migrate for this database."
        )
    if code.startswith(_RIGHTS):
        if getattr(error, "server_source_function", "") == _ROW_SECURITY:
            return RightsMissing(
                f"Postgres at {where} would hide rows from the role {role or 'that is connected'} ({said}), "
                "and work would look as if it were gone. Disable row level security for Perdure's tables, or let the "
                "role pass it by: alter role … bypassrls."
            )
        return RightsMissing(
            f"Postgres at {where} refuses this to the role {role or 'that is connected'} ({said}). Grant it usage on "
            "Perdure's schema, and select, insert, update, delete on all tables in it. Only perdure db migrate needs "
            "more: the role must own the tables, and a new schema needs create on the database."
        )
    if broken or (closed and not code):
        if writing:
            return LostAnswer(f"the connection to Postgres at {where} broke during a write: {said}")
        return DatabaseTrouble(f"the connection to Postgres at {where} broke: {said}")
    if code == "25006":
        return DatabaseTrouble(
            f"Postgres at {where} takes no writes ({code}): {said}. It is a standby (then give the URL of the "
            "primary), or default_transaction_read_only is on."
        )
    if code.startswith((*_ELSEWHERE, *_FOR_NOW)):
        return DatabaseTrouble(f"Postgres at {where} cannot do this now ({code}): {said}")
    return error


def _others_code(error: Exception, code: str) -> str:
    """The function of a user's that an error comes from, in the server's words; "" if from none. None is ours."""
    lines = str(getattr(error, "context", None) or "").splitlines()
    return next((line for line in lines if "PL/" in line), "a function" if code.startswith("P0") else "")


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
    if isinstance(error, KeyError) and "getpwuid" in str(error):  # a container's user of a number alone
        return (
            f"who logs in to Postgres at {where} is not said, and this process's user has no name {said}. "
            "Name one: postgresql://USER@host/db, or PGUSER."
        )
    return (
        f"Postgres cannot be reached at {where} {said}. "
        "Check that the server runs and that host, port and database are right."
    )


def loses_connection(error: BaseException) -> bool:
    """Whether the connection must not be used again: broken, in an unknown state, or to a server in another role."""
    code = sqlstate(error)
    if not code:
        return True
    if code == "57014":  # a statement that took too long, or was cancelled: no more than that
        return False
    return code in _ENDED or code in _SCHEMA or code.startswith((*_ELSEWHERE, "08", "XX"))
