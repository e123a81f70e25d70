"""``python -m perdure.testing.simulation --seeds 1..2000``: run seeds; ``--seed 42 --trace``: one, and what happened.

Exit status: 0 if all went well and (from 2,000 seeds on) every point was hit, else 1. How many times faster than real
time it was is printed, and judged only where ``--at-least`` asks for it: on a machine that has nothing else to do.
"""

from __future__ import annotations

import argparse
import os
import sys

from perdure.testing.simulation.runner import JOBS, run
from perdure.testing.simulation.scripts import KINDS
from perdure.testing.simulation.world import simulate

SEEDS = 2000  # from so many on each point must be hit


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m perdure.testing.simulation", description=__doc__)
    parser.add_argument("--seeds", default=f"1..{SEEDS}", help="FIRST..LAST")
    parser.add_argument("--jobs", type=int, default=JOBS, help="real processes")
    parser.add_argument("--seed", type=int, help="this one only")
    parser.add_argument("--mode", choices=("", "safety", "liveness"), default="", help="with --seed; default: by seed")
    parser.add_argument("--kinds", default="", help="of scripts: program,blocking …; default: most")
    parser.add_argument("--trace", action="store_true", help="with --seed: all that happened, by virtual microseconds")
    parser.add_argument("--at-least", type=float, default=0, help="times real time by processor time, else it fails")
    given = parser.parse_args(arguments)
    kinds = tuple(kind for kind in str(given.kinds).split(",") if kind)
    if unknown := set(kinds) - KINDS:
        parser.error(f"--kinds: there is no {', '.join(sorted(unknown))}; there is: {', '.join(sorted(KINDS))}")
    if given.seed is not None:
        result = simulate(given.seed, mode=given.mode, kinds=kinds, trace=given.trace)
        print("\n".join([*result.lines, str(result)]))  # noqa: T201 - a command
        return 0 if result.good else 1
    first, _, last = given.seeds.partition("..")
    report = run(range(int(first), int(last or first) + 1), given.jobs, kinds)
    wrong: list[str] = []
    if report.seeds >= SEEDS and report.missed and not kinds:
        wrong.append(f"points that were never hit: {'; '.join(report.missed)}")
    if report.together < given.at_least:
        wrong.append(
            f"{report.together:.0f} times real time, and {given.at_least:g} were asked for: profile it (waits cost "
            f"nothing; what does?), or compare with the commit before on the same machine"
        )
    print("\n".join([str(report), *wrong]))  # noqa: T201 - a command
    return 1 if report.failed or wrong else 0


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets of text must be the same in every process
        command = [sys.executable, "-m", "perdure.testing.simulation", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "PYTHONHASHSEED": "0"})  # noqa: S606 - the same again
    sys.exit(main())
