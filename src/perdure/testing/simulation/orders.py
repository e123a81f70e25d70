"""An operator who gives orders to everything at once, twice where she likes, from a process that dies meanwhile.

She resets, forks, restarts, skips, moves, resumes, cancels, terminates, orders batches and turns the routing. What she
ordered she remembers, her process does not: begun again, it gives the order that it died of by the same words. Once all
is healed she takes up what is left: batches that were not carried out, work that is held, a version that nobody runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from perdure.batches import Cancel, Fork, Move, Reset, Restart, Resume, Skip, Terminate
from perdure.errors import DatabaseTrouble, PerdureError
from perdure.testing.simulation.rollout import NEW, OLD, version
from perdure.testing.simulation.sometimes import sometimes

ORDERS_MAX = 8  # of one world, repetitions not counted
STEPS = tuple(f"Simulated._declare.{name}" for name in ("work", "work", "flaky", "once", "tell"))
QUERIES = (
    "status = open",
    "status = closed",
    "type = Simulated._declare.chain",
    "status = open AND type != Simulated._declare.family",
)
NAME = "operator"


class Words(NamedTuple):
    """An order, as it may be given again."""

    verb: str
    about: str  # a workflow, or the order itself
    key: str
    give: Callable[[Any], Awaitable[Any]]  # to an app


class Orders:
    """See the head of this file."""

    def __init__(self, world: Any, chance: random.Random) -> None:
        self._world = world
        self._chance = chance
        self._given: list[Words] = []
        self._under_way: Words | None = None
        self.settled = False  # once healed: nothing is left to do

    def begin(self) -> None:
        """Her process, from now on."""
        process = self._world.begin(NAME, works=False, mortal=True)
        process.run(self._work(process))

    def begin_again(self) -> None:
        """It died; a while later there is another."""
        sometimes("an operator's process died")
        sometimes("an operator's process died of an order", self._under_way)
        self._world.loop.later(self._chance.choice((0.05, 0.5, 2.0)), self._another)

    def _another(self) -> None:
        if not self._world.over:
            self.begin()

    async def _work(self, process: Any) -> None:
        while True:
            await asyncio.sleep(self._chance.uniform(0.05, 0.6))
            if not process.opened:
                continue
            if self._world.healed:
                with contextlib.suppress(DatabaseTrouble, PerdureError):  # looked at again
                    await self._take_up(process)
                continue
            words = self._under_way or self._next()
            if words is None:
                continue
            if self._chance.random() < 0.25:
                self._world.loop.later(self._chance.expovariate(30), process.crash)
            self._under_way = words
            await self._give(process, words)
            self._under_way = None

    async def _give(self, process: Any, words: Words) -> None:
        again = words in self._given
        if not again:
            self._given.append(words)
        history = self._world.operator_history
        with contextlib.suppress(Exception), history.call(words.verb, words.about, key=words.key) as call:
            call.value = str(await words.give(process.app))
            sometimes(f"an operator ordered: {words.verb}")
            sometimes("an order was given twice", again)

    def _next(self) -> Words | None:
        if self._given and self._chance.random() < 0.3:
            return self._chance.choice(self._given)
        if len(self._given) >= ORDERS_MAX:
            return None
        there = self._world.database.ids()
        return self._new(there) if there else None

    def _new(self, there: Sequence[tuple[str, str]]) -> Words:
        chance, key = self._chance, f"order {len(self._given)}"
        id, has = chance.choice(there)
        versions = [version(OLD), version(NEW)] if self._world.mix.rollout else [has]
        step, to = chance.choice(STEPS), chance.choice(versions)
        made = [_reset, _reset, _fork, _restart, _skip, _move, _ending, _batch, _batch]
        if self._world.mix.rollout:
            made += [_route, _route]
        return chance.choice(made)(chance, key, id, step, to)

    async def _take_up(self, process: Any) -> None:
        """Carry out what is left of batches; begin what is held anew; send new work to who is there."""
        world, client = self._world, process.app.client
        if world.mix.rollout and (living := world.living()):
            current, ramping = world.database.routed()
            served = [one.settings.version for one in living]
            if current and current not in served:
                await client.deployment.set_current_version(served[0], reason="it is served")
            elif ramping and ramping not in served:
                await client.deployment.unset_ramping_version(reason="nobody runs it")
        for key in world.database.running_batches():
            sometimes("a batch was gone on with by another process")
            await client.batch_handle(key).resume(reason="its process died")
        for id, reason, _detail in world.database.held():
            if reason not in ("paused", "policy"):
                sometimes("an operator reset what was held")
                await client.handle(id).reset("first", key=f"held {world.now()}", reason="it was held")
        self.settled = True

    def is_settled(self) -> bool:
        """Whether nothing is left to do, that she would do."""
        database = self._world.database
        held = any(reason not in ("paused", "policy") for _, reason, _ in database.held())
        return self.settled and not held and not database.running_batches()


def _about(verb: str, about: str, key: str, /, *given: Any, **options: Any) -> Words:
    """A verb of the workflow's handle."""

    async def give(app: Any) -> Any:
        return await getattr(app.client.handle(about), verb)(*given, reason=key, **options)

    return Words(verb, about, key, give)


def _reset(chance: random.Random, key: str, id: str, step: str, to: str) -> Words:
    options = {
        "to": chance.choice(("first", "last", step, "#2")),
        "exclude": chance.choice(("none", "none", "messages", "all")),
        "children": chance.choice(("keep", "reset")), "move_to": chance.choice((None, None, to)), "key": key,
    }  # fmt: skip
    return _about("reset", id, key, **options)


def _fork(chance: random.Random, key: str, id: str, step: str, to: str) -> Words:
    at = chance.choice((None, step, 2))
    return _about("fork", id, key, at, id=f"{id} {key}")


def _restart(chance: random.Random, key: str, id: str, step: str, to: str) -> Words:
    return _about("restart", id, key, id=f"{id} {key}", terminate=chance.random() < 0.4)


def _skip(chance: random.Random, key: str, id: str, step: str, to: str) -> Words:
    return _about("skip", id, key, step, 1)


def _move(chance: random.Random, key: str, id: str, step: str, to: str) -> Words:
    goal, once = chance.choice(((to, False), (to, True), ("auto-upgrade", False), ("unset", False)))
    return _about("move", id, key, goal, one_time=once)


def _ending(chance: random.Random, key: str, id: str, step: str, to: str) -> Words:
    return _about(chance.choice(("cancel", "terminate", "resume")), id, key)


def _batch(chance: random.Random, key: str, id: str, step: str, to: str) -> Words:
    verb: Any = chance.choice(
        (Reset(to="first"), Reset(to="last", children="reset"), Move(to=to), Skip(step=step, result=1), Cancel(),
         Terminate(), Resume(), Restart(), Fork(step=step))
    )  # fmt: skip
    query, rate = chance.choice(QUERIES), chance.choice((None, None, 5.0))

    async def give(app: Any) -> Any:
        return await app.client.batch(verb, query, reason=key, key=key).apply(rate=rate)

    return Words("batch", key, key, give)


def _route(chance: random.Random, key: str, id: str, step: str, to: str) -> Words:
    share = chance.choice((0, 20, 60, 100))
    which = chance.choice(("current", "current", "ramp", "stop"))

    async def give(app: Any) -> Any:
        deployment = app.client.deployment
        if which == "current":
            return await deployment.set_current_version(to, reason=key)
        if which == "ramp":
            return await deployment.set_ramping_version(to, share, reason=key)
        return await deployment.unset_ramping_version(reason=key)

    return Words("route", key, key, give)
