"""Where the time of a workload goes: by package, by file, by function.

    python -m bench.profile --workload burst --n 5000 --db postgresql://…      (with `make bench`'s own: --db own)
    python -m bench.profile --workload burst --n 5000 --db own --exact        (cProfile: calls and µs of each function)

Without ``--exact`` a timer interrupts the main thread every half millisecond and the CPU time since the last tick is
booked on the stack that it finds: that changes little of what it measures, shows C code under the line that called it,
leaves waiting out, and is not disturbed by other work on the machine. With it, each call is timed: exact counts, but
small functions look two to three times too dear.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import cProfile
import gc
import os
import pstats
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Self

from bench import perdure_run
from bench.meter import Meter, contender_arguments

EVERY_SECONDS = 0.0005
IDLE = ("selectors.py", "threading.py")
FRAMES = 60
Function = tuple[str, str]  # file, qualified name


def place(file: str) -> tuple[str, str]:
    """Package and short file name of a path."""
    parts = Path(file).parts
    if "perdure" in parts:
        at = len(parts) - 1 - parts[::-1].index("perdure")
        return "perdure." + (parts[at + 1] if len(parts) > at + 2 else "top"), "/".join(parts[at + 1 :])
    if "site-packages" in parts:
        at = parts.index("site-packages")
        return parts[at + 1].removesuffix(".py"), "/".join(parts[at + 1 :])
    if "bench" in parts:
        return "bench", "/".join(parts[-2:])
    if parts and parts[-1] in IDLE:
        return "idle", parts[-1]
    return ("asyncio" if "asyncio" in parts else "stdlib"), "/".join(parts[-2:])


class Sampler:
    """Notes the main thread's stack at each tick, with the CPU time that has gone since the last one."""

    def __init__(self) -> None:
        self.leaves: collections.Counter[Function] = collections.Counter()
        self.on_stack: collections.Counter[Function] = collections.Counter()
        self.cpu = 0.0
        self.samples = 0
        self._last = 0.0

    def tick(self, _signal: int, frame: FrameType | None) -> None:
        now = time.thread_time()
        spent, self._last = now - self._last, now
        self.cpu += spent
        self.samples += 1
        seen: set[Function] = set()
        depth = 0
        while frame is not None and depth < FRAMES:
            code = frame.f_code
            key = (code.co_filename, getattr(code, "co_qualname", code.co_name))
            if depth == 0:
                self.leaves[key] += spent  # type: ignore[assignment]
            seen.add(key)
            frame, depth = frame.f_back, depth + 1
        for key in seen:
            self.on_stack[key] += spent  # type: ignore[assignment]

    def __enter__(self) -> Self:
        self._last = time.thread_time()
        signal.signal(signal.SIGALRM, self.tick)
        signal.setitimer(signal.ITIMER_REAL, EVERY_SECONDS, EVERY_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)

    def report(self, units: int, wall: float, top: int) -> None:
        """Shares of the main thread's CPU time; ``units``: what a microsecond figure is divided by."""
        packages: collections.Counter[str] = collections.Counter()
        files: collections.Counter[str] = collections.Counter()
        for (file, _), spent in self.leaves.items():
            package, short = place(file)
            packages[package] += spent  # type: ignore[assignment]
            files[short] += spent  # type: ignore[assignment]

        def line(spent: float, name: str) -> None:
            print(f"{100 * spent / self.cpu:5.1f} % {spent / units * 1e6:8.2f} µs  {name}")

        print(
            f"{self.samples} samples, {self.cpu:.3f} s of CPU in {wall:.3f} s: "
            f"{self.cpu / units * 1e6:.1f} µs for each of {units}"
        )
        for title, counter in (("package", packages), ("file", files)):
            print(f"-- by {title}: where it stood")
            for name, spent in counter.most_common(top):
                line(spent, name)
        for title, functions in (("where it stood", self.leaves), ("it or below it", self.on_stack)):
            print(f"-- by function: {title}")
            for (file, name), spent in functions.most_common(top * 2):
                line(spent, f"{place(file)[1]} {name}")


def report_exact(profile: cProfile.Profile, units: int, top: int) -> None:
    stats: Any = pstats.Stats(profile)
    rows = sorted(stats.stats.items(), key=lambda row: -row[1][2])
    print(f"-- by function, cProfile: calls and µs per unit of {units}")
    for (file, line, name), (_, calls, own, total, _) in rows[: top * 3]:
        where = f"{place(file)[1]}:{line}" if line else file
        print(
            f"{calls / units:7.2f} calls {own / units * 1e6:7.2f} own {total / units * 1e6:8.2f} with below  "
            f"{where} {name}"
        )


async def run(a: argparse.Namespace, wrap: Callable[[Any], Any]) -> float:
    """The workload with ``wrap`` around what is measured; its wall time."""
    app = perdure_run.async_app(a.db)
    async with app:
        await perdure_run.warm_up(app.work)
        gc.collect()
        meter = Meter(a.server_pid)
        with wrap(meter):
            result = await perdure_run.ASYNC[a.workload](app, a, meter)
        print({key: result[key] for key in result if key.endswith(("_s", "_ms"))})
        return float(result["wall_s"])


def main() -> None:
    parser = contender_arguments(__doc__, list(perdure_run.ASYNC))
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--top", type=int, default=20)
    a = parser.parse_args()
    units = a.n * (1 if a.workload != "burst" else a.k)
    if a.exact:
        profile = cProfile.Profile(time.thread_time)  # waiting is not work
        asyncio.run(run(a, lambda _: profile))
        report_exact(profile, units, a.top)
    else:
        sampler = Sampler()
        wall = asyncio.run(run(a, lambda _: sampler))
        sampler.report(units, wall, a.top)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
