"""Unfinished work of versions that nobody runs any more: found, moved to another version, or noted as tried in vain.

Promise: each call is one statement, and moves only what stands as it was seen.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from perdure.model.records import WorkflowRow
from perdure.model.trials import Trial
from perdure.store.postgres import rows
from perdure.store.postgres.commit import Place
from perdure.store.postgres.connection import Link


async def strays(
    link: Link, place: Place, versions: Collection[str], untried: str | None, limit: int
) -> list[WorkflowRow]:
    found = await link.fetch(place.sql["stray_list"], place.app, sorted(versions), untried, limit)
    return [rows.workflow(row) for row in found]


async def commanded(link: Link, place: Place, versions: Collection[str]) -> list[tuple[str, str]]:
    found = await link.fetch(place.sql["stray_commanded"], place.app, sorted(versions))
    return [(row[0], row[1]) for row in found]


async def adopt(link: Link, place: Place, seen: Sequence[WorkflowRow], version: str, now: int | None) -> list[str]:
    seen = sorted(seen, key=lambda row: row.id)  # the order of locks
    found = await link.fetch(
        place.sql["stray_adopt"], place.app, [r.id for r in seen], [r.run for r in seen], [r.version for r in seen],
        [r.claim for r in seen], [r.last_seq for r in seen], version, now, writing=True,
    )  # fmt: skip
    return sorted(row[0] for row in found)


async def release(
    link: Link, place: Place, gone: Collection[bytes], served: Collection[str], limit: int, now: int | None
) -> list[str]:
    found = await link.fetch(
        place.sql["stray_release"], place.app, sorted(gone), sorted(served), limit, now, writing=True
    )
    return sorted(row[0] for row in found)


async def note(link: Link, place: Place, trials: Sequence[Trial], now: int | None) -> None:
    trials = sorted(trials, key=lambda trial: trial.id)
    await link.fetch(
        place.sql["trial_put"], place.app, [t.id for t in trials], [t.run for t in trials],
        [t.last_seq for t in trials], [t.version for t in trials], [t.reason for t in trials],
        [t.detail for t in trials], now, writing=True,
    )  # fmt: skip


async def trials(link: Link, place: Place, ids: Collection[str]) -> dict[str, Trial]:
    found = await link.fetch(place.sql["trial_list"], place.app, sorted(set(ids)))
    return {
        row[0]: Trial(id=row[0], run=row[1], last_seq=row[2], version=row[3], reason=row[4], detail=row[5], at=row[6])
        for row in found
    }
