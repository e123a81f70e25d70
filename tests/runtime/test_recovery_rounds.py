"""How much is taken over at once: a launch waits for one batch; nothing more comes while much waits for its turn.

Nor while a policy is asked about many.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from perdure import App
from perdure.model.writes import Receipt, Unit
from perdure.recovery import Decision, Default, Incident
from perdure.runtime import recovery
from perdure.runtime.reaper import Reaper
from tests.runtime.support import crash, executor, until

LEFT = 25
BATCH = 2


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "CLAIM_BATCH", BATCH)


def build(database: str) -> App:
    app = App("shop", database=database, lease=60)

    @app.step
    async def effect(n: int) -> int:
        return n

    @app.workflow(name="order")
    async def order() -> int:
        return await effect(1) + await effect(2)

    return app


async def leave_behind(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workflows whose start is durable, and nothing more of them."""
    app = build(database)
    await app.open()
    order = app.client.workflow("order", returns=int)
    with monkeypatch.context() as patch:
        patch.setattr(type(executor(app)), "_begin_some", lambda _self: None)
        for n in range(LEFT):
            await order.options(id=f"w{n}", delay=0).start()
        await app._home.engine().line.journal.drained()
        executor(app).look()
        await until(lambda: len(executor(app).executions) == LEFT)
        await crash(app)


async def test_a_launch_waits_for_one_batch(database: str, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    await leave_behind(database, monkeypatch)
    app = build(database)
    at_start: list[int] = []
    begin = Reaper.start

    def start(reaper: Reaper) -> None:
        at_start.append(executor(app).recovered)
        begin(reaper)

    monkeypatch.setattr(Reaper, "start", start)
    async with app:
        for n in range(LEFT):
            assert await app.client.handle(f"w{n}").result() == 3
        await until(lambda: executor(app).recovered == LEFT)  # counted when the round is over
    assert at_start == [BATCH]


async def test_nothing_more_is_taken_over_while_much_waits(
    database: str, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "AHEAD", 2 * BATCH)
    await leave_behind(database, monkeypatch)
    app = build(database)
    waiting: list[int] = []  # at each adoption
    make = app._home.make_store

    def store(*given: Any) -> Any:
        made: Any = make(*given)
        adopt, commit = made.adopt, made.commit

        async def adopted(*args: Any, **kwargs: Any) -> Any:
            waiting.append(recovery.backlog(executor(app)))
            return await adopt(*args, **kwargs)

        async def committed(batch: Sequence[Unit], **kwargs: Any) -> Receipt:
            """Slow: as long as something more would be taken over."""
            if any(unit.records for unit in batch):
                host = executor(app)
                await until(lambda: recovery.backlog(host) > recovery.AHEAD or len(waiting) > LEFT // BATCH)
            receipt: Receipt = await commit(batch, **kwargs)
            return receipt

        made.adopt, made.commit = adopted, committed
        return made

    monkeypatch.setattr(app._home, "make_store", store)
    async with app:
        for n in range(LEFT):
            assert await app.client.handle(f"w{n}").result() == 3
    assert len(waiting) > LEFT // BATCH
    # Two batches may have begun to wait since it was looked: the one before, and what a claim has taken on meanwhile.
    assert 0 < max(waiting) <= recovery.AHEAD + 2 * BATCH


async def test_a_slow_policy_is_asked_about_few_at_a_time(
    database: str, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it takes its time for stays in the rows of the others, and new work is begun meanwhile."""
    monkeypatch.setattr(recovery, "UNDECIDED", 5)
    monkeypatch.setattr(recovery, "FULL_SECONDS", 0.01)
    await leave_behind(database, monkeypatch)
    app = build(database)
    answer = asyncio.Event()
    asked: list[str] = []
    most: list[int] = []

    @app.recovery_policy("order")
    async def slow(incident: Incident) -> Decision:
        asked.append(incident.id)
        most.append(len(executor(app).deciding))
        await answer.wait()
        return Default()

    rounds: list[int] = []
    take_over = recovery._take_over

    async def counted(*given: Any) -> int:
        rounds.append(await take_over(*given))
        return rounds[-1]

    monkeypatch.setattr(recovery, "_take_over", counted)
    async with app:
        await until(lambda: len(asked) == 5)
        looked = len(rounds)
        await until(lambda: len(rounds) > looked + 3)  # rounds come, and find no room
        assert len(asked) == 5
        order = app.client.workflow("order", returns=int)
        assert await (await order.options(id="new").start()).result() == 3
        answer.set()
        assert [await order.handle(f"w{n}").result() for n in range(LEFT)] == [3] * LEFT
    assert sorted(asked) == sorted(f"w{n}" for n in range(LEFT))
    assert max(most) <= 5
