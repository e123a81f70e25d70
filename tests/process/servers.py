"""Fleets of real processes that run the app of processes, and what they did."""

# waits: other processes tell of themselves by files and rows only; every wait here looks again until it is so.

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import perdure
from perdure.model.records import DecisionRow, WorkflowRow
from tests.crash.fleet import ROOT, Effect, Fleet, Member, fleet_over, until


class Server(Member):
    """One ``perdure run`` of the app of processes."""

    async def start(self) -> None:
        with self.log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "perdure.cli", "run", "tests.process.fleet_app:app",
                cwd=ROOT, env=self._environment, stdout=log, stderr=log,
            )  # fmt: skip


class Servers:
    """A fleet of them, and what it did."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        os.environ["PERDURE_TEST_LEDGER"] = str(fleet.ledger)
        from tests.process import fleet_app

        self.app = fleet_app
        self.client = fleet.client

    async def launch(self, label: str, **settings: str) -> Server:
        server = Server(self.fleet, label, **settings)
        self.fleet.members.append(server)
        await server.start()
        await server.serves()
        return server

    def shut(self, state: str) -> None:
        Path(f"{self.fleet.ledger}.shut.{state}").touch()

    def open(self, state: str) -> None:
        Path(f"{self.fleet.ledger}.shut.{state}").unlink(missing_ok=True)

    def lines(self, what: str = "begin") -> list[Effect]:
        if not self.fleet.ledger.exists():
            return []
        found = [line.split() for line in self.fleet.ledger.read_text().splitlines()]
        return [Effect(k, id, state, int(pid), me, int(at) / 1e9) for k, id, state, pid, me, at in found if k == what]  # type: ignore[arg-type]  # the state in place of a step's number

    def begun(self, state: str) -> dict[str, int]:
        return dict(Counter(line.id for line in self.lines() if str(line.step) == state))

    def handle(self, id: str) -> Any:
        return perdure.api.process.ProcessHandle(self.client._home, id, None)

    async def start(self, ids: list[str], name: str = "S", **values: Any) -> None:
        workflow = self.client.workflow(name, returns=object)
        await asyncio.gather(*(workflow.options(id=id).start(**values) for id in ids))

    async def rows(self, ids: list[str]) -> dict[str, WorkflowRow]:
        return await self.client._home.engine().line.store.rows(ids)

    async def all_are(self, ids: list[str], *statuses: str) -> None:
        async def so() -> bool:
            found = await asyncio.gather(*(self.handle(id).status() for id in ids))
            return all(status in statuses for status in found)

        await until(so)

    async def running_in(self, state: str, ids: list[str]) -> list[asyncio.Future[Any]]:
        """Idle processes, submitted, whose action of ``state`` is under way."""
        await self.all_are(ids, "Idled")
        self.shut(state)
        calls = [asyncio.ensure_future(self.handle(id).execute("submit")) for id in ids]
        await until(lambda: set(ids) <= set(self.begun(state)))
        return calls

    def pids(self, state: str) -> dict[str, int]:
        """In which process an action of ``state`` is under way, or was, by the id of its own."""
        return {line.id: line.pid for line in self.lines() if str(line.step) == state}

    def who_has_most(self, state: str, ids: list[str], fleet: list[Server]) -> tuple[Server, list[str], list[str]]:
        """How many each has taken is chance: who took most of these, which, and which the others have."""
        pids = self.pids(state)
        most = max(fleet, key=lambda one: list(pids.values()).count(one.pid))
        has = [id for id in ids if pids[id] == most.pid]
        assert has, pids
        return most, has, [id for id in ids if id not in has]

    async def decisions(self, ids: list[str]) -> list[DecisionRow]:
        """Those that did something to a process."""
        rows = await self.client._home.engine().line.store.decisions(ids)
        return [row for row in rows if row.decision != "resume"]


@asynccontextmanager
async def servers_over(url: str, folder: Path, lease: float = 3) -> AsyncIterator[Servers]:
    async with fleet_over(url, folder, lease) as fleet:
        yield Servers(fleet)


async def told(calls: list[asyncio.Future[Any]]) -> Counter[str]:
    """What the callers were told, by kind."""
    answers = await asyncio.gather(*calls, return_exceptions=True)
    return Counter("done" if answer is None else type(answer).__name__ for answer in answers)
