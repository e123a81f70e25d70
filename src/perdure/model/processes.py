"""Where a process stands, as it is stored; and what people see of it.

``At`` is in the input of each run, beside the parameters. Times are integers: microseconds since 1970-01-01 UTC, by the
database's clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Literal, NamedTuple

import msgspec

from perdure.model.info import to_datetime
from perdure.model.records import Kind, Record
from perdure.model.states import Reason, Status

HISTORY = "perdure:process"  # the stream of a process' history
ORDERS = "perdure:process"  # the topic of what is ordered of it
AT = "perdure_at"  # the argument that holds where it stands


class ProcessStatus(StrEnum):
    """How a process is. Only ``Running`` blocks it."""

    INITIALIZED = "Initialized"
    RUNNING = "Running"
    IDLED = "Idled"
    FINALIZED = "Finalized"
    ERROR = "Error"
    TERMINATED = "Terminated"


Rests = Literal["Idled", "Error", "Terminated"]

Trigger = Literal["start", "command", "timer", "auto", "set", "resume", "recovery", "error"]


class Go(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A move that is to be made, or is under way.

    ``how``: along an ``edge`` of the scheme; ``enter`` a state from nowhere; ``stand`` in it without its actions; on
    along the ``exits`` of the state it stands in.
    """

    how: Literal["edge", "enter", "stand", "exits"]
    target: str = ""
    trigger: Trigger = "auto"
    name: str = ""  # of the command or timer
    edge: int = 0  # which of the source's exits
    actor: str | None = None
    token: str = ""  # of the order that waits for the end of the burst
    because: str = ""
    parameters: dict[str, msgspec.Raw] = {}
    late: int = 0  # microseconds after the timer was due
    attempt: int = 1


