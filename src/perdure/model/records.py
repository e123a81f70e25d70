"""What is read back: a run's history, a workflow's row, messages, and what users see of them.

Times are integers: microseconds since 1970-01-01 UTC, by the database's clock.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import msgspec

from perdure.model.ids import RunKey
from perdure.model.problems import ProblemKind
from perdure.model.states import VERSIONING, VERSIONINGS, Cause, Reason, Status, Versioning


class Kind(IntEnum):
    """What a history record tells. The number is stored: never renumber, only append."""

    STEP = 1  # a step's final outcome
    ATTEMPT = 2  # a failed attempt that will be retried
    TIMER = 3  # a timer fired (sleep, asyncio.timeout …)
    RECV = 4  # a message was taken, or the deadline passed
    SEND = 5  # a message was sent
    EVENT = 6  # an event was set
    CHILD = 7  # a child was started (or found)
    RESULT = 8  # the outcome of another workflow was observed
    READ = 9  # something else about another workflow was read (status, info, event)
    CANCEL = 10  # the workflow was told to cancel
    INTENT = 11  # steps about to run, where no other record could carry it
    PATCH = 12  # patched(name) answered
    DECISION = 13  # a recovery decision
    CANCEL_OTHER = 14  # another workflow was told to cancel
    CUT = 15  # the records before were kept of an earlier run, or of another workflow
    STREAM = 16  # a value was appended to a stream, or the stream closed (fingerprint ``end``)
    MOVE = 17  # a process begins to move: what its burst is about (no progress yet)
    STATE = 18  # a process stands in a state, with its parameters as they are then


_NAMING = frozenset({Kind.CHILD, Kind.CANCEL, Kind.CANCEL_OTHER, Kind.CUT})


class Outcome(IntEnum):
    """How the thing that a record tells of ended."""

    NONE = 0  # nothing to carry (a timer, an event)
    VALUE = 1
    ERROR = 2


class Intent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A step that was about to run when the record it travels with was written."""

    path: str
    name: str
    fingerprint: bytes
    once: bool = False  # declared at_most_once: if it has begun, it is not run again


class Record(msgspec.Struct, frozen=True, gc=False):
    """One line of a run's history. ``seq`` is gapless from 1 and is the order in which the workflow observed things."""

    seq: int
    path: str
    kind: Kind
    name: str
    at: int
    fingerprint: bytes = b""
    outcome: Outcome = Outcome.NONE
    data: bytes | None = None  # encoded value or failure
    attempt: int = 1
    shown: str = ""  # arguments or remarks, for people, bounded and redacted
    intents: tuple[Intent, ...] = ()
    version: str = ""  # filled by the store when read; a write takes its unit's

    @property
    def holds_value(self) -> bool:
        """Whether ``data`` is a value or a failure in JSON: of these kinds an id, a number, a status, or whence."""
        return self.outcome is Outcome.ERROR or self.kind not in _NAMING


class Override(msgspec.Struct, frozen=True, gc=False):
    """An operator's order about where a workflow runs: what it overrides, and whether for one turn only."""

    was: Versioning
    once: bool = False

    @property
    def code(self) -> int:
        """As it is stored: ``override - 10`` is what a turn's end puts back, in SQL."""
        return VERSIONING[self.was] + (ONCE if self.once else 0)


ONCE = 10

_CODE_IS_THERE = frozenset({Reason.RECOVERY_LIMIT, Reason.CRASHED, Reason.POLICY})  # of those that are held


def read_override(code: int | None) -> Override | None:
    """What a row says; None: nothing is overridden."""
    return None if code is None else Override(VERSIONINGS[code % ONCE], code >= ONCE)


class WorkflowRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The hot row of a workflow id: its latest run. An earlier run has the same shape."""

    id: str
    run: int
    lineage: bytes
    name: str
    status: Status
    version: str
    created: int
    updated: int
    reason: Reason | None = None
    detail: str = ""  # why held, or what is waited for, in words
    claim: bytes | None = None
    owner: bytes | None = None
    epoch: int = 0
    attempts: int = 0  # deaths of executors while this was in flight
    last_seq: int = 0
    until: int | None = None  # scheduled or waiting: not before this time
    deadline: int | None = None
    timeout: int | None = None  # microseconds, from the first claim
    started: int | None = None
    closed: int | None = None
    cancel: str | None = None  # a cancel was requested, with this reason
    told: str | None = None  # … by a command that is still on its way, as far as whoever read the row asked for that
    parent: str | None = None
    parent_run: int = 0
    parent_path: str = ""
    on_parent_close: str = "cancel"
    queue: str | None = None
    priority: int = 0
    fingerprint: bytes = b""  # of name and input: what makes two starts the same
    attributes: bytes | None = None
    intents: tuple[Intent, ...] = ()
    cause: Cause = Cause.NONE  # what happened to it since it was last claimed for a reason of its own
    versioning: Versioning = Versioning.UNDECLARED
    partition: str = ""  # of its queue
    lane: str | None = None  # where it stands in line (model/queues.py); None if it does not
    expires: int | None = None  # closed if it is still in line at this time
    pause: str | None = None  # who told it to pause, and why, until it has
    problem: ProblemKind | None = None  # what keeps it from getting on; means nothing once it is closed
    override: Override | None = None  # an operator's order, by which ``versioning`` is not as it was

    @property
    def key(self) -> RunKey:
        return RunKey(self.id, self.run)

    @property
    def told_to_cancel(self) -> str | None:
        """Why a cancel was asked for, whether it has seen that or not; None: nobody has asked."""
        return self.told if self.cancel is None else self.cancel

    @property
    def parked(self) -> bool:
        """Whether nobody holds it and it has begun, so that its code must hear of a command to cancel."""
        handed_back = self.status is Status.QUEUED and self.started is not None
        return self.status is Status.WAITING or (self.lane is None and (handed_back or self.reason is Reason.PAUSED))

    @property
    def held_with_code(self) -> bool:
        """Whether it has begun, and is held for another reason than that its code does not fit: it can undo things."""
        return self.status is Status.HELD and self.started is not None and self.reason in _CODE_IS_THERE


WITHOUT_CLEANUP = "cancelled without cleanup"


def without_cleanup(version: str) -> str:
    """What the row of a workflow says that was cancelled where no code could act on it."""
    return f"{WITHOUT_CLEANUP}: no executor of its version {version} was there, and no other could take it"


def unheard(row: WorkflowRow, unserved: str | None = None) -> str:
    """What the row of a workflow says that is cancelled and hears nothing of it: that nothing was undone, and why."""
    if row.version == unserved:
        return without_cleanup(row.version)
    if row.status is Status.HELD and row.started is not None and row.reason is not Reason.NO_EXIT:
        return f"{WITHOUT_CLEANUP}: it was held ({row.reason}): {row.detail}"
    return row.detail


PAUSE, UNPAUSE, MOVE, SKIP = "pause", "unpause", "move", "skip"  # ``DECISION`` records that tell nothing to the body
BEFORE = frozenset({PAUSE, UNPAUSE, MOVE})  # those that may stand before its first burst


class Claimed(msgspec.Struct, frozen=True, gc=False):
    """A workflow that this incarnation now holds."""

    row: WorkflowRow
    input: bytes
    since: int | None = None  # of what was ready, not orphaned: when it was due
    versioned: bool = True  # whether it had a version before this claim gave it the claimer's
    mail: bool = True  # whether a message waits for it, or may


class Ended(msgspec.Struct, frozen=True, gc=False):
    """How a closed workflow ended. ``wake``: the nonce of its parent's wake, where it is told by who wrote the end."""

    row: WorkflowRow
    outcome: Outcome
    data: bytes | None
    wake: bytes | None = None


class Message(msgspec.Struct, frozen=True, gc=False):
    """A message in a workflow's inbox that no run has taken yet."""

    dest: str
    mid: bytes
    topic: str
    data: bytes
    at: int
    sender: str = ""


class Wake(msgspec.Struct, frozen=True, gc=False):
    """A durable reason for a workflow to look again.

    Mail, another's end, or (``cancel`` not None) a command to cancel.
    """

    dest: str
    nonce: bytes
    cancel: str | None = None  # the reason given, "" if none
    pause: str | None = None  # as its target's row has it now


class Incarnation(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One start of one executor process: fresh random identity, and the proofs by which others can tell it is gone."""

    id: bytes
    executor: str  # the label: PERDURE_EXECUTOR_ID or the host name
    version: str = ""
    host: str = ""
    boot: str = ""  # boot id of the machine
    space: str = ""  # pid namespace
    pid: int = 0
    pid_started: int = 0  # when the process began, in the system's unit: a pid alone is reused
    state: str = "alive"  # alive | draining | dead | gone | released (dead, and given to an heir by an operator)
    started: int = 0
    lease_until: int = 0
    lease: int = 0  # microseconds
    beats: int = 0  # renewals: a lease that moved is seen without trusting a clock
    lag: int = 0  # how late its event loop was at the last renewal, in microseconds
    heir: str | None = None  # released: the executor that is to take its work; None: any

    @property
    def serving(self) -> bool:
        """Whether nobody has said yet that it is over; its lease may have run out."""
        return self.state in ("alive", "draining")

    def leased(self, now: int) -> bool:
        """Whether it serves under a lease that still runs."""
        return self.serving and self.lease_until > now


class DecisionRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What was decided about an interrupted run, under the claim that decided."""

    id: str
    run: int
    claim: bytes
    at: int
    cause: Cause
    decision: str
    policy: str  # "" where no policy was asked or none answered
    because: str
    parameters: bytes | None
    evidence: bytes  # JSON: what was known of the former holder and of the run
    executor: str  # who decided


class Request(msgspec.Struct, frozen=True, gc=False):
    """A question that only an executor with the code can answer."""

    nonce: bytes
    kind: str
    body: bytes  # JSON


class HistoryEntry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A history record as people and programs see it."""

    seq: int
    path: str
    kind: str
    name: str
    at: int
    attempt: int
    outcome: str
    value: Any = None
    shown: str = ""
    version: str = ""
