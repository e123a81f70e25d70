"""What is written late, by statements that wait for locks: a third connection holds those, as in the races."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from perdure.model.states import Status
from perdure.model.streams import StreamAsk
from perdure.model.writes import Park, SetEvent
from perdure.store.lines import Deduplicated
from tests.store.build import append, queued, record, running, start, tok, unit, want
from tests.store.test_postgres_races import DEADLOCK, Make, Third, make, refusals, third  # noqa: F401  fixtures

pytestmark = pytest.mark.postgres


@pytest.mark.parametrize("what", ["event", "append"])
async def test_who_is_claimed_and_parks_while_what_it_waits_for_is_being_written_is_woken(
    make: Make,  # noqa: F811
    third: Third,  # noqa: F811
    what: str,
) -> None:
    """The statement that sets the event has locked its row, and waits for another row of its batch."""
    ours, theirs = await make(), await make()
    target = await running(theirs, "target", "wall", now=None)
    await third.hold("wall")
    more: dict[str, Any] = {"events": [SetEvent("e", b"1")]} if what == "event" else {"appends": [append(1)]}
    said = unit("target", target, records=[record(1)], **more)
    setting = asyncio.create_task(theirs.commit([said, unit("wall", target, records=[record(1)])]))
    await third.waiting()
    claim = await running(ours, "waiter", now=None)
    assert await ours.events([("target", "e")]) == {}
    park = Park(None, "", ("target",), (("target", "e"),), (StreamAsk("target", "s", 0),))
    parking = asyncio.create_task(ours.commit([unit("waiter", claim, change=park)]))
    await third.waiting(2)
    await third.let_go()
    await asyncio.gather(setting, parking)
    assert [c.row.id for c in await ours.claim(want())] == ["waiter"]


@pytest.mark.parametrize("ended_first", [True, False])
async def test_a_parent_that_is_ended_while_a_child_with_a_key_is_begun_leaves_no_child(
    make: Make,  # noqa: F811
    third: Third,  # noqa: F811
    ended_first: bool,
) -> None:
    ours, theirs = await make(), await make()
    await running(ours, "parent", now=None)
    await third.hold("parent")
    child = start("child", parent="parent", parent_run=1, queue="q")
    acts: list[Callable[[], Awaitable[Any]]] = [
        lambda: theirs.terminate("parent", "enough", tok("n")),
        lambda: ours.start_once(child, Deduplicated(key="k")),
    ]
    tasks: list[asyncio.Task[Any]] = []
    for count, act in enumerate(acts if ended_first else reversed(acts), start=1):
        tasks.append(asyncio.ensure_future(act()))
        await third.waiting(count)
    await third.let_go()
    await asyncio.gather(*tasks)
    assert await third.value("select string_agg(dest, ' ') from perdure.wake where cancel is not null") == "child"


@pytest.mark.parametrize("verb", ["start_once", "cancel"])
async def test_who_waits_for_a_lock_of_a_users_transaction_keeps_no_claim_waiting(
    make: Make,  # noqa: F811
    third: Third,  # noqa: F811
    verb: str,
) -> None:
    """As long as a start with ``session=`` is not committed it has its key; one that it debounced is locked, too."""
    store = await make()
    await queued(store, "a", "b", now=None)
    await store.start_once(start("has", queue="q"), Deduplicated(key="k"))
    await third.hold("a")
    await third.conn.fetch("select 1 from perdure.dedup where key = 'k' for update")
    waits: Awaitable[Any] = (
        store.cancel("a", "enough", tok("n"))
        if verb == "cancel"
        else store.start_once(start("wants", queue="q"), Deduplicated(key="k"))
    )
    waiting = asyncio.ensure_future(waits)
    await third.waiting()
    assert [c.row.id for c in await store.claim(want())] == ["b"]
    assert not waiting.done()
    await third.let_go()
    found = await waiting
    assert found.status is Status.CANCELLED if verb == "cancel" else found.id == "has"


async def test_a_fence_and_a_commit_that_wait_for_each_other_both_come_through(
    make: Make,  # noqa: F811
    third: Third,  # noqa: F811
    refusals: list[str],  # noqa: F811
) -> None:
    # Who looks for deadlocks, and so is the one that is refused, is the fence; and only once this one waits, too.
    name = await third.value("select current_database()")
    await third.conn.execute(f"alter database {name} set deadlock_timeout = '3s'; set deadlock_timeout = '1min'")
    store = await make()
    await third.conn.execute("begin")
    await third.value("select count(*) from perdure.wake")
    fencing = asyncio.create_task(store.upkeep.fence(("workflow", "wake"), {}, "moved"))
    await third.waiting()
    assert await third.value("select count(*) from perdure.workflow") == 0
    await third.let_go()
    assert await fencing == []
    assert refusals == [DEADLOCK]
    await store.upkeep.unfence({})
