"""Resolve the pinned sets that `make` installs: requirements/run.lock, test.lock and dev.lock.

Each Python of ours that this machine has resolves the project's dependencies and its dependency groups with pip; what
they agree on is pinned plainly, what differs gets a marker. Run with ``make lock`` after a change in pyproject.toml.
Pins that can stay do stay, unless ``--upgrade`` is given. At the end each pin must have a wheel for every system of
ours: a fresh machine need have no compiler.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "requirements"
SYSTEMS = ("x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "aarch64-apple-darwin", "x86_64-apple-darwin")
HEAD = "# Produced from pyproject.toml by tools/lock.py (`make lock`); do not edit.\n"


def wanted(project: dict[str, Any], lock: str) -> list[str]:
    """The requirements behind one lock file."""
    needs: list[str] = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    if lock == "run":
        return needs

    def group(name: str) -> list[str]:
        found: list[str] = []
        for line in project["dependency-groups"][name]:
            found += [line] if isinstance(line, str) else group(line["include-group"])
        return found

    return needs + group(lock)


def resolve(python: str, needs: list[str], keep: Path | None) -> dict[str, str]:
    """What pip would install under that Python, by normalised name."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch, "report.json")
        pins = ["--constraint", str(keep)] if keep and keep.exists() else []
        pip = [sys.executable, "-m", "pip", "--python", python, "install", "-qq", "--dry-run", "--ignore-installed"]
        subprocess.run([*pip, "--report", str(report), *pins, *needs], check=True)
        installs = json.loads(report.read_text())["install"]
    names = ((re.sub(r"[-_.]+", "-", entry["metadata"]["name"]).lower(), entry) for entry in installs)
    return {name: entry["metadata"]["version"] for name, entry in names}


def lines(answers: dict[str, dict[str, str]]) -> list[str]:
    """One line per package, with a marker where the Pythons differ."""
    out: list[str] = []
    for name in sorted({name for answer in answers.values() for name in answer}):
        versions: dict[str, list[str]] = {}
        for python, answer in answers.items():
            if name in answer:
                versions.setdefault(answer[name], []).append(python)
        for version, pythons in versions.items():
            if pythons == list(answers):
                out.append(f"{name}=={version}")
            elif pythons[-1] == list(answers)[-1]:
                out.append(f'{name}=={version}; python_version >= "{pythons[0]}"')
            else:
                out.append(f"{name}=={version}; " + " or ".join(f'python_version == "{python}"' for python in pythons))
    return out


def without_wheels(lock: Path, python: str, system: str) -> str:
    """What uv says about pins that have no wheel for that Python on that system; "" if all have one."""
    uv = Path(sys.executable).with_name("uv")
    with tempfile.TemporaryDirectory() as scratch:
        where = ["--target", scratch, "--python-version", python, "--python-platform", system]
        install = [str(uv), "pip", "install", "--dry-run", "--quiet", "--only-binary", ":all:", "--no-deps", *where]
        done = subprocess.run([*install, "-r", str(lock)], check=False, capture_output=True, text=True)
    return done.stderr if done.returncode else ""


def check_wheels(pythons: list[str]) -> int:
    """Say which pins cannot be had as wheels; 1 if there are any."""
    missing = 0
    for python in pythons:
        for system in SYSTEMS:
            if told := without_wheels(LOCKS / "dev.lock", python, system):  # it holds the others
                print(f"Python {python} on {system}: not every pin has a wheel\n{told}", file=sys.stderr)
                missing = 1
    print(f"wheels: {'MISSING' if missing else 'all there'}, for {', '.join(pythons)} on {', '.join(SYSTEMS)}")
    return missing


def main() -> int:
    """Write the three lock files; the Pythons are those that tools/pythons.sh finds (``--wheels``: only look)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found = subprocess.run([str(ROOT / "tools/pythons.sh")], check=True, capture_output=True, text=True).stdout
    pythons = dict(line.split(" ", 1) for line in found.splitlines())
    if "--wheels" in sys.argv:
        return check_wheels(list(pythons))
    LOCKS.mkdir(exist_ok=True)
    keep = None if "--upgrade" in sys.argv else LOCKS / "dev.lock"
    for lock in ("dev", "test", "run"):
        answers = {version: resolve(python, wanted(project, lock), keep) for version, python in pythons.items()}
        (LOCKS / f"{lock}.lock").write_text(HEAD + "\n".join(lines(answers)) + "\n")
        print(f"requirements/{lock}.lock: {len(next(iter(answers.values())))} packages, for {', '.join(answers)}")
        keep = LOCKS / "dev.lock"  # the smaller sets are parts of the larger one
    return check_wheels(list(pythons))


if __name__ == "__main__":
    sys.exit(main())
