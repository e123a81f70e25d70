"""More of fleets of real processes: killed at a start, under a new name, cut off, wrong clocks, two healers at once."""

# waits: other processes tell of themselves by files and rows only; every wait here looks again until it is so.

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from datetime import timedelta

import pytest

from perdure.errors import Interrupted
from tests.crash.fleet import until
from tests.effort import by_effort
from tests.faults.conftest import proxied_url
from tests.process.servers import Servers, told

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.postgres, pytest.mark.timeout(400)]
SEED = int(os.environ.get("PERDURE_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
TEN_MINUTES = 600


async def test_killed_in_the_action_of_the_initial_state_the_same_start_finds_it(servers_on_either: Servers) -> None:
    servers = servers_on_either
    first = await servers.launch("a")
    servers.shut("Draft")
    await servers.start(["p"])
    await until(lambda: servers.begun("Draft"))
    first.signal(signal.SIGKILL)
    await first.process.wait()
    await servers.launch("a")
    await servers.all_are(["p"], "Error")
    await servers.start(["p"])
    servers.open("Draft")
    p = servers.handle("p")
    assert (await p.state(), servers.begun("Draft")) == ("Draft", {"p": 1})
    assert [info.id async for info in servers.client.list()] == ["p"]
    await p.execute("submit")
    assert (await p.status(), await p.state()) == ("Idled", "Review")


async def test_killed_at_any_time_after_the_insert_none_is_left_behind(servers_on_either: Servers) -> None:
    """Before the claim, after it, in the first action or behind it: each is started, or stands in its first state."""
    servers = servers_on_either
    print(f"PERDURE_SEED={SEED}")
    chance = random.Random(SEED)
    member = await servers.launch("a")
    ids: list[str] = []
    for n in range(by_effort(2, 4, 20)):
        some = [f"p{n}.{m}" for m in range(10)]
        frozen = n == 0  # one that is stopped claims nothing: killed for certain between the insert and the claim
        if frozen:
            member.signal(signal.SIGSTOP)
        await servers.start(some)
        await asyncio.sleep(0 if frozen else chance.uniform(0, 0.06))
        member.signal(signal.SIGKILL)
        await member.process.wait()
        member = await servers.launch("a")
        ids += some
        await servers.all_are(some, "Idled", "Error")
    for id in ids:
        p = servers.handle(id)
        assert await p.state() == "Draft"
        least = 1 if await p.status() == "Idled" else 0  # it may have died between the intent of the step and the step
        assert least <= servers.begun("Draft").get(id, 0) <= 1, "an action of one that had begun is not run again"
    calls = [asyncio.ensure_future(servers.handle(id).execute("submit")) for id in ids]
    assert await told(calls) == {"done": len(ids)}


async def test_under_a_new_name_beside_others_what_the_old_one_left_is_recovered(servers: Servers) -> None:
    first, peer = await servers.launch("a"), await servers.launch("b")
    ids = [f"p{n}" for n in range(20)]
    await servers.start(ids)
    calls = await servers.running_in("Check", ids)
    pid_of = servers.pids("Check")
    dies = first if first.pid in pid_of.values() else peer  # who takes how many is chance
    lost = {id for id, pid in pid_of.items() if pid == dies.pid}
    kept = set(ids) - lost
    dies.signal(signal.SIGKILL)
    await servers.launch(f"{dies.label}.2")
    await servers.all_are(sorted(lost), "Error")
    servers.open("Check")
    answers = await told(calls)
    assert answers == Counter({"Interrupted": len(lost), "done": len(kept)}), answers
    assert Counter(row.id for row in await servers.decisions(ids)) == dict.fromkeys(lost, 1)


async def test_where_each_recovers_its_own_a_peer_leaves_them_to_who_comes_back(servers: Servers) -> None:
    """Under its old name, before its lease ends; what the peer runs goes on."""
    fleet = [await servers.launch(label, PERDURE_RECOVERY="own") for label in "ab"]
    ids = [f"p{n}" for n in range(20)]
    await servers.start(ids)
    calls = await servers.running_in("Check", ids)
    dies, lost, kept = servers.who_has_most("Check", ids, fleet)
    dies.signal(signal.SIGKILL)
    await dies.process.wait()
    await servers.launch(dies.label, PERDURE_RECOVERY="own")
    await servers.all_are(lost, "Error")
    assert Counter((row.id, row.executor) for row in await servers.decisions(ids)) == {
        (id, dies.label): 1 for id in lost
    }
    servers.open("Check")
    assert await told(calls) == Counter({"Interrupted": len(lost), "done": len(kept)})


async def test_one_whose_connection_is_cut_is_declared_dead_and_writes_nothing(servers: Servers) -> None:
    """It lives, and works on: what it did is refused when it is back, and only a step can have run twice."""
    proxied = await proxied_url(servers.fleet.url)
    try:
        cut = await servers.launch("cut", PERDURE_DATABASE_URL=proxied.url)
        ids = [f"p{n}" for n in range(10)]
        await servers.start(ids)
        calls = await servers.running_in("Check", ids)
        other = await servers.launch("other")
        proxied.proxy.blackhole()
        await servers.all_are(ids, "Error")
        assert cut.process.returncode is None
        servers.open("Check")  # its actions end, and nobody hears of it
        before = await servers.rows(ids)
        assert await told(calls) == {"Interrupted": 10}
        proxied.proxy.heal()
        proxied.proxy.resume()
        await until(lambda: "was declared dead" in cut.said())
        assert await servers.rows(ids) == before
        assert servers.begun("Review") == {}
        orders = [asyncio.ensure_future(servers.handle(id).execute("submit")) for id in ids]
        assert await told(orders) == {"done": 10}
        assert servers.begun("Check") == dict.fromkeys(ids, 2)  # the one that was cut off, and the one ordered since
        assert servers.begun("Review") == dict.fromkeys(ids, 1)
        assert Counter(row.id for row in await servers.decisions(ids)) == dict.fromkeys(ids, 1)
        other.signal(signal.SIGTERM)  # the one that was cut off serves again
        await other.process.wait()
        await servers.handle("p0").execute("reject")
        assert await servers.handle("p0").state() == "Draft"
    finally:
        await proxied.proxy.close()


async def test_clocks_ten_minutes_off_kill_nobody_and_move_no_timer(servers: Servers) -> None:
    lease = servers.fleet.lease
    fast = await servers.launch("fast", PERDURE_TEST_SKEW=str(TEN_MINUTES))
    slow = await servers.launch("slow", PERDURE_TEST_SKEW=str(-TEN_MINUTES))
    ids, timed = [f"p{n}" for n in range(20)], [f"t{n}" for n in range(40)]
    await servers.start(ids)
    calls = await servers.running_in("Check", ids)
    await servers.start(timed, "Timed", seconds=2.0)
    await servers.all_are(timed, "Finalized")
    for id in timed:
        last = (await servers.handle(id).history())[-1]
        assert last.trigger == "timer"
        assert timedelta(0) <= last.late < timedelta(seconds=5), last
    await asyncio.sleep(3 * lease)  # waits: for a wrong verdict about either
    owners = {row.owner for row in (await servers.rows(ids)).values()}
    holders = {line.incarnation for line in servers.lines() if str(line.step) == "Check"}
    assert {owner.hex() for owner in owners if owner is not None} == holders
    assert await servers.decisions(ids) == []
    lost = {line.id for line in servers.lines() if line.pid == fast.pid and str(line.step) == "Check"}
    fast.signal(signal.SIGKILL)
    await servers.all_are(sorted(lost), "Error")
    servers.open("Check")
    assert await told(calls) == Counter({"Interrupted": len(lost), "done": len(ids) - len(lost)})
    assert Counter(row.id for row in await servers.decisions(ids)) == dict.fromkeys(lost, 1)
    assert "was declared dead" not in slow.said()


async def test_of_two_healers_that_notice_together_one_decides(servers: Servers) -> None:
    """Two live, a third dies again and again; each process that it leaves is a race of the two."""
    healers = [await servers.launch(name, PERDURE_TEST_POLICY="count") for name in ("b", "c")]
    each = by_effort(8, 20, 20)
    races = 0
    deciders: Counter[str] = Counter()
    for n in range(by_effort(2, 3, 10)):
        ids = [f"p{n}.{m}" for m in range(each)]
        for healer in healers:
            healer.signal(signal.SIGSTOP)  # so that the third gets them all
        third = await servers.launch(f"a{n}", PERDURE_TEST_POLICY="count")
        await servers.start(ids)
        calls = await servers.running_in("Check", ids)
        third.signal(signal.SIGKILL)
        await third.process.wait()
        for healer in healers:
            healer.signal(signal.SIGCONT)  # both come back to the same corpse
        await servers.all_are(ids, "Error")
        servers.open("Check")
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(answer, Interrupted) for answer in answers), answers
        decided = await servers.decisions(ids)
        assert Counter(row.id for row in decided) == dict.fromkeys(ids, 1)
        deciders.update(row.executor for row in decided)
        races += len(ids)
    asked = Counter(line.id for line in servers.lines("asked"))
    assert set(asked.values()) == {1}, asked.most_common(3)
    print(f"{races} races, won by {dict(deciders)}")
