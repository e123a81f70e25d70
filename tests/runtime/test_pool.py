"""The thread pool: work that is given out has a thread meant for it, or is counted as waiting for one."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable

import pytest

from perdure.runtime.bell import Bell
from perdure.runtime.pool import ThreadPool

SECONDS = 10.0  # for what must not happen: a thread that never comes


def pool_of(bound: int) -> ThreadPool:
    loop = asyncio.get_running_loop()
    return ThreadPool("test", bound, loop, Bell(loop))


class StopsBehindTheFirst(queue.SimpleQueue[Callable[[], None] | None]):
    """Whoever takes the first work stands still before it can say that it is busy, until the second was given out."""

    def __init__(self) -> None:
        super().__init__()
        self.taken, self.given = threading.Event(), threading.Event()

    def get(self, block: bool = True, timeout: float | None = None) -> Callable[[], None] | None:
        work = super().get(block, timeout)
        if not self.taken.is_set():
            self.taken.set()
            assert self.given.wait(SECONDS)
        return work


async def test_a_thread_that_has_just_taken_work_is_not_idle() -> None:
    pool, second = pool_of(2), threading.Event()
    pool._work = gate = StopsBehindTheFirst()
    met: list[bool] = []
    first_done = threading.Event()

    def first() -> None:
        met.append(second.wait(SECONDS))
        first_done.set()

    pool.submit(first)
    assert gate.taken.wait(SECONDS)
    pool.submit(second.set)  # needs a thread of its own: the first waits for it
    gate.given.set()
    assert await asyncio.to_thread(first_done.wait, SECONDS)
    assert met == [True]
    pool.close()


async def test_it_is_crowded_only_while_work_waits_for_a_busy_thread() -> None:
    pool, go, done = pool_of(1), threading.Event(), threading.Semaphore(0)

    def work() -> None:
        go.wait(SECONDS)
        done.release()

    assert not pool.crowded
    pool.submit(work)
    assert not pool.crowded
    pool.submit(work)
    assert pool.crowded
    go.set()
    for _ in range(2):
        assert await asyncio.to_thread(done.acquire, timeout=SECONDS)
    assert not pool.crowded
    assert len(pool._threads) == 1
    pool.close()


async def test_a_thread_that_the_system_refuses_is_done_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pool, go, done = pool_of(128), threading.Event(), threading.Semaphore(0)
    start, granted = threading.Thread.start, 2

    def refused_after_some(thread: threading.Thread) -> None:
        nonlocal granted
        if thread.name == "perdure-test":
            granted -= 1
            if granted < 0:
                raise RuntimeError("can't start new thread")
        start(thread)

    def work() -> None:
        go.wait(SECONDS)
        done.release()

    monkeypatch.setattr(threading.Thread, "start", refused_after_some)
    for _ in range(5):
        pool.submit(work)
    assert (pool.backlog, pool.bound, granted) == (3, 2, -1), "asked once, then it goes by what it has"
    assert "the test pool stays at 2 threads: can't start new thread" in caplog.text
    go.set()
    for _ in range(5):
        assert await asyncio.to_thread(done.acquire, timeout=SECONDS)
    pool.close()


async def test_without_any_thread_work_waits_until_one_is_granted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A step that could not begin has no outcome: a limit of the system fails no workflow."""
    monkeypatch.setattr("perdure.runtime.pool.AGAIN_SECONDS", 0.001)
    pool, done, start, refusals = pool_of(2), threading.Semaphore(0), threading.Thread.start, 3

    def refuse(thread: threading.Thread) -> None:
        nonlocal refusals
        if thread.name == "perdure-test" and (refusals := refusals - 1) >= 0:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    for _ in range(3):
        pool.submit(done.release)
    assert (pool.backlog, pool.used) == (3, False)
    for _ in range(3):
        assert await asyncio.to_thread(done.acquire, timeout=SECONDS)
    assert caplog.text.count("the test pool has no thread, and tries again: can't start new thread") == 1
    pool.close()


async def test_a_pool_that_is_closed_asks_for_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.runtime.pool.AGAIN_SECONDS", 0.001)
    asked: list[threading.Thread] = []

    def refuse(thread: threading.Thread) -> None:
        asked.append(thread)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    pool = pool_of(2)
    pool.submit(lambda: None)
    pool.close()
    again = asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, again.set)
    await again.wait()
    assert len(asked) == 1
