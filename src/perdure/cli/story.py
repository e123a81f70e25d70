"""What the rows tell of one run: when each thing of it began and ended, who held it, why it stands where it stands.

Promises: only what rows say. Where a beginning is not recorded (a wait, a call after another's end) it is the moment
of the record that the call follows in its own branch, which is when the body could first have asked.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from perdure.cli.exits import Code, Exit
from perdure.cli.output import plain, workflow_fields
from perdure.cli.rollcall import Rollcall, call_roll, describe, nobody
from perdure.cli.stranded import NO_CLEANUP, Stranded, stranded_of
from perdure.errors import Unserializable
from perdure.model.cuts import cut_of, read_cut
from perdure.model.ids import RunKey
from perdure.model.info import Problem, to_datetime
from perdure.model.records import DecisionRow, Ended, Incarnation, Intent, Kind, Outcome, Record, WorkflowRow
from perdure.model.states import Reason, Status
from perdure.operations.look import not_found
from perdure.operations.problems import problems_of
from perdure.serde import Failure, describe_failure, is_coded, show_stored
from perdure.store.base import Store

QUEUED_US_MIN = 100_000  # a shorter wait for an executor is not worth a line
INSTANT = frozenset({
    Kind.EVENT, Kind.STREAM, Kind.SEND, Kind.CHILD, Kind.PATCH, Kind.CANCEL, Kind.DECISION, Kind.CUT, Kind.MOVE,
    Kind.STATE,
})  # fmt: skip
WORDS = {Kind.TIMER: "sleep", Kind.CANCEL_OTHER: "cancel of"}


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """One record, with the time it took; or a step in flight, which has no record and no end."""

    seq: int | None
    path: str
    kind: str
    name: str
    shown: str
    attempt: int
    begin: int
    end: int | None
    outcome: Outcome
    data: bytes | None
    version: str
    again: int | None = None  # when another executor began it anew
    once: bool = False  # declared at_most_once

    @property
    def took(self) -> int | None:
        """Microseconds, of the last time if it was begun anew."""
        return None if self.end is None else self.end - (self.again or self.begin)


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """One run, as far as rows tell."""

    app: str
    row: WorkflowRow
    input: bytes | None
    records: list[Record]
    ended: Ended | None
    roll: Rollcall
    latest: int
    decisions: list[DecisionRow]  # about this run
    problems: list[Problem]  # of this run
    stranded: Stranded | None = None
    dropped: Record | None = None  # the mark of the run that goes on from a part of this one: the rest was dropped

    @property
    def origin(self) -> int:
        """When the clock of the timeline starts."""
        return self.row.created

    @property
    def until(self) -> int:
        """When it stops."""
        return self.row.closed or max(self.roll.now, self.origin)

    @property
    def holder(self) -> Incarnation | None:
        return self.roll.holder_of(self.row.owner, self.row.claim)

    @property
    def held_by_the_living(self) -> bool:
        return self.holder is not None and self.roll.lives(self.holder)

    @property
    def taken_over(self) -> int | None:
        """When the last of several holders took it, if an executor died before; None where no row tells."""
        row = self.row
        if not row.attempts:
            return None
        if row.status is Status.RUNNING:
            return row.updated  # a claim sets it, checkpoints do not
        if self.holder is not None and row.started is not None and self.holder.started > row.started:
            return self.holder.started  # not before: it was not there
        return None


async def read_story(store: Store, id: str, run: int | None = None) -> Story:
    """Read a run; the latest without ``run``. Raises ``WorkflowNotFound``, ``Exit`` for a run that never was."""
    latest = (await store.rows([id])).get(id)
    if latest is None:
        raise not_found(id, store.app)
    row = latest if run is None else await store.run(RunKey(id, run))
    if row is None:
        raise Exit(Code.NOT_FOUND, f"workflow {id!r} has no run {run}; its latest is run {latest.run}")
    ended = (await store.ended([id])).get(id) if row.run == latest.run and not row.status.open else None
    roll = await call_roll(store)
    return Story(
        app=store.app,
        row=ended.row if ended is not None else row,
        input=(await store.inputs([row.key])).get(row.key),
        records=(await store.histories([row.key]))[row.key],
        ended=ended,
        roll=roll,
        latest=latest.run,
        decisions=[one for one in await store.decisions([id]) if one.run == row.run],
        problems=[one for one in await problems_of(store, id) if one.run == row.run],
        stranded=(await stranded_of(store, roll, [row])).get(id),
        dropped=await _mark_after(store, row),
    )


async def _mark_after(store: Store, row: WorkflowRow) -> Record | None:
    """The mark of the next run, if that goes on from records of this one."""
    if row.status is not Status.SUPERSEDED:
        return None
    following = RunKey(row.id, row.run + 1)
    marks = [record for record in (await store.histories([following]))[following] if record.kind is Kind.CUT]
    return next((mark for mark in marks if cut_of(mark).source == row.key), None)


def branch_of(path: str) -> tuple[str, int]:
    """A path's branch (the task that called) and its number there; a result belongs to the call that it answers."""
    if path.endswith(".r"):
        return path[:-2], 0
    branch, _, last = path.rpartition(".")
    digits = last.lstrip("t")
    return branch, int(digits) if digits.isdecimal() else 0


