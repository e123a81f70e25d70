"""Fleets of real processes, killed, stopped and rolled: processes are decided about once, timers fire once."""

# waits: other processes tell of themselves by files and rows only; every wait here looks again until it is so.

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from tests.crash.fleet import until
from tests.effort import by_effort
from tests.process.servers import Servers, servers_over, told

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.postgres]
TIMERS = by_effort(300, 600, 3_000)


async def test_only_the_dead_ones_processes_are_decided_about_and_once(servers: Servers) -> None:
    fleet = [await servers.launch(name, PERDURE_TEST_POLICY="count") for name in "abc"]
    ids = [f"p{n}" for n in range(60)]
    await servers.start(ids)
    calls = await servers.running_in("Check", ids)
    dies, lost, kept = servers.who_has_most("Check", ids, fleet)
    before = await servers.rows(kept)
    dies.signal(signal.SIGKILL)
    await servers.all_are(lost, "Error")
    assert await servers.rows(kept) == before
    decided = await servers.decisions(ids)
    assert sorted(row.id for row in decided) == sorted(lost)
    asked = Counter(line.id for line in servers.lines("asked"))
    assert set(asked) <= set(lost)
    assert set(asked.values()) <= {1}, "asked by two"
    servers.open("Check")
    assert await told(calls) == Counter({"done": len(kept), "Interrupted": len(lost)})
    await servers.all_are(kept, "Idled")


async def test_a_healer_that_is_killed_leaves_all_to_the_next(servers: Servers) -> None:
    first = await servers.launch("a")
    ids = [f"p{n}" for n in range(20)]
    await servers.start(ids)
    calls = await servers.running_in("Check", ids)
    healer = await servers.launch("b", PERDURE_TEST_POLICY="die")
    first.signal(signal.SIGKILL)
    await until(lambda: healer.process.returncode is not None)
    await servers.launch("c", PERDURE_TEST_POLICY="back")
    servers.open("Check")
    await servers.all_are(ids, "Idled")
    assert set((await told(calls)).keys()) == {"Interrupted"}
    decided = await servers.decisions(ids)
    assert Counter((row.id, row.decision, row.executor) for row in decided) == {(id, "run_from", "c"): 1 for id in ids}
    assert {msgspec.json.decode(row.evidence)["attempt"] for row in decided} <= {1, 2}


@pytest.mark.parametrize("label", ["a", "z"])
async def test_the_whole_fleet_down_the_first_that_comes_recovers_all(servers: Servers, label: str) -> None:
    """Also under the name of a dead one, before its lease ends."""
    members = [await servers.launch(name) for name in "abc"]
    ids = [f"p{n}" for n in range(30)]
    await servers.start(ids)
    calls = await servers.running_in("Check", ids)
    for member in members:
        member.signal(signal.SIGKILL)
    await asyncio.gather(*(member.process.wait() for member in members))
    await servers.launch(label)
    await servers.all_are(ids, "Error")
    assert await told(calls) == {"Interrupted": 30}
    assert Counter(row.id for row in await servers.decisions(ids)) == dict.fromkeys(ids, 1)


async def test_one_that_was_stopped_and_comes_back_writes_nothing(servers: Servers) -> None:
    zombie = await servers.launch("zombie")
    ids = [f"p{n}" for n in range(10)]
    await servers.start(ids)
    calls = await servers.running_in("Check", ids)
    zombie.signal(signal.SIGSTOP)
    await servers.launch("other")
    await servers.all_are(ids, "Error")
    before = await servers.rows(ids)
    servers.open("Check")
    zombie.signal(signal.SIGCONT)
    await until(lambda: "was declared dead" in zombie.said())
    assert await told(calls) == {"Interrupted": 10}
    assert await servers.rows(ids) == before
    assert servers.begun("Review") == {}
    await asyncio.gather(*(servers.handle(id).execute("submit") for id in ids))
    await servers.all_are(ids, "Idled")


async def test_timers_fire_once_each_whoever_dies(servers: Servers) -> None:
    members = [await servers.launch(name) for name in "abc"]
    ids = [f"t{n}" for n in range(TIMERS)]
    await servers.start(ids, "Timed", seconds=4.0)
    await until(lambda: len(servers.begun("end")) > TIMERS // 12, 60)
    members[0].signal(signal.SIGKILL)
    await servers.all_are(ids, "Finalized", "Error")
    for id in ids:
        if await servers.handle(id).status() == "Error":
            await servers.handle(id).resume()
    await servers.all_are(ids, "Finalized", "Idled")
    assert set(servers.begun("end")) == set(ids), "one was lost"
    fired = Counter({
        id: sum(step.trigger == "timer" for step in await servers.handle(id).history()) for id in ids
    })  # fmt: skip
    assert set(fired.values()) == {1}, fired.most_common(3)


async def test_a_rolling_restart_leaves_no_error(servers: Servers) -> None:
    members = {name: await servers.launch(name) for name in "abc"}
    ids = [f"p{n}" for n in range(40)]
    await servers.start(ids, patience=None)  # else its timer is quicker than an order that a slow machine delays: Busy
    await servers.all_are(ids, "Idled")

    async def work(id: str) -> None:
        p = servers.handle(id).within(30)
        for command in ("submit", "reject", "submit", "approve"):
            await p.execute(command)
            await asyncio.sleep(0.4)

    working = [asyncio.ensure_future(work(id)) for id in ids]
    for name, member in members.items():
        member.signal(signal.SIGTERM)
        await member.process.wait()
        members[name] = await servers.launch(name)
    answers = await asyncio.gather(*working, return_exceptions=True)
    assert [answer for answer in answers if answer is not None] == []
    await servers.all_are(ids, "Finalized")
    for id in ids:
        statuses = {str(step.status) for step in await servers.handle(id).history()}
        assert not statuses & {"Error", "Terminated"}, statuses


async def test_other_code_leaves_them_alone_and_a_single_ones_are_recovered(servers: Servers) -> None:
    first = await servers.launch("a", PERDURE_VERSION="v1", PERDURE_RECOVERY="single")
    await servers.start(["p"])
    calls = await servers.running_in("Check", ["p"])
    first.signal(signal.SIGKILL)
    await first.process.wait()
    other = await servers.launch("c", PERDURE_VERSION="v2", PERDURE_ADOPT="never", PERDURE_TEST_POLICY="back")
    await asyncio.sleep(servers.fleet.lease + 1)  # waits: for it to have looked, and left it alone
    assert await servers.handle("p").status() == "Running"
    assert servers.lines("asked") == []
    await servers.launch("b", PERDURE_VERSION="v1", PERDURE_TEST_POLICY="back")
    servers.open("Check")
    await servers.all_are(["p"], "Idled")
    assert (await servers.handle("p").state(), len(servers.lines("asked"))) == ("Draft", 1)
    assert await told(calls) == {"Interrupted": 1}
    assert other.process.returncode is None


async def test_killed_on_sqlite_and_started_again(tmp_path: Path) -> None:
    async with servers_over(f"sqlite:///{tmp_path}/fleet.db", tmp_path) as servers:
        first = await servers.launch("a")
        ids = [f"p{n}" for n in range(10)]
        await servers.start(ids)
        calls = await servers.running_in("Check", ids)
        first.signal(signal.SIGKILL)
        await first.process.wait()
        await servers.launch("a")
        await servers.all_are(ids, "Error")
        servers.open("Check")
        assert await told(calls) == {"Interrupted": 10}
        await asyncio.gather(*(servers.handle(id).execute("submit") for id in ids))
        await servers.all_are(ids, "Idled")
