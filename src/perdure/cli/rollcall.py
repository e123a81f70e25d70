"""Who is there to work: the executors of an app, each with what is known of its life."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.cli.output import took
from perdure.model.info import to_datetime
from perdure.model.records import Incarnation
from perdure.runtime.leases import lives, provably_gone
from perdure.store.base import Store


class Rollcall(msgspec.Struct, frozen=True):
    """The incarnations of an app at one moment of the database's clock."""

    now: int
    known: list[Incarnation]  # and those who are forgotten, but still own something
    strays: list[str]  # the versions of open workflows that nobody holds

    def life(self, who: Incarnation) -> str:
        """Its state; of one that nobody has declared dead yet: ``killed``, ``expired``, or the state it is in."""
        if who.state == "released" and who.heir is not None:
            return f"released to {who.heir}"
        if not who.serving:
            return who.state
        if provably_gone(who):
            return "killed"  # its process is not there any more; nobody has noted it yet
        return who.state if who.lease_until > self.now else "expired"

    def lives(self, who: Incarnation) -> bool:
        return lives(who, self.now)

    @property
    def live(self) -> list[Incarnation]:
        return [who for who in self.known if self.lives(who)]

    @property
    def served(self) -> set[str]:
        """The versions that somebody alive runs."""
        return {who.version for who in self.live}

    def lease(self, who: Incarnation) -> str:
        """The lease, in words."""
        left = who.lease_until - self.now
        return f"{took(left)} left" if left > 0 else f"ran out {took(-left)} ago"

    def holder_of(self, owner: bytes | None, claim: bytes | None) -> Incarnation | None:
        """Who holds a workflow, or held it last: tokens of one process begin alike (see ``model.ids.TokenMaker``)."""
        for who in self.known:
            if who.id == owner or (owner is None and claim is not None and who.id[:8] == claim[:8]):
                return who
        return None


async def call_roll(store: Store) -> Rollcall:
    """Read who is there."""
    roll = await store.roll_call()
    return Rollcall(roll.now, [*roll.known, *roll.forgotten], roll.strays)


def describe(who: Incarnation) -> str:
    """An executor for people: its label and its process."""
    return f"{who.executor} (pid {who.pid} on {who.host})" if who.host else who.executor


def executor_fields(roll: Rollcall, who: Incarnation, holds: int) -> dict[str, Any]:
    """An executor as programs see it."""
    return {
        "executor": who.executor,
        "incarnation": who.id.hex(),
        "state": roll.life(who),
        "version": who.version,
        "host": who.host,
        "pid": who.pid,
        "started": to_datetime(who.started),
        "lease_until": to_datetime(who.lease_until),
        "lag": who.lag / 1e6,
        "holds": holds,
    }


def nobody(app: str) -> str:
    """That no executor is there, and what to do."""
    return f"no executor of app {app!r} is alive; start one: perdure run MODULE:APP"
