from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

import perdure.clock
from perdure.config import read_settings
from perdure.definitions import Registry
from perdure.runtime.engine import Engine
from perdure.store.open import open_store

HOUR_NS = 3_600_000_000_000


async def test_the_databases_time_is_known_before_any_work_begins(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What recovery begins at launch records times: by a clock an hour ahead, a retry would come an hour late."""
    wrong = SimpleNamespace(time_ns=lambda: time.time_ns() + HOUR_NS, monotonic_ns=time.monotonic_ns)
    monkeypatch.setattr(perdure.clock, "time", wrong)
    engine = Engine(
        read_settings("shop", {"database": database}), Registry(), lambda: open_store(database, "shop"), works=True
    )
    known: list[int] = []

    async def look() -> None:
        known.append(engine.line.clock.now())

    await engine.open(before_work=look)
    await engine.close()
    assert known[0] <= time.time_ns() // 1000
