"""The same commands on Postgres: a few of each kind, the rest is the store's own suite."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.cli.conftest import Cli, Running, play, until
from tests.cli.test_workflows import a_day

pytestmark = pytest.mark.postgres


def test_look_at_it(perdure: Cli, bare_postgres_url: str) -> None:
    at = ("--database", bare_postgres_url)
    assert "has no tables of Perdure yet" in perdure("workflow", "list", *at, code=4).stderr
    assert "schema version 0" in perdure("db", "status", *at, code=1).stdout
    assert perdure("db", "migrate", *at).stdout.startswith("applied 0001")
    assert "no app has used" in perdure("workflow", "list", *at, code=3).stderr
    play(bare_postgres_url, a_day)
    assert perdure("workflow", "list", "-o", "ids", *at).stdout.split() == ["p-1", "f-1:1", "f-1", "bad-1", "o-1"]
    assert 'result: {"charge":"charge-a","cents":1999}' in perdure("workflow", "show", "o-1", *at).stdout
    perdure("workflow", "result", "bad-1", *at, code=1)
    perdure("workflow", "start", "parcel", "--id", "p-2", *at)
    assert perdure("workflow", "cancel", "p-2", *at).stdout == "p-2: cancelled\n"
    document = perdure.json("doctor", *at, code=1)
    assert [fact["what"] for fact in document["facts"] if not fact["good"]] == ["shop: executors"]


def test_run_it(perdure: Cli, postgres_url: str, run_shop: Callable[..., Running], here: Path) -> None:
    at = ("--database", postgres_url)
    running = run_shop("shop:app", *at)
    perdure("workflow", "start", "checkout", '"a"', "--id", "o-1", *at)
    assert json.loads(perdure("workflow", "result", "o-1", *at).stdout)["charge"] == "charge-a"
    perdure("workflow", "start", "stalled", f'"{here}/mark"', "--id", "s-1", *at)
    until((here / "mark").exists)
    running.process.kill()
    running.process.wait()
    assert "killed" in perdure("executor", "list", *at).stdout
    run_shop("shop:app", *at)
    assert perdure("workflow", "result", "s-1", "--timeout", 10, *at).stdout == '"went on"\n'
    assert "): was in flight" in perdure("workflow", "show", "s-1", *at).stdout


def test_a_wrong_password_is_never_shown(perdure: Cli, postgres_url: str) -> None:
    parts = urlsplit(postgres_url)
    nowhere = f"postgresql://me:s3cret@{parts.hostname}:{parts.port}/not_there"
    for command in (("workflow", "list"), ("db", "status"), ("doctor",)):
        result = perdure(*command, "-d", nowhere, code=4)
        assert "not_there" in result.stdout + result.stderr
        assert "s3cret" not in result.stdout + result.stderr
        assert "is the server up" not in result.stdout
