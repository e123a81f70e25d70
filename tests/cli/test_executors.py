"""``perdure executor recover``: whose work others are to take, and what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

from perdure.model.ids import TokenMaker
from perdure.runtime.leases import new_incarnation
from perdure.store.open import open_store
from tests.cli.conftest import Cli, Running, until


def test_what_a_killed_executor_left_is_given_to_another(
    perdure: Cli, here: Path, run_shop: Callable[..., Running]
) -> None:
    first = run_shop("shop:app", "--executor-id", "left")
    perdure("workflow", "start", "parcel", "--id", "p-1")
    until(lambda: perdure.json("executor", "list")["executors"][0]["holds"])
    (who,) = perdure.json("executor", "list")["executors"]
    assert (who["lag"] < 5, len(who["incarnation"])) == (True, 32)

    for asked in ("left", who["incarnation"][:20]):
        said = perdure("executor", "recover", asked, code=1).stderr
        assert f"executor {asked!r} is alive: incarnation {who['incarnation']} (pid {first.process.pid} on" in said
        assert "its lease runs" in said
        assert "--force" in said
    assert "no executor is called 'right', and no" in perdure("executor", "recover", "right", code=3).stderr

    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    done = perdure("executor", "recover", "left", "--by", "right")
    assert done.stdout.splitlines() == ["released 1 workflow to right", "p-1"]
    assert "executor 'right' is not alive; the work waits until it starts" in done.stderr
    assert "released to right" in perdure("executor", "list").stdout
    run_shop("shop:app", "--executor-id", "other")
    second = run_shop("shop:app", "--executor-id", "right")
    until(lambda: "recovered 1 unfinished workflow" in second.errors())
    perdure("workflow", "send", "p-1", "true", "--topic", "shipped")
    assert perdure("workflow", "result", "p-1").stdout == "true\n"


def test_an_heir_that_does_not_run_that_version_is_told_of(
    perdure: Cli, here: Path, run_shop: Callable[..., Running]
) -> None:
    left = run_shop("shop:app", "--executor-id", "left")
    perdure("workflow", "start", "parcel", "--id", "p-1")
    until(lambda: perdure.json("executor", "list")["executors"][0]["holds"])
    left.process.send_signal(signal.SIGKILL)
    left.process.wait()
    version = perdure.json("executor", "list")["executors"][0]["version"]

    async def register() -> None:
        store = open_store(f"sqlite:///{here}/.perdure/shop.db", "shop")
        await store.open()
        await store.register(new_incarnation(TokenMaker()(), "right", "another"), 60_000_000)
        await store.close()

    asyncio.run(register())
    said = perdure("executor", "recover", "left", "--by", "right").stderr
    assert f"executor 'right' does not run version {version}; what is of that waits until one called so does" in said
    assert "does not run" not in perdure("executor", "recover", "left").stderr


def test_one_that_is_forgotten_but_owns_something_is_listed_and_can_be_named(
    perdure: Cli, here: Path, run_shop: Callable[..., Running]
) -> None:
    left = run_shop("shop:app", "--executor-id", "left")
    perdure("workflow", "start", "parcel", "--id", "p-1")
    until(lambda: perdure.json("executor", "list")["executors"][0]["holds"])
    left.process.send_signal(signal.SIGKILL)
    left.process.wait()
    (who,) = perdure.json("executor", "list")["executors"]
    with contextlib.closing(sqlite3.connect(here / ".perdure/shop.db", isolation_level=None)) as conn:
        conn.execute("delete from incarnation")  # as if it had started that after it was forgotten
    (seen,) = perdure.json("executor", "list")["executors"]
    assert [seen[key] for key in ("executor", "incarnation", "state", "holds")] == [
        "forgotten", who["incarnation"], "forgotten", 1,
    ]  # fmt: skip
    assert "1970" not in perdure("executor", "list").stdout
    assert perdure("executor", "recover", "forgotten").stdout.splitlines() == [
        "released 1 workflow to any executor",
        "p-1",
    ]
    assert [one["state"] for one in perdure.json("executor", "list")["executors"]] == ["released"]


def test_a_live_one_is_declared_dead_by_force(perdure: Cli, here: Path, run_shop: Callable[..., Running]) -> None:
    running = run_shop("shop:app", "--executor-id", "left")
    perdure("workflow", "start", "parcel", "--id", "p-1")
    until(lambda: perdure.json("executor", "list")["executors"][0]["holds"])
    assert perdure("executor", "recover", "left", "--force", "-o", "ids").stdout == "p-1\n"
    until(lambda: "this executor was declared dead" in running.errors())
    perdure("workflow", "send", "p-1", "true", "--topic", "shipped")
    assert perdure("workflow", "result", "p-1").stdout == "true\n", "it goes on, under a new identity"


def test_nothing_is_released_where_nothing_was_left(perdure: Cli, here: Path) -> None:
    async def register() -> None:
        store = open_store(f"sqlite:///{here}/x.db", "shop")
        await store.open()
        await store.migrate()
        await store.register(new_incarnation(TokenMaker()(), "idle", ""), 1, now=1)
        await store.close()

    asyncio.run(register())
    done = perdure("executor", "recover", "idle", "-d", "x.db")
    assert done.stdout == "released 0 workflows to any executor\n"
    assert "no executor of app 'shop' is alive; start one" in done.stderr
