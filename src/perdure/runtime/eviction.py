"""Eviction: a run that only waits leaves memory; its wake condition stays in the row."""

from __future__ import annotations

from collections.abc import Iterable

from perdure.client.questions import EventOf, ResultOf
from perdure.model.streams import StreamAsk
from perdure.model.writes import Park
from perdure.runtime.execution import Execution
from perdure.runtime.steps import StepCall
from perdure.runtime.waits import RecvWait, StreamWait

LATE_US = 60_000_000
"""How long a statement may be under way that saw an ended workflow as it was before it was rewound: longer than any."""


def is_waiting(execution: Execution) -> bool:
    """Whether nothing is under way but waits that a row can hold."""
    return (
        not execution.gone
        and bool(execution.waiting)
        and not execution.running
        and not execution.in_flight
        and not execution.unwritten
        and not execution.run.replaying
        and len(execution.waiting) == len(execution.run.asked)
    )


def evict_if_idle(execution: Execution, threshold: float) -> None:
    """Put the body away if it has only waited since ``threshold`` (seconds of the host loop's clock)."""
    if not is_waiting(execution) or execution.idle_since > threshold or execution.cancelling is not None:
        return
    times: list[int] = []
    watching: list[str] = []
    events: list[tuple[str, str]] = []
    reads: list[StreamAsk] = []
    words: list[str] = []
    for op in execution.waiting.values():
        match op.what:
            case int() as deadline:
                times.append(deadline)
                words.append("a timer")
            case RecvWait() as wait:
                if execution.has_mail(wait.topic):
                    return  # about to be handed over
                times += [] if wait.deadline is None else [wait.deadline]
                words.append(f"a message on {wait.topic!r}" if wait.topic else "a message")
            case ResultOf() as question:
                times += [] if question.until is None else [question.until]
                watching += [] if question.id in execution.children else [question.id]
                words.append(f"the end of {question.id}")
            case EventOf() as question:
                times += [] if question.until is None else [question.until]
                watching.append(question.id)
                events.append((question.id, question.name))
                words.append(f"event {question.name!r} of {question.id}")
            case StreamWait(ask=ask):
                watching.append(ask.id)
                reads.append(ask)
                words.append(f"stream {ask.name!r} of {ask.id}")
            case StepCall() as call:
                times.append(execution.retry_time(op))
                words.append(f"the next attempt of {call.name}")
            case _:
                return
    if execution.row.deadline is not None:
        times.append(execution.row.deadline)
    now = execution.line.clock.now()
    if execution.run.origin != execution.run.key.run and (late := execution.row.created + LATE_US) > now:
        times.append(late)  # a child that ended, or relative that wrote, just then has woken nobody
    until = min(times, default=None)
    if until is not None and until <= now:
        return  # about to go on: parked, it would be claimed at once, only to be evicted here again
    more = f" and {len(words) - 3} more" if len(words) > 3 else ""
    detail = "waits for " + ", ".join(words[:3]) + more
    execution.park(Park(until, detail, tuple(watching), tuple(events), tuple(reads)))


def evict_longest(executions: Iterable[Execution], count: int, now: float) -> bool:
    """Evict so many of those that have waited longest, at least one. Whether any could go."""
    idle = sorted((e for e in executions if is_waiting(e)), key=lambda e: e.idle_since)
    for execution in idle[: max(1, count)]:
        evict_if_idle(execution, now)
    return bool(idle)
