"""What was decided about interrupted runs: written with its effect, read for whoever looks later."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from perdure.model.ids import RunKey
from perdure.model.records import DecisionRow
from perdure.model.states import CAUSE, CAUSES
from perdure.model.writes import Decided, Unit
from perdure.store.postgres import owned
from perdure.store.postgres.commit import Place
from perdure.store.postgres.connection import Link, Transaction


def _row(place: Place, key: RunKey, claim: bytes | None, one: Decided, now: int) -> tuple[Any, ...]:
    return (
        place.app, *key, claim, now, CAUSE[one.cause], one.decision, one.policy, one.because,
        None if one.parameters is None else one.parameters.decode(), one.evidence.decode(), one.executor,
    )  # fmt: skip


async def put(tx: Transaction, place: Place, key: RunKey, claim: bytes | None, decided: Decided, now: int) -> None:
    await tx.fetch(place.sql["decision_put"], *_row(place, key, claim, decided, now))


async def put_all(tx: Transaction, place: Place, units: Sequence[Unit], now: int) -> None:
    """Those of these units, in one round trip."""
    rows = [_row(place, unit.key, unit.claim, unit.decision, now) for unit in units if unit.decision is not None]
    await tx.fetch_many(place.sql["decision_put"], rows)


async def deleted(tx: Transaction, place: Place, key: RunKey, claim: bytes | None) -> bool:
    """Whether a first try has deleted the workflow."""
    return bool(await tx.fetch(place.sql["decision_deleted"], place.app, key.id, key.run, claim))


async def forget(tx: Transaction, place: Place, id: str, nonce: bytes) -> None:
    """Every run of the id goes; open children are cancelled, who waits is woken to see that. The decision stays."""
    await tx.fetch(place.sql["wake_children"], place.app, [id], [nonce])
    await tx.fetch(place.sql["wake_watchers"], place.app, [id], [nonce])
    await owned.forget(tx, place, [id], memory=False)


async def decisions(link: Link, place: Place, ids: Collection[str]) -> list[DecisionRow]:
    if not ids:
        return []
    return [
        DecisionRow(
            id=r[0], run=r[1], claim=r[2], at=r[3], cause=CAUSES[int(r[4])], decision=r[5], policy=r[6], because=r[7],
            parameters=None if r[8] is None else r[8].encode(), evidence=r[9].encode(), executor=r[10],
        )
        for r in await link.fetch(place.sql["decisions"], place.app, sorted(set(ids)))
    ]  # fmt: skip
