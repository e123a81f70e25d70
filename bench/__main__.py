"""Perdure beside its peers, in turn, in one sitting: `make bench`, or `python -m bench`.

    make bench-peers                           the peers, each into an environment of its own
    make bench                                 everything, three times (about 40 minutes)
    make bench B=--quick                       a short pass, once
    make bench B='--only burst --only sqlite'  some lines of the table, or groups of them
    make bench B='--peers dbos'                against some of the peers, or none: --peers ''

Each run is a process of its own on an empty database, warms up, and waits a little for a quiet machine. A run during
which everybody else on the machine used more CPU than --noise allows is repeated; if that does not help, its figures
are marked ``~``. All results go to bench/results as JSON lines, with the table beside them.

Postgres: the one at PERDURE_TEST_POSTGRES (a superuser's URL), else one that is found and started (tests/postgres.py).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg

from bench.meter import LINUX, parent_of
from bench.table import CONTENDERS, TITLES, markdown
from bench.workloads import Line, Run, selected
from tests.postgres import Cluster, Server

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
PEERS = ("dbos", "restate", "absurd")
SETTINGS = {"max_connections": "300", "max_wal_size": "1GB"}
RUN_SECONDS_MAX = 1500  # 100 kills take 6 to 9 minutes
QUIET_SECONDS = 15.0


def python_of(who: str) -> Path | None:
    """The Python that runs a contender; None if it is not installed."""
    if who in ("perdure", "bound"):
        return Path(sys.executable)
    home = ROOT / ".venv-peers" / who
    ready = (home / ".ready").exists() and (who != "restate" or (home / ".server").exists())
    return home / "bin" / "python" if ready else None


def module_of(who: str, workload: str) -> str:
    own = {"interrupted": "bench.interrupted", "takeover": "bench.takeover", "takeover_lease": "bench.takeover"}
    ours = own.get(workload, "bench.perdure_run")
    return {"perdure": ours, "bound": "bench.bound"}.get(who, f"bench.peers.{who}")


def server_pid(server: Server) -> int:
    """The root process of a Postgres on this machine, 0 if it is elsewhere."""

    async def ask() -> int:
        connection = await asyncpg.connect(server.url())
        try:
            return int(await connection.fetchval("select pg_backend_pid()"))
        finally:
            await connection.close()

    if isinstance(server, Cluster) and server.process is not None:
        return server.process.pid
    with contextlib.suppress(OSError, ValueError):
        return parent_of(asyncio.run(ask())) if LINUX else 0
    return 0


def flush_ms(folder: Path) -> float:
    """What one flush of a small write to the disk takes here: half of what follows hangs on it."""
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        times = []
        for _ in range(200):
            file.write(b"x" * 4096)
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3


@contextlib.contextmanager
def database(line: Line, server: Server) -> Iterator[str]:
    """The URL of an empty database for one run."""
    if line.store == "sqlite":
        with tempfile.TemporaryDirectory(dir=RESULTS) as folder:
            yield f"sqlite:///{folder}/bench.db"
        return
    name = server.create_database(name=f"bench_{os.getpid()}_{time.monotonic_ns()}")
    try:
        settings = [f'alter database "{name}" set {key} = {value}' for key, value in line.settings.items()]
        server.sql(*settings, "checkpoint")
        yield server.url(name)
    finally:
        server.drop_database(name)


def run_once(line: Line, who: str, run: Run, server: Server, pid: int, quiet: float) -> dict[str, Any]:
    python, module = python_of(who), module_of(who, run.workload)
    assert python is not None
    with database(line, server) as url:
        done = subprocess.run(
            [
                python, "-m", module, f"--workload={run.workload}", f"--n={run.n}", f"--k={run.k}",
                f"--db={url}", f"--server-pid={0 if line.store == 'sqlite' else pid}", f"--quiet={quiet}",
            ],
            cwd=ROOT, capture_output=True, text=True, timeout=RUN_SECONDS_MAX, check=False,
            env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}", "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
    found = [text for text in done.stdout.splitlines() if text.startswith("{")]
    if done.returncode or not found:
        raise RuntimeError(f"{who} {run}: ended with {done.returncode}\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(found[-1])
    return result


class Sitting:
    """All runs of one invocation."""

    def __init__(self, a: argparse.Namespace, server: Server) -> None:
        self.a = a
        self.server = server
        self.pid = server_pid(server)
        self.results: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        self.broken: set[tuple[str, str]] = set()
        name = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        self.file = RESULTS / f"{name}.jsonl"

    def note(self, what: dict[str, Any]) -> None:
        with self.file.open("a") as file:
            file.write(json.dumps(what) + "\n")

    def measure(self, line: Line, who: str, number: int) -> None:
        run = line.runs[who]
        for attempt in range(1 + self.a.again):
            try:
                result = run_once(line, who, run, self.server, self.pid, 0.0 if self.a.quick else QUIET_SECONDS)
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                print(f"  {TITLES[who]} failed and is left out of this line: {error}", file=sys.stderr)
                self.broken.add((line.name, who))
                return
            others = result.get("foreign_cpu_s", 0.0)  # counted in hundredths of a second: a few are no noise
            result["noisy"] = others > self.a.noise * result.get("wall_s", 1.0) + 0.03
            self.note(
                {"line": line.name, "who": who, "run": number, "attempt": attempt + 1, **vars(run), **result}
            )  # fmt: skip
            if not result["noisy"]:
                break
        self.results[(line.name, who)].append(result)
        value = result.get(line.metric, "–")
        print(
            f"  {number}  {line.name:16} {TITLES[who]:8} {'~' if result['noisy'] else ' '}{value:>10} {line.unit:8} "
            f"wall {result.get('wall_s', 0):.2f} s, others {result.get('foreign_cpu_s', 0):.2f} s of CPU",
            flush=True,
        )

    def all(self, lines: list[Line], contenders: list[str]) -> None:
        for number in range(1, self.a.runs + 1):
            for line in lines:
                if line.of or number > line.most_runs:
                    continue
                for who in contenders:
                    if who in line.runs and (line.name, who) not in self.broken:
                        self.measure(line, who, number)


def versions() -> str:
    """One line on what was measured with what."""
    ours = {name: importlib.metadata.version(name) for name in ("perdure", "asyncpg", "apsw", "msgspec")}
    return (
        f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}; "
        + ", ".join(f"{name} {version}" for name, version in ours.items())
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=0, help="times that each is run (3; 1 with --quick)")
    parser.add_argument("--quick", action="store_true", help="small sizes, no waiting for quiet")
    parser.add_argument("--only", action="append", default=[], metavar="LINE", help="a line of the table or a group")
    parser.add_argument("--peers", default=",".join(PEERS), help="which peers: dbos,restate,absurd")
    parser.add_argument("--page", type=Path, help="also put the table between the marks of this Markdown page")
    parser.add_argument("--noise", type=float, default=0.10, help="cores that others may use during a run (0.10)")
    parser.add_argument("--again", type=int, default=2, help="times that a noisy run is repeated (2)")
    a = parser.parse_args()
    a.runs = a.runs or (1 if a.quick else 3)
    a.again = 0 if a.quick else a.again
    return a


def put(page: Path, text: str) -> None:
    """Replace what stands between the marks of the table."""
    begin, end = "<!-- table: begin -->", "<!-- table: end -->"
    before, _, rest = page.read_text().partition(begin)
    page.write_text(f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}")


def main() -> int:
    a = arguments()
    lines = selected([name for given in a.only for name in given.split(",")], a.quick)
    peers = [name for name in a.peers.split(",") if name]
    if unknown := set(peers) - set(PEERS):
        raise SystemExit(f"no such peer: {', '.join(unknown)}; there are: {', '.join(PEERS)}")
    for absent in [name for name in peers if python_of(name) is None]:
        print(f"{TITLES[absent]} is not installed and is left out: make bench-peers")
    contenders = [who for who in CONTENDERS if who in ("perdure", "bound", *peers) and python_of(who) is not None]
    RESULTS.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        url = os.environ.get("PERDURE_TEST_POSTGRES")
        server = Server(url) if url else stack.enter_context(Cluster(settings=SETTINGS))
        sitting = Sitting(a, server)
        short = "; short pass: sizes are smaller than the table says" if a.quick else ""
        head = f"{versions()}; a flush to disk takes {flush_ms(RESULTS):.2f} ms; {datetime.now(UTC):%Y-%m-%d}{short}"
        print(head, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            sitting.all(lines, contenders)
    text = markdown(lines, sitting.results)
    sitting.file.with_suffix(".md").write_text(f"{head}\n\n{text}\n")
    if a.page:
        put(a.page, f"{head}.\n\n{text}")
    print(f"\n{text}\n\n~: others used the machine meanwhile. Written to {sitting.file.relative_to(ROOT)} and .md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