class _Beginnings:
    """When calls began, from intents and from what came before them in their branch."""

    def __init__(self, story: Story) -> None:
        self.start = story.row.started or story.row.created
        self.intended: dict[str, int] = dict.fromkeys((intent.path for intent in story.row.intents), self.start)
        self.last: dict[str, int] = {}  # by branch: when its last record was written
        self.at: dict[str, int] = {}  # by path

    def of(self, record: Record) -> int:
        if record.kind in INSTANT:
            return record.at
        begin = self.at.get(record.path) if record.attempt > 1 else None  # an earlier attempt failed then
        if begin is None:
            begin = self.intended.get(record.path)
        return min(record.at, self.branch(record.path) if begin is None else begin)

    def branch(self, path: str) -> int:
        branch, _ = branch_of(path)
        while True:
            if branch in self.last:
                return self.last[branch]
            if branch in self.at:
                return self.at[branch]
            if not branch:
                return self.start
            branch, _ = branch_of(branch)

    def saw(self, record: Record) -> None:
        self.at[record.path] = self.last[branch_of(record.path)[0]] = record.at
        if record.path.endswith(".r"):  # the caller goes on, too
            self.last[branch_of(record.path[:-2])[0]] = record.at
        for intent in record.intents:
            self.intended.setdefault(intent.path, record.at)


def spans_of(story: Story) -> list[Span]:
    """Each record as a span, in the order observed; then the steps in flight."""
    begun = _Beginnings(story)
    spans: list[Span] = []
    for record in story.records:
        if record.kind is not Kind.INTENT:
            begin = begun.of(record)
            taken = story.taken_over
            again = taken if record.kind is Kind.STEP and taken is not None and begin < taken < record.at else None
            spans.append(_span(record, begin, again))
        begun.saw(record)
    return spans + [_in_flight(intent, begun.intended[intent.path], story) for intent in intents_open(story)]


def _span(record: Record, begin: int, again: int | None) -> Span:
    return Span(
        seq=record.seq, path=record.path, kind=WORDS.get(record.kind, record.kind.name.lower()), name=record.name,
        shown=record.shown, attempt=record.attempt, begin=begin, end=record.at, outcome=record.outcome,
        data=record.data, version=record.version, again=again,
    )  # fmt: skip


def _in_flight(intent: Intent, begin: int, story: Story) -> Span:
    failed = [record.at for record in story.records if record.kind is Kind.ATTEMPT and record.path == intent.path]
    begin = failed[-1] if failed else begin  # no row tells when the next attempt begins
    taken = story.taken_over
    return Span(
        seq=None, path=intent.path, kind="step", name=intent.name, shown="", attempt=len(failed) + 1, begin=begin,
        end=None, outcome=Outcome.NONE, data=None, version="",
        again=taken if taken is not None and begin < taken and not intent.once else None, once=intent.once,
    )  # fmt: skip


def intents_open(story: Story) -> list[Intent]:
    """Steps that were about to run and have no outcome, of a run that is open."""
    if not story.row.status.open:
        return []
    settled = {record.path for record in story.records if record.kind is Kind.STEP}
    cut = max((record.seq for record in story.records if record.kind is Kind.CUT), default=0)  # binds nothing before it
    intents = [intent for record in story.records[cut:] for intent in record.intents]
    if not cut:
        intents = [*story.row.intents, *intents]
    return [intent for intent in {i.path: i for i in intents}.values() if intent.path not in settled]


# -- outcomes


