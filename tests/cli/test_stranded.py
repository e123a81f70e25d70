"""``workflow list --stranded``: who cannot run anywhere, why, since when."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from perdure import App
from tests.cli.conftest import Cli
from tests.runtime.support import Ledger, crash, until
from tests.runtime.test_adoption import argument, begun, build, first, trial_of


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest, here: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{here}/.perdure/shop.db"


def open_for(app: App, scene: Callable[[], Awaitable[Any]], *, killed: bool = False) -> Any:
    async def go() -> Any:
        await app.open()
        try:
            return await scene()
        finally:
            await (crash(app) if killed else app.close())

    return asyncio.run(go())


def test_what_nobody_can_run_is_listed_with_its_reason(perdure: Cli, database: str) -> None:
    ledger = Ledger()
    at = ("--database", database)
    old = build(database, ledger, first, "v1")
    open_for(old, lambda: begun(old, "a", "b"), killed=True)
    first_line = perdure("workflow", "list", "--stranded", *at).stdout.splitlines()[1]
    assert first_line.split()[:4] == ["a", "order", "v1", "no_executor"]
    document = perdure.json("workflow", "list", "--stranded", *at)
    assert [w["id"] for w in document["workflows"]] == ["a", "b"]
    assert document["workflows"][0]["stranded"]["reason"] == "no_executor"
    assert document["workflows"][0]["stranded"]["detail"] == "running; no live executor runs version v1"

    new = build(database, ledger, argument, "v2")

    async def look() -> Any:
        trial = await until(partial(trial_of, new, "b"))
        await until(partial(trial_of, new, "a"))
        return trial, await asyncio.to_thread(perdure.json, "workflow", "list", "--stranded", *at)

    trial, document = open_for(new, look)
    one, other = document["workflows"]
    assert (one["id"], other["id"], one["version"], one["status"]) == ("a", "b", "v1", "queued")
    assert other["stranded"]["reason"] == "nondeterminism"
    assert other["stranded"]["detail"] == f"on version v2: {trial.detail}"
    text = perdure("workflow", "list", "--stranded", *at).stdout
    assert "history has step charge(5); the code has" in text
    assert "perdure replay MODULE:APP tells which" in text
    assert perdure("workflow", "list", "--stranded", "-o", "ids", *at).stdout == "a\nb\n"
    assert perdure("workflow", "list", "--stranded", "-o", "ids", "--limit", 1, *at).stdout == "a\n"
    assert perdure("workflow", "list", "--stranded", "--type", "order", "-o", "ids", *at).stdout == "a\nb\n"
    assert perdure("workflow", "list", "--stranded", "--type", "none", "-o", "ids", *at).stdout == ""
    said = perdure("workflow", "list", "--stranded", "--status", "open", *at, code=2).stderr
    assert "--stranded goes with --type and --limit" in said


def test_what_is_stranded_says_so_wherever_it_is_met(perdure: Cli, database: str) -> None:
    ledger = Ledger()
    at = ("--database", database)
    old = build(database, ledger, first, "v1")
    open_for(old, lambda: begun(old, "a"))  # drained: nobody died, and no row tells of a problem
    new = build(database, ledger, argument, "v2")

    async def look() -> dict[str, Any]:
        await until(partial(trial_of, new))
        [problem] = await new.client.handle("a").problems()
        assert (problem.kind, problem.version, problem.cleared) == ("nondeterminism", "v2", None)
        assert problem.text.startswith("stranded: no live executor runs version v1; on version v2: at 2: history has")
        return {
            "show": await asyncio.to_thread(perdure, "workflow", "show", "a", *at),
            "json": await asyncio.to_thread(perdure.json, "workflow", "show", "a", *at),
            "list": await asyncio.to_thread(perdure, "workflow", "list", *at),
            "listed": await asyncio.to_thread(perdure.json, "workflow", "list", *at),
            "problems": await asyncio.to_thread(perdure, "workflow", "list", "problem IS NOT NULL", *at),
            "doctor": await asyncio.to_thread(perdure, "doctor", *at, code=1),
            "result": await asyncio.to_thread(perdure, "workflow", "result", "a", "--timeout", 0, *at, code=5),
        }

    said = open_for(new, look)
    sides = "on version v2: at 2: history has step charge(5); the code has step charge(6)"
    shown = said["show"].stdout
    assert "\n  stranded  nondeterminism since 20" in shown
    assert "no live executor runs version v1" in shown
    assert shown.count(sides) == 1
    assert "\n  do        start an executor of version v1 until it is done, or deploy code that fits" in shown
    assert "perdure workflow restart a --terminate" in shown
    assert "to give it up, without its cleanup: perdure workflow cancel a" in shown
    document = said["json"]["workflow"]
    assert document["stranded"]["reason"] == "nondeterminism"
    assert document["advice"][0].startswith("start an executor of version v1")
    [line] = [line for line in said["list"].stdout.splitlines() if line.startswith("a ")]
    assert "stranded: nondeterminism: on version v2" in line
    assert said["listed"]["workflows"][0]["stranded"]["detail"].startswith(sides)
    assert said["problems"].stdout.splitlines() == [
        "no workflows match",
        "open work of version v1 has no live executor: perdure workflow list --stranded",
    ]
    [fact] = [line for line in said["doctor"].stdout.splitlines() if "stranded  " in line]
    assert fact.startswith("✗ shop: stranded")
    assert "1 of version v1, which no live executor runs; a (order): nondeterminism: " + sides in fact
    assert said["doctor"].stdout.endswith("1 fault\n")
    assert "workflow a is stranded: " + sides in said["result"].stderr


def test_what_was_not_tried_yet_says_what_it_waits_for(perdure: Cli, database: str) -> None:
    ledger = Ledger()
    at = ("--database", database)
    old = build(database, ledger, first, "v1")
    open_for(old, lambda: begun(old, "a"))
    alone = perdure("workflow", "show", "a", *at).stdout
    assert "stranded" not in alone, "its version may be the next to be launched"
    assert "no executor of app 'shop' is alive" in alone
    new = build(database, ledger, argument, "v2", adopt="never")

    async def look() -> tuple[str, str, list[Any]]:
        shown = await asyncio.to_thread(perdure, "workflow", "show", "a", *at)
        examined = await asyncio.to_thread(perdure, "doctor", *at, code=1)
        return shown.stdout, examined.stdout, await new.client.handle("a").problems()

    shown, examined, problems = open_for(new, look)
    assert "stranded  no_executor since" in shown
    assert "a live executor tries it on its own code a lease after the last of that version has gone" in shown
    assert "1 of version v1, which no live executor runs; a (order): no_executor" in examined
    assert problems == []
    back = build(database, ledger, first, "v1")

    async def served() -> str:
        return (await asyncio.to_thread(perdure, "workflow", "show", "a", *at)).stdout

    assert "stranded" not in open_for(back, served)


def test_what_a_live_executor_runs_is_not_stranded_but_what_it_has_no_code_for_is(perdure: Cli, database: str) -> None:
    ledger = Ledger()
    at = ("--database", database)
    app = build(database, ledger, first, "v1")
    seen = open_for(app, lambda: _while_open(app, perdure, at))
    assert seen == "nothing is stranded\n"
    renamed = build(database, ledger, first, "v1", "orders")

    async def held() -> Any:
        store = renamed._home.engine().line.store
        await until(lambda: _held(store))
        return await asyncio.to_thread(perdure.json, "workflow", "list", "--stranded", *at)

    (one,) = open_for(renamed, held)["workflows"]
    assert one["stranded"]["reason"] == "no_code"
    assert "this executor has no workflow 'order'" in one["stranded"]["detail"]


async def _held(store: Any) -> bool:
    return (await store.rows(["a"]))["a"].status == "held"


async def _while_open(app: App, perdure: Cli, at: tuple[str, str]) -> str:
    await begun(app, "a")
    return (await asyncio.to_thread(perdure, "workflow", "list", "--stranded", *at)).stdout
