"""What a launch asks a SQLite file for costs what is held, not all that waits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perdure.model.states import Reason
from perdure.model.writes import Hold, Park
from perdure.store.sqlite import SQLiteStore
from tests.store.build import T, one, running, unit


async def test_what_is_held_is_found_among_any_number_of_waits(tmp_path: Path) -> None:
    """By SQLite's own count of what it does for a statement."""
    store = SQLiteStore(f"sqlite:///{tmp_path / 'perdure.db'}", "app")
    await store.open()
    await store.migrate()

    async def cost(held: str) -> int:
        steps = 0

        def count() -> bool:
            nonlocal steps
            steps += 1
            return False

        claim = await running(store, held)
        await one(store, unit(held, claim, change=Hold(Reason.NO_CODE, "")))
        conn: Any = await store._write(lambda conn: conn)
        conn.set_progress_handler(count, 1)
        assert await store.release_held([Reason.NO_CODE], "v1", now=T + 1) == 1
        conn.set_progress_handler(None)
        return steps

    few = await cost("a")
    ids = [f"w{n}" for n in range(500)]
    claim = await running(store, *ids)
    await store.commit([unit(id, claim, change=Park(None, "a message")) for id in ids], now=T)
    assert await cost("b") <= few + 50, "as without them"
    await store.close()
