"""Everything that becomes durable, as frozen values.

A ``Unit`` is what one run (or one caller outside) wants written, whole or not at all. The journal gathers units of
many runs into a batch; ``Store.commit(batch)`` puts a batch down in one transaction and answers with a verdict for
each unit. Group commit, fencing, crash injection, differential tests and the audit trail rest on this alone.

They hold no cycles, so the garbage collector is told to leave them alone (``gc=False``).

Rules:
- at most one unit of a run is in flight; its records are gapless after what was written before;
- a unit that carries ``claim`` is applied only while the row's claim token equals it;
- a unit changes at most one workflow row: its own. Others are reached by inserting messages, wakes and child rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from perdure.model.ids import RunKey
from perdure.model.problems import ProblemKind, Trouble
from perdure.model.queues import DELAYED, lane_of
from perdure.model.records import Intent, Outcome, Override, Record, WorkflowRow
from perdure.model.states import Cause, Reason, Status, Versioning
from perdure.model.streams import StreamAsk


class Start(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Insert a workflow.

    With ``claim`` it is running from the first moment, held by ``owner``; else queued or scheduled.
    """

    id: str
    lineage: bytes
    name: str
    version: str
    input: bytes
    fingerprint: bytes
    nonce: bytes  # tells a repeated write of mine from another's workflow of the same id
    status: Status = Status.QUEUED  # QUEUED, SCHEDULED or RUNNING
    run: int = 1
    claim: bytes | None = None
    owner: bytes | None = None
    delay: int | None = None  # microseconds from now (SCHEDULED); else its place among those of one commit, in line
    until: int | None = None  # or an absolute time
    timeout: int | None = None  # microseconds, from the first claim
    deadline: int | None = None  # absolute bound inherited from the parent
    began: int | None = None  # with claim: the body's first "now", which every replay must see again
    parent: str | None = None
    parent_run: int = 0
    parent_path: str = ""
    on_parent_close: str = "cancel"
    queue: str | None = None
    priority: int = 0
    partition: str = ""
    expires: int | None = None  # microseconds in line, from its time on; then it is closed
    through: bool = False  # it goes on with its queue's slot, and stands in no line
    attributes: bytes | None = None
    intents: tuple[Intent, ...] = ()
    versioning: Versioning = Versioning.UNDECLARED
    override: Override | None = None  # of a run that follows another

    @property
    def lane(self) -> str | None:
        """Where it stands in line; None if it does not."""
        if self.queue is None or self.claim is not None or self.through:
            return None
        return DELAYED if self.status is Status.SCHEDULED else lane_of(self.queue, self.partition, self.priority)


class SetEvent(msgspec.Struct, frozen=True, gc=False):
    """Publish or update an event of this run. Who watches the run is woken if the value is another than before."""

    name: str
    data: bytes


class Append(msgspec.Struct, frozen=True, gc=False):
    """Append a value to a stream of this run, once for each (path, n); without ``data``, close the stream.

    No two of a unit have name, path and n in common.
    """

    name: str
    path: str
    n: int
    data: bytes | None


class Send(msgspec.Struct, frozen=True, gc=False):
    """Insert a message (and its wake). ``known``: the destination needs no check (own parent, child, or a repeat)."""

    dest: str
    mid: bytes
    topic: str
    data: bytes
    wake: bytes  # nonce of the wake row
    key: str | None = None  # delivered once per destination and key
    sender: str = ""
    known: bool = False


class GiveUp(msgspec.Struct, frozen=True, gc=False):
    """Tell a child of this run to cancel if it is open: the body waits for it no longer."""

    child: str
    wake: bytes  # nonce of the wake row
    reason: str


class Close(msgspec.Struct, frozen=True, gc=False):
    """End the run. The claim token stays in the row, so that a repeated write is recognised.

    Inserts a wake for ``parent`` (if any), one for every watcher of this workflow, and a cancel wake for each workflow
    in ``children`` that is still open (those whose ``on_parent_close`` is ``cancel``). ``attributes``: what its row can
    be searched by from then on; None leaves them. ``family``: the run does not know all children of the workflow, so
    the cancel is for each open one of that policy, whichever run has started it.
    """

    status: Status
    outcome: Outcome
    data: bytes | None
    wake: bytes  # nonce of the wake rows
    parent: str | None = None
    children: tuple[str, ...] = ()
    attributes: bytes | None = None
    family: bool = False


