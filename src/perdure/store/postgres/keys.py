"""Locks of deduplication keys, which come before those of workflows, and in one order: nobody waits in a circle."""

from __future__ import annotations

from perdure.model.writes import Start
from perdure.store.lines import Deduplicated
from perdure.store.postgres.commit import Place
from perdure.store.postgres.connection import Transaction

Key = tuple[str, str]  # queue, key


async def lock(tx: Transaction, place: Place, start: Start, how: Deduplicated) -> tuple[str, bool]:
    """Lock the key of a start, made if there is none: whose it is, and whether it was made.

    Of the next run of an id with those that the id has.
    """
    asked = (start.queue or "", how.key)
    others = await _of(tx, place, start.id) - {asked} if how.over is not None else set[Key]()
    await _hold(tx, place, {key for key in others if key < asked})
    holder, made = await tx.fetchrow(place.sql["dedup_lock"], place.app, *asked, start.id)
    await _hold(tx, place, {key for key in others if key > asked})
    return holder, made


async def lock_of(tx: Transaction, place: Place, id: str) -> None:
    """Lock the keys that an id has."""
    await _hold(tx, place, await _of(tx, place, id))


async def _of(tx: Transaction, place: Place, id: str) -> set[Key]:
    return {(row[0], row[1]) for row in await tx.fetch(place.sql["dedup_of"], place.app, id)}


async def _hold(tx: Transaction, place: Place, keys: set[Key]) -> None:
    for key in sorted(keys):
        await tx.fetch(place.sql["dedup_hold"], place.app, *key)
