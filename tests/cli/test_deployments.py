"""``perdure deployment …``, and ``perdure run --exit-when-drained`` as a process of its own. On both stores."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perdure import App, recv
from tests.cli.conftest import Cli, Running, until

RELEASE = """
from perdure import App, Topic, recv, current

app = App("shop", version="{version}", rollout="manual", lease=2)


@app.step
async def note() -> str:
    return current().version


@app.workflow(versioning="pinned")
async def order() -> list[str]:
    return [await note(), str(await recv("go")), await note()]
"""


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def where(request: pytest.FixtureRequest, here: Path) -> str:
    """A database."""
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{here}/shop.db"


@pytest.fixture
def deployed(perdure: Cli, where: str, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Two versions that were launched, of which ``v1`` is current and has a pinned workflow; nobody serves."""

    def release(version: str) -> App:
        app = App("shop", database=where, version=version, rollout="manual")

        @app.workflow(name="order", versioning="pinned")
        async def order() -> None:
            await recv("go")

        app.order = order  # type: ignore[attr-defined]
        return app

    async def launch() -> None:
        for version in ("v1", "v2"):
            async with release(version) as app:
                if version == "v1":
                    await app.order.options(id="w").start()  # type: ignore[attr-defined]

    asyncio.run(launch())
    monkeypatch.setenv("PERDURE_DATABASE_URL", where)
    return perdure


def test_versions_are_listed_with_state_and_open_work(deployed: Cli) -> None:
    versions = deployed.json("deployment", "list")["versions"]
    assert [(one["version"], one["state"], one["open_work"]["pinned"]) for one in versions] == [
        ("v2", "inactive", 0),
        ("v1", "current", 1),
    ]
    assert set(versions[0]) == {
        "version", "state", "since", "percentage", "first_launched", "launched", "withdrawn", "executors", "open_work",
        "metadata",
    }  # fmt: skip
    assert deployed("deployment", "list", "-o", "ids").stdout == "v2\nv1\n"
    one_a_line = deployed("deployment", "list", "-o", "jsonl").stdout.splitlines()
    assert [json.loads(line) for line in one_a_line] == [{"version": 1, "deployment_version": one} for one in versions]
    head, v2, v1 = deployed("deployment", "list").stdout.splitlines()
    assert head.lower().split() == [
        "version", "state", "since", "launched", "executors", "pinned", "undeclared", "auto", "metadata",
    ]  # fmt: skip
    assert re.match(r"v2 +inactive .* 0 +0 +0 +0$", v2)
    assert re.match(r"v1 +current .* 0 +1 +0 +0$", v1)


def test_a_rollout_from_the_first_share_to_the_deletion(deployed: Cli) -> None:
    """Every command twice: the second time it says that nothing is to do, and nothing is changed."""

    def both(*args: str) -> str:
        first = deployed("deployment", *args).stdout
        before = deployed("deployment", "describe", "-o", "json").stdout
        second = deployed("deployment", *args).stdout
        assert second.startswith("nothing to do: "), second
        assert deployed("deployment", "describe", "-o", "json").stdout == before
        return first

    said = both("set-ramping-version", "v2", "--percentage", "12.5", "--allow-no-executors", "--reason", "canary")
    assert said.startswith("version v2 of shop gets 12.5 % of new work within 5 seconds, by the ids of workflows")
    assert "NO executor of it is alive" in said
    assert "shop: new work goes to v1, 12.5 % of it to v2" in deployed("deployment", "describe").stdout
    both("update-metadata", "v2", "--set", 'commit="4f1c2aa"', "--set", "tested=true")
    said = both("set-current-version", "v2", "--allow-no-executors")
    assert "version v2 of shop is the current one instead of v1: new work goes there within 5 seconds" in said
    assert "what v1 began stays with it, see: perdure deployment describe-version v1" in said
    one = deployed.json("deployment", "describe-version", "v1")["deployment_version"]
    assert (one["state"], one["open_work"]) == ("draining", {"undeclared": 0, "pinned": 1, "auto_upgrade": 0})
    text = deployed("deployment", "describe-version", "v1").stdout
    assert text.startswith("v1: draining since 20")
    assert "open work: 1 pinned" in text
    assert "an operator took traffic from it" in text
    assert "1 open workflows stay with it (1 pinned)" in deployed("deployment", "delete-version", "v1", code=1).stderr
    deployed("workflow", "terminate", "w")  # whom nobody could tell of a cancel
    assert deployed.json("deployment", "describe-version", "v1")["deployment_version"]["state"] == "drained"
    assert "version v1 of shop is deleted" in both("delete-version", "v1", "--reason", "done with")
    described = deployed.json("deployment", "describe")["deployment"]
    assert [(one["version"], one["metadata"]) for one in described["versions"]] == [
        ("v2", {"commit": "4f1c2aa", "tested": True})
    ]
    assert [(one["revision"], one["kind"], one["version"], one["reason"]) for one in described["changes"]] == [
        (5, "delete_version", "v1", "done with"),
        (4, "set_current_version", "v2", ""),
        (3, "update_metadata", "v2", ""),
        (2, "set_ramping_version", "v2", "canary"),
        (1, "launch", "v1", "the first version launched"),
    ]
    shown = deployed("deployment", "describe", "--changes", "1").stdout
    assert "delete_version" in shown
    assert "canary" not in shown


