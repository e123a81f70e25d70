"""What an import costs, in fresh processes in turn: CPU time, time, memory, modules.

    python -m bench.imports                          # this tree
    python -m bench.imports --before ../old/src      # beside another one

Each process is told to keep what it compiled, and the first round, which compiles, is not counted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src"
PROBE = """
import resource, sys, time
def held():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6
before, names, began, cpu = held(), set(sys.modules), time.perf_counter(), time.process_time()
import {modules}
took = time.process_time() - cpu, time.perf_counter() - began
new = set(sys.modules) - names
print(took[0] * 1e3, took[1] * 1e3, held() - before, len(new), sum(name.startswith("perdure") for name in new))
"""


def once(source: Path, modules: str, kept: str) -> list[float]:
    env = {**os.environ, "PYTHONPATH": str(source), "PYTHONPYCACHEPREFIX": kept}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-c", PROBE.format(modules=modules)]
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    return [float(word) for word in done.stdout.split()]


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--rounds", type=int, default=30)
    ask.add_argument("--before", type=Path, help="the src of another tree")
    asked = ask.parse_args()
    cases = {"asyncio, msgspec": (SOURCE, "asyncio, msgspec")}
    for modules in ("perdure", "perdure.sync"):
        if asked.before is not None:
            cases[f"{modules}, before"] = (asked.before.resolve(), modules)
        cases[modules] = (SOURCE, modules)
    runs: dict[str, list[list[float]]] = {name: [] for name in cases}
    with tempfile.TemporaryDirectory() as kept:
        for _ in range(1 + asked.rounds):
            for name, (source, modules) in cases.items():
                runs[name].append(once(source, modules, kept))
    print("| import | CPU, ms: median [least] | time, ms: median [least] | memory, MB | modules | of them ours |")
    print("|---|---|---|---|---|---|")
    for name, run in runs.items():
        cpu, took, memory, modules_, ours = zip(*run[1:], strict=True)
        print(
            f"| {name} | {statistics.median(cpu):.1f} [{min(cpu):.1f}] | {statistics.median(took):.1f} "
            f"[{min(took):.1f}] | {statistics.median(memory):.1f} | {modules_[0]:.0f} | {ours[0]:.0f} |"
        )


if __name__ == "__main__":
    main()
