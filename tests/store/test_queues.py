"""Lines of queues: who is let through, in which order, and how many; who leaves a line and who comes back to it."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from perdure.model.queues import DELAYED, Limits, QueueChange, lane_of
from perdure.model.records import Claimed, Incarnation
from perdure.model.states import Reason, Status
from perdure.model.writes import Close, Continue, Hold, Park, Release, Reopen
from perdure.store.base import Store
from perdure.store.lines import Deduplicated, Line, LineClaim
from tests.store.build import (
    ME,
    OTHER,
    SECOND,
    T,
    close,
    commit,
    dump,
    letin,
    one,
    outside,
    queued,
    record,
    rewind,
    row,
    running,
    start,
    status,
    tok,
    unit,
    want,
)

pytestmark = pytest.mark.usefixtures("serving")


async def limited(store: Store, queue: str = "q", **limits: Any) -> None:
    await store.declare_queues({queue: Limits(**limits)}, now=T)


async def let(store: Store, limit: int = 10, now: int = T, **more: Any) -> list[str]:
    return ids((await store.claim_line(letin("q", limit, **more), now=now)).claimed)


def order(**more: Any) -> Reopen:
    return Reopen(nonce=tok("order"), verb="resume", shown="by tests", at=T, **more)


def ids(claimed: list[Claimed]) -> list[str]:
    return [one.row.id for one in claimed]


async def end(store: Store, *names: str) -> None:
    for name in names:
        claim = (await row(store, name)).claim
        assert (await one(store, unit(name, claim or b"", run=(await row(store, name)).run, change=close()))).applied


# -- order


async def test_the_smaller_priority_is_first_then_who_was_queued_first(store: Store) -> None:
    await limited(store)
    for n, (id, priority) in enumerate([("b", 0), ("c", 5), ("d", -1), ("a", 0)]):
        await queued(store, id, queue="q", priority=priority, now=T + n)
    assert await let(store, 2) == ["d", "b"]
    assert await let(store) == ["a", "c"]
    assert await let(store) == []


async def test_what_stands_in_line_is_not_claimed_otherwise(store: Store) -> None:
    await limited(store)
    await queued(store, "a", queue="q")
    await queued(store, "b")
    assert ids(await store.claim(want(), now=T)) == ["b"]
    poll = await store.poll(ME, [], "v1", now=T)
    assert (poll.claimable, poll.lines) == (None, [Line("q", False)])


async def test_each_executor_takes_what_is_of_its_version_or_of_none(store: Store) -> None:
    await limited(store)
    await queued(store, "old", queue="q", version="v0")
    await queued(store, "mine", queue="q", version="v1")
    await queued(store, "any", queue="q", version="")
    assert await let(store) == ["any", "mine"]
    assert (await row(store, "any")).version == "v1"
    assert await let(store, version="v0") == ["old"]


async def test_a_paused_queue_lets_nothing_through(store: Store) -> None:
    await limited(store)
    await queued(store, "a", queue="q")
    await store.change_queue("q", QueueChange(paused=True), now=T)
    assert await let(store) == []
    await store.declare_queues({"q": Limits()}, now=T)
    assert await let(store) == [], "a launch does not lift it"
    await store.change_queue("q", QueueChange(paused=False), now=T)
    assert await let(store) == ["a"]


async def test_a_queue_that_nobody_has_declared_lets_nothing_through_until_it_is_known(store: Store) -> None:
    await queued(store, "a", queue="q")
    assert await let(store) == []
    await store.make_queues(["q"], now=T)
    assert await let(store) == ["a"]


# -- limits


async def test_no_more_than_its_concurrency_is_in_progress(store: Store) -> None:
    await limited(store, concurrency=2)
    await queued(store, "a", "b", "c", "d", queue="q")
    assert await let(store) == ["a", "b"]
    assert await let(store, owner=OTHER) == []
    await end(store, "a")
    assert await let(store, owner=OTHER) == ["c"]


async def test_the_concurrency_of_an_executor_is_its_own(store: Store) -> None:
    await limited(store, worker_concurrency=2)
    await queued(store, *"abcd", queue="q")
    assert await let(store, mine=1) == ["a"]
    assert await let(store, mine=2) == []
    assert await let(store, owner=OTHER) == ["b", "c"]


async def test_a_waiting_workflow_keeps_its_slot_and_a_held_one_does_not(store: Store) -> None:
    await limited(store, concurrency=1)
    await queued(store, "a", "b", "c", queue="q")
    [got] = (await store.claim_line(letin("q"), now=T)).claimed
    await one(store, unit("a", got.row.claim or b"", change=Park(T + SECOND, "sleeps")))
    assert await let(store) == []
    assert ids(await store.claim(want(), now=T + SECOND)) == ["a"], "woken, it needs no new slot"
    claim = (await row(store, "a")).claim
    await one(store, unit("a", claim or b"", change=Hold(Reason.UNDECODABLE, "broken")))
    assert await let(store) == ["b"]
    assert await store.release_held([Reason.UNDECODABLE], "v1", now=T + 1) == 1
    assert (await row(store, "a")).lane == lane_of("q", "", 0)
    assert await let(store) == []
    await end(store, "b")
    assert await let(store) == ["c"], "who is released stands behind those who waited"


async def test_a_drained_and_an_adopted_workflow_keep_their_slots(store: Store) -> None:
    await limited(store, concurrency=2)
    await queued(store, *"abc", queue="q")
    claims = {c.row.id: c.row.claim or b"" for c in (await store.claim_line(letin("q"), now=T)).claimed}
    await one(store, unit("a", claims["a"], change=Release()))
    assert await let(store, owner=OTHER) == []
    assert ids(await store.claim(want(owner=OTHER), now=T)) == ["a"]
    assert ids(await store.adopt([ME], want(owner=OTHER), now=T)) == ["b"]
    assert await let(store, owner=OTHER) == []


async def test_the_next_run_of_a_chain_keeps_its_slot(store: Store) -> None:
    await limited(store, concurrency=1)
    await queued(store, "a", "b", queue="q")
    [got] = (await store.claim_line(letin("q"), now=T)).claimed
    following = start("a", run=2, queue="q", through=True)
    await one(store, unit("a", got.row.claim or b"", change=Continue(following, tok("wake"))))
    assert await let(store) == []
    assert ids(await store.claim(want(), now=T)) == ["a"]
    await end(store, "a")
    assert await let(store) == ["b"]


async def test_who_is_rewound_stands_in_line_again(store: Store) -> None:
    await limited(store, concurrency=1)
    await queued(store, "a", "b", queue="q")
    [got] = (await store.claim_line(letin("q"), now=T)).claimed
    claim = got.row.claim or b""
    await one(store, unit("a", claim, records=[record(1)]))
    change = rewind("a", 1, next=start("a", run=2, queue="q"))
    assert await store.rewind(await row(store, "a"), change, now=T + 1)
    assert await let(store) == ["b"]
    await end(store, "b")
    assert await let(store) == ["a"]


async def test_whoever_resumes_one_in_line_lets_it_begin_outside_its_queue(store: Store) -> None:
    await limited(store, concurrency=1)
    await queued(store, "a", "b", queue="q")
    assert await store.reopen(await row(store, "b"), order(at_once=True), now=T)
    assert await let(store) == ["a"]
    assert ids(await store.claim(want(), now=T)) == ["b"]
    assert (await row(store, "b")).queue is None


async def test_a_limit_changed_live_holds_for_every_claim_that_follows(store: Store) -> None:
    await limited(store)
    await queued(store, *"abcdef", queue="q")
    assert await let(store, 2) == ["a", "b"]
    changed = await store.change_queue("q", QueueChange(limits={"concurrency": 3}), now=T)
    assert changed.limits.concurrency == 3
    assert await let(store) == ["c"], "what was in progress before it counted, counts"
    await store.declare_queues({"q": Limits(concurrency=9)}, now=T)
    assert await let(store) == [], "a live change wins over the next deploy"
    await store.change_queue("q", QueueChange(reset=True), now=T)
    assert await let(store) == ["d", "e", "f"], "until it is reset"


async def test_only_what_was_changed_live_wins_over_the_code(store: Store) -> None:
    await limited(store, concurrency=1, worker_concurrency=1)
    await store.change_queue("q", QueueChange(limits={"concurrency": 5}), now=T)
    await store.declare_queues({"q": Limits(concurrency=2, worker_concurrency=2)}, now=T)
    [queue] = await store.queues()
    assert queue.limits == Limits(concurrency=5, worker_concurrency=2)
    assert queue.live == {"concurrency": 5}
    await store.declare_queues({"new": Limits(concurrency=3), "q": Limits(worker_concurrency=9)}, over=False, now=T)
    await store.declare_queues({"new": Limits(concurrency=4)}, over=False, now=T)
    now = {queue.name: queue.limits for queue in await store.queues()}
    assert now == {"new": Limits(concurrency=3), "q": Limits(concurrency=5, worker_concurrency=2)}


# -- rates


async def test_a_rate_holds_for_every_window(store: Store) -> None:
    await limited(store, rate_limit=2, rate_period=10 * SECOND)
    await queued(store, *"abcdef", queue="q")
    assert await let(store, 1) == ["a"]
    assert await let(store, now=T + 6 * SECOND) == ["b"]
    stopped = await store.claim_line(letin("q"), now=T + 10 * SECOND)
    assert stopped == LineClaim(again=T + 10 * SECOND + 1), "a start exactly one period ago is in the window"
    assert await let(store, now=T + 10 * SECOND + 1) == ["c"]
    assert await let(store, now=T + 16 * SECOND) == []
    assert await let(store, now=T + 30 * SECOND) == ["d", "e"]


async def test_recovery_is_no_start(store: Store) -> None:
    await limited(store, rate_limit=1, rate_period=10 * SECOND)
    await queued(store, "a", "b", queue="q")
    assert await let(store) == ["a"]
    for owner, dead in ((OTHER, ME), (ME, OTHER)):
        assert ids(await store.adopt([dead], want(owner=owner), death=False, now=T + 1)) == ["a"]
    assert await let(store, now=T + 10 * SECOND + 1) == ["b"]


# -- partitions


async def fill(store: Store, **partitions: int) -> None:
    for partition, n in partitions.items():
        await queued(store, *(f"{partition}{i}" for i in range(n)), queue="q", partition=partition)


async def test_partitions_are_served_in_turn(store: Store) -> None:
    await limited(store)
    await fill(store, x=5, y=2, z=5)
    assert (await store.poll(ME, [], "v1", now=T)).lines == [Line("q", True)]
    assert await let(store, 3, partitioned=True) == ["x0", "y0", "z0"]
    assert sorted(await let(store, 2, partitioned=True)) == ["x1", "y1"]
    assert (await let(store, 1, partitioned=True)) == ["z1"], "it goes on after the one that was served last"
    assert sorted(await let(store, 20, partitioned=True)) == ["x2", "x3", "x4", "z2", "z3", "z4"]


async def test_a_partition_has_limits_of_its_own(store: Store) -> None:
    await limited(store, partition_concurrency=1, concurrency=3)
    await fill(store, w=3, x=3, y=3, z=3)
    assert await let(store, partitioned=True) == ["w0", "x0", "y0"]
    await end(store, "w0", "x0")
    assert await let(store, partitioned=True) == ["z0", "w1"], "one at its limit is passed over, none is forgotten"


async def test_a_partition_has_a_rate_of_its_own(store: Store) -> None:
    await limited(store, partition_rate_limit=1, partition_rate_period=SECOND)
    await fill(store, x=2, y=1)
    assert await let(store, partitioned=True) == ["x0", "y0"]
    stopped = await store.claim_line(letin("q", partitioned=True), now=T + 1)
    assert stopped.claimed == []
    assert stopped.again == T + SECOND + 1
    assert await let(store, partitioned=True, now=T + SECOND + 1) == ["x1"]


async def test_many_partitions_at_their_limit_hide_none(store: Store) -> None:
    await limited(store, partition_concurrency=1)
    for first in range(0, 600, 200):
        await commit(
            store,
            outside(
                children=[
                    start(f"{n:04d}-{i}", queue="q", partition=f"{n:04d}")
                    for n in range(first, first + 200)
                    for i in range(2)
                ]
            ),
        )
    taken: set[str] = set()
    for _ in range(12):
        taken.update(await let(store, 100, partitioned=True))
    assert taken == {f"{n:04d}-0" for n in range(600)}
    await end(store, "0599-0")
    for _ in range(4):
        taken.update(await let(store, 100, partitioned=True))
    assert "0599-1" in taken


# -- delay, and time in line


async def test_what_is_delayed_is_lined_up_when_it_is_due(store: Store) -> None:
    await limited(store, concurrency=1)
    await queued(store, "late", queue="q", status=Status.SCHEDULED, delay=SECOND)
    assert (await row(store, "late")).lane == DELAYED
    poll = await store.poll(ME, [], "v1", now=T)
    assert (poll.due, poll.claimable, poll.lines) == (T + SECOND, None, [])
    assert await store.line_up(["", "v1"], 10, now=T) == []
    assert await store.claim(want(), now=T + SECOND) == []
    assert await store.line_up(["", "v1"], 10, now=T + SECOND) == ["q"]
    assert await status(store, "late") is Status.QUEUED
    assert await let(store, now=T + SECOND) == ["late"]


async def test_who_stands_in_line_for_too_long_is_closed_and_never_runs(store: Store) -> None:
    await limited(store, concurrency=1)
    await queued(store, "first", "slow", queue="q", expires=SECOND)
    await queued(store, "late", queue="q", expires=SECOND, status=Status.SCHEDULED, delay=SECOND)
    assert await let(store) == ["first"]
    assert (await store.poll(ME, [], "v1", now=T)).due == T + SECOND
    assert await store.expire(10, tok(), now=T + SECOND - 1) == []
    await end(store, "first")
    assert await let(store, now=T + SECOND) == [], "too late, though nobody has closed it yet"
    assert await store.expire(10, tok(), now=T + SECOND) == ["slow"]
    closed = await row(store, "slow")
    assert (closed.status, closed.lane) == (Status.TIMED_OUT, None)
    assert "for longer than it may" in closed.detail
    assert await store.expire(10, tok(), now=T + 2 * SECOND) == ["late"], "its time began when it was due"
    assert await status(store, "first") is Status.COMPLETED


# -- leaving


async def test_cancel_takes_it_out_of_the_line_at_once(store: Store) -> None:
    await limited(store)
    await queued(store, "a", "b", queue="q")
    cancelled = await store.cancel("a", "no more", tok(), now=T)
    assert cancelled is not None
    assert (cancelled.status, cancelled.lane) == (Status.CANCELLED, None)
    assert await let(store) == ["b"]


async def test_who_is_in_line_and_told_to_cancel_is_no_ones_to_claim(store: Store) -> None:
    await limited(store, concurrency=1)
    await queued(store, "parent")
    [got] = await store.claim(want(), now=T)
    await one(store, unit("parent", got.row.claim or b"", children=[start("child", queue="q", parent="parent")]))
    ending = Close(Status.COMPLETED, close().outcome, b"1", tok("wake"), children=("child",))
    await one(store, unit("parent", got.row.claim or b"", change=ending))
    poll = await store.poll(ME, [], "v1", now=T)
    assert (poll.told, poll.claimable) == ([("child", "")], None)
    assert await store.claim(want(), now=T) == []


# -- work that was let through, on an executor that has enough


async def test_an_executor_takes_no_more_of_a_queue_than_it_may_of_any_origin(store: Store) -> None:
    await limited(store, worker_concurrency=9)
    await queued(store, *"abcd", queue="q")
    await queued(store, "free")
    got = (await store.claim_line(letin("q", owner=OTHER), now=T)).claimed
    for c in got:
        await one(store, unit(c.row.id, c.row.claim or b"", change=Release()))
    few = but(want(), some=(("q", 2),))
    none = but(want(), full=("q",))
    assert ids(await store.claim(none, now=T)) == ["free"]
    assert ids(await store.claim(few, now=T)) == ["a", "b"]
    assert await store.claim(none, now=T) == []
    assert ids(await store.adopt([ME], but(want(owner=OTHER), some=(("q", 1),)), now=T)) == ["a", "free"]
    assert await store.adopt([ME], but(want(owner=OTHER), full=("q",)), now=T) == []


async def test_a_claim_of_an_earlier_series_takes_nothing_wherever_its_owner_has_limits(store: Store) -> None:
    await store.register(Incarnation(id=OTHER, executor="e", version="v1"), SECOND, now=T)
    await limited(store, "own", worker_concurrency=9)
    await limited(store, "both", concurrency=9, worker_concurrency=9)
    for queue in ("own", "both"):
        await queued(store, f"{queue}1", f"{queue}2", queue=queue)
    await queued(store, "free1")
    await running(store, "left")
    await store.new_series(OTHER, 3)
    await store.new_series(OTHER, 2)  # a try that comes late

    async def taken(series: int | None) -> list[str]:
        lines = [letin(queue, 1, owner=OTHER, series=series) for queue in ("own", "both")]
        asked = but(want(owner=OTHER), series=series)
        found = [one for line in lines for one in (await store.claim_line(line, now=T)).claimed]
        return ids([*found, *await store.claim(asked, now=T), *await store.adopt([ME], asked, now=T)])

    assert await taken(2) == []
    assert await taken(3) == ["own1", "both1", "free1", "left"]
    await running(store, "left too")
    await queued(store, "free2")
    assert await taken(None) == ["own2", "both2", "free2", "left too"], "who obeys no limits of its own has no series"


async def test_what_one_has_is_not_taken_again_by_a_call_of_an_earlier_series(store: Store) -> None:
    """It comes late: the run would lose its token to it, and count no more where it is running."""
    await limited(store, "own", worker_concurrency=9)
    await queued(store, "a", queue="own")
    [got] = (await store.claim_line(letin("own", series=0), now=T)).claimed
    await store.new_series(ME, 1)
    assert await store.reclaim([got.row.key], but(want(), series=0), now=T) == []
    assert ids(await store.reclaim([got.row.key], but(want(), series=1), now=T)) == ["a"]


async def test_who_is_not_registered_is_let_have_nothing_by_limits_of_its_own(store: Store) -> None:
    await limited(store, worker_concurrency=9)
    await queued(store, "a", queue="q")
    assert await let(store, owner=tok("nobody"), series=0) == []


def but(of: Any, **fields: Any) -> Any:
    return msgspec.structs.replace(of, **fields)


# -- deduplication


async def once(store: Store, id: str, key: str = "k", now: int = T, **more: Any) -> str | None:
    how = Deduplicated(key=key, debounce=more.pop("debounce", None), debounce_max=more.pop("debounce_max", None))
    found = await store.start_once(start(id, queue=more.pop("queue", "q"), **more), how, now=now)
    return None if found is None else found.id


async def test_one_open_workflow_of_a_queue_has_a_key(store: Store) -> None:
    await limited(store)
    assert await once(store, "a") is None
    assert await once(store, "b") == "a"
    assert await store.rows(["b"]) == {}
    assert await once(store, "other-key", "k2") is None
    assert await once(store, "other-queue", queue="q2") is None
    assert await let(store) == ["a", "other-key"]
    assert await once(store, "b") == "a", "while it runs"
    await end(store, "a")
    assert await once(store, "b") is None, "free at the end"


async def test_a_second_try_of_a_start_finds_its_own(store: Store) -> None:
    s, how = start("a", queue="q"), Deduplicated(key="k")
    assert await store.start_once(s, how, now=T) is None
    assert await store.start_once(s, how, now=T) is None
    taken = await store.start_once(start("a", queue="q"), how, now=T)
    assert taken is not None
    assert taken.id == "a"


async def test_of_many_starts_at_once_one_has_the_key(store: Store) -> None:
    found = await asyncio.gather(*(once(store, f"w{n}") for n in range(10)))
    assert found.count(None) == 1
    assert len({id for id in found if id is not None}) == 1


async def test_keys_that_count_no_more_are_forgotten(store: Store) -> None:
    await limited(store)
    for n in range(40):
        assert await once(store, f"w{n}", f"k{n}") is None
        await let(store)
        await end(store, f"w{n}")
    for n in range(40):
        await once(store, f"v{n}", f"a{n}")
    keys = [r["key"] for r in (await dump(store))["dedup"]]
    assert not [key for key in keys if key.startswith("k")]


async def test_a_debounced_one_waits_for_the_last_start_and_has_its_input(store: Store) -> None:
    await limited(store)
    how: dict[str, Any] = {"debounce": 5 * SECOND, "debounce_max": 8 * SECOND, "status": Status.SCHEDULED}
    assert await once(store, "a", delay=5 * SECOND, input=b"1", **how) is None
    assert await once(store, "b", delay=5 * SECOND, input=b"2", now=T + 2 * SECOND, **how) == "a"
    assert (await row(store, "a")).until == T + 7 * SECOND
    assert await once(store, "c", delay=5 * SECOND, input=b"3", now=T + 6 * SECOND, **how) == "a"
    assert (await row(store, "a")).until == T + 8 * SECOND, "not beyond the bound"
    await store.line_up(["", "v1"], 10, now=T + 8 * SECOND)
    [got] = (await store.claim_line(letin("q"), now=T + 8 * SECOND)).claimed
    assert (got.row.id, got.input) == ("a", b"3")
    begun = await once(store, "d", delay=5 * SECOND, now=T + 9 * SECOND, **how)
    assert begun is None, "one that has begun loses its key"


# -- what operators see


async def test_counts_of_what_stands_in_line_and_is_in_progress(store: Store) -> None:
    await limited(store, concurrency=2)
    await queued(store, *"abc", queue="q")
    await queued(store, "old", queue="q", version="v0", now=T + 1)
    await queued(store, "late", queue="q", status=Status.SCHEDULED, delay=SECOND)
    await let(store)
    count = (await store.queue_counts())["q"]
    assert (count.in_line, count.delayed, count.in_progress, count.oldest) == (2, 1, 2, T)


async def test_lines_of_many_queues_are_found_in_one_look(store: Store) -> None:
    for name in ("a", "ab", "b", "z z"):
        await queued(store, f"in-{name}", queue=name, version="" if name == "ab" else "v1")
    lines = (await store.poll(ME, [], "v1", now=T)).lines
    assert lines == [Line(name, False) for name in ("a", "ab", "b", "z z")]
    assert (await store.poll(None, None, "v1", now=T)).lines == []


@pytest.mark.parametrize("limits", [{"concurrency": 3}, {"rate_limit": 3, "rate_period": 10**12}, {}])
async def test_claims_at_the_same_time_let_no_more_through(make_store: Any, limits: dict[str, int]) -> None:
    stores = [await make_store() for _ in range(4)]
    await limited(stores[0], **limits)
    await queued(stores[0], *(f"w{n}" for n in range(20)), queue="q")
    got = await asyncio.gather(*(store.claim_line(letin("q", 3), now=T) for store in stores))
    taken = [id for claim in got for id in ids(claim.claimed)]
    assert len(taken) == len(set(taken))
    assert len(taken) == 3 if limits else len(taken) <= 12


async def test_what_was_held_is_let_through_also_after_its_time_in_line(store: Store) -> None:
    """``expires`` bounds the time before it begins; nothing closes it later, so nothing may pass it over, either."""
    await limited(store)
    await queued(store, "a", queue="q", expires=SECOND)
    [got] = (await store.claim_line(letin("q"), now=T)).claimed
    await one(store, unit("a", got.row.claim or b"", change=Hold(Reason.NO_CODE, "")))
    assert await store.expire(10, tok("expire"), now=T + 2 * SECOND) == []
    assert await store.release_held([Reason.NO_CODE], "v1", now=T + 3 * SECOND) == 1
    assert await let(store, now=T + 3 * SECOND) == ["a"]
