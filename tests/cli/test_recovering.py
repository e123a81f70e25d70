"""``perdure recovery plan|apply --query``: each group by its row of the table, each workflow once. On both stores."""

from __future__ import annotations

import asyncio
import shlex
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perdure import App, recv
from perdure.batches import Reset
from perdure.model.ids import TokenMaker
from perdure.model.problems import Failing, ProblemKind, Trouble
from perdure.model.records import Kind
from perdure.model.states import Reason, Status
from perdure.model.writes import Hold as HoldIt
from perdure.model.writes import Park
from perdure.operations.batches import BatchOrder, create
from perdure.operations.look import Order
from perdure.recovery import Decision, Hold, Incident
from perdure.store.open import open_store
from tests.cli.conftest import Cli
from tests.store.build import close, dump, record, running, unit

QUERY = ("--query", "version = v2", "--to", "v1", "--fixed", "v3")
SAID = ("--assume-corrupted", "ledger", "--replace", "ping")
WHY = ("--reason", "v2 is bad", "--yes")


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def where(request: pytest.FixtureRequest, here: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database in which v2 has left one workflow for each row of the table, and some that are left alone."""
    sqlite = f"sqlite:///{here}/shop.db"
    url = str(request.getfixturevalue("postgres_url")) if request.param == "postgres" else sqlite
    monkeypatch.setenv("PERDURE_DATABASE_URL", url)
    monkeypatch.setenv("PERDURE_APP", "shop")
    asyncio.run(fill(url))
    return url


async def fill(url: str) -> None:
    store: Any = open_store(url, "shop")
    await store.open()
    try:
        await store.migrate()
        for version in ("v1", "v2", "v3"):
            await store.launched(version, {}, (), auto=True)
        told = Failing(kind=ProblemKind.STEP_FAILED, version="v2", path="9", name="s", text="no such table")
        trouble = Trouble(now=ProblemKind.STEP_FAILED, told=(told,))
        timer, step = record(1, Kind.TIMER, None), record(2)
        for id, name, change in (
            ("o-1", "order", HoldIt(Reason.POLICY, "why")), ("p-1", "parcel", Park(None, "waits")),
            ("l-1", "ledger", Park(None, "waits")), ("f-1", "parcel", close(Status.FAILED)),
            ("x-1", "ping", Park(None, "waits")), ("done", "order", close()),
            ("gone", "order", close(Status.TERMINATED)),
        ):  # fmt: skip
            claim = await running(store, id, name=name, version="v2")
            of = trouble if isinstance(change, HoldIt | Park) else None
            last = msgspec.structs.replace(
                unit(id, claim, records=[timer, step], trouble=of, change=change), version="v2"
            )
            [verdict] = (await store.commit([last])).verdicts
            assert verdict.applied, id
    finally:
        await store.close()


@pytest.fixture
def code() -> Iterator[str]:
    """The good version's code, in which orders may begin anew."""
    app = App("shop", version="v1")
    for name in ("order", "parcel", "ledger", "ping"):

        @app.workflow(name=name, restartable=name == "order")
        async def flow() -> None:
            await recv("go")

        @app.recovery_policy(flow)
        async def asks_ann(incident: Incident) -> Decision:
            return Hold(because="ann looks at it")

    module = types.ModuleType("good_of_test")
    module.app = app  # type: ignore[attr-defined]
    sys.modules["good_of_test"] = module
    yield "good_of_test:app"
    del sys.modules["good_of_test"]


def rows(url: str, *ids: str) -> dict[str, tuple[str, int, str]]:
    async def read() -> Any:
        store = open_store(url, "shop")
        await store.open()
        try:
            return await store.rows(ids)
        finally:
            await store.close()

    found = asyncio.run(read())
    return {id: (str(found[id].status), found[id].run, found[id].version) for id in found}


def tables(url: str) -> Any:
    async def read() -> Any:
        store: Any = open_store(url, "shop")
        store.test_url = url
        await store.open()
        try:
            return await dump(store)
        finally:
            await store.close()

    return asyncio.run(read())


BEFORE = {"o-1": ("held", 1, "v2"), "p-1": ("waiting", 1, "v2"), "f-1": ("failed", 1, "v2")}
AFTER = {
    "o-1": ("queued", 2, "v1"), "p-1": ("waiting", 1, "v3"), "l-1": ("queued", 2, "v3"), "f-1": ("queued", 2, "v1"),
    "x-1": ("terminated", 1, "v2"), "x-1-2": ("queued", 1, "v1"), "done": ("completed", 1, "v2"),
    "gone": ("terminated", 1, "v2"),
}  # fmt: skip


def test_each_group_is_shown_with_its_row_its_evidence_and_its_command(perdure: Cli, where: str, code: str) -> None:
    options = (*QUERY, *SAID, "--samples", 0, "--code", code)
    found = perdure.json("recovery", "plan", *options)["recovery"]
    cases = {(one["type"], one["state"]): (one["case"], one["verb"]) for one in found["groups"]}
    assert cases == {
        ("order", "open"): ("retrying, restartable", "reset"),
        ("parcel", "open"): ("retrying, intact, not restartable", "move"),
        ("ledger", "open"): ("retrying, corrupted, not restartable", "reset"),
        ("parcel", "failed"): ("closed", "reset"),
        ("ping", "open"): ("replaceable", "restart"),
        ("order", "completed"): ("left as they are", None),
        ("order", "terminated"): ("left as they are", None),
    }
    assert rows(where, *BEFORE) == BEFORE
    for planned in (perdure("recovery", "plan", *options), perdure("recovery", "apply", *options, code=1)):
        assert "  problem  no such table" in planned.stdout
        assert "reset --to first --exclude all --move-to v1" in planned.stdout
        assert "perdure batch apply move '(version = v2) AND type = '" in planned.stdout
    assert "nothing was changed" in planned.stderr
    assert rows(where, *BEFORE) == BEFORE


def test_applied_twice_each_is_recovered_once(perdure: Cli, where: str, code: str) -> None:
    options = (*QUERY, *SAID, "--samples", 0, "--code", code, *WHY)
    done = perdure.json("recovery", "apply", *options)["recovery"]
    assert sorted((one["verb"], one["done"], one["failed"]) for one in done["batches"]) == [
        ("move", 1, 0), ("reset", 1, 0), ("reset", 1, 0), ("reset", 1, 0), ("restart", 1, 0),
    ]  # fmt: skip
    assert rows(where, *AFTER) == AFTER
    before = tables(where)
    again = perdure.json("recovery", "apply", *options)["recovery"]
    assert [one["key"] for one in again["batches"]] == [one["key"] for one in done["batches"]]
    after = tables(where)
    assert {name for name in before if before[name] != after[name]} <= {"audit_line"}


def test_the_command_of_a_group_is_its_batch(perdure: Cli, where: str, code: str) -> None:
    options = (*QUERY, *SAID, "--samples", 0, "--code", code, *WHY[:2])
    planned = perdure.json("recovery", "plan", *options)["recovery"]["groups"]
    [closed] = [one for one in planned if one["state"] == "failed"]
    program, *words = shlex.split(closed["command"])
    assert program == "perdure"
    assert perdure(*words).stdout.startswith(f"batch {closed['key']} is done: reset, 1 workflows: 1 done")
    perdure("recovery", "apply", *options, "--yes")
    assert rows(where, *AFTER) == AFTER, "and by the plan it is not done again"


def test_an_unfinished_batch_of_it_is_gone_on_with(perdure: Cli, where: str, code: str) -> None:
    options = (*QUERY, *SAID, "--samples", 0, "--code", code, *WHY)
    [group] = [
        one for one in perdure.json("recovery", "plan", *options[:-1])["recovery"]["groups"] if one["type"] == "ledger"
    ]

    async def ordered_and_killed() -> None:
        store = open_store(where, "shop")
        await store.open()
        verb, order = Reset(to="last", move_to="v3"), Order(by="ann", reason="v2 is bad")
        ordered = BatchOrder(verb=verb, query=group["group_query"], order=order, key=group["key"])
        await create(store, ordered, TokenMaker(), b"dead" * 4)
        await store.close()

    asyncio.run(ordered_and_killed())
    done = perdure.json("recovery", "apply", *options)["recovery"]
    assert len(done["batches"]) == 5
    assert rows(where, *AFTER) == AFTER


def test_a_group_whose_samples_diverge_is_left_out_unless_told(perdure: Cli, where: str, code: str) -> None:
    options = ("--query", "version = v2 AND id = p-1", "--to", "v1", "--code", code)
    planned = perdure("recovery", "plan", *options, code=1)
    assert "  diverges  p-1" in planned.stdout
    left = perdure("recovery", "apply", *options, *WHY, code=1)
    assert "left out, since a sample diverges: 1 parcel, version v2, open, step_failed" in left.stderr
    assert rows(where, "p-1") == {"p-1": ("waiting", 1, "v2")}
    perdure("recovery", "apply", *options, *WHY, "--even-diverging")
    assert rows(where, "p-1") == {"p-1": ("waiting", 1, "v1")}


def test_what_policies_would_decide_is_evidence(perdure: Cli, where: str, code: str) -> None:
    async def interrupted() -> None:
        store = open_store(where, "shop")
        await store.open()
        await running(store, "r-1", "r-2", name="order", version="v2")
        await store.close()

    asyncio.run(interrupted())
    options = ("--query", "id STARTS_WITH r-", "--to", "v1", "--samples", 0, "--code", code)
    [group] = perdure.json("recovery", "plan", *options)["recovery"]["groups"]
    assert (group["problem"], group["verb"]) == (None, "move"), "they are shown, and decide nothing here"
    [(decision, count)] = group["policies"].items()
    assert (decision.startswith("hold ("), count) == (True, 2)
    assert f"  policy   {decision}: 2" in perdure("recovery", "plan", *options).stdout


def test_what_cannot_be_asked(perdure: Cli, where: str) -> None:
    assert "--query goes with --to V" in perdure("recovery", "plan", "--query", "id = a", code=2).stderr
    assert "a batch takes a query" in perdure("recovery", "plan", "--query", "", "--to", "v1", code=2).stderr
    alone = perdure("recovery", "plan", "--to", "v1", code=2)
    assert "--to goes with --query QUERY" in alone.stderr, "it is not taken for the plan of work that is left"
    both = perdure("recovery", "plan", "p-1", *QUERY, code=2)
    assert "workflows, or executors, and --query were given" in both.stderr
    odd = perdure("recovery", "plan", *QUERY, "--replace", "pong", "--samples", 0)
    assert "'pong' names none of the groups" in odd.stderr
    assert "no workflows match" in perdure("recovery", "plan", "--query", "version = v7", "--to", "v1").stdout
