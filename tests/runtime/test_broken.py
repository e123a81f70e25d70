"""A unit that the store can never write: that run alone is held, its neighbours go on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

import perdure
from perdure.model.writes import Hold, Receipt, Unit
from tests.runtime.support import until


async def test_what_cannot_be_written_is_held_alone(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = perdure.App("shop", database=database)

    @app.step
    async def echo(x: int) -> int:
        return x

    @app.workflow(name="body")
    async def body(x: int) -> int:
        return await echo(x)

    async with app:
        store: Any = app._home.engine().line.store
        commit = store.commit

        async def refuse_poison(batch: Sequence[Unit], *, now: int | None = None) -> Receipt:
            for unit in batch:
                if unit.key.id == "poison" and unit.records and not isinstance(unit.change, Hold):
                    raise ValueError("this cannot be stored")
            return await commit(batch, now=now)  # type: ignore[no-any-return]

        monkeypatch.setattr(store, "commit", refuse_poison)
        handles = [await body.options(id="poison" if x == 2 else f"good-{x}").start(x) for x in range(5)]
        await until(lambda: app._home.engine().executor and not app._home.engine().executor.has("poison"))
        info = await until(lambda: held(handles[2]))
        assert (info.reason, info.detail) == (
            "undecodable",
            "its write was refused by the store: ValueError: this cannot be stored",
        )
        assert [await handles[x].result(timeout=15) for x in (0, 1, 3, 4)] == [0, 1, 3, 4]


async def held(handle: Any) -> Any:
    info = await handle.info()
    return info if info.status == "held" else None
