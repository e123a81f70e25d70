"""Threads that are let go, and the one timer that looks after those who take their time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, cast

from perdure.client.company import Company
from perdure.runtime.gates import Gates

PATIENCE = 2.0


class Loop:
    """As much of an event loop as is needed, by a clock that is set."""

    def __init__(self) -> None:
        self.now = 0.0
        self.soon: list[Callable[[], None]] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def call_at(self, when: float, callback: Callable[[], None]) -> object:
        self.timers.append((when, callback))
        return object()

    def go_to(self, now: float) -> None:
        """Move the time, and call what is due."""
        self.now = now
        due, self.timers = [t for t in self.timers if t[0] <= now], [t for t in self.timers if t[0] > now]
        for _, callback in due:
            callback()


class Body:
    def __init__(self) -> None:
        self.back = False
        self.looked_after = 0

    def look_after(self) -> None:
        self.looked_after += 1


def gates_on(loop: Loop) -> Gates:
    given = cast("asyncio.AbstractEventLoop", loop)
    return Gates(given, Company(given))


def test_gates_open_together_at_the_end_of_the_turn() -> None:
    loop = Loop()
    gates = gates_on(loop)
    closed = [threading.Lock() for _ in range(3)]
    for gate in closed:
        gate.acquire()
        gates.open(gate)
    assert all(gate.locked() for gate in closed)
    (turn,) = loop.soon
    turn()
    assert not any(gate.locked() for gate in closed)


def test_who_takes_his_time_is_looked_after_once_and_who_is_back_is_not() -> None:
    loop = Loop()
    gates = gates_on(loop)
    quick, slow = Body(), Body()
    gates.expect(quick, PATIENCE)
    gates.expect(slow, PATIENCE)
    quick.back = True
    loop.go_to(PATIENCE)
    assert (quick.looked_after, slow.looked_after) == (0, 1)
    loop.go_to(10 * PATIENCE)
    assert (quick.looked_after, slow.looked_after) == (0, 1)
    assert not loop.timers


def test_each_has_its_patience_from_when_it_was_let_go_last() -> None:
    loop = Loop()
    gates = gates_on(loop)
    first, second = Body(), Body()
    gates.expect(first, PATIENCE)
    loop.go_to(1.0)
    gates.expect(second, PATIENCE)
    gates.expect(first, PATIENCE)  # it came back and was let go again
    loop.go_to(PATIENCE)
    assert (first.looked_after, second.looked_after) == (0, 0)
    loop.go_to(1.0 + PATIENCE)
    assert (first.looked_after, second.looked_after) == (1, 1)


def test_there_is_one_timer_however_many_are_let_go() -> None:
    loop = Loop()
    gates = gates_on(loop)
    bodies: list[Any] = [Body() for _ in range(100)]
    for n, body in enumerate(bodies):
        loop.now = n / 100
        gates.expect(body, PATIENCE)
    assert len(loop.timers) == 1
    for at in (PATIENCE, PATIENCE + 0.5):
        loop.go_to(at)
        assert len(loop.timers) == 1
    assert [body.looked_after for body in bodies] == [1] * 51 + [0] * 49
