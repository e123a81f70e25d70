"""Lifelines: a connection that closed makes suspect; by a clock that is passed, each promise with its bound."""

from __future__ import annotations

import random

import pytest

from perdure.model.records import Incarnation
from perdure.runtime.guards import Guards
from perdure.runtime.lifelines import MARGIN_SECONDS, PROVE_SECONDS, Lifelines
from perdure.store.rollcall import RollCall

LEASE, ROUND = 15.0, 5.0
BEAT = LEASE / 3
T = 1_800_000_000_000_000


class Peer:
    """Another executor: it renews each beat as long as it lives, and the server has its connection or not."""

    def __init__(self, n: int, phase: float = 0.0) -> None:
        self.id = bytes([n]) * 16
        self.renewed, self.beats = phase, 0
        self.lives = self.connected = True

    def at(self, now: float) -> None:
        while self.lives and now - self.renewed >= BEAT:
            self.renewed, self.beats = self.renewed + BEAT, self.beats + 1

    def renew(self, now: float) -> None:
        self.renewed, self.beats = now, self.beats + 1

    def die(self) -> None:
        self.lives = self.connected = False

    def row(self) -> Incarnation:
        until = T + int((self.renewed + LEASE) * 1e6)
        return Incarnation(id=self.id, executor="e", lease=int(LEASE * 1e6), lease_until=until, beats=self.beats)


class World:
    """A reaper, which looks when it would, and its peers."""

    def __init__(self, *peers: Peer, hidden: bool = False) -> None:
        self.peers = peers
        self.lines = Lifelines()
        self.guards = Guards(LEASE, ROUND, BEAT)
        self.now, self.next = 1.0, 1.0
        self.session = 7
        self.hidden = hidden
        self.rounds = 0
        self.dead: dict[bytes, float] = {}

    def look(self) -> None:
        self.rounds += 1
        roll = RollCall(
            now=T + int(self.now * 1e6), known=[peer.row() for peer in self.peers], owners=[], strays=[],
            connected=None if self.hidden else frozenset(peer.id for peer in self.peers if peer.connected),
            session=self.session,
        )  # fmt: skip
        self.guards.saw(roll.now, self.now, self.now)
        others = [who for who in roll.known if who.id not in self.dead]
        verdict = self.guards.judge(others, roll.now, self.now, self.lines.look(others, roll, self.now))
        for id in (*verdict.expired, *verdict.silent):
            self.dead[id] = self.now
        self.next = self.now + min(ROUND, self.lines.next_due or ROUND)

    def run(self, until: float) -> None:
        while self.now < until:
            for peer in self.peers:
                peer.at(self.now)
            if self.now >= self.next:
                self.look()
            self.now = round(self.now + 0.1, 1)


@pytest.mark.parametrize("tenths", range(0, 50, 7))
def test_who_dies_is_found_long_before_its_lease_ends(tenths: int) -> None:
    peer, other = Peer(1, phase=tenths / 10), Peer(2)
    world = World(peer, other)
    world.run(30)
    assert not world.dead
    died = world.now
    peer.die()
    world.run(80)
    assert set(world.dead) == {peer.id}
    took = world.dead[peer.id] - died
    assert PROVE_SECONDS <= took <= ROUND + max(PROVE_SECONDS, MARGIN_SECONDS + BEAT) + 0.2
    assert world.dead[peer.id] < peer.renewed + LEASE - 2


def test_who_renews_at_once_stays_and_is_seen_again() -> None:
    """Its connection was closed under it; it made another, by which it bears its name again."""
    peer = Peer(1)
    world = World(peer)
    world.run(20)
    peer.connected = False
    world.run(world.next + 0.2)  # it is suspect
    assert world.lines.next_due is not None
    peer.renew(world.now)
    peer.connected = True
    world.run(60)
    assert not world.dead
    peer.die()
    world.run(75)
    assert set(world.dead) == {peer.id}, "it counts as before"


@pytest.mark.parametrize("tenths", range(0, 50, 3))
def test_who_does_not_notice_is_cleared_by_its_next_renewal(tenths: int) -> None:
    """Whenever the connection goes: renewals in their rhythm, by a connection without a name, are proof enough."""
    peer = Peer(1, phase=0.5)
    world = World(peer)
    world.run(20 + tenths / 10)
    peer.connected = False
    world.run(200)
    assert not world.dead
    world.run(world.next)
    assert world.lines.next_due is None, "and it is not suspect again, round for round"
    peer.die()
    world.run(300)
    assert LEASE - BEAT <= world.dead[peer.id] - 200 <= LEASE + ROUND + 0.2, "by its lease alone, as without names"


def test_who_was_never_seen_is_never_suspect() -> None:
    peer = Peer(1)
    peer.connected = False
    world = World(peer)
    world.run(30)
    rounds = world.rounds
    peer.die()
    world.run(34)
    assert not world.dead
    assert world.rounds - rounds <= 1
    world.run(60)
    assert world.dead[peer.id] >= peer.renewed + LEASE


def test_behind_a_pooler_of_ones_own_nobody_is_suspect() -> None:
    peer = Peer(1)
    world = World(peer, hidden=True)
    world.run(30)
    peer.die()
    world.run(60)
    assert world.dead[peer.id] >= peer.renewed + LEASE


def test_what_another_connection_of_ones_own_has_seen_is_worth_nothing() -> None:
    """The server was restarted: all connections are gone, and whoever is slow to come back is not dead for it."""
    peers = [Peer(n, phase=0.1 * n) for n in range(1, 3)]
    world = World(*peers)
    world.run(30)
    world.session += 1
    for peer in peers:
        peer.die()
    world.run(60)
    for peer in peers:
        assert world.dead[peer.id] >= peer.renewed + LEASE


def test_when_most_are_cut_off_together_it_is_rather_the_network() -> None:
    peers = [Peer(n, phase=0.1 * n) for n in range(1, 6)]
    world = World(*peers)
    world.run(30)
    for peer in peers[:4]:
        peer.die()
    world.run(30 + LEASE)
    assert not world.dead
    world.run(30 + 3 * LEASE)
    assert set(world.dead) == {peer.id for peer in peers[:4]}


@pytest.mark.parametrize("seed", range(20))
def test_nobody_who_renews_in_time_is_ever_taken_for_dead(seed: int) -> None:
    """Names come and go as they like."""
    rng = random.Random(seed)
    peers = [Peer(n, phase=rng.uniform(0, BEAT)) for n in range(1, 4)]
    world = World(*peers)
    for _ in range(200):
        world.run(world.now + rng.uniform(0.1, 6))
        for peer in peers:
            peer.connected = rng.random() < 0.6
        world.session += rng.random() < 0.05
    assert not world.dead, f"seed {seed}"
