"""What crashing everywhere has found, each as small as it gets."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator

import pytest

from perdure.model.records import Kind
from perdure.runtime.eviction import evict_if_idle
from perdure.testing import Harness, harness
from perdure.testing.crash import Mode, Plan
from tests.crash import canon
from tests.crash.ledger import fresh

pytestmark = pytest.mark.crash


@pytest.fixture
async def h() -> AsyncIterator[Harness]:
    fresh()
    async with harness(canon.app) as h:
        yield h


async def test_a_flush_that_finds_nothing_does_not_block_the_run(h: Harness) -> None:
    """A sync body's thread asks for a flush of what an earlier flush has taken: no verdict ever came for it."""
    handle = await canon.mailbox.options(id="main").start()
    await h.settle()
    executor = h._work.engine.executor
    assert executor is not None
    execution = executor.executions["main"]
    execution.dirty()
    await h.settle()
    assert not execution.in_flight
    for letter in ("first", "second"):
        await handle.send(letter, canon.letters)
    assert await handle.result() == ["first", "second", None]


async def test_the_same_start_attaches_to_what_has_continued(h: Harness) -> None:
    handle = await canon.generations.options(id="main").start(2)
    assert await handle.result() == "the last"
    again = await canon.generations.options(id="main").start(2)
    assert await again.result() == "the last"


async def test_a_chosen_child_is_still_a_child_after_recovery(h: Harness) -> None:
    """Its record is all that a replay knows of it: the parent's end cancels it."""
    h.crash_after("act")  # the child's own first step: by then its record in the parent is durable
    handle = await canon.leaver.options(id="main").start()
    assert await handle.result() == "left"
    assert h.crashes == 1
    await h.advance(2000)
    assert (await h.store.rows(["cancel"]))["cancel"].status == "cancelled"
    assert (await h.store.rows(["abandon"]))["abandon"].status == "completed"


async def test_messages_of_one_moment_keep_their_order(h: Harness) -> None:
    assert await h.run(canon.talkers) == ["letter 0", "letter 1", "letter 2"]
    rows = (await h.store.rows(["box"]))["box"]
    history = (await h.store.histories([rows.key]))[rows.key]
    taken = [r for r in history if r.kind is Kind.RECV and r.data]
    assert len({r.at for r in taken}) == 1  # or the clock would have kept the order


async def test_a_lost_claim_is_found_at_the_next_look(h: Harness) -> None:
    await h.renew(Plan({2: Mode.LOST}))
    handle = await canon.sequence.options(id="main").start(1)
    assert await handle.result() == ["act 0"]
    assert h.plan.struck == [(2, Mode.LOST)]
    assert h.plan.points[1] == "claim"
    assert "reclaim" in h.plan.points


async def test_a_wake_whose_mail_could_not_be_read_is_taken_again(h: Harness) -> None:
    """It counted as acted on before the mail was read: trouble with that read, and nobody looked at the mail again."""
    await h.renew(Plan({1: Mode.TROUBLE}, {"inbox"}))
    handle = await canon.collector.options(id="main").start(1)
    await h.settle()
    await handle.send("letter", canon.letters)
    assert await handle.result() == ["letter"]
    assert h.plan.struck == [(1, Mode.TROUBLE)]


async def test_what_is_due_is_not_evicted(h: Harness) -> None:
    """Sync bodies give their threads up when others want one: claimed as due, two evicted each other for ever."""
    await canon.sleeper.options(id="main").start()
    await h.settle()
    executor = h._work.engine.executor
    assert executor is not None
    sleeper = executor.executions["main"]
    h.clock._now += 100 * 1_000_000  # the timer is due, and has not fired yet
    evict_if_idle(sleeper, math.inf)
    assert not sleeper.gone
    assert await canon.sleeper.handle("main").result() == 150.0