def test_stopping_and_rolling_back(deployed: Cli) -> None:
    deployed("deployment", "set-ramping-version", "v2", "--percentage", "20", "--allow-no-executors")
    said = deployed("deployment", "set-ramping-version", "v2", "--percentage", "0").stdout
    assert "no version of shop ramps any more: all new work goes to v1 within 5 seconds" in said
    deployed("deployment", "set-current-version", "v2", "--allow-no-executors")
    change = deployed.json("deployment", "set-current-version", "v1", "--allow-no-executors")["change"]
    assert (change["changed"], change["revision"], change["stranded"]) == (True, 5, 0)
    assert deployed.json("deployment", "describe")["deployment"]["current"] == "v1"
    deployed("deployment", "set-ramping-version", "v2", "--percentage", "1", "--allow-no-executors")
    assert "no version of shop ramps" in deployed("deployment", "unset-ramping-version").stdout


def test_a_ramp_that_watches_itself(deployed: Cli) -> None:
    ramp = ("deployment", "set-ramping-version", "v2", "--percentage", "20", "--allow-no-executors")
    said = deployed(*ramp, "--abort-if", "problem_rate > 2%", "--abort-if", "failure_rate > 0.5 %").stdout
    assert "it loses that by itself if failure_rate > 0.5% or problem_rate > 2%, of 20 workflows at least" in said
    assert deployed.json("deployment", "describe")["deployment"]["abort_if"] == [
        "failure_rate > 0.5%", "problem_rate > 2%",
    ]  # fmt: skip
    assert (
        "; stopped by itself if failure_rate > 0.5% or problem_rate > 2%" in deployed("deployment", "describe").stdout
    )
    assert "'often' is no bound of a ramp" in deployed(*ramp, "--abort-if", "often", code=2).stderr


def test_what_is_refused_says_why_with_its_exit_code(deployed: Cli) -> None:
    before = deployed("deployment", "describe", "-o", "json").stdout
    for args, code, said in [
        (("set-current-version", "v2"), 1, "no live executor runs version v2 of shop"),
        (("set-current-version", "v9"), 3, "version 'v9' of shop was never launched"),
        (("set-ramping-version", "v1", "--percentage", "5"), 1, "cannot ramp: it is the current one"),
        (("set-ramping-version", "v2", "--percentage", "100.1"), 2, "percentage=100.1 is no share of new work"),
        (("set-ramping-version", "v2"), 2, "Missing option '--percentage'"),
        (("set-current-version", "v2", "--revision", "9", "--allow-no-executors"), 1,
         "it is at revision 1 (all of it goes to v1: the first version launched). Look, and decide again"),
        (("describe-version", "v9"), 3, "has no version 'v9'; it has: v2, v1"),
        (("delete-version", "v1"), 1, "cannot be deleted: it is the current one"),
        (("delete-version", "v9"), 3, "has no version 'v9'"),
        (("update-metadata", "v2"), 2, "nothing to change: give --set NAME=JSON or --remove NAME"),
        (("update-metadata", "v2", "--set", "commit=4f1c"), 2, "'commit=4f1c' is not NAME=JSON; text needs quotes"),
        (("update-metadata", "v2", "--set", "commit"), 2, "'commit' is not NAME=JSON"),
    ]:  # fmt: skip
        assert said in deployed("deployment", *args, code=code).stderr, args
    assert deployed("deployment", "describe", "-o", "json").stdout == before


