"""A write to SQLite that is alone is made where it is asked for, while that does not stop the loop for long."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from pathlib import Path

import pytest

from perdure.errors import Overloaded
from perdure.model.records import Message
from perdure.store.sqlite import SQLiteStore, headroom
from perdure.store.sqlite.connection import Writer
from perdure.store.sqlite.driver import Connection
from perdure.store.sqlite.file import turn_path
from perdure.store.sqlite.headroom import Headroom
from perdure.store.sqlite.pace import PAID_BACK, QUICK_SECONDS, Pace
from perdure.store.sqlite.turn import Turn
from tests.store.build import one, own, record, running, tok, unit

SEED = random.SystemRandom().randrange(10**9)
TOOK = Pace.took


def here() -> bool:
    return threading.current_thread() is threading.main_thread()


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each write whether it was made on the loop; however long it took, which is the machine's affair."""
    made: list[bool] = []
    transact = Writer._transact

    def noted(self: Writer, *given: object) -> object:
        made.append(here())
        return transact(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(Writer, "_transact", noted)
    monkeypatch.setattr(Pace, "took", lambda *_: None)
    return made


@pytest.fixture
def store(sqlite_store: SQLiteStore) -> SQLiteStore:
    return sqlite_store


def test_slow_writes_stop_the_loop_for_a_small_part_of_the_time() -> None:
    print(f"seed {SEED}")
    rng, pace = random.Random(SEED), Pace()
    now = begun = 1000.0
    stopped = 0.0
    for _ in range(5000):
        seconds = rng.choice([0.0002, 0.0009, 0.002, 0.05, 3.0])
        if pace.allows(now):
            stopped += max(0.0, seconds - QUICK_SECONDS)
            now += seconds
            pace.took(seconds, now)
        else:
            now += rng.choice([0.0001, seconds])  # by the thread, or nothing is to be written
    assert 0 < stopped <= (now - begun) / PAID_BACK + 3.0, "the last one is not paid back yet"


def test_quick_ones_cost_nothing() -> None:
    pace = Pace()
    for n in range(100):
        assert pace.allows(n)
        pace.took(QUICK_SECONDS, n)


async def test_alone_it_is_made_on_the_loop_in_company_by_the_thread(store: SQLiteStore, places: list[bool]) -> None:
    claim = await running(store, "w")
    places.clear()
    await one(store, unit("w", claim, records=[record(1)]))
    assert places == [True]
    await store.commit([own(id, tok(id)) for id in ("x", "y")])
    assert places == [True, False]


async def test_it_never_overtakes_what_was_asked_for_before(store: SQLiteStore, places: list[bool]) -> None:
    claim = await running(store, "w")
    places.clear()
    first = asyncio.ensure_future(store.new_series(bytes(16), 1))
    await asyncio.sleep(0)
    await one(store, unit("w", claim, records=[record(1)]))
    assert places == [False, False]
    assert first.done()


async def test_a_lock_is_waited_for_by_the_thread(store: SQLiteStore, places: list[bool]) -> None:
    claim = await running(store, "w")
    other = Turn(turn_path(store.path))
    other.take(1)
    places.clear()
    write = asyncio.ensure_future(one(store, unit("w", claim, records=[record(1)])))
    answered: list[Message] = await asyncio.wait_for(store.inbox(["w"]), 5)  # the loop goes on
    assert answered == []
    assert not write.done()
    other.release()
    assert (await write).applied
    assert places[-1] is False, "it was tried on the loop, without waiting, and then made by the thread"
    other.close()


async def test_a_thread_that_the_system_refuses_is_asked_for_again_with_the_next_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who could not begin to wait must not stand in the way of the next for good."""
    mine, other, start = Turn(tmp_path / "turn"), Turn(tmp_path / "turn"), threading.Thread.start
    other.take(1)

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    for _ in range(2):
        with pytest.raises(Overloaded, match=r"no thread to wait for the turn .*can't start new thread"):
            mine.take(5)
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(Overloaded, match="has kept the turn to write"):
        mine.take(0.01)
    other.release()
    mine.take(5)
    mine.close()
    other.close()


async def test_after_a_slow_one_the_thread_has_them(store: SQLiteStore, places: list[bool]) -> None:
    claim = await running(store, "w")
    assert store._writer is not None
    pace = store._writer._pace
    places.clear()
    TOOK(pace, 100.0, time.monotonic())
    await one(store, unit("w", claim, records=[record(1)]))
    assert places == [False]
    pace._off_until = time.monotonic()
    await one(store, unit("w", claim, records=[record(2)]))
    assert places == [False, True]


async def test_room_and_checkpoints_are_made_by_the_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are worth many writes."""
    frames_max = 300
    monkeypatch.setattr(headroom, "FRAMES_MAX", frames_max)
    monkeypatch.setattr(Pace, "took", lambda *_: None)
    commits: list[tuple[bool, bool]] = []  # on the loop; with a checkpoint
    lengthened: list[bool] = []
    committed, lengthen = Headroom._committed, headroom.lengthen

    def noted(self: Headroom, conn: Connection, name: str, frames: int) -> int:
        commits.append((here(), frames >= frames_max))
        return committed(self, conn, name, frames)

    def noted_too(*given: int) -> int:
        lengthened.append(here())
        return lengthen(*given)

    monkeypatch.setattr(Headroom, "_committed", noted)
    monkeypatch.setattr(headroom, "lengthen", noted_too)
    store = SQLiteStore(tmp_path / "test.db", "app")
    await store.open()
    await store.migrate()
    claim = await running(store, "w")
    for seq in range(1, 1200):
        await one(store, unit("w", claim, records=[record(seq)]))
    await store.close()
    assert [on_loop for on_loop, checkpoint in commits if checkpoint].count(False) >= 3
    assert (True, True) not in commits
    assert lengthened
    assert not any(lengthened)
    assert sum(on_loop for on_loop, _ in commits) > 600
