"""The scheme of the acceptance cases, read from elsewhere, fares like the class: cases 1 to 6 in one life."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from perdure import App
from perdure.process import Process
from perdure.schemes.draft import Draft
from perdure.testing import harness
from tests.process.world import World, _opened, moves, names
from tests.schemes.notations import drafts


class Foreign(World):
    """The world with a scheme from elsewhere."""

    def __init__(self, app: App, scheme: Draft) -> None:
        self.app = app
        self.ledger: list[str] = []
        self.gates: defaultdict[str, asyncio.Event] = defaultdict(_opened)
        self.inside: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        world = self

        @app.step(name="enter")
        async def enter(state: str) -> None:
            world.ledger.append(state)
            world.inside[state].set()
            await world.gates[state].wait()

        @app.process
        class S(Process, scheme=scheme, name="S"):
            lets: bool = True

            async def ledger(self, actor: str | None) -> bool:
                return actor == "bob"

            async def on_enter_state(self, target: str) -> None:
                await enter(target)

        self.S: Any = S


@pytest.mark.parametrize("notation", ["yaml", "json", "scxml", "transitions", "python-statemachine"])
async def test_a_scheme_from_elsewhere_fares_like_a_class(
    notation: str, app: App, database: str, tmp_path: Path
) -> None:
    world = Foreign(app, drafts(tmp_path)[notation])
    async with harness(app, database=database) as h:
        p = await world.start(h)

        async def stands() -> tuple[str, str, list[str]]:
            return str(await p.status()), await p.state(), await names(p, "bob")

        await world.killed_in(h, "Check", p.execute("submit"))
        assert await stands() == ("Error", "Draft", ["submit"])
        assert not any("Check" in step for step in await moves(p))
        await p.execute(world.S.submit)
        assert await stands() == ("Idled", "Review", ["approve", "reject"])

        await world.killed_in(h, "Booking", p.execute("approve", actor="bob"))
        assert await stands() == ("Error", "Review", ["approve", "reject"])
        assert await names(p, "eve") == ["reject"]

        await world.killed_in(h, "Done", p.execute("approve", actor="bob"))
        assert await stands() == ("Terminated", "Booking", [])

        await p.set_state(world.S.Review)
        assert await stands() == ("Idled", "Review", ["approve", "reject"])

        await p.set_state("Review", set={"lets": False})
        await p.execute("approve", actor="bob")
        assert await stands() == ("Idled", "Booking", [])
        assert await p.resume() is False

        await p.set_state("Review", set={"lets": True})
        await world.killed_in(h, "Done", p.execute("approve", actor="bob"))
        assert await stands() == ("Terminated", "Booking", [])
        assert await p.resume() is True
        assert await stands() == ("Finalized", "Done", [])
