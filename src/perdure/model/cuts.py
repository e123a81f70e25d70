"""Cuts: where the history of a run was taken over from another, up to a record of choice.

A run that does not begin with nothing (rewound, forked) holds the records that were kept, byte for byte, and after them
one ``CUT`` record, the mark: whence they are, who cut, and why. From there on the run is its own.

- What was about to run at the cut binds nobody: the mark takes back the intents before it.
- A step that had begun in the part cut off is named in the mark's own intents, so that one that may run once at most is
  not run again. A fork has a lineage of its own and has begun nothing.
- ``origin`` is the run in which the lineage began: ids of children derive from it, so that a rewound run finds the
  children that it had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from perdure.model.ids import RunKey
from perdure.model.records import Intent, Kind, Outcome, Override, Record, WorkflowRow
from perdure.model.states import Status, Versioning
from perdure.model.writes import Rewind, Start

SHOWN_MAX = 500  # characters of who and why


class Cut(msgspec.Struct, frozen=True):
    """What a mark says."""

    id: str  # whose records were kept
    run: int
    kept: int
    origin: int | None = None  # rewound: the run that gave the lineage; None: this run has a lineage of its own
    key: str = ""  # which order of a person it is, so that the same order is known again
    dropped: str = ""  # what else was dropped, in words
    next: Intent | None = None  # the step whose outcome is the first record cut off: it may be skipped

    @property
    def source(self) -> RunKey:
        return RunKey(self.id, self.run)


_decoder = msgspec.json.Decoder(Cut)


def read_cut(data: bytes) -> Cut:
    """What a mark's data say."""
    return _decoder.decode(data)


def cut_of(record: Record) -> Cut:
    """What the mark says."""
    return read_cut(record.data or b"")


def latest_cut(history: Iterable[Record]) -> Cut | None:
    """The latest cut of a history; None if it began with nothing."""
    marks = [record for record in history if record.kind is Kind.CUT]
    return cut_of(marks[-1]) if marks else None


def who_and_why(by: str, reason: str) -> str:
    """For people, bounded: who did it, and why."""
    return (f"by {by}: {reason}" if reason else f"by {by}")[:SHOWN_MAX]


def mark(cut: Cut, verb: str, *, at: int, shown: str = "", begun: tuple[Intent, ...] = ()) -> Record:
    """The record that follows the kept ones."""
    data = msgspec.json.encode(cut)
    return Record(cut.kept + 1, "", Kind.CUT, verb, at, b"", Outcome.VALUE, data, 1, shown, begun)


def begun_of(row: WorkflowRow, history: Sequence[Record], keep: int) -> tuple[Intent, ...]:
    """The steps that had begun, as far as intents tell, and that the first ``keep`` records have no outcome of."""
    settled = {record.path for record in history[:keep] if record.kind is Kind.STEP}
    begun = {intent.path: intent for intent in row.intents}
    for record in history:
        begun.update((intent.path, intent) for intent in record.intents)
    return tuple(intent for path, intent in begun.items() if path not in settled)


def rewind(
    row: WorkflowRow,
    history: Sequence[Record],
    input: bytes,
    keep: int,
    new_token: Callable[[], bytes],
    *,
    at: int,
    by: str,
    reason: str = "",
    verb: str = "rewind",
    version: str | None = None,
    hold: bytes | None = None,
    lineage: bytes | None = None,
    attempts: int = 0,
    rearm: bool = False,
    uncancel: bool = False,
    versioning: Versioning | None = None,
    override: Override | None = None,
) -> Rewind:
    """The write that begins the next run of ``row`` from the first ``keep`` records of its ``history``.

    ``version``: of the code that goes on (default: the row's). ``hold``: the incarnation that goes on at once, under a
    new token; else it is queued for any. ``lineage``: another one, so that the idempotency keys of steps and the ids of
    children are others (and numbers drawn in the kept part are not the same: only sensible with ``keep`` 0).
    ``rearm``: the deadline is the timeout from now, else the one there was. ``attempts``: deaths counted so far.
    ``versioning`` and ``override``: an order about its version (default: the row's).

    Raises ``ValueError`` if there are no so many records.
    """
    if not 0 <= keep <= len(history):
        raise ValueError(f"run {row.run} of {row.id} has {len(history)} records, {keep} cannot be kept of them")
    before = latest_cut(history)
    origin = row.run if before is None or before.origin is None else before.origin
    start = Start(
        id=row.id, run=row.run + 1, lineage=row.lineage if lineage is None else lineage, name=row.name,
        version=row.version if version is None else version, input=input, fingerprint=row.fingerprint,
        nonce=new_token(), status=Status.QUEUED if hold is None else Status.RUNNING,
        claim=None if hold is None else new_token(), owner=hold, timeout=row.timeout,
        deadline=None if rearm else row.deadline, began=row.started if keep else None,
        parent=row.parent, parent_run=row.parent_run, parent_path=row.parent_path, on_parent_close=row.on_parent_close,
        queue=row.queue, priority=row.priority, partition=row.partition, attributes=row.attributes,
        versioning=row.versioning if versioning is None else versioning,
        override=row.override if versioning is None else override,
    )  # fmt: skip
    cut = Cut(row.id, row.run, keep, origin if lineage is None else None)
    begun = begun_of(row, history, keep) if lineage is None else ()
    return Rewind(
        next=start, keep=keep, mark=mark(cut, verb, at=at, shown=who_and_why(by, reason), begun=begun),
        wake=new_token(), attempts=attempts, uncancel=uncancel,
    )  # fmt: skip
