"""Real processes on hosts of their own over one Postgres: who dies is found by its connection, not by its lease."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from perdure.runtime.machine import elapsed
from perdure.store.postgres.lifeline import PREFIX
from tests.crash.fleet import Fleet, fleet_over, until

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.postgres]

LEASE = 30.0
BEAT = LEASE / 3
ROUND_MAX = 6.0
# A round until it is suspect; until it should have renewed, and a moment; at most a fifth of a round until the next.
BOUND = ROUND_MAX + BEAT + 1 + 1


@pytest.fixture
async def fleet(postgres_url: str, tmp_path: Path) -> AsyncIterator[Fleet]:
    async with fleet_over(postgres_url, tmp_path, lease=LEASE) as fleet:
        yield fleet


async def test_killed_on_another_host_it_is_taken_over_before_its_lease_ends(fleet: Fleet) -> None:
    first = await fleet.launch("first", PERDURE_TEST_BOOT="one")
    await fleet.start("gated", "w")
    await fleet.begun("w", pid=first.pid)
    second = await fleet.launch("second", PERDURE_TEST_BOOT="two")
    first.signal(signal.SIGKILL)
    killed = elapsed()
    begun = await fleet.begun("w", pid=second.pid)
    took = begun.at - killed
    print(f"\ntaken over after {took:.1f} s, of a lease of {LEASE:.0f} s that was renewed each {BEAT:.0f} s")
    assert took < min(BOUND + 2, LEASE - BEAT)
    fleet.open_gate()
    assert await fleet.client.handle("w").result() == 3
    assert (await fleet.client.handle("w").info()).attempts == 1


async def test_stopped_and_cut_off_it_cannot_prove_itself_and_rejoins_as_somebody_new(
    fleet: Fleet, postgres_url: str
) -> None:
    """A false death, as far as anybody can tell: what it comes back with is refused by the token."""
    first = await fleet.launch("first", PERDURE_TEST_BOOT="one")
    await fleet.start("gated", "w")
    me = (await fleet.begun("w", pid=first.pid)).incarnation
    second = await fleet.launch("second", PERDURE_TEST_BOOT="two")
    first.signal(signal.SIGSTOP)
    operator = await asyncpg.connect(postgres_url)
    cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = $1"
    assert await operator.fetchval(cut, PREFIX + me) == 1
    await operator.close()
    stopped = elapsed()
    begun = await fleet.begun("w", pid=second.pid)
    assert begun.at - stopped < LEASE - BEAT
    first.signal(signal.SIGCONT)
    await until(lambda: "was declared dead" in first.said())
    fleet.open_gate()
    assert await fleet.client.handle("w").result() == 3
    assert [e.step for e in fleet.effects() if e.incarnation == me] == [1], "it began nothing more"
