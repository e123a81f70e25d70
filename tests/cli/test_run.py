"""``perdure run``: finding the app, serving it, draining."""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import perdure.sync
from perdure import App
from perdure.cli import run
from tests.cli.conftest import Cli, Running, until


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("shopp:app", "there is no module 'shopp', neither in"),
        ("shopp:app", "did you mean shop?"),
        ("shop:ap", "module 'shop' has no 'ap'; did you mean shop:app?"),
        ("shop:charge", "shop:charge is a Step, not an App; its apps: shop:app, shop:blocking"),
        ("shop", "say which app of shop: its apps: shop:app, shop:blocking"),
        ("./shop.py:app", "give the module's name: perdure run shop:app"),
        ("shop-1:app", "'shop-1:app' does not name a module; write MODULE:APP"),
        ("empty:app", 'there is no App in it; write app = App("name") in empty'),
        ("needy:app", "ModuleNotFoundError: No module named 'not_installed_here'"),
        ("broken:app", "ZeroDivisionError: division by zero"),
        ("package.nope:app", "there is no module 'package.nope'"),
    ],
)
def test_what_cannot_be_run(perdure: Cli, here: Path, monkeypatch: pytest.MonkeyPatch, target: str, said: str) -> None:
    monkeypatch.syspath_prepend(str(here))
    (here / "shop.py").write_text((Path(__file__).parent / "shop.py").read_text())
    (here / "empty.py").write_text("x = 1\n")
    (here / "needy.py").write_text("import not_installed_here\n")
    (here / "broken.py").write_text("x = 1 / 0\n")
    (here / "package").mkdir()
    (here / "package" / "__init__.py").touch()
    stderr = perdure("run", target, code=2).stderr
    assert said in stderr
    assert "importlib" not in stderr


def test_another_app_than_was_asked_for(perdure: Cli, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(here))
    (here / "other_shop.py").write_text("from perdure import App\nthe_only = App('other')\n")
    said = perdure("run", "other_shop", "--app", "shop", code=2).stderr
    assert "other_shop is the app 'other', not 'shop' as --app says" in said


def test_serves_and_drains(perdure: Cli, here: Path, run_shop: Callable[..., Running]) -> None:
    running = run_shop("shop:app", "--executor-id", "left", "--database", "sqlite:///x.db")
    assert running.line.startswith(
        "perdure: serving app 'shop' (checkout, delivery, family, parcel, refuse, risky, stalled, teller) from "
    )
    assert "as executor left (pid " in running.line
    (who,) = perdure.json("executor", "list", "-d", "x.db")["executors"]
    assert (who["executor"], who["state"], who["pid"], who["holds"]) == ("left", "alive", running.process.pid, 0)
    perdure("workflow", "start", "parcel", "--id", "p-1", "-d", "x.db")
    until(lambda: perdure.json("executor", "list", "-d", "x.db")["executors"][0]["holds"])
    assert running.stop() == 0
    log = running.errors()
    assert "perdure: draining" in log
    assert "perdure: drained" in log
    assert "closed with 1 unfinished workflow" in log
    assert perdure("workflow", "list", "-d", "x.db", "--status", "running", "-o", "ids").stdout == ""
    assert "no executors" in perdure("executor", "list", "-d", "x.db").stdout


def test_a_second_signal_stops_at_once(perdure: Cli, here: Path, run_shop: Callable[..., Running]) -> None:
    running = run_shop("shop:app")
    perdure("workflow", "start", "stalled", json.dumps(f"{here}/mark"), "--id", "s-1")
    until((here / "mark").exists)
    running.process.send_signal(signal.SIGTERM)
    until(lambda: "draining" in running.errors())
    assert running.stop(signal.SIGINT) == 130
    assert "stopped at once" in running.errors()


@pytest.mark.parametrize("face", ["async", "sync"])
def test_a_signal_that_comes_twice_at_once_is_one(face: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a process gets it from its supervisor and from its group."""
    seen: list[str] = []
    asleep = asyncio.sleep

    def again(_seconds: float) -> None:
        signal.raise_signal(signal.SIGTERM)
        seen.append("again")

    async def again_async(seconds: float) -> None:
        if seconds == run.TOGETHER_SECONDS:
            again(seconds)
        await asleep(0)

    def drain(_app: object) -> SimpleNamespace:
        seen.append("drain")
        return SimpleNamespace(over=lambda: None)

    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    monkeypatch.setattr(run, "TOGETHER_SECONDS", 0.123)
    monkeypatch.setattr(run, "Drain", drain)
    monkeypatch.setattr(run, "_announce", lambda _app: signal.raise_signal(signal.SIGTERM))
    monkeypatch.setattr(run, "time", SimpleNamespace(sleep=again))
    try:
        if face == "sync":
            run._serve_sync(perdure.sync.App("a", database="sqlite:///a.db"), exit_when_drained=False)
        else:
            monkeypatch.setattr(asyncio, "sleep", again_async)
            asyncio.run(run._serve(App("a", database="sqlite:///a.db"), exit_when_drained=False))
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
            signal.signal(number, handler)
    assert seen == ["again", "drain"]


def test_an_app_of_the_sync_face(perdure: Cli, run_shop: Callable[..., Running]) -> None:
    running = run_shop("shop:blocking")
    assert "serving app 'blocking' (total)" in running.line
    perdure("workflow", "start", "total", "1", "2", "--id", "t-1")
    assert perdure("workflow", "result", "t-1").stdout == "3\n"
    assert running.stop() == 0
    assert "perdure: drained" in running.errors()


@pytest.mark.parametrize("streams", ["<&- >&- 2>&-", ">/dev/full 2>/dev/full"])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full disk to print to")
def test_it_serves_whatever_becomes_of_what_it_prints(here: Path, perdure: Cli, streams: str) -> None:
    """Closed streams, as some supervisors leave them, and a log on a full disk: neither is what is served."""
    shutil.copy(Path(__file__).parent / "shop.py", here / "shop.py")
    command = f"exec {shlex.quote(sys.executable)} -m perdure run shop:app {streams}"
    process = subprocess.Popen(["/bin/sh", "-c", command], cwd=here)
    try:
        until((here / ".perdure" / "shop.db").exists)
        until(lambda: '"state": "alive"' in perdure("executor", "list", "-o", "json", code=None).stdout)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def test_a_command_whose_output_is_closed_ends_as_ever(here: Path, perdure: Cli) -> None:
    perdure("db", "migrate", "-d", "sqlite:///x.db")
    command = f"exec {shlex.quote(sys.executable)} -m perdure executor list -d sqlite:///x.db -a shop >&- 2>&-"
    assert subprocess.run(["/bin/sh", "-c", command], cwd=here, check=False, timeout=60).returncode == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full disk to print to")
def test_a_command_whose_output_cannot_be_written_says_so(here: Path, perdure: Cli) -> None:
    perdure("db", "migrate", "-d", "sqlite:///x.db")
    command = f"exec {shlex.quote(sys.executable)} -m perdure db status -d sqlite:///x.db >/dev/full"
    ended = subprocess.run(["/bin/sh", "-c", command], cwd=here, check=False, timeout=60, stderr=subprocess.PIPE)
    assert ended.stderr == b"perdure: the output could not be written whole: No space left on device\n"
    assert ended.returncode == 1