class At(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a process stands between two moves, beside its parameters."""

    state: str = ""  # "": it has not begun
    previous: str = ""
    status: Rests = "Idled"  # of one at rest
    because: str = ""  # why it is in Error or Terminated
    entered: int = 0
    timers: dict[str, int] = {}  # armed, by name: when each is due
    bursts: int = 0  # ended so far
    entries: int = 0  # of its history
    children: dict[str, str] = {}  # begun and not known to have ended, by id: what its end means to each
    kept: int = 0  # of these, when those that have ended were last left out
    parent: bool = False  # whether it has ever begun another
    go: Go | None = None  # what its next burst begins with; None: an order or a timer says

    @property
    def due(self) -> int | None:
        """When its next timer is due."""
        return min(self.timers.values(), default=None)


START = At(go=Go(how="enter", trigger="start"))


class Order(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What somebody orders of a process: a message to it."""

    kind: Literal["command", "set", "resume"]
    token: str
    name: str = ""  # the command, or the state to set
    actor: str | None = None
    parameters: dict[str, msgspec.Raw] = {}  # of the command
    run: bool = True  # the state's actions
    seen: int | None = None  # bursts that whoever orders has seen; None: whatever came since
    set: dict[str, msgspec.Raw] = {}  # parameters of the process to change
    because: str = ""


Answer = Literal["", "busy", "not_available", "not_allowed", "refused", "interrupted", "failed", "not_resumed"]


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of a process' history, and the answer to an order. ``kind``: a ``move``, or what else happened to it."""

    kind: Literal["move", "refused", "rest", "status"] = "move"
    trigger: Trigger = "auto"
    name: str = ""
    source: str = ""
    target: str = ""
    actor: str | None = None
    reverse: bool = False
    at: int = 0  # when it was done
    took: int = 0  # microseconds
    late: int = 0
    status: str = ""  # what it is from then on; "": still running
    because: str = ""
    token: str = ""  # of the order that this answers
    answer: Answer = ""  # "": done
    failure: str = ""  # the encoded exception


class ProcessStep(msgspec.Struct, frozen=True, kw_only=True):
    """What a process did, as people see it.

    Attributes:
        source, target: states; equal where it stayed.
        trigger: ``start``, ``command``, ``timer``, ``auto``, ``set`` (by hand), ``resume``, ``recovery``, ``error``.
        name: of the command or timer.
        actor: who ordered it; None where nobody said.
        at, duration: when it was done, and how long its actions took.
        late: how long after a timer was due.
        status: what the process was from then on.
        because: why, where a person or a policy said so.
        reverse: whether the scheme calls it a way back.
    """

    source: str
    target: str
    trigger: Trigger
    name: str
    actor: str | None
    at: datetime
    duration: timedelta
    late: timedelta
    status: ProcessStatus
    because: str
    reverse: bool


def step_of(entry: Entry) -> ProcessStep:
    """An entry as people see it."""
    return ProcessStep(
        source=entry.source, target=entry.target, trigger=entry.trigger, name=entry.name, actor=entry.actor,
        at=to_datetime(entry.at), duration=timedelta(microseconds=entry.took),
        late=timedelta(microseconds=entry.late), because=entry.because, reverse=entry.reverse,
        status=ProcessStatus(entry.status) if entry.status else ProcessStatus.RUNNING,
    )  # fmt: skip


def steps_of(entries: Iterable[Entry]) -> list[ProcessStep]:
    """What a process did, of its history: not what was refused."""
    return [step_of(entry) for entry in entries if entry.kind != "refused"]


class Recorded(NamedTuple):
    """What a run has on record of where its process stands."""

    stands: bytes | None  # of the latest ``STATE``
    move: bytes | None  # of the latest ``MOVE``
    arrived: bool  # whether that state is the end of that move


def recorded(history: Iterable[Record]) -> Recorded:
    """See ``Recorded``."""
    stands = move = None
    arrived = False
    for record in history:
        if record.kind is Kind.STATE:
            stands, arrived = record.data or b"", True
        elif record.kind is Kind.MOVE:
            move, arrived = record.data or b"", False
    return Recorded(stands, move, arrived)


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A process when it was read: its row, the input of its latest run, and what that has recorded of states."""

    name: str
    status: Status
    run: int
    input: bytes
    reason: Reason | None = None
    detail: str = ""
    stands: bytes | None = None  # of the latest ``STATE`` record
    moving: bytes | None = None  # of a ``MOVE`` record after it
    lines: tuple[bytes, ...] = ()  # of its history, as far as they were asked for

    @property
    def at(self) -> At:
        """Where it stands."""
        return at_of(self.input if self.stands is None else self.stands)

    @property
    def process_status(self) -> ProcessStatus:
        """How it is."""
        if self.status is Status.WAITING and self._recorded:
            return ProcessStatus.RUNNING  # its action waits for something, and nobody holds it meanwhile
        if self.status is Status.HELD and self._recorded:
            return ProcessStatus.TERMINATED
        return status_of(self.status, self.reason, self.run, self.at)

    @property
    def orderable(self) -> bool:
        """Whether it stands where commands are offered: not in an action, about to go on, not begun, or ended."""
        at_rest = not (self.acting or self.at.go is not None or not self.at.state)
        return at_rest and self.status.open and not self.held

    @property
    def held(self) -> bool:
        """Whether nobody takes up an order until it is released: one without an exit is held, too, but takes them."""
        return self.status is Status.HELD and self.reason is not Reason.NO_EXIT

    @property
    def acting(self) -> bool:
        """Whether a burst is under way, and on record: more than that somebody has claimed or queued the process."""
        return self._recorded and self.status in (Status.RUNNING, Status.WAITING)

    @property
    def schemeless(self) -> bool:
        """Whether no scheme drives it, and nobody would read an order: it has begun, and nothing says where it is."""
        return self.status in (Status.WAITING, Status.COMPLETED) and not self._recorded and _without_at(self.input)

    @property
    def _recorded(self) -> bool:
        return self.stands is not None or self.moving is not None

    @property
    def go(self) -> Go | None:
        """What goes on, if its burst has begun."""
        return None if self.moving is None else read_go(self.moving)

    @property
    def parameters(self) -> dict[str, Any]:
        """As plain JSON, whatever the code says of them."""
        return _tree(self.input if self.stands is None else self.stands)


def status_of(status: Status, reason: Reason | None, run: int, at: At) -> ProcessStatus:
    """What a row says of a process that stands ``at``."""
    match status:
        case Status.COMPLETED:
            return ProcessStatus.FINALIZED
        case Status.SCHEDULED | Status.QUEUED | Status.HELD if run == 1 and not at.state:
            return ProcessStatus.INITIALIZED
        case Status.WAITING:
            return ProcessStatus(at.status)
        case Status.HELD if reason is not Reason.NO_EXIT and at.go is None:
            return ProcessStatus(at.status)  # it still stands there as it did, but takes no orders until it is released
        case _ if status.open and status is not Status.HELD:
            return ProcessStatus.RUNNING
        case _:
            return ProcessStatus.TERMINATED


def _tree(data: bytes) -> dict[str, Any]:
    if data[:1] != b"{":
        return {}
    tree = msgspec.json.decode(data, type=dict[str, Any])
    return {name: value for name, value in tree.items() if name not in (AT, "$args")}


def _without_at(data: bytes) -> bool:
    try:
        tree = msgspec.json.decode(data)
    except msgspec.DecodeError:
        return False  # encoded, and the codec is not here: nobody can tell
    return not isinstance(tree, dict) or AT not in tree


def at_of(data: bytes) -> At:
    """Where a process stands by the arguments of its run, whatever else is in them."""
    if data[:1] != b"{":
        return START
    found = msgspec.json.decode(data, type=dict[str, msgspec.Raw]).get(AT)
    return START if found is None else msgspec.json.decode(found, type=At)


_go = msgspec.json.Decoder(Go)


def read_go(data: bytes) -> Go:
    """A move as it is recorded."""
    return _go.decode(data)
