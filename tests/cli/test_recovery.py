"""``perdure recovery plan``, and what ``workflow show`` tells of decisions."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

from perdure import App
from perdure.recovery import Decision, Default, Hold, Incident, RunFrom, Skip
from tests.cli.conftest import Cli
from tests.runtime.support import crash, until


def build(url: str) -> tuple[App, Any, asyncio.Event]:
    app = App("shop", database=url, executor_id="host-1")
    inside = asyncio.Event()

    @app.step(name="charge")
    async def charge(order: str) -> str:
        inside.set()
        await asyncio.Event().wait()
        return order

    @app.workflow(name="checkout")
    async def checkout(order: str) -> str:
        return await charge(order)

    @app.recovery_policy(checkout)
    async def after_crash(incident: Incident) -> Decision:
        match incident.input["order"]:
            case "skip":
                return Skip(result="by hand", because="paid")
            case "hold":
                return Hold(because="poison")
            case "again":
                return RunFrom("charge", set={"was_failed": True})
            case "wrong":
                return Skip(result=5)
            case _:
                return Default()

    return app, checkout, inside


ORDERS = ("skip", "hold", "again", "wrong", "plain")
PLANNED = {
    "skip": ("skip", "paid"),
    "hold": ("hold", "poison"),
    "again": ("run_from charge", ""),
    "wrong": ("resume", "answered skip for charge"),
    "plain": ("resume", ""),
}


async def interrupted(url: str) -> None:
    app, checkout, _ = build(url)
    await app.open()
    for order in ORDERS:
        await checkout.options(id=order).start(order)
    await app._home.engine().line.journal.drained()
    await crash(app)


@pytest.fixture
def code(url: str) -> Iterator[str]:
    """The app as a module that --code can name."""
    module = types.ModuleType("shop_of_test")
    module.app = build(url)[0]  # type: ignore[attr-defined]
    sys.modules["shop_of_test"] = module
    yield "shop_of_test:app"
    del sys.modules["shop_of_test"]


def decided(document: Any) -> dict[str, tuple[str, str]]:
    return {one["id"]: (one["decision"], one["because"]) for one in document["decisions"]}


def test_a_plan_by_code_that_is_here_changes_nothing(perdure: Cli, url: str, code: str) -> None:
    asyncio.run(interrupted(url))
    found = decided(perdure.json("recovery", "plan", "--database", url, "--code", code))
    assert {id: decision for id, (decision, _) in found.items()} == {id: d for id, (d, _) in PLANNED.items()}
    for id, (_, because) in PLANNED.items():
        assert because in found[id][1]
    [row] = perdure.json("recovery", "plan", "skip", "--database", url, "--code", code)["decisions"]
    assert (row["executor"], row["cause"], row["policy"].endswith("after_crash")) == ("host-1", "crash", True)
    shown = perdure.json("workflow", "show", "hold", "--database", url)["workflow"]
    assert (shown["status"], shown["decisions"]) == ("running", [])
    said = perdure("recovery", "plan", "--executor", "host-2", "--database", url, code=3).stderr
    assert "no executor is called 'host-2'; known: " in said
    assert "host-1" in said


def test_without_code_and_without_an_executor_it_is_unknown(perdure: Cli, url: str) -> None:
    asyncio.run(interrupted(url))
    said = perdure("recovery", "plan", "hold", "--database", url)
    assert "unknown" in said.stdout
    assert "--code MODULE:APP" in said.stderr
    assert "no workflow 'nope'" in perdure("recovery", "plan", "nope", "--database", url, code=3).stderr


def test_a_live_executor_answers_for_its_code(perdure: Cli, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.runtime.reaper.ROUND_SECONDS_MAX", 0.05)

    async def main() -> Any:
        app, checkout, inside = build(url)
        async with app:
            await checkout.options(id="hold").start("hold")
            await inside.wait()
            found = await asyncio.to_thread(perdure.json, "recovery", "plan", "--executor", "host-1", "--database", url)
            await crash(app)
            return found

    assert decided(asyncio.run(main())) == {"hold": ("hold", "poison")}


def test_show_tells_what_was_decided_and_by_whom(perdure: Cli, url: str) -> None:
    asyncio.run(interrupted(url))

    async def recover() -> None:
        app, _, _ = build(url)
        async with app:
            store = app._home.engine().line.store

            async def is_held() -> bool:
                return (await store.rows(["hold"]))["hold"].status == "held"

            await until(is_held)
            await crash(app)

    asyncio.run(recover())
    said = perdure("workflow", "show", "hold", "--database", url).stdout
    assert "after crash: hold, by policy" in said
    assert "after_crash: poison" in said
    assert "was in flight; runs again if resumed, not if cancelled" in said
    [row] = perdure.json("workflow", "show", "hold", "--database", url)["workflow"]["decisions"]
    assert (row["cause"], row["decision"], row["because"]) == ("crash", "hold", "poison")
    assert (row["evidence"]["executor"], row["evidence"]["attempt"]) == ("host-1", 1)
    assert row["evidence"]["in_flight"] == [["1", "charge", 1]]
