"""``perdure db purge|size|copy`` on a database whose executors come and go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli, play
from tests.cli.test_workflows import store_of


async def day_of(app: Any, _shop: Any) -> None:
    """Three completed, one that failed, one that waits and is handed back."""

    def workflow(name: str, id: str) -> Any:
        return app.client.workflow(name, returns=object).options(id=id)

    for n in range(3):
        await (await workflow("checkout", f"o-{n}").start("a", 1999)).result()
    with pytest.raises(ValueError, match="declined"):
        await (await workflow("refuse", "r-1").start("1")).result()
    await workflow("parcel", "p-1").start()


@pytest.fixture
def day(url: str) -> str:
    play(url, day_of)
    return url


def left(url: str) -> list[str]:
    ids = ["o-0", "o-1", "o-2", "r-1", "p-1"]
    return sorted(store_of(url, lambda store: store.rows(ids)))


def test_a_plan_changes_nothing_and_a_purge_does_what_it_said(perdure: Cli, day: str) -> None:
    planned = perdure.json("db", "purge", "--plan", "--status", "completed,failed")
    assert [(p["name"], p["status"], p["count"]) for p in planned["purged"]] == [
        ("checkout", "completed", 3),
        ("refuse", "failed", 1),
    ]
    assert all(p["rows"] >= 3 and p["bytes"] > 300 for p in planned["purged"])
    unsaid = perdure("db", "purge", "--older-than", "0s", "--type", "checkout", code=1)
    assert unsaid.stdout.splitlines()[0].split() == ["TYPE", "STATUS", "WOULD", "GO", "ROWS", "BYTES"]
    assert "nothing was changed" in unsaid.stderr
    assert len(left(day)) == 5
    assert perdure("db", "purge", "--older-than", "30d", "--yes").stdout == "nothing is that old\n"
    done = perdure("db", "purge", "--older-than", "0s", "--type", "checkout", "--yes")
    assert done.stdout.splitlines()[1].split() == ["checkout", "completed", "3"]
    assert "--vacuum gives it back" in done.stderr
    assert left(day) == ["p-1", "r-1"]
    freed = perdure.json("db", "purge", "--older-than", "0s", "--yes", "--vacuum")
    assert [(p["name"], p["count"]) for p in freed["purged"]] == [("refuse", 1)]
    assert left(day) == ["p-1"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--yes"], "give --older-than AGE"),
        (["--older-than", "soon", "--yes"], "is not an age; write 30d"),
        (["--older-than", "99999999999d", "--yes"], "'99999999999d' is more than a century; write 30d"),
        (["--status", "running", "--plan"], "'running' is no end of a workflow"),
    ],
)
def test_what_cannot_be_meant_is_refused(perdure: Cli, day: str, args: list[str], said: str) -> None:
    assert said in perdure("db", "purge", *args, code=2).stderr
    assert len(left(day)) == 5


def test_size_tells_tables_and_kinds(perdure: Cli, day: str) -> None:
    size = perdure.json("db", "size")["size"]
    assert {k["name"]: (k["status"], k["count"]) for k in size["kinds"]} == {
        "checkout": ("completed", 3), "refuse": ("failed", 1), "parcel": ("queued", 1)
    }  # fmt: skip
    tables = {t["name"]: t for t in size["tables"]}
    assert tables["workflow"]["rows"] == 5
    assert size["bytes"] >= sum(t["bytes"] for t in tables.values()) > 10_000
    shown = perdure("db", "size").stdout
    assert "perdure db purge --older-than 30d --status completed --type checkout --plan" in shown
    assert "TABLE" in shown


def test_copy_moves_and_the_source_names_the_target(perdure: Cli, day: str, here: Path) -> None:
    target = f"sqlite:///{here}/elsewhere.db"
    done = perdure("db", "copy", day, target)
    assert f"app shop lives in {target} now" in done.stdout
    assert left(target) == left(day) == ["o-0", "o-1", "o-2", "p-1", "r-1"]
    assert f"to {target}" in perdure("db", "status", "--database", day).stdout
    with pytest.raises(Exception, match=rf"was moved from .* to {target}"):
        play(day, day_of)
    perdure("db", "copy", day, target)  # it is done, and says so again
    for order in (
        "db purge --older-than 0s --yes", "workflow delete o-0", "batch apply cancel status=open --reason x --yes",
        "deployment unset-ramping-version", "schedule delete s", "queue pause q", "batch cancel k",
        "recovery apply --query status=open --to v1 --reason x --yes",
    ):  # fmt: skip
        assert f"to {target}. Set the database" in perdure(*order.split(), "--database", day, code=4).stderr
    assert len(left(day)) == 5, "nothing is deleted that a move back would miss"
    assert f"to {target}. Set the database" in perdure("doctor", "--database", day, code=1).stdout
    refused = perdure("db", "copy", "--undo", day, code=2).stderr
    assert "say --force" in refused
    assert "lives in" in perdure("db", "copy", "--undo", "--force", day).stdout
    assert "was moved" not in perdure("db", "status", "--database", day).stdout
    assert "give FROM and TO" in perdure("db", "copy", day, code=2).stderr


async def client_verbs(app: Any, _shop: Any) -> tuple[int, list[int], int]:
    size = await app.client.size()
    planned = await app.client.purge(older_than=0, statuses=["completed"], workflow="checkout", plan=True)
    done = await app.client.purge(older_than=0, statuses=["completed"], workflow="checkout")
    return sum(k.count for k in size.kinds), [p.count for p in planned], done[0].count


def test_a_client_does_the_same(day: str) -> None:
    assert play(day, client_verbs) == (5, [3], 3)
    assert left(day) == ["p-1", "r-1"]
