"""A run drawn for people: a header, a line for each record with a bar on the run's own time, then what went wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import msgspec

from perdure.cli.output import at_second, clean, glyphs, instant, painted, shortened, took, width
from perdure.cli.rollcall import describe
from perdure.cli.story import (
    QUEUED_US_MIN,
    WORDS,
    Span,
    Story,
    advice_of,
    cancel_of,
    failure_of,
    origin_of_failure,
    outcome_text,
    spans_of,
)
from perdure.model.cuts import cut_of
from perdure.model.records import DecisionRow, Outcome, Record, WorkflowRow
from perdure.model.states import Cause, Reason, Status, Versioning
from perdure.operations.problems import STRANDED
from perdure.serde import Failure, show_stored

WIDE = 100  # from here on there is room for a long bar
HEAD = 10 + 2 + 1 + 8 + 2  # what stands before the path: offset, duration and the spaces around the bar
SHOWN = 60  # of arguments in a line
TRACE_LINES_MAX = 40
_ENGINE = re.compile(r"[/\\]perdure[/\\](runtime|client|core|serde)[/\\][^/\\]+\.py\"")
WAITS = frozenset({"sleep", "recv", "result", "read"})


def draw(story: Story, *, header: bool = True) -> Iterator[str]:
    """All lines of ``workflow show``."""
    if header:
        yield from _header(story)
        yield ""
    yield from timeline(story)
    yield from _end(story)


# -- header


def _header(story: Story) -> Iterator[str]:
    row = story.row
    yield f"{click.style(clean(row.id), bold=True)}  {clean(row.name)}  {painted(str(row.status))}"
    runs = f" of {story.latest}" if story.latest > 1 else ""
    if row.run > 1 or runs:
        yield _field("run", f"{row.run}{runs}")
    if row.version:
        yield _field("version", row.version)
    if row.override is not None:
        turn = ", for one turn; else as declared" if row.override.once else ""
        how = "pinned" if row.versioning is Versioning.PINNED else "with the routing"
        yield _field("runs on", f"{row.version}, {how} by an order{turn}")
    yield _field("created", f"{instant(row.created)} ({took(story.roll.now - row.created)} ago)")
    if row.closed is not None:
        yield _field("duration", took(row.closed - row.created))
    elif row.status is not Status.HELD:
        yield _field("so far", took(story.until - row.created))
    yield from _holder(story)
    if row.parent is not None:
        yield _field("parent", f"{row.parent} (run {row.parent_run}, call {row.parent_path})")
    if row.attempts:
        yield _field("survived", _deaths(row.attempts))
    if row.queue is not None:
        yield _field("queue", row.queue)
    if row.deadline is not None and row.status.open:
        yield _field("deadline", instant(row.deadline))
    if (told := cancel_of(story)) is not None:
        yield _field("cancel", f"asked for{': ' + told.reason if told.reason else ''}")
        yield "            " + clean(f"{'delivered' if told.delivered else 'not delivered yet'}: {told.expect}")
    if row.attributes is not None:
        yield _field("attributes", show_stored(row.attributes, width() - 14))
    if story.input is not None:
        yield _field("input", show_stored(story.input, width() - 14))
    yield from _standing(story)
    yield from _problems(story)


def _field(name: str, text: str) -> str:
    return f"  {click.style(name.ljust(10), dim=True)}{clean(text)}"


def _deaths(count: int) -> str:
    return "the death of an executor" if count == 1 else f"{count} deaths of executors"


def _holder(story: Story) -> Iterator[str]:
    if story.holder is None:
        return
    life = story.roll.life(story.holder)
    suffix = "" if life == "alive" else f", {life}"
    yield _field("executor" if story.row.owner is not None else "last on", describe(story.holder) + suffix)


def _standing(story: Story) -> Iterator[str]:
    """Why it is where it is, and what to do."""
    row = story.row
    if row.status is Status.HELD:
        yield _field("held", f"{row.reason} since {instant(row.updated)}")
        for line in row.detail.splitlines():
            yield "            " + clean(line)
    elif row.status in (Status.WAITING, Status.SCHEDULED):
        due = "" if row.until is None else f" until {instant(row.until)}"
        yield _field("waits", f"{row.detail.removeprefix('waits ') or 'for its time'}{due}")
    elif row.detail:
        yield _field("because", row.detail)
    if story.stranded is not None:
        since = f"since {instant(story.stranded.since)}"
        yield _field("stranded", f"{story.stranded.reason} {since}; no live executor runs version {row.version}")
        if story.stranded.tried:
            yield from ("            " + clean(line) for line in story.stranded.detail.splitlines())
    for at, line in enumerate(advice_of(story)):
        yield _field("do" if at == 0 else "", line)


def _problems(story: Story) -> Iterator[str]:
    """What does not get it on just now, the latest first; then how much is over."""
    now = [one for one in story.problems if one.cleared is None]
    for one in sorted(now, key=lambda one: one.last, reverse=True):
        what = f"{one.kind}, step {one.step} at {one.path}" if one.step else str(one.kind)
        until = "" if one.next is None else f", {'next' if one.step else 'again not before'} {at_second(one.next)}"
        yield _field("problem", f"{what}: attempt {one.attempt} of version {one.version}{until}")
        yield "            " + clean(f"first {at_second(one.first)}, last {at_second(one.last)}")
        told = story.stranded is not None and one.text.startswith(STRANDED)
        if str(one.kind) != str(story.row.reason) and not told:  # else it stands there already
            yield from ("            " + clean(line) for line in one.text.splitlines()[:TRACE_LINES_MAX])
    if over := len(story.problems) - len(now):
        yield _field(
            "" if now else "problems", f"{over} more {'is' if over == 1 else 'are'} over" if now else f"{over}, over"
        )


# -- timeline


def timeline(story: Story) -> Iterator[str]:
    """A line for each record and each step in flight, with what happened between them."""
    row, mark = story.row, glyphs()
    if row.started is not None and row.started - row.created > QUEUED_US_MIN:
        yield _between(story, row.created, f"queued for {took(row.started - row.created)}, until an executor took it")
    taken, version, dropped = story.taken_over, "", story.dropped
    spans = spans_of(story)
    if not spans and row.started is None:
        yield "  (not begun yet)"
    decisions = [one for one in story.decisions if one.policy or one.decision != "resume"]
    for found in spans:
        span = found
        if span.again is not None:
            yield _lost(story, span)
            span = msgspec.structs.replace(span, begin=span.again, again=None)
        if dropped is not None and span.seq is not None and span.seq > cut_of(dropped).kept:
            yield _dropped(story, dropped)
            dropped = None
        if taken is not None and (span.end is None or span.end > taken):
            yield _taken(story, taken)
            taken = None
        while decisions and (span.end is None or span.end > decisions[0].at):
            yield _decided(story, decisions.pop(0))
        if version and span.version and span.version != version:
            yield _between(story, span.end or span.begin, f"from here on by version {span.version}")
        version = span.version or version
        yield _line(story, span)
    if taken is not None:
        yield _taken(story, taken)
    for one in decisions:
        yield _decided(story, one)
    if row.status is Status.WAITING:
        begin = max([span.end or row.created for span in spans], default=row.started or row.created)
        yield _between(story, begin, f"{row.detail or 'waits'}, for {took(story.until - begin)} now")
    if row.closed is not None:
        text = f"{mark.rule * 2} {row.status} {took(row.closed - row.created)} after its start"
        yield f"{_offset(row.closed - story.origin)}  {painted(str(row.status), text)}"


def record_line(row: WorkflowRow, record: Record) -> str:
    """The line of one record, for who sees it as it is made."""
    mark = glyphs()
    span = Span(
        seq=record.seq, path=record.path, kind=WORDS.get(record.kind, record.kind.name.lower()), name=record.name,
        shown=record.shown, attempt=record.attempt, begin=record.at, end=record.at, outcome=record.outcome,
        data=record.data, version=record.version,
    )  # fmt: skip
    sign, colour = (mark.failed, "red") if span.outcome is Outcome.ERROR else (mark.done, "green")
    call = _call(span) if span.kind in ("step", "attempt") else f"{span.kind} {_call(span)}".rstrip()
    if span.attempt > 1 or span.kind == "attempt":
        call += f", attempt {span.attempt}"
    rest = clean(outcome_text(span, 200))
    text = shortened(clean(call) + (f" {mark.arrow} {rest}" if rest not in ("", "null") else ""), width() - 20)
    head = _offset(record.at - row.created)
    return f"{head}  {click.style(record.path.ljust(4), dim=True)} {click.style(sign, fg=colour)} {text}"


def _offset(us: int) -> str:
    return f"+{took(us)}".rjust(10)


def _between(story: Story, at: int, text: str) -> str:
    return f"{_offset(at - story.origin)}  {click.style(f'{glyphs().rule * 2} {clean(text)}', dim=True)}"


def _taken(story: Story, at: int) -> str:
    who = "another executor" if story.holder is None else describe(story.holder)
    text = f"{glyphs().again} its executor had died; taken over by {who}"
    return f"{_offset(at - story.origin)}  {click.style(clean(text), fg='yellow')}"


def _decided(story: Story, one: DecisionRow) -> str:
    by = f"by policy {one.policy}" if one.policy else "by default"
    why = f": {one.because}" if one.because else ""
    text = f"{glyphs().again} after {one.cause}: {one.decision}, {by}{why}"
    if one.cause is Cause.NONE:  # a person's order that could not stand in the history of what runs
        text = f"{glyphs().again} {one.decision} {one.because}"
    return f"{_offset(one.at - story.origin)}  {click.style(clean(text), fg='yellow')}"


def _dropped(story: Story, mark: Record) -> str:
    text = f"{glyphs().rule * 2} dropped from here on: {mark.name} {mark.shown}"
    return f"{_offset(mark.at - story.origin)}  {click.style(clean(text), fg='yellow')}"


def _lost(story: Story, span: Span) -> str:
    """The first try of a step that was in flight when its executor died."""
    head = f"{_offset(span.begin - story.origin)}  {_bar(story, span, lost=True)} {'':8}  "
    text = f"{click.style(glyphs().failed, fg='yellow')} {clean(_call(span))}: was in flight"
    return f"{head}{click.style(span.path.ljust(4), dim=True)} {text}"


def _line(story: Story, span: Span) -> str:
    mark = glyphs()
    sign, colour = (mark.done, "green")
    if span.end is None:
        sign, colour = (mark.flight, "blue")
    elif span.outcome is Outcome.ERROR:
        sign, colour = (mark.failed, "red")
    head = f"{_offset(span.begin - story.origin)}  {_bar(story, span)} {_took(story, span)}  "
    call = _call(span) if span.kind in ("step", "attempt") else f"{span.kind} {_call(span)}".rstrip()
    if span.attempt > 1 or span.kind == "attempt":
        call += f", attempt {span.attempt}"
    path = span.path.ljust(4)
    room = width() - HEAD - _bar_width() - len(path) - 3
    text = shortened(clean(call), room)
    rest = clean(_rest(story, span, max(room, 12)))
    if rest not in ("", "null") and len(text) + 4 < room:
        text += f" {mark.arrow} " + shortened(rest, max(room - len(text) - 4, 1))
    return f"{head}{click.style(path, dim=True)} {click.style(sign, fg=colour)} {text}"


def _call(span: Span) -> str:
    match span.kind:
        case "sleep":
            return "" if span.name == "timer" else span.name
        case "recv" | "event":
            return repr(span.name) if span.name else "(no topic)"
        case "step" | "attempt" | "child":
            return f"{span.name}({shortened(span.shown, SHOWN)})"
        case "decision" | "cut":  # what was ordered, by whom and why
            return f"{span.name} {shortened(span.shown, SHOWN)}".rstrip()
        case "stream":  # a value was appended, or it was closed
            return f"{span.name} {span.shown}".rstrip()
        case "cancel":  # how it is to end, and why
            status, _, reason = span.name.partition(":")
            return f"({status}) {reason}".rstrip()
        case _:
            return span.name


def _rest(story: Story, span: Span, limit: int) -> str:
    if span.end is not None:
        return outcome_text(span, limit)
    if story.row.status is Status.RUNNING and story.held_by_the_living:
        return "in flight" if span.attempt == 1 else "in flight, or waits for its next try"
    if span.once:
        return "was in flight; not run again: raises StepOutcomeUnknown"
    if story.row.status is not Status.HELD:
        return "was in flight; it runs again when the workflow goes on"
    if story.row.reason is Reason.PAUSED:  # before it began, unless its executor died
        return "runs when the workflow is unpaused"
    return "was in flight; runs again if resumed, not if cancelled"


def _took(story: Story, span: Span) -> str:
    us = span.took
    if us is None:
        us = story.until - span.begin if story.row.status is Status.RUNNING else 0
    return (took(us) if us else "").rjust(8)


def _bar_width() -> int:
    return 20 if width() >= WIDE else 10


def _bar(story: Story, span: Span, *, lost: bool = False) -> str:
    """Where on the run's time it lies; fainter for waits and for a first try that was ``lost``."""
    mark = glyphs()
    whole, cells = max(story.until - story.origin, 1), _bar_width()

    def cell(at: int) -> int:
        return min(cells - 1, max(0, (at - story.origin) * cells // whole))

    end = span.again if lost else span.end
    first, last = cell(span.begin), cell(end if end is not None else story.until)
    solid = mark.wait if lost or span.kind in WAITS else mark.bar
    bar = " " * first + solid * (last - first + 1)
    return click.style(bar.ljust(cells), fg="red" if span.outcome is Outcome.ERROR else "blue")


# -- the end


def _end(story: Story) -> Iterator[str]:
    if story.ended is None:
        return
    yield ""
    if story.ended.outcome is Outcome.VALUE and story.ended.data is not None:
        yield f"result: {clean(show_stored(story.ended.data, 2000))}"
    elif story.ended.outcome is Outcome.ERROR:
        source = origin_of_failure(story)
        where = f" (from {source.kind.name.lower()} {source.name}, path {source.path})" if source is not None else ""
        yield from failure_lines(failure_of(story.ended.data), where)


def failure_lines(failure: Failure, where: str = "") -> Iterator[str]:
    """An exception for people: type and message first, then how it came about."""
    message = f": {clean(failure.message)}" if failure.message else ""
    yield click.style(f"{clean(failure.type_name)}{message}", fg="red", bold=True) + clean(where)
    for text in failure.notes:
        yield f"  note: {clean(text)}"
    lines = _own_frames(failure.traceback.splitlines())
    if len(lines) > TRACE_LINES_MAX:
        half = TRACE_LINES_MAX // 2
        lines = [*lines[:half], f"  {glyphs().more} ({len(lines) - 2 * half} lines)", *lines[-half:]]
    for line in lines:
        yield f"  {clean(line)}"
    for member in failure.errors:
        yield from (f"  | {line}" for line in failure_lines(member))
    if failure.cause is not None:
        yield "  caused by"
        yield from (f"  {line}" for line in failure_lines(failure.cause))


def _own_frames(lines: list[str]) -> list[str]:
    """A traceback without the frames of this library's engine: they tell nothing about the user's code."""
    kept: list[str] = []
    skipping = False
    for line in lines:
        if line.startswith('  File "'):
            skipping = _ENGINE.search(line) is not None
        if not skipping:
            kept.append(line)
    return kept
