"""From ``kill -9`` to the first new step elsewhere: ``python -m bench.takeover [--store postgres] [--kills 20]``.

``--lease-only``: proof by pid is switched off, as between machines: the lease alone tells. ``--lease 6`` is the fast
profile. Executors are restarted after each measurement. One JSON line, times in seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from perdure import App, Client
from perdure.runtime import reaper, recovery

EXECUTORS = 3
WORKFLOWS = 12
STEP_SECONDS = 0.05
ROOT = Path(__file__).resolve().parents[1]
app = App("takeover")

if os.environ.get("PERDURE_TEST_NO_PROOF"):
    recovery.provably_gone = lambda _who: False
    reaper.same_place = lambda _who: False


@contextmanager
def database(store: str, folder: str) -> Iterator[str]:
    """The URL of an empty database."""
    if store == "sqlite":
        yield f"sqlite:///{folder}/bench.db"
        return
    from tests.postgres import Cluster, Server

    if url := os.environ.get("PERDURE_TEST_POSTGRES"):
        server = Server(url)
        name = server.create_database(name=f"bench_{os.getpid()}")
        try:
            yield server.url(name)
        finally:
            server.drop_database(name)
        return
    with Cluster() as cluster:
        yield cluster.url(cluster.create_database())


@app.step
async def beat(id: str, n: int) -> None:
    line = f"{id} {os.getpid()} {time.clock_gettime_ns(time.CLOCK_BOOTTIME)}\n"
    ledger = os.open(os.environ["PERDURE_TEST_LEDGER"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(ledger, line.encode())
    os.close(ledger)
    await asyncio.sleep(STEP_SECONDS)


@app.workflow(max_deaths=1000)
async def walk(id: str) -> None:
    for n in range(100):
        await beat(id, n)
    walk.continue_as_new(id)


def launch(url: str, ledger: Path, label: str, lease: float, proof: bool) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ, "PERDURE_DATABASE_URL": url, "PERDURE_TEST_LEDGER": str(ledger), "PERDURE_LEASE": str(lease),
        "PERDURE_EXECUTOR_ID": label,
    }  # fmt: skip
    if not proof:
        environment["PERDURE_TEST_NO_PROOF"] = "1"
    return subprocess.Popen(
        [sys.executable, "-m", "perdure.cli", "run", "bench.takeover:app", "--log-level", "error"],
        cwd=ROOT, env=environment, stdout=subprocess.DEVNULL,
    )  # fmt: skip


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
            self.steps.append((id, int(pid), int(at) / 1e9))


async def all_serve(client: Client) -> None:
    """Until every executor is there, whatever was killed before."""
    while sum(who.serving for who in await client._home.engine().line.store.incarnations()) < EXECUTORS:
        await asyncio.sleep(0.05)


async def measure(a: argparse.Namespace, url: str, folder: Path) -> list[float]:
    tail = Tail(folder / "ledger")
    rng = random.Random(a.seed)

    def start(n: int) -> subprocess.Popen[bytes]:
        return launch(url, folder / "ledger", f"e{n}", a.lease, not a.lease_only)

    async with Client(url, app="takeover") as client:
        members = [start(n) for n in range(EXECUTORS)]
        took: list[float] = []
        try:
            for n in range(WORKFLOWS):
                await client.workflow("walk", returns=object).options(id=f"w{n}").start(f"w{n}")
            for _ in range(a.kills):
                await all_serve(client)
                while len(tail.runs) < WORKFLOWS:
                    await asyncio.sleep(0.05)
                    tail.read()
                await asyncio.sleep(rng.uniform(0.5, 2.0) if not a.lease_only else rng.uniform(0, a.lease / 2))
                tail.read()
                victim = next(n for n, who in enumerate(members) if who.pid in tail.runs.values())
                pid = members[victim].pid
                mine = {id for id, runner in tail.runs.items() if runner == pid}
                members[victim].send_signal(signal.SIGKILL)
                killed = time.clock_gettime_ns(time.CLOCK_BOOTTIME) / 1e9
                while True:
                    await asyncio.sleep(0.005)
                    tail.read()
                    new = [at for id, who, at in tail.steps if id in mine and who != pid and at > killed]
                    if new:
                        break
                took.append(min(new) - killed)
                tail.steps.clear()
                members[victim].wait()
                members[victim] = start(victim)
                while any(pid == runner for runner in tail.runs.values()):
                    await asyncio.sleep(0.02)
                    tail.read()
        finally:
            for who in members:
                who.kill()
                who.wait()
    return took


def main() -> None:
    parser = argparse.ArgumentParser("python -m bench.takeover", description=__doc__)
    parser.add_argument("--store", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--lease", type=float, default=15)
    parser.add_argument("--lease-only", action="store_true")
    parser.add_argument("--seed", type=int, default=random.randrange(1, 10**6))
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, database(a.store, folder) as url:
        took = sorted(asyncio.run(measure(a, url, Path(folder))))
    result: dict[str, Any] = {
        "bench": "takeover", "store": a.store, "lease": a.lease, "proof": "lease" if a.lease_only else "pid",
        "kills": len(took), "seed": a.seed, "p50": round(statistics.median(took), 3),
        "p99": round(took[min(len(took) - 1, int(len(took) * 0.99))], 3), "max": round(took[-1], 3),
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
