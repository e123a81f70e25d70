"""Executors as real processes, and what they did."""

# waits: other processes tell of themselves by files and rows only; every wait here looks again until it is so.

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import perdure
from perdure.model.records import Incarnation

ROOT = Path(__file__).resolve().parents[2]


class Effect(NamedTuple):
    """A line of the ledger."""

    what: str
    id: str
    step: int
    pid: int
    incarnation: str
    at: float


async def until(condition: Callable[[], Any], seconds: float = 40) -> Any:
    """Wait for a condition (a function, or one that gives something to await); its true value."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        assert time.monotonic() < end, f"not within {seconds} s: {condition}"
        await asyncio.sleep(0.02)


class Member:
    """One ``perdure run``."""

    def __init__(self, fleet: Fleet, label: str, **settings: str) -> None:
        self.log = fleet.folder / f"{label}-{time.monotonic_ns()}.log"
        self.label = label
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PERDURE_")},
            "PERDURE_DATABASE_URL": fleet.url, "PERDURE_LEASE": str(fleet.lease), "PERDURE_EXECUTOR_ID": label,
            "PERDURE_TEST_LEDGER": str(fleet.ledger), **settings,
        }  # fmt: skip

    async def start(self) -> None:
        with self.log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "perdure.cli", "run", "tests.crash.fleet_app:app",
                cwd=ROOT, env=self._environment, stdout=log, stderr=log,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self.process.pid

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def serves(self) -> None:
        await until(lambda: "serving app" in self.said() or self.process.returncode is not None)
        assert self.process.returncode is None, self.said()

    async def end(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


class Fleet:
    """Members over one database, and a caller."""

    def __init__(self, url: str, folder: Path, lease: float) -> None:
        self.url = url
        self.folder = folder
        self.lease = lease
        self.ledger = folder / "ledger"
        self.members: list[Member] = []
        self.client = perdure.Client(url, app="fleet")

    async def launch(self, label: str, **settings: str) -> Member:
        """Start a member; returns when it serves."""
        member = Member(self, label, **settings)
        self.members.append(member)
        await member.start()
        await member.serves()
        return member

    def open_gate(self) -> None:
        """Let the first step of ``gated`` end."""
        Path(f"{self.ledger}.gate").touch()

    async def supervise(self, label: str) -> None:
        """Start a member again and again, as a supervisor of processes does."""
        while True:
            member = Member(self, label)
            self.members.append(member)
            await member.start()
            await member.process.wait()
            await asyncio.sleep(0.05)

    def effects(self, what: str = "begin") -> list[Effect]:
        if not self.ledger.exists():
            return []
        lines = [line.split() for line in self.ledger.read_text().splitlines()]
        return [
            Effect(kind, id, int(step), int(pid), me, int(at) / 1e9)
            for kind, id, step, pid, me, at in lines
            if kind == what
        ]

    async def begun(self, id: str, step: int = 1, pid: int | None = None) -> Effect:
        """Wait until a step has begun; its first line."""

        def found() -> list[Effect]:
            return [e for e in self.effects() if (e.id, e.step) == (id, step) and pid in (None, e.pid)]

        effects: list[Effect] = await until(found)
        return effects[0]

    async def incarnations(self) -> list[Incarnation]:
        return await self.client._home.engine().line.store.incarnations()

    async def start(self, name: str, id: str, *args: Any) -> Any:
        return await self.client.workflow(name, returns=object).options(id=id).start(id, *args)

    async def statuses(self) -> dict[str, str]:
        return {info.id: str(info.status) async for info in self.client.list()}


@asynccontextmanager
async def fleet_over(url: str, folder: Path, lease: float = 3) -> AsyncIterator[Fleet]:
    """A fleet; whatever still runs at the end is killed. The first look at the database makes the tables."""
    fleet = Fleet(url, folder, lease)
    await fleet.client.open()
    try:
        yield fleet
    finally:
        await fleet.client.close()
        for member in fleet.members:
            if member.process.returncode is None:
                member.process.send_signal(signal.SIGCONT)
            await member.end()
