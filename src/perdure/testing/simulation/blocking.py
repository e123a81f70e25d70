"""Blocking bodies of the simulated app: in greenlets, which a virtual loop can hold; threads are for the crash tests.

Their steps are ``async def``, since a thread would go by a clock of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from perdure import Event, Retry, Topic
from perdure import sync as blocking
from perdure.model.info import from_datetime

LETTER = Topic[int]("letter")
READ = Event[int]("read")

Script = Callable[[Any], Awaitable[None]]


def declare(code: Any) -> None:  # long: one declaration after the other
    """Beside the awaited ones, of the same app."""
    app = blocking.App("sim")
    app._registry.included_in.append(code.home.registry)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  an app has one face; a world has both

    @app.step
    async def labour(what: str, seen: Any = None) -> int:
        with code.stage.ledger.effect(what, args=seen) as effect:
            await asyncio.sleep(code.stage.duration())
            effect.result = len(what)
        return len(what)

    @app.step(retry=Retry(attempts=4, delay=0.05))
    async def shaky(what: str) -> int:
        with code.stage.ledger.effect(what):
            await asyncio.sleep(code.stage.duration())
            if code.stage.chance.random() < 0.5:
                raise ConnectionError(what)
        return 1

    @app.step(at_most_once=True)
    async def just_once(what: str) -> int:
        with code.stage.ledger.effect(what, once=True):
            await asyncio.sleep(code.stage.duration())
        return 1

    @app.workflow
    def errand(length: int) -> int:
        total = 0
        for n in range(length):
            total += labour(f"leg {n}", total)
        with contextlib.suppress(ConnectionError):
            total += shaky("shaky")
        with contextlib.suppress(Exception):  # unknown after a crash
            just_once("just once")
        return total

    @app.workflow
    def household(size: int) -> int:
        labour("before children")
        mine = [errand.start(1 + n % 2) for n in range(size)]
        named = errand.options(id=f"{blocking.current().id}-named", on_parent_close="abandon").start(1)
        total = errand(1)
        for child in (*mine, named):
            with contextlib.suppress(Exception):  # it was cancelled, or failed
                total += child.result()
        labour("after children", total)
        return total

    @app.workflow
    def postbox(expected: int) -> list[int]:
        got: list[int] = []
        for _ in range(expected):
            letter = blocking.recv(LETTER, timeout=3)
            if letter is None:
                break
            got.append(letter)
            blocking.set_event(READ, len(got))
            labour(f"letter {len(got)}", list(got))
        return got

    @app.workflow
    def nap(seconds: float, rounds: int) -> int:
        try:
            before = from_datetime(blocking.now())
            blocking.sleep(seconds)
            slept = from_datetime(blocking.now())
            labour("slept", {"slept": [before, slept, round(seconds * 1e6)]})
        finally:
            labour("cleanup")
        if rounds:
            nap.continue_as_new(seconds, rounds - 1)
        return rounds


def scripts(id: str, chance: Any) -> Script:
    """One workflow of one of these kinds, cancelled in mid-way by some clients."""
    kind, args = chance.choice(
        (
            ("errand", (chance.randint(1, 4),)), ("household", (chance.randint(1, 3),)),
            ("postbox", (chance.randint(1, 4),)), ("nap", (chance.choice((0.01, 0.5, 2.5)), chance.randint(0, 2))),
        )
    )  # fmt: skip
    options: dict[str, Any] = {"timeout": chance.choice((0.3, 1.0, 3.0))} if chance.random() < 0.2 else {}
    cancelled = chance.random() < 0.3
    wait = chance.choice((0.0, 0.05, 0.5, 2.0))

    async def script(client: Any) -> None:
        workflow = client.app.app.client.workflow(f"declare.{kind}", returns=Any)
        handle = await client.start(workflow, id, *args, **options)
        for n in range(args[0] if kind == "postbox" else 0):
            await client.send(handle, n, f"{n}", topic=LETTER)
        await asyncio.sleep(wait)
        if cancelled:
            await client.cancel(handle)
        await client.result(handle)

    return script
