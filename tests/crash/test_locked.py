"""A SQLite file that another process keeps locked, in one piece, far longer than the store's patience and the lease.

The patience is made short, and the lock is held until the store was refused often enough: nothing here depends on how
fast the machine is. ``test_kill.py`` has a lock of half a minute, with the patience as it is.
"""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from perdure import App, Event, Topic, recv, set_event, sleep
from perdure.errors import DatabaseTrouble
from perdure.runtime.leases import BEATS
from perdure.store.base import Store
from perdure.store.sqlite import connection
from tests.runtime.support import Ledger, row, until

pytestmark = pytest.mark.crash

PATIENCE = 0.05
LEASE = 1.0
REFUSALS = 7  # of the same batch: longer than any run of bad luck between two writers

LOCKER = """
import apsw, sys
conn = apsw.Connection(sys.argv[1])
conn.set_busy_timeout(10_000)
conn.execute(sys.argv[2])
print("locked", flush=True)
sys.stdin.readline()
conn.execute("rollback")
"""


@contextmanager
def locked(path: Path, how: str) -> Iterator[None]:
    """Another process keeps the file locked."""
    program = [sys.executable, "-c", LOCKER, str(path), how]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        yield
        other.communicate("let go\n")
    assert other.returncode == 0


class Counting:
    """A store that counts the calls it had to refuse."""

    def __init__(self, store: Store, refused: Counter[str]) -> None:
        self.store = store
        self.refused = refused

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.store, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            answer = method(*args, **kwargs)
            return self._watched(name, answer) if inspect.isawaitable(answer) else answer

        return call if callable(method) else method

    async def _watched(self, name: str, answer: Awaitable[Any]) -> Any:
        try:
            return await answer
        except DatabaseTrouble:
            self.refused[name] += 1
            raise


def count_refusals(app: App) -> Counter[str]:
    refused: Counter[str] = Counter()
    home = app._home
    make = home.make_store
    home.make_store = lambda *given: cast(Store, Counting(make(*given), refused))
    return refused


@pytest.mark.parametrize("how", ["begin immediate", "begin exclusive"])
async def test_nothing_fails_and_all_goes_on(
    how: str, tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PATIENCE", PATIENCE)
    path = tmp_path / "perdure.db"
    app = App("locked", database=f"sqlite:///{path}", lease=LEASE)
    refused = count_refusals(app)
    word, told = Topic[str]("word"), Event[int]("told")
    entered, free = asyncio.Event(), asyncio.Event()

    @app.step
    async def effect(id: str, n: int) -> int:
        ledger.note(f"{id} {n}")
        if n == 0:
            entered.set()
            await free.wait()
        return n

    @app.workflow(name="busy")
    async def busy(id: str) -> int:
        total = 0
        for n in range(4):
            total += await effect(id, n)
            await set_event(told, n)
            await sleep(0.01)
        return total

    @app.workflow(name="waiting")
    async def waiting() -> str:
        first = await recv(word)
        await effect("waiting", 9)
        return f"{first} {await recv(word)}"

    async with app:
        me = app._home.engine().executor.me  # type: ignore[union-attr]
        runs = [await busy.options(id=id).start(id) for id in ("a", "b")]
        box = await waiting.options(id="waiting").start()
        await entered.wait()
        await box.send("before", word)
        with locked(path, how):
            free.set()
            outside = [asyncio.create_task(busy("c")), asyncio.create_task(box.send("meanwhile", word))]
            # Longer than the lease: no step may begin for a while, and the lease is renewed when the lock is gone.
            await until(lambda: refused["commit"] >= REFUSALS and refused["heartbeat"] + refused["open"] > BEATS, 30)
            assert not any(task.done() for task in outside), "nothing is answered that is not durable"
        assert [await run.result() for run in runs] == [6, 6]
        assert await outside[0] == 6
        assert await box.result() == "before meanwhile"
        assert await busy("d") == 6
        assert app._home.engine().executor.me is me  # type: ignore[union-attr]
        found = [await row(app, id) for id in ("a", "b", "waiting")]
        assert [(str(r.status), r.run, r.attempts) for r in found] == [("completed", 1, 0)] * 3
    assert set(ledger.counts.values()) == {1}, ledger.counts
    assert len(ledger) == 4 * 4 + 1


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()