class Park(msgspec.Struct, frozen=True, gc=False):
    """Give the claim up and wait for ``until``, for wakes, for the workflows in ``watching`` to close or set events.

    ``events`` (of whom, name) and ``reads`` are what was looked for in vain: the store looks once more when the watch
    is written, by when it may be there. No time tells that: what is written late was stamped when its statement began.
    """

    until: int | None
    detail: str
    watching: tuple[str, ...] = ()
    events: tuple[tuple[str, str], ...] = ()
    reads: tuple[StreamAsk, ...] = ()


class Hold(msgspec.Struct, frozen=True, gc=False):
    """Park with a reason, until a person or a fixed deploy; at ``until`` it is claimed all the same.

    For ``Reason.PAUSED`` only if the row still says so (``pause``); else it is queued.
    """

    reason: Reason
    detail: str
    until: int | None = None


class Release(msgspec.Struct, frozen=True, gc=False):
    """Hand back (drain): queued again, for anyone; not an attempt."""

    version: str | None = None  # moved there by a decision: then nothing is left to be decided
    anew: bool = False  # it had died before and has got somewhere since: its deaths are counted anew


class Rest(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How a process stands from now on: what the row of its next run tells, beside what its ``Start`` does.

    ``next.status`` is QUEUED, or WAITING or HELD: nobody holds it then, and mail of ``topic`` that is there wakes it.
    """

    topic: str
    until: int | None = None  # its next timer
    reason: Reason | None = None  # why it is held
    detail: str = ""
    attempts: int = 0  # deaths that go on being counted
    problem: ProblemKind | None = None

    @property
    def told(self) -> bool:
        """Whether the problem is to be put on record. A death is, since the run was taken over."""
        return self.problem is ProblemKind.STEP_FAILED


class Continue(msgspec.Struct, frozen=True, gc=False):
    """End this run as continued and begin the next run of the same id, in one commit. Untaken messages stay."""

    next: Start
    wake: bytes
    rest: Rest | None = None

    @property
    def asks_parent(self) -> bool:
        """Whether its parent bounds it, or may, beside a timeout of its own; ``next`` cannot say how."""
        start = self.next
        return start.parent is not None and start.timeout is not None and start.on_parent_close != "abandon"


class Delete(msgspec.Struct, frozen=True, gc=False):
    """Forget the workflow: every run's row, payload, history, events, messages and wakes. Travels with a decision.

    ``others``: those that are forgotten in the same commit, open or not: what a process has begun.
    """

    others: tuple[str, ...] = ()


class Decided(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What was decided about an interrupted run: one row for each claim, in the commit of its effect."""

    cause: Cause
    decision: str
    policy: str
    because: str
    parameters: bytes | None
    evidence: bytes  # JSON; {} leaves what the adoption noted
    executor: str


class Rewind(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """End this run as superseded, and begin the next run of the same id from its first ``keep`` records, in one commit.

    The kept records are copied as they stand (versions included), ``mark`` follows them (``model/cuts.py``). Messages
    that the cut-off records had taken may be received again; events are as the kept records have set them. ``next``
    with a claim runs on at once, else it is queued. With ``began``, the body's first "now" of the kept records, a
    deadline that ``next`` does not name is its ``timeout`` from this commit.
    """

    next: Start
    keep: int
    mark: Record
    wake: bytes  # nonce of the wake rows of those who watch
    then: tuple[Record, ...] = ()  # what follows the mark: the decision that asked for it
    attempts: int = 0  # deaths that go on being counted
    uncancel: bool = False  # a command to cancel is taken back; else the next run is given it again


class Pause(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A person's order: whoever holds it stops before its next step; what nobody holds is held at once."""

    nonce: bytes  # of the record and the wake; becomes the claim token of what nobody holds
    shown: str  # who and why
    at: int


class Reopen(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A person's order: queue an open run that nobody holds, its deaths forgotten, to go on from its last record.

    Kept in its history as a ``DECISION`` record.
    """

    nonce: bytes  # becomes the claim token, which nobody holds: a repeat of the order is recognised
    verb: str
    shown: str  # who and why
    at: int
    version: str | None = None  # moves it to this version
    at_once: bool = False  # before all that is queued, and outside its queue
    back: bool = False  # a paused one: deaths, slot or place in line, and time as they were


Change = Close | Park | Hold | Release | Continue | Rewind | Delete
Onward = Continue | Rewind  # what makes the row another run


class Unit(msgspec.Struct, kw_only=True, gc=False):
    """What one run, or one caller outside, wants written in one piece.

    ``claim`` None and ``start`` None: a caller outside (``children`` are its starts, ``sends`` its messages).
    ``start`` set: the run's own first unit; everything else in it stands or falls with that insert.
    """

    key: RunKey
    claim: bytes | None = None
    nonce: bytes = b""
    version: str = ""
    after: int = 0  # the last ``seq`` that the run wrote before this unit
    start: Start | None = None
    records: Sequence[Record] = ()
    events: Sequence[SetEvent] = ()
    appends: Sequence[Append] = ()
    sends: Sequence[Send] = ()
    children: Sequence[Start] = ()
    given_up: Sequence[GiveUp] = ()
    taken: Sequence[tuple[bytes, int]] = ()  # (message id, seq of the record)
    woken: Sequence[bytes] = ()  # nonces of wake rows that were acted on
    change: Change | None = None
    decision: Decided | None = None  # of the holder of ``claim``
    trouble: Trouble | None = None

    @property
    def empty(self) -> bool:
        return not (
            self.start
            or self.records
            or self.events
            or self.appends
            or self.sends
            or self.children
            or self.given_up
            or self.taken
            or self.woken
            or self.change
            or self.decision
            or self.trouble
        )


ROW_BYTES = 200  # that a row costs beside its payload, about


def size_of(unit: Unit) -> int:
    """The bytes that it takes to write, about: every payload counts."""
    size = 0
    for record in unit.records:
        size += ROW_BYTES if record.data is None else ROW_BYTES + len(record.data)
    for append in unit.appends:
        size += ROW_BYTES if append.data is None else ROW_BYTES + len(append.data)
    if unit.start is not None:
        size += size_of_start(unit.start)
    for start in unit.children:
        size += size_of_start(start)
    for send in unit.sends:
        size += ROW_BYTES + len(send.data)
    for event in unit.events:
        size += ROW_BYTES + len(event.data)
    size += ROW_BYTES * len(unit.given_up)
    if unit.change is not None:
        size += _size_of_change(unit.change)
    if unit.decision is not None:
        size += ROW_BYTES + len(unit.decision.evidence) + len(unit.decision.parameters or b"")
    if unit.trouble is not None:
        size += sum(ROW_BYTES + len(failing.data or failing.text) for failing in unit.trouble.told)
    return size


def size_of_start(start: Start) -> int:
    """The same of one start."""
    return ROW_BYTES + len(start.input) + (0 if start.attributes is None else len(start.attributes))


def _size_of_change(change: Change) -> int:
    match change:
        case Close():
            return ROW_BYTES + len(change.data or b"") + len(change.attributes or b"")
        case Continue():
            return ROW_BYTES + size_of_start(change.next)
        case Rewind():
            records = (change.mark, *change.then)
            return size_of_start(change.next) + sum(ROW_BYTES + len(record.data or b"") for record in records)
        case _:
            return ROW_BYTES


class Verdict(msgspec.Struct, kw_only=True, gc=False):
    """What became of a unit."""

    applied: bool
    exists: dict[str, WorkflowRow] = msgspec.field(default_factory=lambda: {})
    """Starts (own or children) whose id was taken by another: the row that has it, as the batch left it. An own start
    here: not applied."""
    undelivered: dict[bytes, Status | None] = msgspec.field(default_factory=lambda: {})
    """Messages whose destination is unknown (None) or closed."""


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """A committed batch: verdicts in the order of the units, and the database's time within the commit."""

    now: int
    verdicts: list[Verdict]
