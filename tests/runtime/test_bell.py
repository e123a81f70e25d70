"""The bell: calls of other threads are made on the loop, each of them, whatever way the ring takes."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable

import pytest

from perdure.runtime.bell import Bell, Wire

VAR: contextvars.ContextVar[str] = contextvars.ContextVar("VAR", default="unset")
wired = pytest.mark.skipif(not hasattr(os, "eventfd"), reason="only Linux has such a wire")


async def rung(bell: Bell, *calls: Callable[[], object]) -> None:
    """All that was called from a thread has been answered."""
    came = asyncio.get_running_loop().create_future()

    def ring() -> None:
        for call in calls:
            assert bell.call(call)
        assert bell.call(came.set_result, None)

    await asyncio.gather(asyncio.to_thread(ring), came)


async def test_one_call_that_raises_keeps_no_other_from_the_loop() -> None:
    bell, heard = Bell(asyncio.get_running_loop()), list[str]()

    def bad() -> None:
        raise ValueError("a bug of one caller")

    for _ in range(2):  # by the loop's own way, and by wire
        await rung(bell, bad, lambda: heard.append("here"))
    assert heard == ["here", "here"]


async def test_what_follows_the_calls_is_called_after_them_whatever_they_raise() -> None:
    heard = list[str]()
    bell = Bell(asyncio.get_running_loop(), lambda: heard.append("all made"))

    def bad() -> None:
        raise ValueError("a bug of one caller")

    for call in (bad, lambda: heard.append("here")):  # both before the loop turns
        assert bell.call(call)
    await asyncio.sleep(0)
    assert heard == ["here", "all made"]


async def test_no_call_of_many_threads_is_lost_and_each_threads_order_is_kept() -> None:
    bell = Bell(asyncio.get_running_loop())
    threads, each, here = 8, 2_000, list[tuple[int, int]]()
    done = asyncio.get_running_loop().create_future()

    def heard(thread: int, number: int) -> None:
        here.append((thread, number))
        if len(here) == threads * each:
            done.set_result(None)

    def ring(thread: int) -> None:
        for number in range(each):
            assert bell.call(heard, thread, number)

    for thread in range(threads):
        threading.Thread(target=ring, args=(thread,), daemon=True).start()
    await asyncio.wait_for(done, 60)
    for thread in range(threads):
        assert [number for who, number in here if who == thread] == list(range(each))


async def test_calls_are_made_in_the_context_of_the_bell() -> None:
    VAR.set("when it was made")
    bell = Bell(asyncio.get_running_loop())
    VAR.set("later")
    seen = list[str]()

    def note() -> None:
        seen.append(VAR.get())

    for _ in range(2):
        await rung(bell, note)
    assert seen == ["when it was made", "when it was made"]


@wired
async def test_who_rings_while_the_bell_is_closed_is_heard() -> None:
    bell, heard = Bell(asyncio.get_running_loop()), list[str]()
    await rung(bell)
    ringer = threading.Thread(target=bell.call, args=(heard.append, "just before"))
    ringer.start()
    ringer.join()  # the loop has not turned: nobody has listened at the wire since
    bell.close()
    await rung(bell, lambda: heard.append("after"))
    assert heard == ["just before", "after"]


@wired
async def test_a_ring_at_a_wire_that_nobody_listens_at_any_more_costs_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    bell, heard = Bell(asyncio.get_running_loop()), list[str]()
    await rung(bell)
    begun, closed, ring = threading.Event(), threading.Event(), Wire.ring

    def late(wire: Wire) -> None:
        begun.set()
        assert closed.wait(10)
        ring(wire)

    monkeypatch.setattr(Wire, "ring", late)
    ringing = asyncio.ensure_future(asyncio.to_thread(bell.call, heard.append, "here"))
    assert await asyncio.to_thread(begun.wait, 10)  # else it would ring the loop's own way
    bell.close()
    closed.set()
    await ringing
    await rung(bell)
    assert heard == ["here"]


@wired
async def test_a_wire_is_closed_with_its_bell() -> None:
    bell = Bell(asyncio.get_running_loop())
    await rung(bell)
    wire = bell._wire
    assert wire is not None
    fd = wire.fd
    os.fstat(fd)
    bell.close()
    await asyncio.sleep(0)  # the loop forgets its handle in the turn that ran it
    del wire
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@wired
async def test_without_files_to_spare_it_rings_the_loops_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "eventfd", none_left)
    bell, heard = Bell(asyncio.get_running_loop()), list[str]()
    for _ in range(2):
        await rung(bell, lambda: heard.append("here"))
    assert heard == ["here", "here"]
    bell.close()


@pytest.mark.parametrize("wire", [False, True])
def test_a_bell_of_a_closed_loop_says_so(wire: bool) -> None:
    loop = asyncio.new_event_loop()
    bell = Bell(loop)
    if wire:
        loop.run_until_complete(rung(bell))
    loop.close()
    assert not bell.call(print)
    assert not bell.call(print)
