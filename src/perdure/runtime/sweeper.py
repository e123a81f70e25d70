"""Retention in executors: the rules run by themselves, one executor at a time, without a leader.

Two chores, each a row with an owner, a time until which it is the owner's, and how far it got: ``retention`` purges by
the rules of the code that is here, hourly; ``left`` sweeps what was left behind, daily. Whoever finds a chore due takes
it; if it dies, the next goes on from the note. All is idempotent: two at once would only do it twice.
"""

from __future__ import annotations

import logging
from typing import Protocol, TypeVar

import msgspec

from perdure.client.line import Line
from perdure.definitions import Registry
from perdure.errors import DatabaseTrouble
from perdure.model.records import Incarnation
from perdure.operations.retention import Left, Position, Tally, pause, purge_page, sweep_page
from perdure.store.upkeep import Turn

T = TypeVar("T")

log = logging.getLogger("perdure")

RETENTION, LEFT = "retention", "left"
TURN_US = 60 * 1_000_000  # a chore whose owner is silent for so long is another's
EVERY_US = {RETENTION: 3_600 * 1_000_000, LEFT: 86_400 * 1_000_000}
ASK_US = 60 * 1_000_000  # between two questions whether a chore is due


class Host(Protocol):
    """What retention needs of an executor."""

    line: Line
    registry: Registry
    me: Incarnation
    draining: bool
    alive: bool


class Sweeper:
    """The chores of one executor. ``round`` comes with each round of recovery, and is nearly always nothing."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._busy = False
        self._ask_at: dict[str, int] = {}  # by the clock of the line, microseconds

    async def round(self) -> None:
        """Do what is due. Trouble with the database ends it; a later round goes on."""
        if self._busy:
            return
        self._busy = True
        try:
            for chore in (RETENTION, LEFT):
                await self._do(chore)
        except DatabaseTrouble as trouble:
            log.info("the database is in trouble, retention goes on later: %s", trouble)
        finally:
            self._busy = False

    async def _do(self, chore: str) -> None:
        host, clock = self._host, self._host.line.clock
        if clock.now() < self._ask_at.get(chore, 0):
            return
        upkeep = host.line.store.upkeep
        self._ask_at[chore] = clock.now() + ASK_US
        if chore == RETENTION and host.registry.rules.keeps_all:
            return
        turn = await upkeep.take(chore, host.me.id, TURN_US, now=clock.stamp())
        if not isinstance(turn, Turn):
            self._ask_at[chore] = max(self._ask_at[chore], min(turn, clock.now() + EVERY_US[chore]))
            return
        try:
            await (self._purge(turn) if chore == RETENTION else self._sweep(turn))
        finally:
            await upkeep.rest()

    async def _goes_on(self, chore: str, note: bytes | None) -> bool:
        """Note how far it got, None at the end; whether this executor goes on with it."""
        host = self._host
        until = EVERY_US[chore] if note is None else TURN_US
        text = "" if note is None else note.decode()
        mine = await host.line.store.upkeep.note(
            chore, host.me.id, text, until, done=note is None, now=host.line.clock.stamp()
        )
        return mine and note is not None and host.alive and not host.draining

    async def _purge(self, turn: Turn) -> None:
        tally = Tally()
        position: Position | None = _read(turn.note, Position) or Position()
        rules, upkeep = self._host.registry.rules, self._host.line.store.upkeep
        while position is not None:
            position = await purge_page(upkeep, rules, turn.now, position, tally, pause=pause)
            if not await self._goes_on(RETENTION, None if position is None else msgspec.json.encode(position)):
                break
            await pause()
        for line in tally.lines():
            log.info("retention: purged %d of %s, %s", line.count, line.name, line.status)

    async def _sweep(self, turn: Turn) -> None:
        at: Left | None = _read(turn.note, Left) or Left()
        while at is not None:
            _, at = await sweep_page(self._host.line.store.upkeep, turn.now, at)
            if not await self._goes_on(LEFT, None if at is None else msgspec.json.encode(at)):
                break
            await pause()


def _read(note: str, kind: type[T]) -> T | None:
    """What a former owner noted; another version of this library may have meant something else by it."""
    try:
        return msgspec.json.decode(note, type=kind) if note else None
    except msgspec.DecodeError:
        return None
