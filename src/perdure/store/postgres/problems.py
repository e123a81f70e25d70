"""What runs have had of trouble: written with the units that tell it, read for whoever looks; what is held for it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from perdure.model.ids import RunKey
from perdure.model.problems import OF_HOLD, ProblemKind, ProblemRow
from perdure.model.records import WorkflowRow
from perdure.model.states import Reason
from perdure.model.writes import Unit
from perdure.store.postgres import rows
from perdure.store.postgres.commit import Place
from perdure.store.postgres.connection import Link, Transaction


async def write(tx: Transaction, place: Place, units: Sequence[Unit], now: int) -> None:
    """What these units, which stand, say of problems: one round trip for all of each sort."""
    over: list[tuple[str, int, str, bytes]] = []
    told: list[tuple[Any, ...]] = []
    marks: dict[RunKey, str | None] = {}
    for unit in units:
        trouble, key = unit.trouble, unit.key
        if trouble is None:
            continue
        if trouble.over:
            over.append((key.id, key.run, _json(trouble.pending), unit.nonce))
        told += [
            (
                place.app, *key, str(one.kind), one.path, one.version, one.name, one.text,
                None if one.data is None else one.data.decode(), one.attempt, now, one.next, unit.nonce,
                one.kind in OF_HOLD.values(),
            )
            for one in trouble.told
        ]  # fmt: skip
        marks[key] = None if trouble.now is None else str(trouble.now)
    if over:
        await tx.fetch(place.sql["problem_over"], place.app, *zip(*over, strict=True), now)
    if told:
        await tx.fetch_many(place.sql["problem_put"], told)
    if marks:
        ids, runs = zip(*marks, strict=True)
        await tx.fetch(place.sql["problem_mark"], place.app, ids, runs, list(marks.values()))


def _json(paths: Sequence[str]) -> str:
    return msgspec.json.encode(paths).decode()


async def turn(link: Link, place: Place, key: RunKey, claim: bytes, text: str, nonce: bytes, now: int | None) -> bool:
    """The turn of a run takes too long; whether it is still that run's."""
    return bool(await link.fetch(place.sql["problem_turn"], place.app, *key, claim, text, nonce, now, writing=True))


async def problems(link: Link, place: Place, ids: Collection[str]) -> list[ProblemRow]:
    return [
        ProblemRow(
            id=r[0], run=r[1], kind=ProblemKind(r[2]), path=r[3], version=r[4], name=r[5], text=r[6],
            data=None if r[7] is None else r[7].encode(), attempt=r[8], first=r[9], last=r[10], next=r[11],
            cleared=r[12],
        )
        for r in await link.fetch(place.sql["problem_list"], place.app, sorted(set(ids)))
    ]  # fmt: skip


async def held_due(link: Link, place: Place, reasons: Collection[Reason], version: str, since: int) -> int | None:
    row = await link.fetchrow(place.sql["held_due"], place.app, version, sorted(reasons), since)
    found: int | None = row[0]
    return found


async def held_elsewhere(
    link: Link, place: Place, reasons: Collection[Reason], version: str, limit: int, now: int | None
) -> list[WorkflowRow]:
    found = await link.fetch(place.sql["held_elsewhere"], place.app, version, sorted(reasons), limit, now)
    return [rows.workflow(row) for row in found]
