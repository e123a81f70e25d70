"""Workflows that nobody wrote: each plays a plan of its seed.

Each step is given a digest of all that its body has seen so far. So a replay that comes to a step by another way than
the first run calls it with another argument, which is a mismatch: the workflow is held, and no world may hold one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from perdure import App, Event, Retry, Topic, now, random, recv, set_event
from perdure.errors import PerdureError
from perdure.testing.plans import Plan, draw
from perdure.testing.play import Play, name_of
from perdure.testing.simulation.sometimes import sometimes

BOX = Topic[int]("box")
STAGE = Event[int]("stage")
CHILDREN_FROM = 3  # depth: plans of less begin no others, so that families end

Script = Callable[[Any], Awaitable[None]]


def declare(code: Any) -> Any:
    """The workflow that plays plans."""
    app: App = code.app

    @app.step
    async def report(name: str, seen: str) -> None:
        with code.stage.ledger.effect(name, args=seen):
            await asyncio.sleep(code.stage.duration())

    @app.step(retry=Retry(attempts=3, delay=0.05))
    async def waver(name: str, seen: str) -> None:
        with code.stage.ledger.effect(name, args=seen):
            await asyncio.sleep(code.stage.duration())
            if code.stage.chance.random() < 0.5:
                raise ConnectionError(name)

    @app.workflow
    async def program(seed: int, depth: int) -> str:
        play = Program(report, waver, program, seed, depth)
        with contextlib.suppress(Exception):
            await play.do(draw(seed, depth))
        return play.seen()

    return program


class Program(Play):
    """A plan whose leaves are durable."""

    def __init__(self, report: Any, waver: Any, program: Any, seed: int, depth: int) -> None:
        super().__init__()
        self._report, self._waver, self._program = report, waver, program
        self._seed, self._depth = seed, depth
        self._children = 0

    async def step(self, name: str) -> str:
        await self._report(name, self.seen())
        return "done"

    async def receive(self, seconds: float) -> int | None:
        return await recv(BOX, timeout=seconds)

    async def _flaky(self, plan: Plan) -> str:
        await self._waver(plan.name, self.seen())
        return "done"

    async def _chance(self, plan: Plan) -> str:
        await set_event(STAGE, len(self.log))
        return f"{random.random()} {now()}"

    async def _child(self, plan: Plan) -> str:
        """Another plan, begun and waited for in one."""
        if self._depth < CHILDREN_FROM:
            return await self.step(plan.name)
        self._children += 1
        said: str = await self._program(self._seed * 31 + self._children, 2)
        return said

    async def _beside(self, plan: Plan) -> str:
        """Another plan beside this one, of which something is asked."""
        if self._depth < CHILDREN_FROM:
            return await self.step(plan.name)
        self._children += 1
        child = await self._program.options(on_parent_close="abandon").start(self._seed * 37 + self._children, 1)
        try:
            if plan.seconds < 0.01:
                return str(await child.cancel())
            if plan.seconds < 0.1:
                return str(await child.get_event(STAGE, timeout=plan.seconds))
            await child.send(len(self.log), BOX)
            return str(await child.result())
        except PerdureError as error:
            return name_of(error)


def scripts(id: str, chance: Any) -> Script:
    """A program of a seed, to which clients send, and which some cancel, or whose time is out."""
    seed, depth = chance.randrange(10**6), chance.randint(2, 4)
    options: dict[str, Any] = {"timeout": chance.choice((0.3, 1.0, 3.0))} if chance.random() < 0.15 else {}
    waits = [chance.choice((0.0, 0.05, 0.5, 1.0)) for _ in range(chance.randint(0, 4))]
    cancelled = chance.random() < 0.25

    async def script(client: Any) -> None:
        handle = await client.start(client.app.program, id, seed, depth, **options)
        for n, wait in enumerate(waits):
            await asyncio.sleep(wait)
            await client.send(handle, n, topic=BOX)
        if cancelled:
            await client.cancel(handle)
        await client.result(handle)
        sometimes("a program that nobody wrote ended")

    return script
