"""Statuses of a workflow, and the one table of legal moves between them.

The SQL ``CHECK`` constraints, the docs and the tests are derived from this file.
"""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """Where a workflow stands. Open: the first five. Closed: the rest."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    HELD = "held"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TERMINATED = "terminated"
    TIMED_OUT = "timed_out"
    SUPERSEDED = "superseded"
    CONTINUED = "continued"

    @property
    def open(self) -> bool:
        """Whether the workflow may still do something by itself or by a person's help."""
        return self in OPEN


class Reason(StrEnum):
    """Why a workflow is held."""

    NONDETERMINISM = "nondeterminism"
    RECOVERY_LIMIT = "recovery_limit"
    NO_CODE = "no_code"
    UNDECODABLE = "undecodable"
    CRASHED = "crashed"  # its code raised what ends a process (SystemExit …), in a thread that could not
    POLICY = "policy"
    PAUSED = "paused"
    NO_EXIT = "no_exit"


class Cause(StrEnum):
    """What happened to a workflow before it was claimed: what a recovery policy is asked about."""

    NONE = "none"
    CRASH = "crash"  # whoever held it died
    DRAINED = "drained"  # whoever held it was told to stop, and handed it back
    ERROR = "error"  # an exception is about to fail it
    VERSION = "version"  # what it recorded does not fit the code


class Versioning(StrEnum):
    """What a workflow does when the code changes."""

    UNDECLARED = "undeclared"  # stays with its version while an executor of it lives, may be adopted after
    PINNED = "pinned"
    AUTO_UPGRADE = "auto_upgrade"


OPEN = frozenset({Status.SCHEDULED, Status.QUEUED, Status.RUNNING, Status.WAITING, Status.HELD})
CLOSED = frozenset(Status) - OPEN

# The order is the code stored in the database: never reorder, only append.
CODES: tuple[Status, ...] = (
    Status.SCHEDULED,
    Status.QUEUED,
    Status.RUNNING,
    Status.WAITING,
    Status.HELD,
    Status.COMPLETED,
    Status.FAILED,
    Status.CANCELLED,
    Status.TERMINATED,
    Status.TIMED_OUT,
    Status.SUPERSEDED,
    Status.CONTINUED,
)
CODE: dict[Status, int] = {status: code for code, status in enumerate(CODES)}
CAUSES = tuple(Cause)  # their order is stored, too
CAUSE: dict[Cause, int] = {cause: code for code, cause in enumerate(CAUSES)}
VERSIONINGS = tuple(Versioning)
VERSIONING: dict[Versioning, int] = {versioning: code for code, versioning in enumerate(VERSIONINGS)}
FIRST_CLOSED = CODE[Status.COMPLETED]  # in SQL: status < 5 is open

_ANY_END = {Status.CANCELLED, Status.TERMINATED, Status.TIMED_OUT, Status.HELD, Status.SUPERSEDED}
MOVES: dict[Status, frozenset[Status]] = {
    Status.SCHEDULED: frozenset({Status.QUEUED, Status.RUNNING} | _ANY_END),
    Status.QUEUED: frozenset({Status.RUNNING} | _ANY_END),
    Status.RUNNING: frozenset(
        {Status.QUEUED, Status.WAITING, Status.COMPLETED, Status.FAILED, Status.CONTINUED} | _ANY_END
    ),
    Status.WAITING: frozenset({Status.QUEUED, Status.RUNNING} | _ANY_END),
    Status.HELD: frozenset({Status.SCHEDULED, Status.QUEUED, Status.RUNNING, Status.WAITING} | _ANY_END)
    - {Status.HELD},
    # Whoever goes on from an end does so as the next run.
    **dict.fromkeys(CLOSED - {Status.SUPERSEDED, Status.CONTINUED}, frozenset({Status.SUPERSEDED})),
    Status.SUPERSEDED: frozenset(),
    Status.CONTINUED: frozenset(),
}
