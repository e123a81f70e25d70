"""A fleet of real processes over one database: takeover, zombies, company under one name, poison, drains, modes."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from perdure.errors import ExecutorAlive
from perdure.runtime.machine import elapsed
from tests.crash.fleet import Fleet, fleet_over, until

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.sampled(7)]

SAME_HOST_SECONDS = 2.0


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Fleet]:
    postgres = request.param == "postgres"
    url = request.getfixturevalue("postgres_url") if postgres else f"sqlite:///{tmp_path}/fleet.db"
    async with fleet_over(url, tmp_path) as fleet:
        yield fleet


async def test_killed_on_this_machine_another_goes_on_within_two_seconds(fleet: Fleet) -> None:
    first = await fleet.launch("first")
    await fleet.start("gated", "w")
    await fleet.begun("w", pid=first.pid)
    second = await fleet.launch("second")
    first.signal(signal.SIGKILL)
    killed = elapsed()
    begun = await fleet.begun("w", pid=second.pid)
    print(f"\ntaken over after {begun.at - killed:.2f} s")
    assert begun.at - killed < SAME_HOST_SECONDS
    fleet.open_gate()
    assert await fleet.client.handle("w").result() == 3
    assert (await fleet.client.handle("w").info()).attempts == 1


async def test_two_under_one_name_never_take_each_others_live_work(fleet: Fleet) -> None:
    """Also where a mode goes by the name, and for several leases."""
    for label, settings in (("same", {}), ("same", {"PERDURE_RECOVERY": "own"}), ("same", {})):
        await fleet.launch(label, **settings)
    ids = [f"w{n}" for n in range(12)]
    for id in ids:
        await fleet.start("job", id, 4, fleet.lease * 0.7)
    for id in ids:
        assert await fleet.client.handle(id).result(timeout=60) == 10
    assert {who.executor for who in await fleet.incarnations()} == {"same"}
    times = Counter((e.id, e.step) for e in fleet.effects())
    assert set(times.values()) == {1}, "a step ran twice: somebody took work that was alive"
    assert len({e.pid for e in fleet.effects()}) > 1, "not a fleet"
    attempts = [(await fleet.client.handle(id).info()).attempts for id in ids]
    assert attempts == [0] * len(ids)


async def test_one_that_was_stopped_and_comes_back_writes_nothing_and_rejoins(fleet: Fleet) -> None:
    zombie = await fleet.launch("zombie")
    await fleet.start("job", "w", 3, fleet.lease / 2)
    await fleet.begun("w", 1)
    old = fleet.effects()[-1].incarnation
    zombie.signal(signal.SIGSTOP)
    await fleet.launch("other")

    async def declared_dead() -> bool:
        return any(who.id.hex() == old and who.state == "dead" for who in await fleet.incarnations())

    await until(declared_dead)
    dead_at = elapsed()
    await fleet.begun("w", 2)  # by the other: it goes on meanwhile
    zombie.signal(signal.SIGCONT)
    await until(lambda: "was declared dead" in zombie.said())
    assert await fleet.client.handle("w").result() == 6

    async def rejoined() -> bool:
        return sum(who.serving and who.executor == "zombie" for who in await fleet.incarnations()) == 1

    await until(rejoined)
    late = [e for e in fleet.effects() if e.incarnation == old and e.at > dead_at]
    assert late == [], "the dead began an effect"
    assert Counter((e.id, e.step) for e in fleet.effects()) == {("w", 1): 2, ("w", 2): 1, ("w", 3): 1}
    new = [who.id.hex() for who in await fleet.incarnations() if who.executor == "zombie" and who.serving]
    fleet.members[1].signal(signal.SIGKILL)
    await fleet.start("job", "again", 1, 0.0)
    assert (await fleet.begun("again")).incarnation == new[0], "it works under a new identity"


async def test_one_that_is_stopped_for_half_a_lease_loses_nothing(fleet: Fleet) -> None:
    first = await fleet.launch("first")
    await fleet.start("job", "w", 4, fleet.lease / 2)
    begun = await fleet.begun("w", 1)
    await fleet.launch("other")
    before = sorted(who.id for who in await fleet.incarnations())

    async def beats() -> int:
        return next(who.beats for who in await fleet.incarnations() if who.id.hex() == begun.incarnation)

    for _ in range(2):
        seen = await beats()
        first.signal(signal.SIGSTOP)
        await asyncio.sleep(fleet.lease / 2)  # waits: that nothing happens takes its time
        first.signal(signal.SIGCONT)

        async def renewed(seen: int = seen) -> bool:
            return await beats() > seen

        await until(renewed)
    assert await fleet.client.handle("w").result() == 10
    assert [(e.step, e.incarnation) for e in fleet.effects()] == [(n, begun.incarnation) for n in (1, 2, 3, 4)]
    assert sorted(who.id for who in await fleet.incarnations() if who.serving) == before, "nobody was declared dead"
    assert (await fleet.client.handle("w").info()).attempts == 0


async def test_an_executor_whose_loop_stands_still_for_two_leases_keeps_its_work(fleet: Fleet) -> None:
    """Its lease has a thread of its own, and nobody asked for ``max_stall``."""
    stuck = await fleet.launch("stuck")
    await fleet.start("blocking", "w")
    await fleet.begun("w", 1, pid=stuck.pid)
    await fleet.launch("other")
    await asyncio.sleep(fleet.lease * 2)  # waits: that nothing happens takes its time
    lag = next(who.lag for who in await fleet.incarnations() if who.executor == "stuck")
    assert lag > fleet.lease * 1e6, "told with each renewal"
    fleet.open_gate()
    assert await fleet.client.handle("w").result() == 3
    assert [(e.step, e.pid) for e in fleet.effects()] == [(1, stuck.pid), (2, stuck.pid)]


async def test_what_one_declared_dead_still_has_to_write_is_refused(fleet: Fleet) -> None:
    """Its lease is long, so it does not learn first that it is dead: the token alone stops it."""
    zombie = await fleet.launch("zombie", PERDURE_LEASE="60")
    await fleet.start("job", "w", 2, 2.0)
    old = await fleet.begun("w", 1)
    zombie.signal(signal.SIGSTOP)
    other = await fleet.launch("other")
    assert await fleet.client.recover_executors("zombie", force=True) == ("w",)
    await fleet.begun("w", 1, pid=other.pid)
    zombie.signal(signal.SIGCONT)
    await until(lambda: "w was taken over by another executor" in zombie.said())
    assert await fleet.client.handle("w").result() == 3
    assert [e.step for e in fleet.effects() if e.incarnation == old.incarnation] == [1], "it began nothing more"
    assert Counter((e.id, e.step) for e in fleet.effects()) == {("w", 1): 2, ("w", 2): 1}


async def test_an_executor_whose_loop_stands_still_loses_its_work_if_asked_for(fleet: Fleet) -> None:
    """Its pid is there, its lease's thread runs: only ``max_stall`` gives it up. What it comes back with is refused."""
    stuck = await fleet.launch("stuck", PERDURE_MAX_STALL="1")
    await fleet.start("blocking", "w")
    old = await fleet.begun("w", 1, pid=stuck.pid)
    other = await fleet.launch("other")
    await fleet.begun("w", 2, pid=other.pid)
    assert await fleet.client.handle("w").result() == 3
    assert "max_stall is 1 s): the lease is not renewed" in stuck.said()
    fleet.open_gate()
    await until(lambda: "was declared dead" in stuck.said())

    async def rejoined() -> bool:
        return sum(who.serving and who.executor == "stuck" for who in await fleet.incarnations()) == 1

    await until(rejoined)
    assert [e.step for e in fleet.effects() if e.incarnation == old.incarnation] == [1], "it began nothing more"
    assert Counter((e.id, e.step) for e in fleet.effects()) == {("w", 1): 2, ("w", 2): 1}


