"""``perdure workflow count`` and the queries of ``workflow list``."""

from __future__ import annotations

import json
from typing import Any

import pytest

from perdure import App
from perdure.errors import WorkflowFailed
from tests.cli.conftest import Cli, play


@pytest.fixture
def day(url: str) -> str:
    """Three workflows of the shop that completed, and one that failed."""

    async def scene(app: App, shop: Any) -> None:
        for number, region in enumerate(["eu", "us", "eu"]):
            checkout = app.client.workflow("checkout", returns=object)
            attributes = {"region": region, "cents": number * 100}
            handle = await checkout.options(id=f"o-{number}", attributes=attributes).start("a", 1999)
            await handle.result()
        refused = await app.client.workflow("refuse", returns=object).options(id="bad-1").start("4242")
        with pytest.raises((ValueError, WorkflowFailed)):
            await refused.result()

    play(url, scene)
    return url


def test_count(perdure: Cli, day: str) -> None:
    assert perdure("workflow", "count").stdout == "4\n"
    assert perdure("workflow", "count", "status = completed").stdout == "3\n"
    assert perdure("workflow", "count", "--query", "attributes.region = 'eu'").stdout == "2\n"
    assert perdure("workflow", "count", "--type", "checkout", "attributes.cents > 50").stdout == "2\n"
    assert perdure("workflow", "count", "--status", "failed").stdout == "1\n"
    assert perdure.json("workflow", "count", "status = open") == {"version": 1, "count": 0}
    assert perdure("workflow", "count", "-o", "jsonl").stdout == '{"version":1,"count":4}\n'


def test_count_by_groups(perdure: Cli, day: str) -> None:
    lines = perdure("workflow", "count", "GROUP BY status, attributes.region").stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["STATUS", "ATTRIBUTES.REGION", "COUNT"],
        ["completed", "eu", "2"],
        ["completed", "us", "1"],
        ["failed", "(none)", "1"],
        ["4", "in", "all"],
    ]
    document = perdure.json("workflow", "count", "GROUP BY status")
    assert document == {
        "version": 1, "count": 4,
        "groups": [{"fields": {"status": "completed"}, "count": 3}, {"fields": {"status": "failed"}, "count": 1}],
    }  # fmt: skip
    said = perdure("workflow", "count", "status = failed GROUP BY error", "-o", "jsonl").stdout
    assert [json.loads(line)["group"]["count"] for line in said.splitlines()] == [1]
    assert perdure("workflow", "count", "status = open GROUP BY status").stdout == "no workflows match\n"


def test_list_takes_a_query_in_either_place_and_options_narrow_it(perdure: Cli, day: str) -> None:
    def ids(*options: object) -> list[str]:
        return perdure("workflow", "list", "-o", "ids", *options).stdout.split()

    assert ids("type = checkout ORDER BY id") == ["o-0", "o-1", "o-2"]
    assert ids("--query", "type = checkout ORDER BY id DESC", "--limit", 2) == ["o-2", "o-1"]
    assert ids("ORDER BY id", "--status", "completed", "--type", "checkout") == ["o-0", "o-1", "o-2"]
    assert ids("status = completed", "--status", "failed") == []
    assert ids("ExecutionStatus='Failed' AND CloseTime > now - 1h") == ["bad-1"]
    assert ids("id = 'o-1' OR id = 'o-2'", "--all-runs", "--status", "closed") == ["o-2", "o-1"]
    assert "(the first 1; for more: --limit 10)" in perdure("workflow", "list", "ORDER BY id", "--limit", 1).stdout
    assert "o-1 #1 " in perdure("workflow", "list", "id = 'o-1'", "--all-runs").stdout


def test_what_is_said_of_a_query_that_cannot_be_read(perdure: Cli, day: str) -> None:
    said = perdure("workflow", "list", "statsu = failed", code=2).stderr
    assert said.splitlines()[0].startswith("perdure: the query cannot be read at column 1: there is no field 'statsu'")
    assert said.splitlines()[1:] == ["  statsu = failed", "  ^^^^^^"]
    assert "GROUP BY is for a count" in perdure("workflow", "list", "GROUP BY status", code=2).stderr
    assert "a count has no order" in perdure("workflow", "count", "ORDER BY id", code=2).stderr
    assert "a count has no ids" in perdure("workflow", "count", "-o", "ids", code=2).stderr
    assert "given twice" in perdure("workflow", "list", "id = a", "--query", "id = a", code=2).stderr
    assert "--stranded goes with" in perdure("workflow", "list", "--stranded", "id = a", code=2).stderr
    said = perdure("workflow", "count", "WorkerDeploymentVersion = 'shp:v1'", code=2).stderr
    assert "this is app 'shop'; 'shp:v1' names a version of 'shp'" in said
