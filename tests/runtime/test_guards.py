"""Guards against false deaths, by a clock that is passed: each with its bound."""

from __future__ import annotations

import logging

import pytest

from perdure.model.records import Incarnation
from perdure.runtime.guards import Guards, Verdict

LEASE, POLL, BEAT = 15.0, 5.0, 5.0
T = 1_800_000_000_000_000


class World:
    """A reaper, its clock and the database's, and executors that renew as long as they can."""

    def __init__(self, count: int) -> None:
        self.guards = Guards(LEASE, POLL, BEAT)
        self.own = 1000.0
        self.ahead = 0.0  # of the database's clock
        self.fleet = {bytes([n]): [self.now, 0] for n in range(count)}  # renewed at (microseconds), beats
        self.stopped: set[bytes] = set()
        self.reachable = True

    @property
    def now(self) -> int:
        return T + int((self.own + self.ahead) * 1e6)

    def renew(self) -> None:
        for id, state in self.fleet.items():
            if id not in self.stopped and self.reachable:
                state[:] = [self.now, state[1] + 1]

    def look(self) -> Verdict | None:
        if not self.reachable:
            return None
        self.guards.saw(self.now, self.own, self.own)
        others = [
            Incarnation(
                id=id, executor="e", lease=int(LEASE * 1e6), lease_until=at + int(LEASE * 1e6), beats=beats
            )
            for id, (at, beats) in self.fleet.items()
        ]  # fmt: skip
        return self.guards.judge(others, self.now, self.own)

    def run(self, seconds: float) -> dict[bytes, float]:
        """Beats and rounds for so long; who is declared dead, and after how many seconds."""
        began, dead = self.own, dict[bytes, float]()
        while self.own < began + seconds:
            self.own += POLL / 5
            if round(self.own) % 5 == 0:
                self.renew()
            verdict = self.look()
            if verdict is not None:
                for id in [*verdict.expired, *verdict.silent]:
                    dead.setdefault(id, self.own - began)
        return dead


def test_a_silent_one_is_dead_after_its_lease() -> None:
    world = World(3)
    assert world.run(30) == {}
    world.stopped = {b"\1"}
    dead = world.run(60)
    assert set(dead) == {b"\1"}
    assert LEASE - BEAT <= dead[b"\1"] <= LEASE + 1


def test_after_an_outage_everybody_has_a_lease_to_renew(caplog: pytest.LogCaptureFixture) -> None:
    world = World(2)
    world.run(20)
    world.reachable = False
    world.run(600)
    world.reachable = True
    world.stopped = {b"\0"}  # one really died meanwhile
    verdict = world.look()
    assert verdict == Verdict([], {}), "all leases look expired, and nobody is dead"
    assert "could not be reached for 600 s" in caplog.text
    dead = world.run(60)
    assert set(dead) == {b"\0"}
    assert LEASE <= dead[b"\0"] <= LEASE + POLL


def test_an_outage_shorter_than_a_beat_is_none() -> None:
    world = World(2)
    world.run(20)
    world.reachable, world.stopped = False, {b"\0"}
    world.run(POLL + BEAT - 1)
    world.reachable = True
    assert world.run(LEASE)[b"\0"] <= LEASE - POLL


def test_who_slept_waits_too() -> None:
    """A suspended machine, or a stopped process: its own clock has gone on, and it has seen nothing."""
    world = World(1)
    world.run(20)
    world.own += 3600  # nobody renewed, the whole fleet being on this machine
    assert world.look() == Verdict([], {})
    assert world.run(60) == {}


@pytest.mark.parametrize("jump", [3600.0, 6.0])
def test_a_database_clock_that_jumps_ahead_kills_nobody(jump: float, caplog: pytest.LogCaptureFixture) -> None:
    world = World(2)
    world.run(20)
    world.ahead += jump
    assert world.look() == Verdict([], {})
    assert "the database's clock jumped ahead by" in caplog.text
    world.stopped = {b"\1"}
    dead = world.run(60)
    assert set(dead) == {b"\1"}
    assert dead[b"\1"] <= LEASE + POLL


def test_small_differences_of_the_clocks_are_no_jump() -> None:
    world = World(1)
    world.run(20)
    world.ahead += 4.9
    world.stopped = {b"\0"}
    assert world.run(LEASE)[b"\0"] < LEASE


def test_a_database_clock_that_jumps_back_keeps_no_dead_alive() -> None:
    world = World(2)
    world.run(20)
    world.ahead -= 3600
    world.stopped = {b"\1"}
    dead = world.run(60)
    assert set(dead) == {b"\1"}
    assert LEASE <= dead[b"\1"] <= LEASE + 2 * POLL


def test_silence_tells_what_was_seen_last() -> None:
    """So that a renewal which comes between the look and the burial counts."""
    world = World(1)
    world.run(20)
    world.ahead -= 3600
    beats = world.fleet[b"\0"][1]
    world.stopped = {b"\0"}
    world.run(LEASE + POLL)
    world.own += POLL
    assert world.look() == Verdict([], {b"\0": beats})


def test_a_renewal_that_a_failover_has_lost_and_the_next_are_two() -> None:
    """Both have one count: who has seen the first, and never the database between them, has seen no silence."""
    world = World(1)
    world.run(20)
    world.stopped = {b"\0"}
    world.run(8)
    state = world.fleet[b"\0"]
    state[:] = [world.now, state[1]]  # one less by the failover, and one more
    world.run(LEASE + POLL - 8)
    assert world.look() == Verdict([], {}), "silent for as long as that by the count, and its lease runs"


def test_when_most_look_dead_together_they_get_one_more_lease(caplog: pytest.LogCaptureFixture) -> None:
    world = World(4)
    world.run(20)
    world.stopped = {b"\0", b"\1", b"\2"}
    dead = world.run(90)
    assert set(dead) == world.stopped
    assert min(dead.values()) >= 2 * LEASE - BEAT
    assert max(dead.values()) <= 2 * LEASE + POLL
    assert [r.levelno for r in caplog.records] == [logging.ERROR], "an alarm, once"
    assert "3 of 5 executors look expired together" in caplog.text


def test_if_they_come_back_in_time_nobody_was_dead() -> None:
    world = World(4)
    world.run(20)
    world.stopped = {b"\0", b"\1", b"\2"}
    assert world.run(20) == {}
    world.stopped = set()
    assert world.run(120) == {}


@pytest.mark.parametrize(("count", "stopped"), [(2, 2), (6, 3)])
def test_two_are_no_mass_and_neither_are_half(count: int, stopped: int) -> None:
    world = World(count)
    world.run(20)
    world.stopped = {bytes([n]) for n in range(stopped)}
    dead = world.run(LEASE + 1)
    assert set(dead) == world.stopped


def test_the_next_expiry_is_that_of_who_still_lives() -> None:
    guards = Guards(LEASE, POLL, BEAT)
    whos = [Incarnation(id=b"a", executor="e", lease_until=T + s * 1_000_000) for s in (-3, 7, 4)]
    assert guards.next_expiry(whos, T) == 4
    assert guards.next_expiry(whos[:1], T) is None
