"""Purging what has ended long ago: a loop over rows, in bounded commits, that may be stopped anywhere and run again.

Promises: only whole workflows go, each in one commit, and only closed ones of which no open workflow may still ask;
earlier runs of an id go one by one, never those of the latest run's lineage. Nothing here decides by a clock of its
own: ``now`` is the database's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from perdure.model.ids import RunKey
from perdure.model.retention import PAST, Rules
from perdure.store.tables import LEFT
from perdure.store.upkeep import Candidate, Upkeep, Weight

PAGE = 500  # candidates read at once
BATCH = 100  # workflows of one commit, at most
BATCH_RECORDS = 5_000  # … and records, unless one workflow has more
PAUSE_SECONDS = 0.05  # between two commits: others come first
MEMORY_US = 90 * 86_400 * 1_000_000  # how long a decision is kept whose workflow a policy has deleted, and a batch
PATIENCE_US = 60 * 1_000_000  # that a question of nobody's is kept


class Position(msgspec.Struct, frozen=True, array_like=True):
    """Where a purge is: among the workflows (by creation and id), then among the earlier runs (by id and run)."""

    past: bool = False
    at: int = -1
    id: str = ""


class Purged(msgspec.Struct, frozen=True, kw_only=True):
    """What was purged, or would be, of one name and status."""

    name: str
    status: str
    """A closed status, or ``past``: earlier runs."""
    count: int
    rows: int
    """0 where it was not asked for: weighing reads every row."""
    bytes: int


class Tally:
    """Counts by name and status."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], tuple[int, Weight]] = {}

    def add(self, name: str, status: str, weight: Weight = Weight()) -> None:  # noqa: B008  a value
        count, before = self._found.get((name, status), (0, Weight()))
        self._found[name, status] = (count + 1, before.plus(weight))

    @property
    def count(self) -> int:
        return sum(count for count, _ in self._found.values())

    def lines(self) -> list[Purged]:
        """By name and status."""
        return [
            Purged(name=name, status=status, count=count, rows=weight.rows, bytes=weight.bytes)
            for (name, status), (count, weight) in sorted(self._found.items())
        ]


async def purge_page(
    upkeep: Upkeep, rules: Rules, now: int, position: Position, tally: Tally, *, plan: bool = False,
    pause: Callable[[], Any] | None = None,
) -> Position | None:  # fmt: skip
    """Read one page and purge what the rules say; where it goes on, None at the end.

    ``plan``: weigh and count only. ``pause``: called between two commits, and awaited.
    """
    if not position.past:
        shortest = rules.shortest
        page = [] if shortest is None else await upkeep.ended((position.at, position.id), now - shortest, PAGE)
    elif rules.shortest_past is None:
        return None
    else:
        page = await upkeep.past((position.id, position.at), PAGE)
    due = [c for c in page if not c.needed and _is_due(c, rules, now, past=position.past)]
    for batch in _batches(due):
        if plan:
            await _weigh(upkeep, batch, tally, past=position.past)
            continue
        for key in await _purge(upkeep, batch, past=position.past):
            gone = next(c for c in batch if c.key == key)
            tally.add(gone.name, PAST if position.past else gone.status)
        if pause is not None:
            await pause()
    if len(page) == PAGE:
        last = page[-1]
        return Position(position.past, last.run if position.past else last.created, last.id)
    return None if position.past else Position(past=True)


def _is_due(candidate: Candidate, rules: Rules, now: int, *, past: bool) -> bool:
    age = rules.age(candidate.name, PAST if past else candidate.status, decided=candidate.decided)
    return age is not None and candidate.closed is not None and candidate.closed + age <= now


def _batches(due: Sequence[Candidate]) -> Iterator[list[Candidate]]:
    batch: list[Candidate] = []
    records = 0
    for one in due:
        if batch and (len(batch) >= BATCH or records + one.records > BATCH_RECORDS):
            yield batch
            batch, records = [], 0
        batch.append(one)
        records += one.records
    if batch:
        yield batch


async def _purge(upkeep: Upkeep, batch: Sequence[Candidate], *, past: bool) -> list[RunKey]:
    keys = [c.key for c in batch]
    if past:
        return await upkeep.purge_past(keys)
    gone = set(await upkeep.purge(keys))
    return [key for key in keys if key.id in gone]


async def _weigh(upkeep: Upkeep, batch: Sequence[Candidate], tally: Tally, *, past: bool) -> None:
    if past:
        of_runs = await upkeep.weigh_past([c.key for c in batch])
        for c in batch:
            tally.add(c.name, PAST, of_runs[c.key])
        return
    weights = await upkeep.weigh([c.id for c in batch])
    for c in batch:
        tally.add(c.name, c.status, weights[c.id])


async def purge(upkeep: Upkeep, rules: Rules, *, plan: bool = False, now: int | None = None) -> list[Purged]:
    """Purge to the end, with pauses; or (``plan``) tell what would go. What others have locked is left for later."""
    at = await upkeep.clock(now=now)
    tally = Tally()
    position: Position | None = Position()
    while position is not None:
        position = await purge_page(upkeep, rules, at, position, tally, plan=plan, pause=pause)
    return tally.lines()


async def pause() -> None:
    """Others come first."""
    await asyncio.sleep(PAUSE_SECONDS)


# -- what was left behind by writes that do not hold the row they are for


class Left(msgspec.Struct, frozen=True, array_like=True):
    """Where a sweep is: at which table, after which id."""

    table: int = 0
    after: str = ""


async def sweep_page(upkeep: Upkeep, now: int, at: Left) -> tuple[int, Left | None]:
    """Sweep one page of one table: how many ids had left something; where it goes on, None at the end."""
    if at.table >= len(LEFT):
        swept = await upkeep.sweep_requests(now - PATIENCE_US) + await upkeep.sweep_batches(now - MEMORY_US, PAGE)
        return swept, at if swept else None
    swept, last = await upkeep.sweep(LEFT[at.table], at.after, PAGE, now - MEMORY_US)
    return swept, Left(at.table + 1) if last is None else Left(at.table, last)


async def sweep(upkeep: Upkeep, *, now: int | None = None) -> int:
    """Sweep to the end; how many ids had left something."""
    at = await upkeep.clock(now=now)
    total = 0
    position: Left | None = Left()
    while position is not None:
        swept, position = await sweep_page(upkeep, at, position)
        total += swept
    return total
