"""Replaying workflows without effect for who asks: what each comes to on the code that is here."""

from __future__ import annotations

from collections.abc import Sequence

from perdure.definitions import Registry
from perdure.model.trials import Judged
from perdure.runtime.pasts import PAGE, read_pasts
from perdure.runtime.replay_check import Replayer
from perdure.store.base import Store


async def judge(
    store: Store, registry: Registry, ids: Sequence[str], *, version: str = "", executor_id: str = ""
) -> list[Judged]:
    """A verdict for each of these workflows that is there."""
    replayer = Replayer(registry, version=version, executor_id=executor_id)
    found: list[Judged] = []
    try:
        for first in range(0, len(ids), PAGE):
            rows = await store.rows(ids[first : first + PAGE])
            pasts = await read_pasts(store, list(rows.values()))
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
