"""The command line under test: called in this process, or as a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from perdure import App
from perdure.cli.main import cli

HERE = Path(__file__).parent
PERDURE = [sys.executable, "-m", "perdure.cli"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory to stand in, and no settings from outside."""
    for name in list(os.environ):
        if name.startswith("PERDURE_") and name != "PERDURE_TEST_POSTGRES":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Cli:
    """``perdure …`` in this process."""

    def __call__(self, *args: object, code: int | None = 0) -> Result:
        result = CliRunner().invoke(cli, [str(arg) for arg in args], prog_name="perdure")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert code in (None, result.exit_code), f"exit {result.exit_code}\n{result.stdout}\n{result.stderr}"
        return result

    def json(self, *args: object, code: int = 0) -> Any:
        document = json.loads(self(*args, "--output", "json", code=code).stdout)
        assert document["version"] == 1
        return document


@pytest.fixture
def perdure() -> Cli:
    return Cli()


@pytest.fixture
def url(here: Path) -> str:
    """Where ``shop`` keeps its workflows if nobody says otherwise."""
    return f"sqlite:///{here}/.perdure/shop.db"


Scene = Callable[[App, Any], Awaitable[Any]]


def play(url: str, scene: Scene, name: str = "shop") -> Any:
    """Run the shop's app here, on that database, while ``scene`` goes on."""
    from tests.cli import shop

    shop.tries.clear()
    app = App(name, database=url, lease=5)
    for definition in (shop.checkout, shop.refuse, shop.parcel, shop.stalled, shop.family, shop.teller, shop.delivery):
        app._registry.workflows[definition.name] = definition.definition
    app._registry.steps.update(shop.app._registry.steps)

    async def go() -> Any:
        async with app:
            return await scene(app, shop)

    homes = shop.app._homes
    before, homes.home = homes.home, app._home  # whose bodies call each other in this app
    try:
        return asyncio.run(go())
    finally:
        homes.home = before


class Running:
    """``perdure run …`` as a process, with its first line heard."""

    def __init__(self, args: list[str], folder: Path) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PERDURE_")}
        self.log = folder / f"run-{time.monotonic_ns()}.log"
        with self.log.open("wb") as errors:
            self.process = subprocess.Popen(
                [*PERDURE, "run", *args], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        self.line = self.hear()

    def hear(self) -> str:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], 20)
        assert ready, self.errors()
        return self.process.stdout.readline()

    def errors(self) -> str:
        return self.log.read_text()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def run_shop(here: Path) -> Iterator[Callable[..., Running]]:
    """Starts ``perdure run``; whatever still runs at the end is killed."""
    shutil.copy(HERE / "shop.py", here / "shop.py")
    started: list[Running] = []

    def run(*args: str) -> Running:
        started.append(running := Running(list(args) or ["shop:app"], here))
        return running

    yield run
    for running in started:
        running.process.kill()
        running.process.wait()
        assert running.process.stdout is not None
        running.process.stdout.close()


def until(found: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Look until it is so."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.01)  # waits: another process has no other way to tell
    raise AssertionError(f"not within {seconds} s")
