"""What a chaos run's queues, schedules and transactions are judged by, beside the numbered invariants."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

from chaos.plan import ACCOUNTS, CENTS, SCHEDULES, Planned
from perdure.model.schedules import State

SECOND = 1_000_000  # of a schedule's times, and between two of them


class Stood(Protocol):
    """A workflow's row, as far as these checks go."""

    @property
    def open(self) -> bool: ...
    @property
    def shown(self) -> str: ...
    @property
    def queue(self) -> str | None: ...
    @property
    def partition(self) -> str: ...


class Fired(NamedTuple):
    """What became of one nominal time, or of all from ``at`` to ``until``."""

    schedule: str
    at: int
    until: int
    state: int
    workflow: str | None
    reason: str


def of_schedule(id: str) -> bool:
    """Whether a workflow's id is that of a nominal time."""
    return id.partition("@")[0] in SCHEDULES and "@" in id


def transfers(
    planned: Mapping[str, Planned],
    rows: Mapping[str, Stood],
    moved: Iterable[tuple[Any, ...]],
    balances: Mapping[str, int],
) -> Iterator[str]:
    """Each transfer was applied once, none that was not planned, and no cent came or went."""
    moves = {name: (plan, move) for plan in planned.values() for name, move in plan.moves.items()}
    times: Counter[str] = Counter()
    wanted = dict.fromkeys(ACCOUNTS, CENTS)
    for name, source, target, cents in moved:
        times[name] += 1
        wanted[source] -= cents
        wanted[target] += cents
        move = moves[name][1] if name in moves else None
        if move is None or (move.source, move.target, move.cents) != (source, target, cents):
            yield f"transfer {name} of {cents} from {source} to {target} was never planned"
    for name, n in times.items():
        if n > 1:
            yield f"transfer {name} was applied {n} times"
    for name, (plan, _) in moves.items():
        row = rows.get(plan.id)
        if not times[name] and plan.cancel is None and row is not None and not row.open:
            yield f"transfer {name} was never applied, and {plan.id} is {row.shown}"
    if dict(balances) != wanted:
        yield f"the accounts hold {dict(balances)}, and by what was moved it is {wanted}"
    if sum(balances.values()) != CENTS * len(ACCOUNTS):
        yield f"the accounts hold {sum(balances.values())} together, and {CENTS * len(ACCOUNTS)} in the beginning"


def lines(planned: Mapping[str, Planned], rows: Mapping[str, Stood], told: Mapping[str, Any]) -> Iterator[str]:
    """What was enqueued is of its queue to the end; a second start of its key is it, or came after it."""
    for id, plan in planned.items():
        row = rows.get(id)
        wanted = (None, "") if plan.line is None else (plan.line.queue, plan.line.partition)
        if row is not None and (row.queue, row.partition) != wanted:
            yield f"{id}: is of queue and partition {(row.queue, row.partition)}, and was enqueued in {wanted}"
    for id, answer in told.items():
        if answer not in (id, f"{id}:twin"):
            yield f"{id}: a second start with its key was answered {answer!r}"


def times(fired: Iterable[Fired], rows: Mapping[str, Stood], next: Mapping[str, int | None]) -> Iterator[str]:
    """Each second since the first firing has its line; each that was started, a workflow that has completed."""
    by_name: dict[str, list[Fired]] = defaultdict(list)
    for one in fired:
        by_name[one.schedule].append(one)
    for name in SCHEDULES:
        found = sorted(by_name[name], key=lambda one: one.at)
        if not found:
            yield f"schedule {name} has never fired"
            continue
        for before, after in pairwise(found):
            if after.at != before.until + SECOND:
                yield f"schedule {name}: {before.until} was followed by {after.at}"
        if next.get(name) is not None and found[-1].until + SECOND != next[name]:
            yield f"schedule {name}: the last time is {found[-1].until}, and the next {next[name]}"
        for one in found:
            row = rows.get(one.workflow or "")
            if one.state == State.STARTED and (row is None or row.shown != "completed"):
                yield f"{one.workflow} was fired and is {row.shown if row is not None else 'nowhere'}"
            elif one.state == State.WAITING or (one.state == State.SKIPPED and not one.reason):
                yield f"schedule {name}: {one.at} is neither started nor skipped for a reason"
            elif one.state == State.SKIPPED and name == "tick":
                yield f"schedule {name} is to miss nothing, and {one.at} was skipped ({one.reason})"
