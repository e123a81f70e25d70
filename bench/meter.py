"""Meters: wall time, CPU of this process and of the server, and what everybody else on the machine used meanwhile.

Needs nothing but the standard library, so that every peer's environment can import it. CPU comes from /proc; where
there is none (not Linux) it is left out, and so is the noise guard.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

LINUX = Path("/proc/self/stat").exists()
HZ = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def percentile(values: Sequence[float], p: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * p / 100))]


def latencies(seconds: Sequence[float], prefix: str = "") -> dict[str, float]:
    """The middle and the end of a list of seconds, in milliseconds."""
    return {
        f"{prefix}p50_ms": round(percentile(seconds, 50) * 1e3, 3),
        f"{prefix}p99_ms": round(percentile(seconds, 99) * 1e3, 3),
        f"{prefix}max_ms": round(max(seconds) * 1e3, 3),
    }


def rates(result: dict[str, Any], workflows: int, steps: int) -> dict[str, Any]:
    """What a run of so many workflows of so many steps each came to."""
    wall = result["wall_s"] or 1e-3
    cpu = (result.get("client_cpu_s") or 0.0) + (result.get("server_cpu_s") or 0.0)
    return {
        **result,
        "wf_per_s": round(workflows / wall, 1),
        "steps_per_s": round(workflows * steps / wall, 1),
        "cpu_s_per_1000": round(cpu / workflows * 1000, 4),
        "cpu_ms_per_step": round(cpu / (workflows * steps) * 1e3, 4),
    }


def _own_cpu(pid: int) -> float:
    """CPU seconds of a process and of those children that it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(fields[n]) for n in (11, 12, 13, 14)) / HZ


def children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        found: list[int] = []
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
        return found
    return []


def tree_cpu(pid: int) -> float:
    """CPU seconds of a process and of all below it, alive or waited for."""
    with contextlib.suppress(OSError):
        return _own_cpu(pid) + sum(tree_cpu(child) for child in children(pid))
    return 0.0


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def machine_busy() -> float:
    """CPU seconds that all of this machine's cores have worked so far."""
    ticks = [int(n) for n in Path("/proc/stat").read_text().partition("\n")[0].split()[1:]]
    return (sum(ticks[:8]) - ticks[3] - ticks[4]) / HZ


def machine_stolen() -> float:
    """CPU seconds that the host of a virtual machine gave to others."""
    return int(Path("/proc/stat").read_text().partition("\n")[0].split()[8]) / HZ


def quiet(most_seconds: float, cores: float = 0.15) -> None:
    """Wait, at most so long, until the rest of the machine uses less than ``cores`` of a core."""
    end = time.monotonic() + most_seconds
    while LINUX and time.monotonic() < end:
        busy, began = machine_busy(), time.monotonic()
        time.sleep(0.5)
        if (machine_busy() - busy) / (time.monotonic() - began) < cores:
            return


class Meter:
    """Started when the warm-up is over, stopped when the work is done. ``server``: its root process, 0 if unknown."""

    def __init__(self, server: int = 0, *, server_is_child: bool = False) -> None:
        self.server = server if LINUX else 0
        self.server_is_child = server_is_child
        self.began = 0.0
        self._cpu = (0.0, 0.0, 0.0, 0.0)

    def _read(self) -> tuple[float, float, float, float]:
        if not LINUX:
            return time.process_time(), 0.0, 0.0, 0.0
        client, server = tree_cpu(os.getpid()), tree_cpu(self.server) if self.server else 0.0
        return client - (server if self.server_is_child else 0.0), server, machine_busy(), machine_stolen()

    def start(self) -> Meter:
        self._cpu = self._read()
        self.began = time.perf_counter()
        return self

    def stop(self) -> dict[str, Any]:
        wall = time.perf_counter() - self.began
        client, server, busy, stolen = (now - then for now, then in zip(self._read(), self._cpu, strict=True))
        result: dict[str, Any] = {"wall_s": round(wall, 4), "client_cpu_s": round(client, 3)}
        if self.server:
            result["server_cpu_s"] = round(server, 3)
        if LINUX:
            result["foreign_cpu_s"] = round(max(0.0, busy - client - server), 3)  # what was stolen is in it
            result["stolen_cpu_s"] = round(stolen, 3)
        return result


def contender_arguments(about: str | None, names: Sequence[str]) -> argparse.ArgumentParser:
    """The arguments that every contender's program takes."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", required=True, choices=names)
    parser.add_argument("--db", default="", help="URL of an empty database")
    parser.add_argument("--n", type=int, default=1000, help="workflows, steps of the one workflow, or repeats")
    parser.add_argument("--k", type=int, default=1, help="steps of each workflow")
    parser.add_argument("--server-pid", type=int, default=0, help="the database server's root process, for its CPU")
    parser.add_argument("--quiet", type=float, default=0.0, help="wait at most so many seconds for a quiet machine")
    parser.add_argument("--role", help=argparse.SUPPRESS)
    return parser


def emit(result: dict[str, Any]) -> None:
    print(json.dumps(result), flush=True)


def again(module: str, arguments: argparse.Namespace, role: str) -> subprocess.Popen[str]:
    """This program once more, in another role: the lives before and after a crash."""
    given = {"workload": "workload", "db": "db", "n": "n", "k": "k", "server-pid": "server_pid"}
    options = [f"--{option}={getattr(arguments, name)}" for option, name in given.items()]
    return subprocess.Popen(
        [sys.executable, "-m", module, *options, f"--role={role}"], stdout=subprocess.PIPE, text=True, bufsize=1
    )


def lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:
        yield line.strip()


def wait_line(process: subprocess.Popen[str], prefix: str) -> str:
    """The first line of its output that begins so."""
    for line in lines(process):
        if line.startswith(prefix):
            return line
    raise RuntimeError(f"the process ended with {process.wait()} before it said {prefix!r}")


def two_lives(module: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """A first life that works until it says REACHED and is killed; a second that recovers and says what it measured."""
    first = again(module, arguments, "first")
    wait_line(first, "REACHED")
    time.sleep(0.3)
    first.send_signal(signal.SIGKILL)
    first.wait()
    quiet(arguments.quiet)
    second = again(module, arguments, "second")
    result: dict[str, Any] = json.loads(wait_line(second, "{"))
    second.wait()
    return result
