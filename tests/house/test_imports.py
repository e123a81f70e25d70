"""What ``import perdure`` costs: in a fresh process, few modules, little memory and time, no driver or command line."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "perdure"
MODULES_MAX = 370  # in all, with the standard library's (asyncio alone brings about 100)
OURS_MAX = {"perdure": 183, "perdure.sync": 200}  # the house has 500
GROWTH_MAX_MB = 40
REQUIRED_MAX = 5
NEVER = {"aiosqlite", "apsw", "asyncpg", "click", "fastapi", "flask", "lark", "pydantic", "sqlalchemy", "sqlite3"}
LATER = (  # what opens an app, and what few declare
    "perdure.api.process",
    "perdure.query.check",
    "perdure.runtime.engine",
    "perdure.runtime.execution",
    "perdure.runtime.transactions",
    "perdure.schemes",
    "perdure.store.sqlite",
)
# Of the CPU time of ``import asyncio, msgspec``, which no face can do without: 2.2 in November 2026, 2.8 before that.
RATIO_MAX = 2.6
ROUNDS = 21

PROBE = """
import json, resource, sys
def held():
    if sys.platform == "linux":  # the peak would be that of the process which began this one
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
before, names = held(), set(sys.modules)
import {module}
print(json.dumps({{"growth": held() - before, "new": sorted(set(sys.modules) - names)}}))
"""

CPU = """
import time
began = time.process_time()
import {modules}
print(time.process_time() - began)
"""

WORK = """
import asyncio, json, sys
from {face} import App, close_stream, recv, set_event, sleep, write_stream

app = App("late", version="1")

@app.step
{async_}def step(n: int) -> int:
    return n

@app.workflow
{async_}def child(n: int) -> int:
    {await_}sleep(0.001)
    return {await_}step(n)

@app.workflow
{async_}def parent() -> int:
    {await_}set_event("seen", 1)
    {await_}write_stream("s", 1)
    {await_}close_stream("s")
    return {await_}child(1) + {await_}recv("topic")

{async_}def main() -> list[str]:
    {async_}with app:
        there = set(sys.modules)
        handle = {await_}parent.start()
        {await_}handle.send(1, "topic")
        assert {await_}handle.result() == 2
        {await_}handle.get_event("seen")
        {await_}handle.info()
        assert {await_}step(1) == 1
        assert app.client.process("p").id == "p"
        return sorted(name for name in set(sys.modules) - there if name.startswith("perdure"))

print(json.dumps({run}))
"""


def said(script: str, **env: str) -> str:
    command = [sys.executable, "-W", "error", "-c", script]
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env={**inherited, **env})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", ["perdure", "perdure.sync"])
def test_importing_is_light(module: str, record_property: pytest.RecordProperty) -> None:
    probed = json.loads(said(PROBE.format(module=module)))
    growth, new = probed["growth"], set(probed["new"])
    ours = {name for name in new if name.partition(".")[0] == "perdure"}
    record_property("import", f"{module}: {len(new)} modules, {len(ours)} of them ours, {growth:.1f} MB")
    print(f"import {module}: {len(new)} modules, {len(ours)} of them ours, {growth:.1f} MB")
    assert not new & NEVER, "loaded when first used, not at import"
    assert sorted(name for name in ours if f"{name}.".startswith(tuple(f"{later}." for later in LATER))) == []
    assert len(ours) <= OURS_MAX[module]
    assert len(new) < MODULES_MAX
    assert growth < GROWTH_MAX_MB


def test_importing_takes_little_more_than_what_it_stands_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """CPU time in proportion, of fresh processes in turn: neither the machine's speed nor its other guests count."""
    taken: dict[str, list[float]] = {"asyncio, msgspec": [], "perdure": []}
    for _ in range(1 + ROUNDS):
        for modules, seconds in taken.items():
            seconds.append(float(said(CPU.format(modules=modules), PYTHONPYCACHEPREFIX=str(tmp_path))))
    least, ours = (statistics.median(seconds[1:]) for seconds in taken.values())  # the first had to be compiled
    with capsys.disabled():
        print(f"\nimport perdure: {ours * 1e3:.0f} ms, {ours / least:.2f} times what asyncio and msgspec take")
    assert ours / least < RATIO_MAX


@pytest.mark.parametrize("face", ["perdure", "perdure.sync"])
def test_an_open_app_loads_no_more_of_the_house(face: str, tmp_path: Path) -> None:
    """What importing spares is there once an app is open: a burst or a step never stops to load it."""
    words = {"async_": "async ", "await_": "await ", "run": "asyncio.run(main())"}
    if face == "perdure.sync":
        words = {"async_": "", "await_": "", "run": "main()"}
    script = WORK.format(face=face, **words)
    assert json.loads(said(script, PERDURE_DATABASE_URL=f"sqlite:///{tmp_path}/late.db")) == []


def test_little_is_required() -> None:
    project = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert len(project["dependencies"]) <= REQUIRED_MAX
    assert set(project["optional-dependencies"]) >= {
        "postgres"
    }  # the driver is asked for, not forced on who needs none
