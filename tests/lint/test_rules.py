"""Each rule of ``perdure check``: what it finds, what it lets through, and where it says it is."""

from __future__ import annotations

import importlib.util
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from perdure.lint import Finding, read_workflow

HEAD = """
import asyncio, datetime, os, random, secrets, time, uuid
from contextlib import suppress
from datetime import datetime as dt
from pathlib import Path
from perdure import App, now, sleep
app = App("linted")
seen, table, chosen = [], {"a": 1}, {"x", "y"}
@app.step
async def act(x: int = 0) -> int:
    return x + time.time_ns()
def helper() -> float:
    return deeper()
def deeper() -> float:
    return time.time()
"""
LINES = HEAD.count("\n")

Read = Callable[[str], list[Finding]]


@pytest.fixture
def read(tmp_path: Path) -> Iterator[Read]:
    """Findings in ``body``, the statements of an async workflow."""

    def reading(body: str) -> list[Finding]:
        path = tmp_path / "linted_module.py"
        path.write_text(
            HEAD + "@app.workflow\nasync def flow(n: int) -> None:\n" + textwrap.indent(body, "    ") + "\n"
        )
        spec = importlib.util.spec_from_file_location("linted_module", path)
        assert spec is not None
        assert spec.loader is not None
        module: Any = importlib.util.module_from_spec(spec)
        sys.modules["linted_module"] = module
        spec.loader.exec_module(module)
        return read_workflow(module.flow.definition)

    yield reading
    sys.modules.pop("linted_module", None)


@pytest.mark.parametrize(
    ("body", "rule", "what"),
    [
        ("time.time()", "clock", "time.time(…)"),
        ("dt.now()", "clock", "dt.now(…)"),
        ("datetime.datetime.utcnow()", "clock", "datetime.datetime.utcnow(…)"),
        ("datetime.date.today()", "clock", "datetime.date.today(…)"),
        ("import time as t\nt.monotonic()", "clock", "t.monotonic(…)"),
        ("from time import perf_counter\nperf_counter()", "clock", "perf_counter(…)"),
        ("time.sleep(1)", "sleep", "time.sleep(…)"),
        ("random.random()", "random", "random.random(…)"),
        ("random.choice([1])", "random", "random.choice(…)"),
        ("random.Random()", "random", "without a seed"),
        ("uuid.uuid4()", "random", "uuid.uuid4(…)"),
        ("os.urandom(4)", "random", "os.urandom(…)"),
        ("secrets.token_hex()", "random", "secrets.token_hex(…)"),
        ("open('x')", "io", "open(…)"),
        ("Path('x').read_text()", "io", "read_text(…)"),
        ("os.environ['HOME']", "io", "os.environ[…]"),
        ("os.getenv('HOME')", "io", "os.getenv(…)"),
        ("os.listdir('.')", "io", "os.listdir(…)"),
        ("import httpx\nhttpx.get('http://x')", "io", "httpx.get(…)"),
        ("await asyncio.to_thread(len, [])", "thread", "asyncio.to_thread(…)"),
        ("import threading\nthreading.Thread().start()", "thread", "threading.Thread(…)"),
        ("for x in {1, 2}:\n    await act(x)", "order", "the order of a set"),
        ("for x in set([2]):\n    await act(x)", "order", "the order of set(…)"),
        ("for x in chosen:\n    await act(len(x))", "order", "the order of chosen, a set"),
        ("hash('x')", "order", "hash(…)"),
        ("global seen\nseen = [1]", "global", "global seen"),
        ("seen.append(1)", "global", "seen.append(…)"),
        ("table['b'] = 2", "global", "table['b'] = …"),
        ("table['a'] += 2", "global", "table['a'] = …"),
        ("act(1)", "await", "act(…)"),
        ("try:\n    await act()\nexcept BaseException:\n    pass", "swallow", "except BaseException"),
        ("try:\n    await act()\nexcept:\n    pass", "swallow", "except:"),
        ("try:\n    await act()\nexcept asyncio.CancelledError:\n    pass", "swallow", "except asyncio.CancelledError"),
        ("try:\n    await act()\nfinally:\n    helper()", "cleanup", "helper(…) in finally"),
    ],
)
def test_what_is_found(read: Read, body: str, rule: str, what: str) -> None:
    found = [one for one in read(body) if not one.chain]
    assert [one.rule for one in found] == [rule]
    assert what in found[0].said
    assert found[0].fix


@pytest.mark.parametrize(
    "body",
    [
        "now()",
        "await asyncio.sleep(3)",
        "await sleep(3)",
        "random.Random(n).random()",
        "await act(table['a'])",
        "for x in sorted(chosen):\n    await act(len(x))",
        "os.path.join('a', 'b')",
        "datetime.datetime(2020, 1, 1)",
        "seen = []\nseen.append(1)",
        "table = {}\ntable['b'] = 2",
        "await asyncio.gather(act(1), act(2))",
        "task = asyncio.create_task(act(1))\nawait task",
        "try:\n    await act()\nexcept Exception:\n    pass\nfinally:\n    await act()",
        "try:\n    await act()\nexcept BaseException:\n    await act()\n    raise",
        "time.time()  # perdure: ignore",
        "time.time()  # perdure: ignore[clock]",
        "dt.fromisoformat('2020-01-01')",
    ],
)
def test_what_is_let_through(read: Read, body: str) -> None:
    assert read(body) == []


def test_the_place_is_that_of_the_call(read: Read) -> None:
    [found] = read("await act()\nx = 1; y = time.time()")
    assert Path(found.path).name == "linted_module.py"
    assert (found.line, found.column) == (LINES + 2 + 2, len("    x = 1; y = ") + 1)


def test_a_helper_is_read_too_and_the_way_to_it_shown(read: Read) -> None:
    [found] = read("helper()")
    assert found.rule == "clock"
    assert found.chain == ("helper", "deeper")
    assert "[flow -> helper() -> deeper()]" in str(found)


def test_an_ignore_of_another_rule_ignores_nothing(read: Read) -> None:
    [found] = read("time.time()  # perdure: ignore[random]")
    assert found.rule == "clock"


def test_steps_may_do_what_they_like(read: Read) -> None:
    assert read("await act(1)") == [], "act reads the clock"
