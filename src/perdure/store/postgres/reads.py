"""Reads: one query a call, however many keys are asked for."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from perdure.model.ids import RunKey
from perdure.model.records import Ended, Incarnation, Message, Record, WorkflowRow
from perdure.store.asks import Fates
from perdure.store.postgres import lifeline, rows
from perdure.store.postgres.commit import Place, Ways
from perdure.store.postgres.connection import Link
from perdure.store.rollcall import RollCall


async def histories(link: Link, place: Place, keys: Sequence[RunKey]) -> dict[RunKey, list[Record]]:
    found: dict[RunKey, list[Record]] = {key: [] for key in keys}
    if found:
        asked = list(found)
        lists = list(found.values())
        ids, runs = [key.id for key in asked], [key.run for key in asked]
        for row in await link.fetch(place.sql["histories"], place.app, ids, runs):
            nth: int = row[0]
            lists[nth - 1].append(rows.record(row))
    return found


async def inbox(link: Link, place: Place, ids: Collection[str]) -> list[Message]:
    if not ids:
        return []
    return [rows.message(row) for row in await link.fetch(place.sql["inbox"], place.app, sorted(set(ids)))]


async def workflows(link: Link, place: Place, ids: Collection[str]) -> dict[str, WorkflowRow]:
    if not ids:
        return {}
    return {row[0]: rows.told(row) for row in await link.fetch(place.sql["rows"], place.app, sorted(set(ids)))}


async def run(link: Link, place: Place, key: RunKey) -> WorkflowRow | None:
    for query in ("run_latest", "run_past", "run_latest"):  # again: it may have been continued between the two
        row = await link.fetchrow(place.sql[query], place.app, key.id, key.run)
        if row is not None:
            return rows.workflow(row)
    return None


async def inputs(link: Link, place: Place, keys: Collection[RunKey]) -> dict[RunKey, bytes]:
    if not keys:
        return {}
    ids, runs = [key.id for key in keys], [key.run for key in keys]
    found = await link.fetch(place.sql["inputs"], place.app, ids, runs)
    return {RunKey(id, run): data.encode() for id, run, data in found}


async def ended(link: Link, place: Place, ids: Collection[str]) -> dict[str, Ended]:
    if not ids:
        return {}
    return {row[0]: rows.ended(row) for row in await link.fetch(place.sql["ended"], place.app, sorted(set(ids)))}


async def fates(link: Link, place: Place, ids: Collection[str]) -> Fates:
    if not ids:
        return Fates({}, [])
    found = await link.fetch(place.sql["fates"], place.app, sorted(set(ids)))
    return Fates({r[0]: rows.ended(r) for r in found if r[0] is not None}, [r[-1] for r in found if r[0] is None])


async def events(link: Ways, place: Place, wanted: Collection[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
    if not wanted:
        return {}
    ids, names = [id for id, _ in wanted], [name for _, name in wanted]
    found = await link.fetch(place.sql["events"], place.app, ids, names)
    return {(id, name): data.encode() for id, name, data in found}


async def incarnations(link: Link, place: Place) -> list[Incarnation]:
    return [rows.incarnation(row) for row in await link.fetch(place.sql["incarnation_list"], place.app)]


async def roll_call(link: Link, place: Place, now: int | None) -> RollCall:
    first, *_ = found = await link.fetch(place.sql["roll_call"], place.app, now)
    known = [rows.incarnation(row) for row in found if row[0] is not None]
    return RollCall(
        now=first[15], known=known, owners=first[16], strays=first[17], session=first[18],
        connected=None if link.pooled else lifeline.named(first[19]),
    )  # fmt: skip


async def apps(link: Link, place: Place) -> list[str]:
    found = {row[0] for row in await link.fetch(place.sql["incarnation_apps"])}
    name: str | None = ""
    while name is not None:
        row = await link.fetchrow(place.sql["app_next"], name)
        name = None if row is None else row[0]
        if name is not None:
            found.add(name)
    return sorted(found or {row[0] for row in await link.fetch(place.sql["version_apps"])})