@pytest.mark.parametrize("how", ["exit", "kill"])
async def test_a_poison_is_held_and_no_innocent_with_it(fleet: Fleet, how: str) -> None:
    innocents = [f"job-{n:02}" for n in range(20)]
    supervisors = [asyncio.create_task(fleet.supervise(f"e{n}")) for n in range(3)]
    try:
        for n, id in enumerate(innocents):
            if n == 5:
                await fleet.start("poison", "poison", how)
            await fleet.start("job", id, 3, 0.4)  # slow enough to be there at several deaths
        for id in innocents:
            assert await fleet.client.handle(id).result(timeout=90) == 6

        async def held() -> bool:
            return (await fleet.statuses())["poison"] == "held"

        await until(held, 60)
    finally:
        for supervisor in supervisors:
            supervisor.cancel()
        await asyncio.gather(*supervisors, return_exceptions=True)
    info = await fleet.client.handle("poison").info()
    assert (str(info.reason), info.attempts) == ("recovery_limit", 4)  # max_deaths is 3
    assert Counter((await fleet.statuses()).values()) == {"completed": 20, "held": 1}
    deaths = sum(e.id == "poison" for e in fleet.effects())
    assert deaths == 4, "each death was counted, and nothing else"


async def test_sigterm_drains_and_the_successor_goes_on_at_once(fleet: Fleet) -> None:
    first = await fleet.launch("first")
    await fleet.start("gated", "w")
    await fleet.start("patient", "p")
    await fleet.begun("w", 1)
    second = await fleet.launch("second")
    first.signal(signal.SIGTERM)

    async def state() -> str:
        return next((who.state for who in await fleet.incarnations() if who.executor == "first"), "")

    async def drains() -> bool:
        return await state() == "draining"

    await until(drains)
    await fleet.start("job", "new", 1, 0.0)
    assert (await fleet.begun("new")).pid == second.pid, "who drains takes on nothing"
    fleet.open_gate()
    assert await first.process.wait() == 0
    ended = [e for e in fleet.effects("end") if (e.id, e.step) == ("w", 1)]
    assert [e.pid for e in ended] == [first.pid], "the step under way was finished"
    assert await state() == "", "its row is gone"
    begun = await fleet.begun("w", 2)
    assert begun.pid == second.pid
    assert begun.at - ended[0].at < SAME_HOST_SECONDS
    assert await fleet.client.handle("w").result() == 3
    for id in ("w", "p"):
        assert (await fleet.client.handle(id).info()).attempts == 0, "interrupted is not an attempt"


