"""A loop that stands still is told of while it does, with the line."""

from __future__ import annotations

import asyncio
import threading

import pytest

from perdure import App
from perdure.runtime.stalls import STALL_SECONDS, StallWatch


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_body_that_blocks_the_loop_is_named_with_its_line_while_it_does(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    blocked, seen, hand = threading.Event(), threading.Event(), Hand()
    watch = StallWatch(asyncio.get_running_loop(), hand)

    @app.workflow
    async def body() -> None:
        blocked.set()
        assert seen.wait(20)  # this very line is told

    def look() -> None:
        assert blocked.wait(20)
        watch.look()
        hand.now += STALL_SECONDS
        watch.look()
        watch.look()  # once, however long it lasts
        seen.set()

    looking = threading.Thread(target=look)
    async with app:
        looking.start()
        await body()
    looking.join()
    (told,) = [record.getMessage() for record in caplog.records if "has stood still" in record.getMessage()]
    assert f"stood still for {STALL_SECONDS:.0f} s" in told
    assert "assert seen.wait(20)" in told
    assert "def step" in told


async def test_a_loop_that_answers_is_not_told_of(caplog: pytest.LogCaptureFixture) -> None:
    hand = Hand()
    watch = StallWatch(asyncio.get_running_loop(), hand)
    for _ in range(3):
        watch.look()
        hand.now += 0.25
        await asyncio.sleep(0)
        hand.now += 2 * STALL_SECONDS
    assert watch.lag == 0.25
    assert not caplog.records


async def test_nobody_answers_for_a_closed_loop() -> None:
    loop = asyncio.new_event_loop()
    watch = StallWatch(loop)
    loop.close()
    watch.look()
