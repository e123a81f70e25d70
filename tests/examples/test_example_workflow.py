"""The first example, in processes of its own: killed in the middle, started again, completed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-u", str(ROOT / "examples" / "example_workflow.py")]

pytestmark = [pytest.mark.slow, pytest.mark.crash]


def kill_at(marker: str, environment: dict[str, str], folder: Path) -> list[str]:
    """Run until a line has the marker, then SIGKILL; the lines so far."""
    lines: list[str] = []
    with subprocess.Popen(
        COMMAND, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            if marker in line:
                process.send_signal(signal.SIGKILL)
                break
        lines += [line.rstrip() for line in process.stdout]
    assert process.returncode == -signal.SIGKILL, lines
    return lines


def run(environment: dict[str, str], folder: Path) -> list[str]:
    done = subprocess.run(
        COMMAND, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=200,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout.splitlines()


def test_killed_in_the_middle_it_completes_step_two_and_never_repeats_step_one(database: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PERDURE_DATABASE_URL": database}
    lines = kill_at("4 ... press Ctrl+C", environment, tmp_path)
    assert "Step one completed!" in lines
    assert "Step two completed!" not in lines
    lines += kill_at("2 ... press Ctrl+C", environment, tmp_path)
    assert "Step two completed!" not in lines
    lines += run(environment, tmp_path)
    assert lines.count("Step one completed!") == 1
    assert lines.count("Step two completed!") == 1
    assert lines[-1] == "both steps are done" or "both steps are done" in lines
    again = run(environment, tmp_path)  # finished: the stored outcome, no step
    assert "both steps are done" in again
    assert not [line for line in again if line.startswith("Step ")]


def test_interrupted_from_the_keyboard_it_goes_on_too(database: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PERDURE_DATABASE_URL": database}
    lines: list[str] = []
    with subprocess.Popen(
        COMMAND, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            if "5 ... press Ctrl+C" in line:
                process.send_signal(signal.SIGINT)
    assert any("app example closed with 1 unfinished workflow" in line for line in lines), lines
    lines += run(environment, tmp_path)
    assert lines.count("Step one completed!") == 1
    assert lines.count("Step two completed!") == 1
