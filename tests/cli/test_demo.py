"""The demo: really killed, really resumed, and not believed unless it was so."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from perdure.cli.demo import STEPS, Demo
from tests.cli.conftest import PERDURE, Cli


def demo(folder: Path, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PERDURE, "demo", *args], cwd=folder, capture_output=True, text=True, timeout=200, check=False,
        env=os.environ | environment,
    )  # fmt: skip


ELSEWHERE = str(Path(__file__).resolve().parents[1] / "elsewhere")


@pytest.mark.crash
@pytest.mark.parametrize(
    "system", [{}, {"TESTED_ELSEWHERE": "macos", "PYTHONPATH": ELSEWHERE}], ids=["here", "as on macOS"]
)
def test_the_demo_tells_the_truth(here: Path, system: dict[str, str]) -> None:
    done = demo(here, **system)
    assert done.returncode == 0, done.stdout + done.stderr
    text = done.stdout
    assert done.stderr == ""
    assert "\x1b" not in text
    pids = re.findall(r"process (\d+)", text)
    assert len(set(pids)) == 2
    assert f"kill -9 {pids[0]}: the process is dead (signal 9)" in text
    assert "order-1 is running, 4 of 8 steps are recorded" in text
    assert "took over order-1 at 5/8 book_courier" in text
    recorded = re.findall(r"✓ (\d)/8 (\w+)\(.* recorded", text)
    assert recorded == [(str(number), step) for number, step in enumerate(STEPS, 1)]
    assert "✗ book_courier('order-1'): was in flight" in text
    assert "survived  the death of an executor" in text
    assert len(re.findall(r"ran exactly 1 time", text)) == 7
    assert "book_courier    ran 2 times: it was in flight when the process died" in text
    assert "the same both times, so the courier sees one booking" in text
    assert "✓ all 13 checks held" in text
    assert list(here.iterdir()) == []


@pytest.mark.crash
def test_the_demo_can_be_kept_and_looked_at(here: Path, perdure: Cli) -> None:
    """Also under an encoding without its glyphs, and whatever the settings around it are."""
    done = demo(here, "--keep", PYTHONIOENCODING="ascii", PERDURE_DATABASE_URL="postgresql://nowhere/x")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.isascii()
    show = re.search(r"try: perdure (.*)", done.stdout)
    assert show is not None
    assert "place_order  completed" in perdure(*show[1].split()).stdout


def test_a_claim_that_is_not_so_is_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    play = Demo(here)
    play._check(True, "the sky is blue")
    play._check(False, "the sky is green")
    assert play._verdict() is False
    assert "it was claimed, and is not so: the sky is green" in capsys.readouterr().out


@pytest.mark.crash
def test_a_shop_that_dies_by_itself_is_told(here: Path) -> None:
    done = demo(here, PYTHONWARNINGS="ignore", APSW_DEMO="", PATH="", HOME=str(here), PYTHONPATH=str(broken(here)))
    assert done.returncode == 1
    assert "fell silent; it said:" in done.stderr
    assert "no such luck" in done.stderr


def broken(here: Path) -> Path:
    """A place on the path whose site module spoils every process but the demo's own."""
    folder = here / "path"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'perdure.cli.demo_order' in ' '.join(sys.orig_argv):\n"
        "    sys.stderr.write('no such luck')\n"
        "    sys.stderr.flush()\n"
        "    import os, signal\n"
        f"    os.kill(os.getpid(), {int(signal.SIGKILL)})\n"
    )
    return folder
