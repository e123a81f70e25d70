"""What the behaviour tests share: a ledger of effects, waiting for a condition, a crash, a look into the database."""

# waits: `until` looks again every few milliseconds; nothing else here waits.

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from perdure.model.records import Record, WorkflowRow

IN_THREADS = pytest.mark.parametrize("bodies", ["threads"], indirect=True)  # of a test that is about just that


def hold_looks(app: Any, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """From now on no poll of an open app is made before the event is set: what is not told here is not found."""
    store, may = app._home.engine().line.store, asyncio.Event()
    poll = store.poll

    async def late(*args: Any, **options: Any) -> Any:
        await may.wait()
        return await poll(*args, **options)

    monkeypatch.setattr(store, "poll", late)
    return may


class Ledger(list[str]):
    """What really happened, in order. Steps and bodies write to it; tests compare it whole."""

    def note(self, what: object) -> None:
        self.append(str(what))

    @property
    def counts(self) -> dict[str, int]:
        return dict(Counter(self))


async def until(condition: Callable[[], Any], seconds: float = 15) -> Any:
    """Wait for a condition (a function, or one that gives something to await); its true value."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if hasattr(value, "__await__"):
            value = await value
        if value:
            return value
        assert time.monotonic() < end, f"not within {seconds} s: {condition}"
        await asyncio.sleep(0.005)


def until_sync(condition: Callable[[], Any], seconds: float = 15) -> Any:
    """The same for blocking tests."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {seconds} s: {condition}"
        time.sleep(0.005)
    return value


def executor(app: Any) -> Any:
    return app._home.engine().executor


def in_memory(app: Any, id: str) -> bool:
    return executor(app).has(id)


async def row(app: Any, id: str) -> WorkflowRow:
    return (await app._home.engine().line.store.rows([id]))[id]


async def history(app: Any, id: str) -> list[Record]:
    key = (await row(app, id)).key
    return (await app._home.engine().line.store.histories([key]))[key]


async def kinds(app: Any, id: str) -> list[str]:
    """The history in short: kind, name and outcome of each record."""
    return [f"{r.kind.name} {r.name} {r.outcome.name}" for r in await history(app, id)]


async def status(app: Any, id: str) -> str:
    return str((await row(app, id)).status)


async def crash(app: Any) -> None:
    """Stop as SIGKILL would, and leave the proof of it: the next launch takes the work over at once."""
    engine = app._home.engine()
    me = engine.executor.me.id
    engine.crash()
    app._home.opened(None)
    await engine.line.store.bury([me], expired_only=False)
    await engine.line.store.close()
