"""What becomes of each nominal time that is due: pure decisions, written down by whoever wins the row.

A time is *missed* when it is more than two seconds late, and the next one has come or a minute has passed.

| of the times due | ``missed="skip"`` | ``"once"`` | ``"all"`` |
|---|---|---|---|
| not missed | fires | fires | fires |
| missed, the latest of all | skipped | fires | fires |
| missed, another | skipped | skipped | fires |
| missed, beyond ``catch_up`` | skipped | skipped | skipped |

What fires while the workflow before is open (``overlap``): starts all the same (``allow``), is skipped (``skip``), or
waits for its end, at most ``WAITING_MAX`` of them (``queue``).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import msgspec

from perdure.model.info import to_datetime
from perdure.model.schedules import Firing, Schedule, State
from perdure.schedules.times import SECOND, Times, times_of

BATCH = 100  # nominal times of one commit
ON_TIME = 2 * SECOND  # what a look at the database may be late
LATE = 60 * SECOND
WAITING_MAX = 100


class Judged(msgspec.Struct, frozen=True):
    """What is to be written: ``firings`` in order, and the schedule as it is then."""

    firings: tuple[Firing, ...]
    after: Schedule


def workflow_id(name: str, at: int) -> str:
    """The id of the workflow of a nominal time, whoever starts it: ``nightly@2030-01-01T02:00:00Z``."""
    return f"{name}@{to_datetime(at).replace(tzinfo=None).isoformat()}Z"


def judge(row: Schedule, now: int) -> Judged:
    """Account for the times that are due, up to ``BATCH`` of them. ``row.next`` has come."""
    assert row.next is not None, "it is due"
    times = times_of(row.spec, row.anchor)
    # What the row says counts, even where this machine's zone data would say otherwise.
    latest = max(times.before(now + 1) or row.next, row.next)
    first = _window(row, times, row.next, latest, now)
    firings: list[Firing] = []
    if first > row.next:
        end = times.before(first)
        firings.append(_skipped(row.next, "catch_up", f"beyond {_bound(row)}", until=end or row.next))
    busy, waiting, last = row.busy or row.waiting > 0, row.waiting, row.last
    for at, following in islice(_pairs(times, first, now), BATCH):
        firing = _refused(row, at, following, latest, now) or _placed(row, at, busy=busy, waiting=waiting)
        firings.append(firing)
        if firing.state is State.STARTED:
            busy, last = True, firing.workflow
        waiting += firing.state is State.WAITING
    handled = firings[-1].until
    after = msgspec.structs.replace(row, next=times.after(handled), last=last, waiting=waiting)
    return Judged(tuple(msgspec.structs.replace(firing, noted=now) for firing in firings), after)


def left_out(row: Schedule, now: int, reason: str, detail: str) -> tuple[Firing, ...]:
    """The times up to now that nobody will fire any more, in one line."""
    if row.next is None or row.next > now:
        return ()
    end = times_of(row.spec, row.anchor).before(now + 1)
    return (_skipped(row.next, reason, detail, until=max(end or row.next, row.next), noted=now),)


def _pairs(times: Times, first: int, now: int) -> Iterator[tuple[int, int | None]]:
    """Each time from ``first`` until now, with the one that follows it."""
    at: int | None = first
    while at is not None and at <= now:
        following = times.after(at)
        yield at, following
        at = following


def _window(row: Schedule, times: Times, first: int, latest: int, now: int) -> int:
    """The first time that is accounted for by itself: what ``catch_up`` leaves out comes before it."""
    spec = row.spec
    if spec.catch_up_span is not None:
        start = times.after(now - spec.catch_up_span - 1)
        return min(max(first, latest if start is None else start), latest)
    start = latest
    for _ in range((spec.catch_up or 1) - 1):
        earlier = times.before(start)
        if earlier is None or earlier < first:
            return first
        start = earlier
    return max(start, first)


def _bound(row: Schedule) -> str:
    span = row.spec.catch_up_span
    return f"catch_up={row.spec.catch_up}" if span is None else f"catch_up of {span / SECOND:g} s"


def _refused(row: Schedule, at: int, following: int | None, latest: int, now: int) -> Firing | None:
    """The skipped firing of a time that is missed, unless the policy fires it."""
    late = now - at
    period = LATE if following is None else following - at
    if late <= max(ON_TIME, min(LATE, period)):
        return None
    if row.spec.catch_up_span is not None and late > row.spec.catch_up_span:
        return _skipped(at, "catch_up", f"beyond {_bound(row)}")
    if row.spec.missed == "all" or (row.spec.missed == "once" and at == latest):
        return None
    detail = "nobody could start it in time"
    if row.spec.missed == "once":
        detail += f"; {workflow_id(row.name, latest)} fires for all"
    return _skipped(at, "missed", detail)


def _placed(row: Schedule, at: int, *, busy: bool, waiting: int) -> Firing:
    """What becomes of a time that fires, by the overlap policy."""
    id = workflow_id(row.name, at)
    if not busy or row.spec.overlap == "allow":
        return Firing(at=at, until=at, state=State.STARTED, workflow=id)
    if row.spec.overlap == "skip":
        return _skipped(at, "overlap", f"{row.last} was still open" if row.busy else "the one before was still open")
    if waiting >= WAITING_MAX:
        return _skipped(at, "overlap", f"{waiting} wait for {row.last} already")
    return Firing(at=at, until=at, state=State.WAITING, workflow=id)


def _skipped(at: int, reason: str, detail: str, *, until: int | None = None, noted: int = 0) -> Firing:
    return Firing(
        at=at, until=at if until is None else until, state=State.SKIPPED, reason=reason, detail=detail, noted=noted
    )
