"""One run of a workflow, as a pure object: it answers from history, or says what has to be done, and emits writes.

Invariants:
- ``seq`` of the records is gapless and is the order in which the body observed things; on replay outcomes are handed
  over in exactly that order, one at a time, and the body runs until it is quiet between two of them.
- A path (lineage of calls) names a call for ever. What is asked at a path must equal what history recorded there in
  kind, name and fingerprint; else ``mismatch`` is set, nothing is executed, and every further call raises ``Evicted``.
- ``now`` moves only when an outcome is delivered, so time is the same on every replay.
- what is not yet given to the journal is taken whole, in order (``take``), never while a unit of this run is in flight.

Who drives it (the async face, the thread face, a replay check, a simulator) calls, in this order: ``ask`` and ``note``
while the body runs; ``next_delivery`` until it answers None; then ``fresh`` for what must be begun; later ``settle``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NoReturn, Self

import msgspec

from perdure.core.growing import also
from perdure.core.mismatch import Mismatch, describe
from perdure.core.troubles import Troubles
from perdure.errors import Evicted
from perdure.model.cuts import cut_of
from perdure.model.ids import RunKey
from perdure.model.problems import OF_HOLD, Failing, ProblemKind, Trouble
from perdure.model.records import Intent, Kind, Outcome, Record, WorkflowRow
from perdure.model.states import Reason
from perdure.model.writes import Change, Close, Decided, GiveUp, Hold, Onward, Send, SetEvent, Start, Unit
from perdure.policy.decisions import COMPENSATE, RUN_FROM

SILENT = frozenset({Kind.INTENT, Kind.DECISION, Kind.CUT})  # records that no call of the body answers to
OBSERVED = frozenset({Kind.STEP, Kind.TIMER, Kind.RECV, Kind.RESULT, Kind.READ, Kind.CANCEL})  # always delivered
NOTHING: Mapping[str, None] = MappingProxyType({})
# What is asked of each record. Before Python 3.12 to look a member up takes as long as a call.
_ATTEMPT, _CANCEL, _CUT, _DECISION = Kind.ATTEMPT, Kind.CANCEL, Kind.CUT, Kind.DECISION


def arrives(record: Record) -> bool:
    """Whether a record arrives by itself, unasked, at the main task: a cancel, or the decision to compensate."""
    return record.kind is _CANCEL or (record.kind is _DECISION and record.name == COMPENSATE)


PATCH_PATH = "patch:"  # a patch takes no number among the calls: with it or without, those after it keep their paths


class Op:
    """A call whose outcome is not known yet: asked by the body, settled by the outside or by history."""

    __slots__ = (
        "attempt", "begun", "deliver", "failed_at", "fingerprint", "is_open", "kind", "name", "path", "shown", "what",
    )  # fmt: skip

    def __init__(
        self, path: str, kind: Kind, name: str, fingerprint: bytes, deliver: Callable[[Record], None], what: Any = None
    ) -> None:
        self.path = path
        self.kind = kind
        self.name = name
        self.fingerprint = fingerprint
        self.deliver = deliver
        self.what = what  # the driver's own: the step to run, the question to answer
        self.shown = ""
        self.attempt = 1  # the attempt that is under way or comes next
        self.failed_at = 0  # when the attempt before this one failed
        self.begun = False
        self.is_open = True  # until settled or abandoned


class Run:
    """See the head of this file."""

    __slots__ = (
        "_begun_before", "_by_path", "_foreign", "_fresh", "_intended", "_later", "_live", "_noted", "_others_burst",
        "_pending_intents", "_position", "_recorded_intents", "_records", "asked", "change", "children", "decision",
        "events", "given_up", "gone", "history", "kept_back", "key", "lineage", "mismatch", "now", "observed", "origin",
        "parameters", "patches", "sends", "seq", "start", "taken", "troubles", "unreadable", "version", "woken",
    )  # fmt: skip

    def __init__(
        self,
        key: RunKey,
        lineage: bytes,
        version: str,
        now: int,
        history: Sequence[Record] = (),
        intents: Sequence[Intent] = (),
        start: Start | None = None,
        again: bool = False,
    ) -> None:
        self.key = key
        self.lineage = lineage
        self.version = version
        self.now = now
        self.history = history
        self.seq = history[-1].seq if history else 0
        self.asked: dict[str, Op] = {}
        # What waits to be taken by the journal; a list is made when first needed, since most runs need none.
        self.start = start
        self.change: Change | None = None
        self.decision: Decided | None = None  # goes with the change
        self.events: list[SetEvent] | None = None
        self.sends: list[Send] | None = None
        self.children: list[Start] | None = None
        self.given_up: list[GiveUp] | None = None
        self.taken: list[tuple[bytes, int]] | None = None
        self.woken: list[bytes] | None = None
        self.troubles: Troubles | None = None  # of the run that has one
        self._records: list[Record] = []
        self.mismatch: Mismatch | None = None
        self.unreadable = ""  # which recorded value the code cannot take, and why
        self.gone = False
        self.observed = False  # outcomes were recorded since this run was claimed, or begun here
        self.patches: dict[str, bool] | None = None  # the answers of ``patched``, each given once
        self._others_burst = False  # the burst that is repeated was first run by the code of another version
        self._position = 0
        self._live = not (history or intents or again)
        self._fresh: list[Op] | None = None
        self._noted: dict[str, None] = {}
        self._pending_intents: list[Intent] | None = None
        self._by_path: dict[str, Record] = {}
        self._recorded_intents: dict[str, Intent] = {}
        self._intended: dict[str, None] = {}
        self.parameters: tuple[bytes, ...] = ()  # what decisions set, as far as the body may see it
        self._later: tuple[tuple[int, bytes], ...] = ()  # ... and from which record on it may see the rest
        self._begun_before: Mapping[str, None] = NOTHING
        self._foreign = 0  # records up to this one were kept of another workflow
        self.kept_back: frozenset[int] = frozenset()  # outcomes that the body saw with the cancel behind them
        self.origin = key.run  # the run in which this lineage began: ids of children derive from it
        if history or intents:
            self._index(history, intents)

    @classmethod
    def of(cls, row: WorkflowRow, version: str, history: Sequence[Record], *, again: bool) -> Self:
        """The run that a row and its history tell of, for the code of ``version``; its time begins at its start."""
        began = row.started if row.started is not None else row.created
        run = cls(row.key, row.lineage, version, began, history, row.intents, again=again)
        if row.problem is not None:
            run.troubles = Troubles(row.problem)
        return run

    def _index(self, history: Sequence[Record], intents: Sequence[Intent]) -> None:
        self._recorded_intents = {intent.path: intent for intent in intents}
        for record in history:
            if record.kind is _CUT:
                self._cut(record)
                continue
            for intent in record.intents:
                self._recorded_intents[intent.path] = intent
            if record.kind is _CANCEL and record.data is not None:
                before = [one.seq for one in history if one.seq < record.seq and one.kind in OBSERVED]
                self.kept_back = frozenset(before[-int(record.data) :])
            if record.kind is not _ATTEMPT and record.kind not in SILENT:
                self._by_path[record.path] = record
            elif record.kind is _DECISION and record.data is not None:
                self._later += ((self._seen_from(record), record.data),)
        self._intended.update(dict.fromkeys(self._recorded_intents))
        if self._later:
            self._reveal(0)

    def _seen_from(self, decision: Record) -> int:
        """The body sees what a decision set from the first outcome after this ``seq`` on, on every replay.

        That is the decision's own, since what the body did before it must come out as it did then. Only of a run that
        begins anew from a prefix the last burst was never lived through: there it is the outcome before that one.
        """
        if decision.name != RUN_FROM:
            return decision.seq
        return max((r.seq for r in self.history[: decision.seq - 1] if r.kind in OBSERVED), default=0) - 1

    def _reveal(self, seq: int) -> None:
        self.parameters += tuple(data for since, data in self._later if since < seq)
        self._later = tuple(item for item in self._later if item[0] >= seq)

    @property
    def decided(self) -> tuple[bytes, ...]:
        """All that decisions set so far: what a step may see, whose outcome is recorded."""
        return (*self.parameters, *(data for _, data in self._later)) if self._later else self.parameters

    def _cut(self, mark: Record) -> None:
        """The history was cut here: what was about to run then binds nobody, but may have begun (``model/cuts.py``)."""
        origin = cut_of(mark).origin
        self.origin = self.key.run if origin is None else origin
        if origin is None:
            self._foreign = mark.seq
        self._begun_before = dict.fromkeys(intent.path for intent in mark.intents)
        self._recorded_intents.clear()

    # -- while the body runs

    @property
    def replaying(self) -> bool:
        """Whether recorded outcomes are still to be delivered."""
        return not self._live and self._position < len(self.history)

    @property
    def repeats(self) -> bool:
        """Whether the body does what it did before: up to the last outcome in history, and on until it is quiet."""
        return not self._live

    def ask(self, op: Op) -> None:
        """The body calls something whose outcome comes later (from history, or from outside)."""
        if self.gone:
            raise Evicted
        if self._by_path or self._recorded_intents:
            self._compare(op.path, op.kind, op.name, op.fingerprint, op.shown)
        self.asked[op.path] = op
        if self._fresh is None:
            self._fresh = [op]
        else:
            self._fresh.append(op)

    def abandon(self, op: Op) -> None:
        """The body no longer waits (it was cancelled there).

        Recorded nowhere: a replay abandons it at the same point.
        """
        op.is_open = False
        self.asked.pop(op.path, None)
        if op.attempt > 1 and self._live and not self.gone:
            self.ease()

    def note(
        self, path: str, kind: Kind, name: str, fingerprint: bytes, data: bytes | None, at: int, shown: str = ""
    ) -> tuple[Record, bool]:
        """The body does something that needs no verdict: the record, and whether it is new (then write it)."""
        if self.gone:
            raise Evicted
        recorded = self._by_path.get(path)
        if recorded is not None:
            self._compare(path, kind, name, fingerprint, shown)
            self._noted[path] = None
            return recorded, False
        self._skip_noted()
        if self.replaying and not self._about_to_compensate:
            self._refuse(path, self._describe_at(self._position), f"{describe(kind, name, shown)} at {path}")
        outcome = Outcome.NONE if data is None else Outcome.VALUE
        return self._append(path, kind, name, at, fingerprint, outcome, data, shown=shown), True

    def give_up(self, path: str, child: str, wake: bytes, at: int) -> GiveUp | None:
        """The body waits for a child no longer: it is told, with the note of it, so once; None on a replay."""
        self._skip_noted()
        if self.replaying and path not in self._by_path and not self._about_to_compensate:
            return None  # told by code that made no note of it
        # What outlives the body makes no notes: it tells beside the end.
        if not self.gone and not self.note(path, Kind.CANCEL_OTHER, child, b"", None, at)[1]:
            return None
        told = GiveUp(child, wake, f"its parent {self.key.id} no longer waits for it")
        self.given_up = also(self.given_up, told)
        return told

    @property
    def _about_to_compensate(self) -> bool:
        """History ends with the decision to compensate, and the notes of the burst before it were lost in the crash."""
        return self._position == len(self.history) - 1 and self.history[-1].kind is _DECISION

    def patched(self, name: str, at: int) -> bool:
        """Whether the change ``name`` is for this run: False if it had passed this point before the change came.

        One answer per run and name. True is recorded, False never: what tells it (that history goes on, that a step
        not asked for yet was about to run, that other code was handed the latest outcome) is as durable.
        """
        if self.gone:
            raise Evicted
        if self.patches is None:
            self.patches = {}
        answer = self.patches.get(name)
        if answer is None:
            self.patches[name] = answer = self._patched(PATCH_PATH + name, name, at)
        return answer

    def _patched(self, path: str, name: str, at: int) -> bool:
        if path in self._by_path:
            self._noted[path] = None
            return True
        self._skip_noted()
        if self.replaying or self._others_burst or any(path not in self._by_path for path in self._recorded_intents):
            return False
        self._append(path, Kind.PATCH, name, at, b"", Outcome.NONE, None)
        return True

    def deprecate_patch(self, name: str) -> None:
        """The code holds only what came with the change ``name``: a record of it is met, and none is missed."""
        if self.gone:
            raise Evicted
        if PATCH_PATH + name in self._by_path:
            self._noted[PATCH_PATH + name] = None

    def _compare(self, path: str, kind: Kind, name: str, fingerprint: bytes, shown: str) -> None:
        recorded = self._by_path.get(path)
        if recorded is not None:
            if recorded.kind is kind and recorded.name == name and recorded.fingerprint == fingerprint:
                self._recorded_intents.pop(path, None)
                return
            self._refuse(path, describe(recorded.kind, recorded.name, recorded.shown), describe(kind, name, shown))
        intent = self._recorded_intents.pop(path, None)
        if intent is not None and (kind is not Kind.STEP or (intent.name, intent.fingerprint) != (name, fingerprint)):
            self._refuse(path, f"step {intent.name} about to run", describe(kind, name, shown))

    def _refuse(self, path: str, recorded: str, called: str) -> None:
        """Stop the body where it stands. Not an exception of its own: user code must not be able to handle it."""
        if self.mismatch is None:
            self.mismatch = Mismatch(path, recorded, called)
        self.gone = True
        raise Evicted

    def refuse_value(self, record: Record, why: str) -> NoReturn:
        """The code that is here cannot take what was recorded: stop the body where it stands, as for a mismatch."""
        self.unreadable = f"at {record.path}: what history has of {describe(record.kind, record.name)}: {why}"
        self.gone = True
        raise Evicted

    @property
    def refusal(self) -> tuple[Reason, str] | None:
        """Why this run cannot go on with the code that is here."""
        if self.mismatch is not None:
            return Reason.NONDETERMINISM, str(self.mismatch)
        return (Reason.UNDECODABLE, self.unreadable) if self.unreadable else None

    def _describe_at(self, position: int) -> str:
        record = self.history[position]
        return describe(record.kind, record.name, record.shown) + f" at {record.path}"

    # -- between bursts

    def _skip_noted(self) -> None:
        history, noted = self.history, self._noted
        position = self._position
        while position < len(history):
            record = history[position]
            if record.kind is _ATTEMPT:
                op = self.asked.get(record.path)
                if op is None or (op.name, op.fingerprint) != (record.name, record.fingerprint):
                    break
                op.attempt = record.attempt + 1
                op.failed_at = record.at
            elif record.kind in SILENT:
                if arrives(record):
                    break
            elif record.path not in noted:
                break
            position += 1
        self._position = position

    def next_delivery(self, *, only_asked: bool = False) -> tuple[Op | None, Record] | None:
        """The next recorded outcome to hand over; None when history is used up. An Op of None: it arrives by itself.

        ``only_asked``: also None where the next one arrives by itself; it stays the next one.

        Sets ``mismatch`` (and answers None) if history goes on with something that the quiet body did not ask for.
        """
        if self.gone or self._live:
            return None
        self._skip_noted()
        if self._position >= len(self.history):
            self._live, self._others_burst = True, False
            self._check_intents()
            if self.troubles is not None and not self.gone:
                self.troubles.replayed(self._failing())
            return None
        record = self.history[self._position]
        if arrives(record):
            if only_asked:
                return None
            op = None
        else:
            op = self.asked.get(record.path)
            if op is None or record.kind is _ATTEMPT:  # of another call
                self.mismatch = Mismatch(record.path, self._describe_at(self._position), self._describe_asked())
                self.gone = True
                return None
            del self.asked[record.path]
            op.is_open = False
        self._position += 1
        self.now = max(self.now, record.at)
        if self._later:
            self._reveal(record.seq)
        # Who records an outcome runs the burst that follows it; before a cut it was lived through in another run only.
        cut = self._position < len(self.history) and self.history[self._position].kind is _CUT
        self._others_burst = record.version != self.version and not cut
        return op, record

    def _describe_asked(self) -> str:
        waiting = [f"{describe(op.kind, op.name, op.shown)} at {op.path}" for op in self.asked.values()]
        return "waits for " + ", ".join(waiting) if waiting else "nothing more to wait for"

    def _check_intents(self) -> None:
        """A step that was about to run, and that the code no longer asks for, may have had its effect."""
        for path, intent in self._recorded_intents.items():
            if path not in self._by_path:
                self.mismatch = Mismatch(path, f"step {intent.name} about to run", self._describe_asked())
                self.gone = True
                return

    def fresh(self) -> Iterator[Op]:
        """What was asked, is still open, and has not been begun; to be called when nothing is left to deliver."""
        if not self._fresh:
            return
        fresh, self._fresh = self._fresh, None
        for op in fresh:
            if op.is_open and not op.begun:
                op.begun = True
                yield op

    # -- live

    def settle(self, op: Op, at: int, outcome: Outcome, data: bytes | None, name: str | None = None) -> Record:
        """An outcome arrived from outside: it is recorded now and may be delivered at once (output commit)."""
        op.is_open = False
        self.observed = True
        self.asked.pop(op.path, None)
        self.now = at = max(self.now, at)
        if self._later:
            self._reveal(self.seq + 1)
        self.ease()
        return self._append(
            op.path, op.kind, op.name if name is None else name, at, op.fingerprint, outcome, data, op.attempt, op.shown
        )

    def next_record(self, op: Op, at: int, outcome: Outcome, data: bytes | None) -> Record:
        """The record that ``settle`` would make now, for who writes it himself; nothing may come between."""
        at = max(self.now, at)
        return Record(
            self.seq + 1, op.path, op.kind, op.name, at, op.fingerprint, outcome, data, op.attempt, op.shown
        )  # fmt: skip

    def settled(self, op: Op, record: Record) -> None:
        """An outcome arrived whose record (``next_record``) is written already."""
        op.is_open = False
        self.observed = True
        self.asked.pop(op.path, None)
        self.now = max(self.now, record.at)
        if self._later:
            self._reveal(record.seq)
        self.seq = record.seq
        self.ease()

    def fail_attempt(self, op: Op, at: int, data: bytes, wait: int = 0) -> Record:
        """A failed attempt that will be retried after ``wait``; must be durable before the next one begins."""
        self.tell(ProblemKind.STEP_FAILED, op.path, op.name, data=data, attempt=op.attempt, next=at + wait)
        record = self._append(
            op.path, Kind.ATTEMPT, op.name, at, op.fingerprint, Outcome.ERROR, data, op.attempt, op.shown
        )
        op.attempt += 1
        op.failed_at = at
        return record

    def cancelled(self, at: int, reason: str, kept: int = 0) -> Record:
        """The workflow is told to cancel: an outcome of its own, to the main task; ``kept``: so many waited for it."""
        self.observed = True
        self.now = at = max(self.now, at)
        if self._later:
            self._reveal(self.seq + 1)
        self.ease()
        return self._append("", Kind.CANCEL, reason, at, b"", Outcome.NONE, str(kept).encode() if kept else None)

    def decide(self, name: str, at: int, data: bytes | None, because: str) -> Record:
        """A recovery decision, where the run is told of it; ``data``: what it sets."""
        outcome = Outcome.NONE if data is None else Outcome.VALUE
        return self._append("", Kind.DECISION, name, max(self.now, at), b"", outcome, data, shown=because)

    def was_intended(self, path: str) -> bool:
        """Whether history has the intent of this step: it may have begun before, be it in the run it was cut from."""
        return path in self._intended or path in self._begun_before

    def intend(self, op: Op, *, once: bool) -> bool:
        """The step is about to run. Answers whether that still has to become durable first."""
        if op.path in self._intended:
            return False
        self._intended[op.path] = None
        self._pending_intents = also(self._pending_intents, Intent(op.path, op.name, op.fingerprint, once))
        return True

    def _append(
        self,
        path: str,
        kind: Kind,
        name: str,
        at: int,
        fingerprint: bytes,
        outcome: Outcome,
        data: bytes | None,
        attempt: int = 1,
        shown: str = "",
    ) -> Record:
        self.seq = seq = self.seq + 1
        record = Record(seq, path, kind, name, at, fingerprint, outcome, data, attempt, shown)
        self._records.append(record)
        return record

    @property
    def unwritten(self) -> bool:
        """Whether anything waits to be taken by the journal."""
        return bool(
            self._records
            or self.start
            or self.change
            or self._pending_intents
            or self.events
            or self.sends
            or self.children
            or self.given_up
            or self.taken
            or self.woken
            or (self.troubles is not None and self.troubles.unwritten)
        )

    def recorded(self, path: str) -> Record | None:
        """What history has at this path."""
        return self._by_path.get(path)

    def was_kept(self, record: Record) -> bool:
        """Whether a record was made by another workflow, before this one was forked from it."""
        return record.seq <= self._foreign

    def take_start(self) -> Start:
        """The start alone, with the intents of the first burst: it travels in the parent's unit.

        A run that has observed something since (a timer, before the parent's unit was taken) keeps its intents for the
        unit that holds the outcome: without it, nobody could say how the body came to those steps.
        """
        start, self.start = self.start, None
        assert start is not None, "the start has been taken"
        if not self.observed:
            self._ride(start)
        return start

    def _ride(self, carrier: Record | Start) -> None:
        """Intents ride with a record or a start that was given to nobody yet: only the unit being taken holds it."""
        if self._pending_intents:
            msgspec.structs.force_setattr(carrier, "intents", tuple(self._pending_intents))
            self._pending_intents = None

    def take(self) -> Unit:
        """All that waits, as one unit.

        Intents ride with the last record, or with the start, or as a record of their own.
        """
        if self._pending_intents:
            if self._records or self.start is None:
                if not self._records:
                    self._append("", Kind.INTENT, "", self.now, b"", Outcome.NONE, None)
                self._ride(self._records[-1])
            else:
                self._ride(self.start)
        unit = Unit(
            key=self.key, version=self.version, after=self.seq - len(self._records), start=self.start,
            records=self._records, events=self.events or (), sends=self.sends or (), children=self.children or (),
            given_up=self.given_up or (), taken=self.taken or (), woken=self.woken or (), change=self.change,
            decision=self.decision, trouble=self._trouble(),
        )  # fmt: skip
        self._records = []
        self.start = self.change = self.decision = None
        self.events = self.sends = self.children = self.given_up = self.taken = self.woken = None
        return unit

    # -- problems

    def tell(self, kind: ProblemKind, path: str = "", name: str = "", **more: Any) -> None:
        """An attempt did not get this run on: its next unit says so."""
        if self.troubles is None:
            self.troubles = Troubles(None)
        self.troubles.tell(Failing(kind=kind, version=self.version, path=path, name=name, **more))

    def ease(self) -> None:
        """It has got on: what was a problem is over, but for steps that wait for their next attempt."""
        if self.troubles is not None and self.troubles.kind is not None:
            self.troubles.ease(self._failing())

    def _failing(self) -> tuple[str, ...]:
        return tuple(op.path for op in self.asked.values() if op.attempt > 1 and op.is_open)

    def _trouble(self) -> Trouble | None:
        change = self.change
        if isinstance(change, Hold) and change.reason in OF_HOLD:
            self.tell(OF_HOLD[change.reason], text=change.detail)
        elif self.troubles is not None and isinstance(change, Close | Onward):
            self.troubles.ease(())
        return None if self.troubles is None else self.troubles.take()

    # -- what travels with the records

    def add_event(self, event: SetEvent) -> None:
        self.events = also(self.events, event)

    def add_send(self, send: Send) -> None:
        self.sends = also(self.sends, send)

    def add_child(self, start: Start) -> None:
        self.children = also(self.children, start)

    def add_taken(self, mid: bytes) -> None:
        """The message is taken by the record that comes next."""
        self.taken = also(self.taken, (mid, self.seq + 1))

    def add_woken(self, nonce: bytes) -> None:
        self.woken = also(self.woken, nonce)
