"""Replaying workflows without effect for who asks: what each comes to on the code that is here."""

from __future__ import annotations

from collections.abc import Sequence

from perdure.definitions import Registry
from perdure.errors import StepNotFound
from perdure.model.resets import Point, foreseen
from perdure.model.trials import Judged
from perdure.runtime.pasts import PAGE, Past, read_pasts
from perdure.runtime.replay_check import Finding, Replayer
from perdure.store.base import Store


async def judge(
    store: Store, registry: Registry, ids: Sequence[str], *, version: str = "", executor_id: str = "",
    point: Point | None = None,
) -> list[Judged]:  # fmt: skip
    """A verdict for each of these workflows that is there: on all its records, or on those that a reset would keep."""
    replayer = Replayer(registry, version=version, executor_id=executor_id)
    found: list[Judged] = []
    try:
        for first in range(0, len(ids), PAGE):
            rows = await store.rows(ids[first : first + PAGE])
            pasts = await read_pasts(store, list(rows.values()))
            if point is not None:
                pasts, refused = _cut(pasts, point)
                found += refused
            verdicts = await replayer.check_all(pasts)
            found += [
                Judged(
                    id=past.row.id, finding=str(v.finding), detail=v.detail, path=v.path, recorded=v.recorded,
                    called=v.called, where=v.where,
                )
                for past, v in zip(pasts, verdicts, strict=True)
            ]  # fmt: skip
    finally:
        replayer.close()
    return found


def _cut(pasts: Sequence[Past], point: Point) -> tuple[list[Past], list[Judged]]:
    """Each as a reset would begin it; and those that it would be refused."""
    cut: list[Past] = []
    refused: list[Judged] = []
    for past in pasts:
        try:
            row, history = foreseen(past.row, past.history, point)
        except StepNotFound as why:
            refused.append(Judged(id=past.row.id, finding=str(Finding.UNKNOWN), detail=f"it would be refused: {why}"))
        else:
            cut.append(Past(row, past.input, history))
    return cut, refused
