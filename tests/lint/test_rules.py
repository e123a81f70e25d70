"""Each rule of ``perdure check``: what it finds, what it lets through, and where it says it is."""

from __future__ import annotations

import importlib.util
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from perdure.cli.run import home_of
from perdure.lint import Finding, read_workflow

HEAD = """
import asyncio, collections, datetime, itertools, os, random, secrets, time, uuid
from contextlib import suppress
from datetime import datetime as dt
from pathlib import Path
from perdure import App, now, sleep
app = App("linted")
seen, table, chosen = [], {"a": 1}, {"x", "y"}
ids, line = itertools.count(), collections.deque()
class Counts:
    total = 0
    names = []
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
    """Findings in ``body``, the statements of an async workflow, or in what is declared as ``flow``."""

    def reading(body: str) -> list[Finding]:
        path = tmp_path / "linted_module.py"
        if "flow" not in body:
            body = "@app.workflow\nasync def flow(n: int) -> None:\n" + textwrap.indent(body, "    ")
        path.write_text(HEAD + body + "\n")
        spec = importlib.util.spec_from_file_location("linted_module", path)
        assert spec is not None
        assert spec.loader is not None
        module: Any = importlib.util.module_from_spec(spec)
        sys.modules["linted_module"] = module
        spec.loader.exec_module(module)
        [definition] = home_of(module.app).definitions().workflows.values()
        return read_workflow(definition)

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
        ("for x in list({1, 2}):\n    await act(x)", "order", "the order of a set"),
        ("for n, x in enumerate(set([2])):\n    await act(x)", "order", "the order of set(…)"),
        ("mine = {1, 2}\nfor x in mine:\n    await act(x)", "order", "the order of mine, a set"),
        (
            "mine: set[int] = set()\nmine |= {1}\nfor x in mine - {2}:\n    await act(x)",
            "order",
            "the order of mine - {2}",
        ),
        ("await asyncio.gather(*{act(1), act(2)})", "order", "the order of a set"),
        ("mine = {1, 2}\nawait act(mine.pop())", "order", "which element mine.pop() gives"),
        ("hash('x')", "order", "hash(…)"),
        ("global seen\nseen = [1]", "global", "global seen"),
        ("seen.append(1)", "global", "seen.append(…)"),
        ("table['b'] = 2", "global", "table['b'] = …"),
        ("table['a'] += 2", "global", "table['a'] = …"),
        ("del table['a']", "global", "del table['a']"),
        ("line.appendleft(1)", "global", "line.appendleft(…)"),
        ("await act(next(ids))", "global", "next(ids)"),
        ("Counts.total += 1", "global", "Counts.total = …"),
        ("Counts.names.append('x')", "global", "Counts.names.append(…)"),
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
        "mine = {1, 2}\nfor x in sorted(mine):\n    await act(x)",
        "mine = {1, 2}\nmine = [1, 2]\nfor x in mine:\n    await act(x)",
        "for mine in ({1}, [2]):\n    for x in mine:\n        await act(x)",
        "await act(sum(len(x) for x in chosen))",
        "mine = {len(x) for x in chosen}\nmine.add(2)",
        "numbers = iter([1])\nawait act(next(numbers))",
        "numbers = [1]\nawait act(numbers.pop())",
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


PROCESS = """
from perdure.process import Process, State
@app.process(name="trip")
class flow(Process):
    at: float = 0
    draft = State(initial=True)
    booked = State(final=True)
    book = draft.to(booked, cond="lucky")
    def lucky(self) -> bool:
        return random.random() > 0.5
    async def on_enter_booked(self) -> None:
        self.at = helper()
        self.at = now().timestamp()
"""


def test_what_a_process_runs_is_read(read: Read) -> None:
    found = sorted((one.rule, one.chain) for one in read(PROCESS))
    assert found == [("clock", ("on_enter_booked", "helper", "deeper")), ("random", ("lucky",))]
