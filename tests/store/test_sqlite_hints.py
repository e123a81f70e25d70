"""A process beside a SQLite file hears of what others write, and of nothing of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from perdure.model.records import Incarnation
from perdure.store.sqlite import SQLiteStore, connection
from tests.store.build import ME, one, queued, record, running, unit


@pytest.fixture
def store(sqlite_store: SQLiteStore) -> SQLiteStore:
    return sqlite_store


async def test_a_hint_comes_from_others_only(store: SQLiteStore, tmp_path: Path) -> None:
    hints: list[float] = []
    come = asyncio.Event()

    def hint(queues: Collection[str]) -> None:
        assert not queues
        hints.append(time.monotonic())
        come.set()

    store.on_hint(hint)
    store.hint()
    claim = await running(store, "w")
    for seq in range(1, 30):
        await one(store, unit("w", claim, records=[record(seq)]))
    await asyncio.sleep(connection.HINT_EVERY * 3)  # the one sleep: to see that nothing comes
    assert hints == []
    other = SQLiteStore(tmp_path / "test.db", "app")
    await other.open()
    await queued(other, "x")
    await asyncio.wait_for(come.wait(), 5)
    await other.close()


async def test_a_lease_that_is_renewed_is_no_hint_to_its_own_process(store: SQLiteStore, tmp_path: Path) -> None:
    """It would look for news at each beat; whoever else writes is heard as before."""
    come = asyncio.Event()
    lease, other = SQLiteStore(tmp_path / "test.db", "app"), SQLiteStore(tmp_path / "test.db", "app")
    lease.lifeline(ME, lambda: None)
    await lease.open()
    await other.open()
    await lease.register(Incarnation(id=ME, executor="e"), 10**9)
    store.on_hint(lambda _queues: come.set())
    await store.rows([])
    for _ in range(5):
        await asyncio.sleep(connection.HINT_EVERY * 2)  # waits: a look passes between beats
        assert await lease.heartbeat(ME, 10**9)
    await asyncio.sleep(connection.HINT_EVERY * 3)  # waits: to see that nothing comes
    assert not come.is_set()
    await queued(other, "x")
    await asyncio.wait_for(come.wait(), 5)
    await lease.close()
    await other.close()


# -- forks


async def test_a_renewal_that_is_seen_before_it_is_counted_is_no_hint(
    store: SQLiteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commit is there, and its thread has not gone on yet."""
    come = asyncio.Event()
    lease = SQLiteStore(tmp_path / "test.db", "app")
    lease.lifeline(ME, lambda: None)
    await lease.open()
    await lease.register(Incarnation(id=ME, executor="e"), 10**9)
    store.on_hint(lambda _queues: come.set())
    await queued(store, "x")  # and a look
    committed, go_on = threading.Event(), threading.Event()
    commit = connection.Writer._commit

    def slow(self: connection.Writer, conn: Any) -> None:
        commit(self, conn)
        if self is lease._writer:
            committed.set()
            assert go_on.wait(10)

    monkeypatch.setattr(connection.Writer, "_commit", slow)
    renewal = asyncio.ensure_future(lease.heartbeat(ME, 10**9))
    await asyncio.to_thread(committed.wait, 10)
    await asyncio.sleep(connection.HINT_EVERY * 3)  # waits: to see that nothing comes
    assert not come.is_set()
    go_on.set()
    assert await renewal
    await asyncio.sleep(connection.HINT_EVERY * 3)  # waits: the same
    assert not come.is_set()
    await lease.close()