async def test_a_second_sigterm_hands_back_at_once(fleet: Fleet) -> None:
    first = await fleet.launch("first")
    await fleet.start("gated", "w")
    await fleet.begun("w", 1)
    first.signal(signal.SIGTERM)
    await until(lambda: "draining" in first.said())
    second = await fleet.launch("second", PERDURE_RECOVERY="manual")  # it takes what was handed back, nothing else
    asked = elapsed()
    first.signal(signal.SIGTERM)
    assert await first.process.wait() == 130
    begun = await fleet.begun("w", 1, pid=second.pid)
    assert begun.at - asked < SAME_HOST_SECONDS
    assert (await fleet.client.handle("w").info()).attempts == 0


@pytest.mark.parametrize(("mode", "taken"), [("fleet", True), ("own", False), ("manual", False)])
async def test_modes_of_those_who_live_when_one_dies(fleet: Fleet, mode: str, taken: bool) -> None:
    first = await fleet.launch("first")
    await fleet.start("gated", "w")
    await fleet.begun("w", 1, pid=first.pid)
    second = await fleet.launch("second", PERDURE_RECOVERY=mode)
    first.signal(signal.SIGKILL)
    await first.process.wait()
    if not taken:
        with pytest.raises(
            ExecutorAlive, match=r"executor 'second' is alive: incarnation \w+ \(pid \d+ on .*lease runs"
        ):
            await fleet.client.recover_executors("second")
        await asyncio.sleep(fleet.lease * 1.5)  # waits: that nothing happens takes its time
        assert [e.pid for e in fleet.effects()] == [first.pid]
        assert await fleet.client.recover_executors("first", by="second") == ("w",)
    assert await fleet.begun("w", 1, pid=second.pid)
    fleet.open_gate()
    assert await fleet.client.handle("w").result() == 3


async def test_own_takes_its_own_back(fleet: Fleet) -> None:
    first = await fleet.launch("first", PERDURE_RECOVERY="own")
    await fleet.start("gated", "w")
    await fleet.begun("w", 1, pid=first.pid)
    first.signal(signal.SIGKILL)
    await first.process.wait()
    again = await fleet.launch("first", PERDURE_RECOVERY="own")
    assert await fleet.begun("w", 1, pid=again.pid)


async def test_single_starts_alone_and_takes_everything(fleet: Fleet) -> None:
    first = await fleet.launch("first")
    await fleet.start("gated", "w")
    await fleet.begun("w", 1, pid=first.pid)
    with pytest.raises(AssertionError, match="recovery='single' was asked for, but executor 'first'"):
        await fleet.launch("only", PERDURE_RECOVERY="single")
    first.signal(signal.SIGKILL)
    await first.process.wait()
    only = await fleet.launch("only", PERDURE_RECOVERY="single")
    assert await fleet.begun("w", 1, pid=only.pid)


async def test_a_single_one_that_was_stopped_does_not_work_beside_its_successor(fleet: Fleet) -> None:
    zombie = await fleet.launch("zombie", PERDURE_RECOVERY="single")
    await fleet.start("gated", "w")
    await fleet.begun("w", 1, pid=zombie.pid)
    zombie.signal(signal.SIGSTOP)

    async def expired() -> bool:
        return all(who.lease_until < time.time_ns() // 1000 for who in await fleet.incarnations())

    await until(expired)
    successor = await fleet.launch("successor", PERDURE_RECOVERY="single")
    await fleet.begun("w", 1, pid=successor.pid)
    zombie.signal(signal.SIGCONT)
    await until(lambda: "executor 'successor'" in zombie.said() and "runs nothing until that is gone" in zombie.said())
    await fleet.start("job", "new", 3, 0.0)
    assert await fleet.client.handle("new").result() == 6
    assert {e.pid for e in fleet.effects() if e.id == "new"} == {successor.pid}
    assert [who.executor for who in await fleet.incarnations() if who.serving] == ["successor"]
    successor.signal(signal.SIGKILL)
    await until(lambda: [e.pid for e in fleet.effects() if e.id == "w"] == [zombie.pid, successor.pid, zombie.pid])
