"""The same commands on Postgres: a few of each kind, the rest is the store's own suite."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner

from perdure.cli.main import cli
from tests.cli.conftest import Cli, Running, play, until
from tests.cli.test_workflows import a_day
from tests.postgres import Cluster
from tests.roles import Role

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


COMMANDS = (
    ("workflow", "list"), ("workflow", "start", "parcel"), ("workflow", "count"), ("executor", "list"),
    ("queue", "list"), ("schedule", "list"), ("deployment", "list"), ("batch", "list"), ("db", "status"),
    ("db", "migrate"), ("db", "size"),
)  # fmt: skip


def test_a_role_without_rights_is_told_what_to_be_granted(
    perdure: Cli, role: Role, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never with a traceback."""
    at = ("--app", "shop", "--database", role.url)
    for command in COMMANDS:
        said = perdure(*command, *at, code=4).stderr
        assert f"refuses this to the role {role.name} " in said, command
        assert "Grant it usage on Perdure's schema" in said
    monkeypatch.syspath_prepend(str(here))
    (here / "rightless.py").write_text("from perdure import App\napp = App('shop')\n")
    assert f"refuses this to the role {role.name} " in perdure("run", "rightless:app", *at, code=4).stderr
    assert "permission denied for schema perdure" in faults(role)["rights"]


def test_doctor_says_which_rights_are_missing(perdure: Cli, role: Role) -> None:
    role.grant_all()
    assert faults(role) == {}
    role.sql("revoke insert, delete on perdure.history from {role}", "revoke all on perdure.wake from {role}")
    lacks = "lacks INSERT, DELETE on history; SELECT, INSERT, UPDATE, DELETE on wake"
    assert faults(role) == {"rights": f"the role {role.name} {lacks}"}
    role.sql("revoke all on all tables in schema perdure from {role}")
    assert list(faults(role)) == ["rights"]
    role.sql("grant select on all tables in schema perdure to {role}")
    assert faults(role) == {}, "it is to read only"


def faults(role: Role) -> dict[str, str]:
    result = CliRunner().invoke(cli, ["doctor", "--database", role.url, "-o", "json"])
    facts = {fact["what"]: fact["value"] for fact in json.loads(result.stdout)["facts"] if not fact["good"]}
    assert result.exit_code == bool(facts)
    return facts


@pytest.mark.crash
def test_a_drain_ends_although_the_database_is_away(
    perdure: Cli, cluster: Cluster, run_shop: Callable[..., Running], here: Path
) -> None:
    """What could not be handed back is said, and left to the lease."""
    name = cluster.create_database()
    at = ("--database", cluster.url(name))
    running = run_shop("shop:app", *at)
    perdure("workflow", "start", "stalled", f'"{here}/mark"', "--id", "s-1", *at)
    until((here / "mark").exists)
    cluster.stop("immediate")
    running.process.send_signal(signal.SIGTERM)
    until(lambda: "draining" in running.errors())
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(60) == 130
    assert "1 workflow was not handed back" in running.errors()
    assert "perdure: drained" not in running.errors()
    cluster.start()
    run_shop("shop:app", *at)
    assert perdure("workflow", "result", "s-1", "--timeout", 30, *at).stdout == '"went on"\n'
