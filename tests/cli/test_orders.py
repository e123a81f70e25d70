"""``perdure workflow move|reset|skip|terminate|delete`` on a shop's day: what they say, and each of them twice."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from perdure.model.states import Reason
from perdure.store.open import open_store
from tests.cli.conftest import Cli, play
from tests.cli.test_moves import day, shop_day  # noqa: F401  a fixture
from tests.cli.test_workflows import hold, store_of
from tests.runtime.support import crash, until
from tests.store.build import Dump, dump


def tables(url: str) -> Dump:
    """Every table as it is."""

    async def read() -> Dump:
        store = open_store(url, "shop")
        await store.open()
        try:
            return await dump(store)
        finally:
            await store.close()

    return asyncio.run(read())


def twice(perdure: Cli, url: str, *args: str) -> tuple[str, str]:
    """Run a command twice: the second time every table is as it was. What both said."""
    first = perdure("workflow", *args)
    before = tables(url)
    second = perdure("workflow", *args)
    assert tables(url) == before
    return first.stdout, second.stdout


def row(url: str, id: str) -> Any:
    return store_of(url, lambda store: store.rows([id]))[id]


def test_each_is_done_once_and_says_so(perdure: Cli, day: str) -> None:  # noqa: F811
    version = row(day, "p-1").version
    first, second = twice(perdure, day, "move", "p-1", "--to", version, "--reason", "stay")
    assert first == f"p-1: moved: on version {version}, pinned; no live executor runs {version} now\n"
    assert second == f"p-1: already so: on version {version}, pinned\n"
    first, second = twice(perdure, day, "move", "p-1", "--to", "unset")
    assert (first, second) == (
        f"p-1: moved: on version {version}, as its code declares\n",
        f"p-1: already so: on version {version}, as its code declares\n",
    )
    first, second = twice(perdure, day, "reset", "o-1", "--to", "charge", "--reason", "a wrong card")
    assert first == "o-1: reset: run 2 goes on from 0 records of run 1\n"
    assert second.startswith("o-1: already so: run 2 began with that reset, by ")
    assert ": a wrong card; it is queued. To do it again: --again" in second
    first, second = twice(perdure, day, "restart", "o-1", "--version", version, "--terminate", "--reason", "anew")
    assert (
        first.startswith("o-1: begun anew as o-1-2, and terminated") or "begun anew as o-1-2, and terminated" in first
    )
    assert "already so: begun anew as o-1-2, which is queued" in second
    first, second = twice(perdure, day, "terminate", "p-1", "--reason", "enough")
    assert first == "p-1: terminated: terminated\n"
    assert second.startswith("p-1: already so: terminated by ")
    assert second.endswith(": enough\n")


def test_deleted_it_is_gone_and_the_second_order_says_so(perdure: Cli, day: str) -> None:  # noqa: F811
    open_one = perdure("workflow", "delete", "p-1", code=1).stdout
    assert "only what has ended is deleted: perdure workflow terminate p-1" in open_one
    assert perdure("workflow", "delete", "o-1").stdout == "o-1: deleted: deleted; it was completed\n"
    before = tables(day)
    assert "no workflow 'o-1'" in perdure("workflow", "delete", "o-1", code=3).stdout
    assert tables(day) == before


def test_a_step_is_skipped_and_show_tells_who_and_why(perdure: Cli, url: str, here: Path) -> None:
    async def begin(app: Any, _shop: Any) -> None:
        mark = here / "mark"
        await app.client.workflow("stalled", returns=str).options(id="s-1").start(str(mark))
        await until(mark.exists)
        await crash(app)  # a drain would wait for the step

    play(url, begin)
    assert perdure("workflow", "skip", "s-1", "stall", "--result", "not json", code=2)
    first, second = twice(perdure, url, "skip", "s-1", "stall", "--result", "null", "--reason", "by hand")
    assert first == "s-1: skipped: step stall (path 2) has that result; it does not run\n"
    assert second.startswith("s-1: already so: step stall (path 2) was skipped with that result by ")
    batch = ("batch", "apply", "skip", "id = s-1", "--reason", "why", "--yes", "--step", "stall")
    assert "1 workflows: 0 done, 1 skipped" in perdure(*batch, "--result", "null").stdout
    assert "skip needs --result" in perdure(*batch, code=2).stderr
    assert "--result is not JSON: 'no'" in perdure(*batch, "--result", "no", code=2).stderr
    refused = perdure("workflow", "skip", "s-1", "stall", "--result", "1", code=1).stdout
    assert "has an outcome already (#4); to drop it: perdure workflow reset s-1 --to 2" in refused
    shown = perdure("workflow", "show", "s-1").stdout
    assert "decision skip by " in shown
    assert ": by hand" in shown


def test_show_tells_what_was_ordered_by_whom_and_why(perdure: Cli, day: str) -> None:  # noqa: F811
    version = row(day, "p-1").version
    perdure("workflow", "move", "p-1", "--to", "v9", "--force", "--one-time", "--reason", "a try")
    shown = perdure("workflow", "show", "p-1").stdout
    assert "decision move by " in shown
    assert ": a try" in shown
    assert "runs on   v9, pinned by an order, for one turn; else as declared" in shown
    perdure(
        "workflow", "reset", "p-1", "--to", "first", "--exclude", "messages", "--move-to", version, "--reason", "bad"
    )
    shown = perdure("workflow", "show", "p-1").stdout
    assert "cut reset by " in shown
    assert ": bad" in shown
    assert "0 records kept of run 1 of p-1, messages" in shown
    assert "superseded" in perdure("workflow", "show", "p-1", "--run", "1").stdout
    perdure("workflow", "reset", "o-1", "--to", "#2", "--reason", "worse")
    earlier = perdure("workflow", "show", "o-1", "--run", "1").stdout
    kept, dropped = earlier.partition("dropped from here on: reset by ")[::2]
    assert ": worse" in dropped
    assert "attempt" in kept
    assert "charge-a" in dropped
    told = perdure.json("workflow", "show", "o-1", "--run", "1")["workflow"]["dropped"]
    assert (told["after"], told["by"]) == (1, "reset")
    assert perdure.json("workflow", "show", "p-1")["workflow"]["override"] == {"was": "undeclared", "once": False}


@pytest.mark.parametrize("verb", ["move", "reset", "terminate"])
def test_several_are_a_plan_until_they_are_meant(perdure: Cli, day: str, verb: str) -> None:  # noqa: F811
    options = {"move": ("--to", "v9", "--force"), "reset": ("--to", "first")}.get(verb, ())
    before = tables(day)
    planned = perdure("workflow", verb, "o-1", "p-1", *options, code=1)
    assert f"nothing was changed: to {verb} 2 workflows, add --yes and --reason TEXT" in planned.stderr
    assert tables(day) == before
    code = 0 if verb == "reset" else 1  # what has ended is not moved, nor ended again
    done = perdure("workflow", verb, "o-1", "p-1", *options, "--yes", "--reason", "meant", code=code).stdout
    assert "p-1: " in done


def test_mistakes_are_told_with_the_way_out(perdure: Cli, day: str) -> None:  # noqa: F811
    unknown = perdure("workflow", "move", "p-1", "--to", "v9", code=3).stdout
    assert "version 'v9' of shop was never launched" in unknown
    closed = perdure("workflow", "move", "o-1", "--to", "v9", "--force", code=1).stdout
    assert "perdure workflow reset o-1 --to first --move-to v9" in closed
    assert "goes with a version" in perdure("workflow", "move", "p-1", "--to", "unset", "--one-time", code=2).stderr
    assert "has no step 'ship'" in perdure("workflow", "reset", "o-1", "--to", "ship", code=1).stdout
    hold(day, "p-1", Reason.POLICY, "a person looks")
    said = perdure("workflow", "move", "p-1", "--to", "v9", "--force").stdout
    assert "it stays held: policy" in said
