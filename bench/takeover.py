"""From ``kill -9`` to the first new step elsewhere: ``python -m bench --only takeover``.

Three executors under load; one is killed, again and again, each time when all are there and all work moves. ``--n`` so
many kills, ``--k`` the lease in seconds. Workload ``takeover``: a process of the same machine, whose pid proves its
death. ``takeover_lease``: no boot id, as between machines, so that only the lease can tell, and on Postgres the
connection that closes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.meter import Meter, contender_arguments, emit, percentile
from perdure import App, Client
from perdure.runtime import leases
from perdure.runtime.machine import elapsed

EXECUTORS = 3
WORKFLOWS = 12
STEP_SECONDS = 0.05
ROOT = Path(__file__).resolve().parents[1]
LEDGER = "BENCH_LEDGER"
ALONE = "BENCH_NO_PROOF"
app = App("takeover")

if os.environ.get(ALONE):
    leases.boot_id = str


@app.step
async def beat(id: str, n: int) -> None:
    line = f"{id} {os.getpid()} {elapsed():.6f}\n"
    ledger = os.open(os.environ[LEDGER], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(ledger, line.encode())
    os.close(ledger)
    await asyncio.sleep(STEP_SECONDS)


@app.workflow(max_deaths=1000)
async def walk(id: str) -> None:
    for n in range(100):
        await beat(id, n)
    walk.continue_as_new(id)


class Tail:
    """The ledger as it grows."""

    def __init__(self, path: Path) -> None:
        path.touch()
        self._file = path.open()
        self.runs: dict[str, int] = {}  # workflow -> the process that began its last step
        self.steps: list[tuple[str, int, float]] = []

    def read(self) -> None:
        for line in self._file.read().splitlines():
            id, pid, at = line.split()
            self.runs[id] = int(pid)
            self.steps.append((id, int(pid), float(at)))


class Fleet:
    """Executors that are killed and replaced."""

    def __init__(self, a: argparse.Namespace, ledger: Path) -> None:
        self.environment = {
            **os.environ, "PERDURE_DATABASE_URL": a.db, "PERDURE_LEASE": str(a.k), LEDGER: str(ledger),
        }  # fmt: skip
        if a.workload == "takeover_lease":
            self.environment[ALONE] = "1"
        self.members = [self._start(n) for n in range(EXECUTORS)]

    def _start(self, n: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "perdure.cli", "run", "bench.takeover:app", "--log-level", "error"],
            cwd=ROOT, env={**self.environment, "PERDURE_EXECUTOR_ID": f"e{n}"}, stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def kill(self, n: int) -> float:
        """SIGKILL one; when."""
        self.members[n].kill()
        return elapsed()

    def replace(self, n: int) -> None:
        self.members[n].wait()
        self.members[n] = self._start(n)

    def end(self) -> None:
        for who in self.members:
            who.kill()
            who.wait()


async def all_serve(client: Client) -> None:
    """Until every executor is there, whatever was killed before."""
    while sum(who.serving for who in await client._home.engine().line.store.incarnations()) < EXECUTORS:
        await asyncio.sleep(0.05)


async def one_kill(fleet: Fleet, tail: Tail, wait: float) -> float:
    """How long it takes until another process begins a step of the killed one's work."""
    while len(tail.runs) < WORKFLOWS:
        await asyncio.sleep(0.05)
        tail.read()
    await asyncio.sleep(wait)
    tail.read()
    victim = next(n for n, who in enumerate(fleet.members) if who.pid in tail.runs.values())
    pid = fleet.members[victim].pid
    mine = {id for id, runner in tail.runs.items() if runner == pid}
    tail.steps.clear()
    killed = fleet.kill(victim)
    while not (new := [at for id, who, at in tail.steps if id in mine and who != pid]):
        await asyncio.sleep(0.005)
        tail.read()
    fleet.replace(victim)
    while pid in tail.runs.values():
        await asyncio.sleep(0.02)
        tail.read()
    return min(new) - killed


async def measure(a: argparse.Namespace, folder: Path) -> list[float]:
    ledger = folder / "ledger"
    tail = Tail(ledger)
    rng = random.Random(a.n)
    longest = a.k / 2 if a.workload == "takeover_lease" else 2.0
    fleet = Fleet(a, ledger)
    try:
        async with Client(a.db, app="takeover") as client:
            for n in range(WORKFLOWS):
                await client.workflow("walk", returns=object).options(id=f"w{n}").start(f"w{n}")
            took: list[float] = []
            for _ in range(a.n):
                await all_serve(client)
                took.append(await one_kill(fleet, tail, rng.uniform(0.2, longest)))
            return took
    finally:
        fleet.end()


def main() -> None:
    a = contender_arguments(__doc__, ["takeover", "takeover_lease"]).parse_args()
    meter = Meter(a.server_pid).start()
    with tempfile.TemporaryDirectory() as folder:
        took = asyncio.run(measure(a, Path(folder)))
    result: dict[str, Any] = meter.stop()
    seconds = {f"p{p}_s": round(percentile(took, p), 3) for p in (50, 90, 99)}
    emit({**result, "kills": len(took), **seconds, "max_s": round(max(took), 3)})


if __name__ == "__main__":
    main()
