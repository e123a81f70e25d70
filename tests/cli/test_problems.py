"""What does not get a workflow on, on the command line: ``show``, ``list`` and ``count``."""

from __future__ import annotations

from typing import Any

import pytest

from perdure import App
from tests.cli.conftest import Cli, play
from tests.runtime.support import until


@pytest.fixture
def day(url: str) -> str:
    """A delivery whose step has failed once and is tried again in an hour, one that was cancelled so, a checkout."""

    async def scene(app: App, _shop: Any) -> None:
        for id in ("d-1", "d-2"):
            handle = await app.client.workflow("delivery", returns=object).options(id=id).start("a")
            await until(handle.problems)
        await app.client.handle("d-2").cancel()
        checkout = await app.client.workflow("checkout", returns=object).options(id="o-1").start("a", 1999)
        await checkout.result()

    play(url, scene)
    return url


def test_show_tells_what_does_not_get_it_on(perdure: Cli, day: str) -> None:
    lines = perdure("workflow", "show", "d-1").stdout.splitlines()
    [at] = [n for n, line in enumerate(lines) if line.startswith("  problem ")]
    assert "step_failed, step deliver at 1: attempt 1 of version " in lines[at]
    assert ", next 20" in lines[at]
    assert lines[at + 1].strip().startswith("first 20")
    assert ", last 20" in lines[at + 1]
    assert lines[at + 2].strip() == "ConnectionError: no road"
    assert "  problems  1, over" in perdure("workflow", "show", "d-2").stdout
    assert "  problems  1, over" in perdure("workflow", "show", "o-1").stdout, "its card was refused once"


def test_for_programs(perdure: Cli, day: str) -> None:
    shown = perdure.json("workflow", "show", "d-1")["workflow"]
    assert shown["problem"] == "step_failed"
    [problem] = shown["problems"]
    told = {name: problem[name] for name in ("kind", "text", "run", "step", "path", "attempt", "cleared")}
    assert told == {
        "kind": "step_failed", "text": "ConnectionError: no road", "run": 1, "step": "deliver", "path": "1",
        "attempt": 1, "cleared": None,
    }  # fmt: skip
    assert problem["first"] == problem["last"] < problem["next"]
    assert perdure.json("workflow", "show", "d-2")["workflow"]["problem"] is None
    [over] = perdure.json("workflow", "show", "o-1")["workflow"]["problems"]
    assert (over["step"], over["attempt"], over["next"]) == ("charge", 1, None)
    assert over["first"] <= over["cleared"]


def test_list_and_count(perdure: Cli, day: str) -> None:
    assert perdure("workflow", "list", "problem = step_failed", "-o", "ids").stdout == "d-1\n"
    [line] = [line for line in perdure("workflow", "list").stdout.splitlines() if line.startswith("d-1")]
    assert "step_failed" in line
    counted = perdure("workflow", "count", "GROUP BY problem").stdout.splitlines()
    assert [line.split() for line in counted] == [
        ["PROBLEM", "COUNT"], ["(none)", "2"], ["step_failed", "1"], ["3", "in", "all"],
    ]  # fmt: skip
    said = perdure("workflow", "list", "problem = step_fialed", code=2).stderr
    assert "'step_fialed' is not a problem" in said or "did you mean 'step_failed'" in said
