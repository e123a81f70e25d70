"""Problems: attempts that did not get a workflow on. What kinds there are, how they are written, how they are read.

Times are integers: microseconds since 1970-01-01 UTC, by the database's clock.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from perdure.model.states import Reason


class ProblemKind(StrEnum):
    """What kept a workflow from getting on."""

    STEP_FAILED = "step_failed"  # and will be tried again
    NONDETERMINISM = "nondeterminism"
    NO_CODE = "no_code"
    UNDECODABLE = "undecodable"
    CRASHED = "crashed"  # its code raised what counts as a crash, and the process lived on
    EXECUTOR_DIED = "executor_died"
    TURN_TIMEOUT = "turn_timeout"  # its code did not come to rest


TIMED_OUT = (ProblemKind.EXECUTOR_DIED, ProblemKind.TURN_TIMEOUT)  # whoever had the turn gave no answer
FAILED = tuple(kind for kind in ProblemKind if kind not in TIMED_OUT)  # the turn was taken, and came to nothing

OF_HOLD: dict[Reason, ProblemKind] = {
    Reason.NONDETERMINISM: ProblemKind.NONDETERMINISM,
    Reason.NO_CODE: ProblemKind.NO_CODE,
    Reason.UNDECODABLE: ProblemKind.UNDECODABLE,
    Reason.CRASHED: ProblemKind.CRASHED,
}
"""Why a workflow is held for the code's sake, as a problem. Other reasons are no attempt that failed."""

# Over as soon as the code that is here has lived through the history; the others not before something came of it.
OVER_ONCE_REPLAYED = frozenset({ProblemKind.NONDETERMINISM, ProblemKind.NO_CODE, ProblemKind.TURN_TIMEOUT})


class Failing(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One attempt that did not get a run on, as it is written. One row for each kind, path and version of a run."""

    kind: ProblemKind
    version: str
    path: str = ""  # of the step; "" for the run as a whole
    name: str = ""  # of the step
    text: str = ""
    data: bytes | None = None  # the encoded failure, which takes the place of ``text``
    attempt: int = 0  # which one it was; 0: one more than the row knows of
    next: int | None = None  # when the next one begins


class Trouble(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a unit says of its run's problems."""

    now: ProblemKind | None  # what the workflow's row tells from now on
    told: tuple[Failing, ...] = ()
    over: bool = False  # all but ``told`` and those of the steps in ``pending``
    pending: tuple[str, ...] = ()  # paths of steps that have failed and will be tried again


class ProblemRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A problem of a run, as it is stored."""

    id: str
    run: int
    kind: ProblemKind
    path: str
    version: str  # of the code that tried
    name: str
    text: str
    data: bytes | None
    attempt: int
    first: int
    last: int
    next: int | None
    cleared: int | None