def failure_of(data: bytes | None) -> Failure:
    """A recorded failure; what cannot be read is one too."""
    if data is not None and is_coded(data):
        return Failure(type_name=show_stored(data))
    try:
        return describe_failure(data or b"")
    except Unserializable as unreadable:
        return Failure(type_name="(unreadable)", message=str(unreadable))


def outcome_text(span: Span, limit: int) -> str:
    """What came of it, in a few words."""
    if span.outcome is Outcome.ERROR:
        failure = failure_of(span.data)
        text = f"{failure.type_name}: {failure.message}" if failure.message else failure.type_name
        return text if len(text) <= limit else text[: limit - 1] + "…"
    if span.kind == "cut" and span.data is not None:
        cut = read_cut(span.data)
        text = f"{cut.kept} record{'' if cut.kept == 1 else 's'} kept of run {cut.run} of {cut.id}"
        return f"{text}, {cut.dropped}" if cut.dropped else text
    if span.outcome is Outcome.VALUE and span.data is not None:
        return show_stored(span.data, limit)
    if span.kind == "recv":
        return "no message: the time was up"
    return ""


def origin_of_failure(story: Story) -> Record | None:
    """The record whose failure ended the workflow, if it is one of them."""
    if story.ended is None or story.ended.outcome is not Outcome.ERROR:
        return None
    if is_coded(story.ended.data or b""):
        return None
    failure = failure_of(story.ended.data)
    for record in reversed(story.records):
        if record.outcome is Outcome.ERROR and record.kind is not Kind.ATTEMPT:
            found = failure_of(record.data)
            if (found.type_name, found.message) == (failure.type_name, failure.message):
                return record
    return None


# -- what to do

_ADVICE = {
    Reason.NONDETERMINISM: "the code asks for other steps than its history has, or with other arguments (both sides "
    "above): deploy code that asks for the same ones in the same order; perdure replay MODULE:APP tells if it does",
    Reason.RECOVERY_LIMIT: "executors died while it ran: look at the step in flight below (memory, a crash in native "
    "code) before it runs again",
    Reason.NO_CODE: "run an executor that has this workflow: perdure run MODULE:APP with its module imported",
    Reason.UNDECODABLE: "what is stored does not fit the code, or its codec (see above): deploy what accepts it; the "
    "next launch tries again",
    Reason.CRASHED: "its code raised what ends a process (see above): let the step raise an ordinary exception, or "
    "give it less to hold in memory; the next launch tries again",
    Reason.POLICY: "a recovery policy asked for a person",
    Reason.PAUSED: "a person paused it; its deadline holds, its mail is kept",
    Reason.NO_EXIT: "its state has no way out by itself: set another state",
}


def _drop(row: WorkflowRow) -> list[str]:
    """How a message goes that no code takes, if that is what holds it."""
    found = _RECEIVED.match(row.detail) if row.reason is Reason.UNDECODABLE else None
    if found is None:
        return []
    return [f"to drop that message: perdure workflow reset {row.id} --to {found[1]} --exclude messages"]


_RECEIVED = re.compile(r"at (\S+): what history has of recv ")
_NO_CODE_FITS = frozenset({Reason.NONDETERMINISM, Reason.NO_CODE, Reason.UNDECODABLE})


