from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

import perdure.clock
from perdure.clock import SystemClock
from perdure.config import read_settings
from perdure.definitions import Registry
from perdure.runtime.engine import Engine
from perdure.store.open import open_store

HOUR_NS = 3_600_000_000_000
SECOND = 1_000_000


class Hands:
    """Time for a clock: the monotonic clock and the database's own, which run together unless one is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.elapsed, self.database = 0, 1_000_000 * SECOND
        own = SimpleNamespace(time_ns=lambda: 5_000, monotonic_ns=lambda: self.elapsed * 1000)
        monkeypatch.setattr(perdure.clock, "time", own)
        self.clock = SystemClock()

    def go(self, seconds: float) -> None:
        self.elapsed += int(seconds * SECOND)
        self.database += int(seconds * SECOND)

    def answer(self, late: float) -> None:
        """The database answers, and that is under way for ``late`` seconds."""
        said = self.database
        self.go(late)
        self.clock.observe(said)

    @property
    def behind(self) -> float:
        return (self.database - self.clock.now()) / SECOND


def test_before_an_answer_it_is_the_machines_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Hands(monkeypatch).clock.now() == 5


def test_of_the_answers_of_late_the_quickest_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never ahead, and behind by no more than the quickest answer was under way, also where a window ends."""
    hands = Hands(monkeypatch)
    seen: list[float] = []
    for n in range(200):
        hands.answer(late=0.001 if n % 9 == 3 else 0.4)
        seen.append(hands.behind)
        hands.go(1)
    assert min(seen) >= 0
    assert max(seen[4:]) == pytest.approx(0.001)


def test_a_database_whose_time_is_set_back_is_believed_within_two_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    hands = Hands(monkeypatch)
    hands.answer(late=0)
    hands.database -= 3600 * SECOND
    for _ in range(62):
        hands.go(1)
        hands.answer(late=0)
    ahead = -hands.behind
    hands.go(ahead)  # it stands still until then: time here never goes back
    assert hands.behind == pytest.approx(0)
    hands.go(1)
    assert hands.behind == pytest.approx(0)


def test_after_a_long_silence_it_is_taken_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    hands = Hands(monkeypatch)
    hands.answer(late=0)
    hands.go(61)
    hands.elapsed += SECOND  # the machine's own clock is a second fast by then
    hands.answer(late=0)
    hands.go(1)
    assert hands.behind == pytest.approx(0)


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
