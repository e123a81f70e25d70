"""Crashes around a recovery decision: it is made again until it is durable, with its effect, once for each claim."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from perdure import App
from perdure.model.records import Incarnation
from perdure.recovery import Decision, Default, Incident, Skip, Terminate
from perdure.store.asks import ClaimRequest
from perdure.testing import harness
from perdure.testing.crash import Mode
from tests.runtime.support import Ledger, crash, executor, row, until

pytestmark = pytest.mark.crash
ROOT = Path(__file__).resolve().parents[2]
AFTER = range(1, 8)  # writes after the first crash: the adoption, the decision, the end
OTHER = b"another executor"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path / 'perdure.db'}"


def build(database: str, ledger: Ledger, **settings: Any) -> tuple[App, Any, asyncio.Event]:
    """A step in flight for ever, skipped by a policy; then another."""
    app = App("shop", database=database, **settings)
    inside = asyncio.Event()

    @app.step(name="charge")
    async def charge() -> int:
        ledger.note("charge")
        inside.set()
        await asyncio.Event().wait()
        return 5

    @app.step(name="ship")
    async def ship(paid: int) -> str:
        ledger.note("ship")
        return f"paid {paid}"

    @app.workflow(name="order")
    async def order() -> str:
        return await ship(await charge())

    @app.recovery_policy(order)
    async def policy(incident: Incident) -> Decision:
        ledger.note("asked")
        in_flight = [step.name for step in incident.in_flight]
        return Skip(result=0, set={"free": True}) if in_flight == ["charge"] else Default()

    return app, order, inside


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(Mode), ids=lambda mode: mode.name.lower())
async def test_a_crash_at_any_write_of_a_recovery_leaves_one_decision_for_each_claim(database: str, mode: Mode) -> None:
    struck: Counter[str] = Counter()
    for after in AFTER:
        ledger = Ledger()
        app, order, inside = build(database, ledger)
        async with harness(app, database=database) as h:
            handle = await order.options(id="a").start()
            await asyncio.wait_for(inside.wait(), 20)
            h.plan.orders[len(h.plan.points) + after] = mode
            await h.crash()
            assert await handle.result() == "paid 0"
            await h.settle()
            struck.update(h.plan.points[point - 1] for point, _ in h.plan.struck)
            rows = await h.store.decisions(["a"])
            claims = [row.claim for row in rows]
            assert len(set(claims)) == len(claims)
            adoptions = (await h.store.rows(["a"]))["a"].epoch - 1
            again = mode is Mode.LOST and len(rows) < adoptions  # an answer was lost: claimed again, with no new death
            assert len(rows) == adoptions - again
            assert all(b'"executor":""' not in row.evidence for row in rows)
            answered = [row for row in rows if row.decision == "skip"]
            assert len(answered) == 1, f"{after}: {rows}"
            assert ledger.counts["charge"] == 1
            assert ledger.counts["asked"] >= 1
    assert struck["adopt"], struck
    assert struck["commit"], struck


async def test_two_executors_that_race_decide_once(database: str) -> None:
    ledger = Ledger()
    app, order, inside = build(database, ledger, executor_id="first")
    await app.open()
    await order.options(id="a").start()
    await inside.wait()
    await crash(app)
    racers = [build(database, ledger, executor_id=f"racer-{n}")[0] for n in range(2)]
    await asyncio.gather(*(racer.open() for racer in racers))
    store = racers[0]._home.engine().line.store
    await until(lambda: closed(store))
    rows = await store.decisions(["a"])
    await asyncio.gather(*(racer.close() for racer in racers))
    assert [row.decision for row in rows] == ["skip"]
    assert rows[0].executor.startswith("racer")
    assert b'"executor":"first"' in rows[0].evidence
    assert ledger.counts == {"charge": 1, "asked": 1, "ship": 1}


async def closed(store: Any) -> bool:
    return not (await store.rows(["a"]))["a"].status.open


async def test_what_is_decided_under_a_lost_claim_is_refused_whole(database: str) -> None:
    """The policy takes so long that another takes the work over; then it answers."""
    app = App("shop", database=database)
    inside, asked, answer = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @app.step
    async def work() -> None:
        inside.set()
        await asyncio.Event().wait()

    @app.workflow(name="order")
    async def order() -> None:
        await work()

    @app.recovery_policy(order)
    async def policy(incident: Incident) -> Decision:
        asked.set()
        await answer.wait()
        return Terminate(because="too late")

    await app.open()
    await order.options(id="a").start()
    await inside.wait()
    await crash(app)
    async with app:
        await asked.wait()
        me = executor(app).me
        store = app._home.engine().line.store
        await store.bury([me.id], expired_only=False)
        await store.register(Incarnation(id=OTHER, executor="other"), 60_000_000)
        want = ClaimRequest(owner=OTHER, token=OTHER, version=executor(app).version, limit=9)
        assert [c.row.id for c in await store.adopt([me.id], want, suspects=True)] == ["a"]
        answer.set()
        await until(lambda: not executor(app).deciding)
        after = await row(app, "a")
        assert (after.status, after.owner, after.claim) == ("running", OTHER, OTHER)
        rows = await store.decisions(["a"])
        assert [(row.decision, row.policy) for row in rows] == [("resume", "")] * 2


@pytest.mark.slow
async def test_killed_in_the_step_and_killed_in_the_policy(database: str) -> None:
    assert await life(database, "hang", kill_at="effect") == ["effect"]
    assert await life(database, "die") == ["asked 1 charge victim"]
    said = await life(database, "answer")
    assert said == ["asked 2 charge victim", "result 8", "decision resume -", "decision skip decide"]


async def life(database: str, order: str, kill_at: str = "") -> list[str]:
    """One life of ``tests.crash.policy_victim``; what it said."""
    command = [sys.executable, "-m", "tests.crash.policy_victim", database, order]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    said: list[str] = []
    while line := (await process.stdout.readline()).decode().strip():
        said.append(line)
        if line == kill_at:
            process.kill()
    await process.wait()
    return said