def advice_of(story: Story) -> list[str]:
    """Why it does not go on, and what to do; nothing if all is well."""
    row = story.row
    verb = "unpause" if row.reason is Reason.PAUSED else "resume"
    if row.status is Status.HELD and row.reason is not None:
        bare = row.reason in _NO_CODE_FITS and row.started is not None
        give_up = f"to give it up{NO_CLEANUP if bare else ''}: perdure workflow cancel {row.id}"
        return [_ADVICE[row.reason], *_drop(row), f"to let it go on: perdure workflow {verb} {row.id}; {give_up}"]
    if story.stranded is not None:
        return [*([] if story.roll.live else [nobody(story.app)]), *story.stranded.advice]
    if row.status is Status.RUNNING and not story.held_by_the_living:
        who = describe(story.holder) if story.holder is not None else "unknown"
        if story.roll.live:
            return [f"its executor {who} is gone; a live one takes it over when the lease has run out"]
        return [f"its executor {who} is gone, and {nobody(story.app)}; it then goes on from its last recorded step"]
    if row.status in (Status.QUEUED, Status.SCHEDULED, Status.WAITING) and not story.roll.live:
        return [nobody(story.app)]
    return []


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A cancel that was asked for: whether the workflow has seen it, and what is to be expected."""

    reason: str
    delivered: bool
    expect: str


def cancel_of(story: Story) -> Told | None:
    """None: nobody has asked, or it has ended."""
    row = story.row
    reason = row.told_to_cancel
    if reason is None or not row.status.open:
        return None
    if any(record.kind is Kind.CANCEL for record in story.records):
        return Told(reason=reason, delivered=True, expect="it cleans up, and ends as cancelled")
    if not story.roll.live:
        expect = f"{nobody(story.app)}; it is delivered then"
    elif story.stranded is not None:
        expect = (
            f"no live executor runs version {row.version}: it waits for one; what holds nothing an executor of the "
            "current version ends, without its cleanup"
        )
    elif row.status is not Status.RUNNING:
        expect = "an executor takes it up for that at its next look"
    elif not story.held_by_the_living:
        expect = "whoever takes it over delivers it before it runs on"
    else:
        expect = (
            "its executor delivers it when the step under way has ended; where that hangs, to end the workflow without "
            f"its cleanup: perdure workflow terminate {row.id}"
        )
    return Told(reason=reason, delivered=False, expect=expect)


# -- for programs


def failure_fields(failure: Failure) -> dict[str, Any]:
    """A failure as programs see it."""
    return {
        "type": failure.type_name,
        "message": failure.message,
        "notes": list(failure.notes),
        "traceback": failure.traceback,
        "cause": None if failure.cause is None else failure_fields(failure.cause),
    }


def outcome_fields(outcome: Outcome, data: bytes | None) -> dict[str, Any]:
    """A value or an error as programs see it."""
    if outcome is Outcome.ERROR:
        return {"outcome": "error", "error": failure_fields(failure_of(data))}
    return {"outcome": "value", "value": plain(data)} if outcome is Outcome.VALUE else {"outcome": "none"}


def record_fields(record: Record) -> dict[str, Any]:
    """A record of a history as programs see it."""
    return {
        "seq": record.seq,
        "path": record.path,
        "kind": record.kind.name.lower(),
        "name": record.name,
        "at": to_datetime(record.at),
        "attempt": record.attempt,
        "shown": record.shown,
        **outcome_fields(record.outcome, record.data),
        "intents": [{"path": intent.path, "name": intent.name} for intent in record.intents],
        "version": record.version,
    }


def story_fields(story: Story) -> dict[str, Any]:
    """A run as programs see it."""
    source = origin_of_failure(story)
    return {
        **workflow_fields(story.row),
        "records": len(story.records),
        "cancel": cancel_of(story),
        "executor": None if story.holder is None else story.holder.executor,
        "executor_alive": story.held_by_the_living,
        "input": plain(story.input),
        **({} if story.ended is None else outcome_fields(story.ended.outcome, story.ended.data)),
        "failed_at": None if source is None else {"seq": source.seq, "path": source.path, "name": source.name},
        "stranded": None if story.stranded is None else story.stranded.told,
        "advice": advice_of(story),
        "timeline": [_span_fields(span) for span in spans_of(story)],
        "decisions": [decision_fields(one) for one in story.decisions],
        "problems": [msgspec.to_builtins(one) for one in story.problems],
        "dropped": None if story.dropped is None else _dropped_fields(story.dropped),
    }


def _dropped_fields(mark: Record) -> dict[str, Any]:
    """Where a run was cut by the next one, by what, by whom and why."""
    return {"after": cut_of(mark).kept, "by": mark.name, "shown": mark.shown, "at": to_datetime(mark.at)}


def decision_fields(one: DecisionRow) -> dict[str, Any]:
    """What recovery decided, as programs see it."""
    return {
        "at": to_datetime(one.at),
        "cause": one.cause.value,
        "decision": one.decision,
        "policy": one.policy,
        "because": one.because,
        "parameters": plain(one.parameters),
        "evidence": plain(one.evidence),
        "executor": one.executor,
    }


def _span_fields(span: Span) -> dict[str, Any]:
    return {
        "seq": span.seq,
        "path": span.path,
        "kind": span.kind,
        "name": span.name,
        "shown": span.shown,
        "attempt": span.attempt,
        "begin": to_datetime(span.begin),
        "end": None if span.end is None else to_datetime(span.end),
        "begun_again": None if span.again is None else to_datetime(span.again),
        **(
            {"outcome": "in flight", "at_most_once": span.once}
            if span.end is None
            else outcome_fields(span.outcome, span.data)
        ),
    }
