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


async def test_without_any_thread_the_refusal_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    pool = pool_of(2)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        pool.submit(lambda: None)
    assert (pool.backlog, pool.used) == (0, False)