def test_a_release_that_lacks_a_workflow_is_refused(deployed: Cli, where: str) -> None:
    async def launch() -> None:
        app = App("shop", database=where, version="v3", rollout="manual")

        @app.workflow(name="parcel")
        async def parcel() -> None: ...

        async with app:
            pass

    asyncio.run(launch())
    for verb in (("set-current-version", "v3"), ("set-ramping-version", "v3", "--percentage", "5")):
        refused = deployed("deployment", *verb, "--allow-no-executors", code=1).stderr
        assert "version v3 of shop has no workflow order, which version v1 has" in refused
    said = deployed("deployment", *verb, "--allow-no-executors", "--allow-missing-workflows").stdout
    assert "it has NO workflow order: what is started of that is held until new work goes where it is" in said


def test_skipping_the_drainage_says_what_is_stranded(deployed: Cli) -> None:
    deployed("deployment", "set-current-version", "v2", "--allow-no-executors")
    result = deployed.json("deployment", "delete-version", "v1", "--skip-drainage")["change"]
    assert result["stranded"] == 1
    assert "1 open workflow of it (1 pinned) is stranded, see: perdure workflow list --stranded" in result["message"]
    (stranded,) = deployed.json("workflow", "list", "--stranded")["workflows"]
    assert (stranded["id"], stranded["version"]) == ("w", "v1")


def test_an_app_that_was_never_launched(perdure: Cli, here: Path) -> None:
    app = App("shop", database=f"sqlite:///{here}/.perdure/shop.db")

    async def start() -> None:
        async with app.connect() as client:
            await client.workflow("order", returns=str).start()

    (here / ".perdure").mkdir()
    asyncio.run(start())
    assert "no version of app 'shop' was ever launched" in perdure("deployment", "list", code=3).stderr


# -- an executor that ends by itself


@pytest.fixture
def release(here: Path, where: str, run_shop: Callable[..., Running]) -> Callable[..., Running]:
    """Runs a release of the shop as a process."""

    def run(version: str, *args: str) -> Running:
        (here / f"shop_{version}.py").write_text(RELEASE.format(version=version))
        return run_shop(f"shop_{version}:app", "-d", where, *args)

    return run


@pytest.mark.slow
def test_an_old_release_ends_by_itself(perdure: Cli, where: str, release: Callable[..., Running]) -> None:
    def say(*args: str) -> Any:
        return perdure(*args, "-d", where)

    old = release("v1", "--exit-when-drained", "--executor-id", "old")
    say("workflow", "start", "order", "--id", "w")
    until(lambda: '"waiting"' in perdure("workflow", "list", "-o", "json", "-d", where).stdout, 30)
    new = release("v2", "--exit-when-drained", "--executor-id", "new")
    say("deployment", "set-current-version", "v2", "--reason", "roll out")
    [state] = [one["state"] for one in json.loads(say("deployment", "list", "-o", "json").stdout)["versions"][1:]]
    assert state == "draining"
    say("workflow", "send", "w", '"!"', "--topic", "go")
    assert old.process.wait(60) == 0
    assert "version v1 is drained; this executor ends" in old.errors()
    result = json.loads(say("workflow", "result", "w").stdout)
    assert result == ["v1", "!", "v1"]
    assert new.process.poll() is None, "never while current"
    say("deployment", "delete-version", "v1")
    assert new.stop() == 0


BLOCKING = """
from perdure.sync import App

app = App("shop", version="{version}", rollout="manual", lease=2)


@app.workflow
def order() -> None: ...
"""


@pytest.mark.slow
def test_an_old_release_in_blocking_code_ends_by_itself(
    perdure: Cli, here: Path, where: str, run_shop: Callable[..., Running]
) -> None:
    def run(version: str) -> Running:
        (here / f"shop_{version}.py").write_text(BLOCKING.format(version=version))
        return run_shop(f"shop_{version}:app", "-d", where, "--exit-when-drained")

    old, new = run("v1"), run("v2")
    perdure("deployment", "set-current-version", "v2", "-d", where)
    assert old.process.wait(60) == 0
    assert "version v1 is drained; this executor ends" in old.errors()
    assert new.stop() == 0, "a signal ends it before that"
