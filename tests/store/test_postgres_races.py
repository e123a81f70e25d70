"""Races, staged: a third connection holds a row's lock until the others are seen to wait for it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import pytest

from perdure.errors import SchemaMismatch
from perdure.model.ids import RunKey
from perdure.model.queues import Limits, QueueChange
from perdure.model.records import Incarnation
from perdure.model.states import Status
from perdure.model.writes import Park, SetEvent, Unit
from perdure.store.lines import Deduplicated, LineClaim
from perdure.store.postgres import PostgresStore
from perdure.store.postgres.connection import Link, driver
from perdure.store.postgres.migrate import migrations
from perdure.store.postgres.trouble import sqlstate
from tests.store.build import (
    ME,
    SECOND,
    T,
    close,
    commit,
    letin,
    one,
    outside,
    own,
    queued,
    record,
    rewind,
    running,
    send,
    start,
    tok,
    unit,
    want,
)

pytestmark = pytest.mark.postgres
Make = Callable[[], Awaitable[PostgresStore]]


@pytest.fixture
async def make(postgres_url: str) -> AsyncIterator[Make]:
    """Makes stores of one database: each stands for an executor."""
    made: list[PostgresStore] = []

    async def one_more() -> PostgresStore:
        store = PostgresStore(postgres_url, "app")
        await store.open()
        made.append(store)
        await store.migrate()
        return store

    yield one_more
    for store in made:
        await store.close()


class Third:
    """A connection that holds a row's lock, and sees who waits."""

    def __init__(self, conn: Any) -> None:
        self.conn = conn

    async def hold(self, id: str) -> None:
        await self.conn.execute("begin")
        await self.conn.fetch("select 1 from perdure.workflow where app = 'app' and id = $1 for update", id)

    async def waiting(self, count: int = 1) -> None:
        """Until so many backends of this database wait for a lock."""
        sql = """select count(*) from pg_stat_activity
            where datname = current_database() and wait_event_type = 'Lock'"""
        for _ in range(2000):
            if await self.conn.fetchval(sql) >= count:
                return
            await self.conn.execute("select pg_sleep(0.005), pg_stat_clear_snapshot()")
        raise AssertionError("nobody waits")

    async def let_go(self) -> None:
        await self.conn.execute("commit")

    async def value(self, sql: str) -> Any:
        return await self.conn.fetchval(sql)


DEADLOCK = "40P01"


@pytest.fixture
def refusals(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the server has refused, by its codes, be it tried again or not. (Its own count of deadlocks comes late.)"""
    codes: list[str] = []
    fail = Link.fail

    def noted(self: Link, error: BaseException, **more: Any) -> NoReturn:
        codes.append(sqlstate(error))
        fail(self, error, **more)

    monkeypatch.setattr(Link, "fail", noted)
    return codes


@pytest.fixture
async def third(postgres_url: str) -> AsyncIterator[Third]:
    conn = await driver().connect(postgres_url)
    yield Third(conn)
    await conn.close()


async def test_a_claim_that_commits_while_the_batch_waits_refuses_that_run_alone(make: Make, third: Third) -> None:
    store = await make()
    claim = await running(store, "a", "b", "c")
    await third.hold("b")
    units = [unit(id, claim, records=[record(1)], change=close()) for id in "abc"]
    batch = asyncio.create_task(store.commit(units))
    await third.waiting()
    await third.conn.execute("update perdure.workflow set claim = 'another' where id = 'b'")
    await third.let_go()
    assert [v.applied for v in (await batch).verdicts] == [True, False, True]
    assert await third.value("select string_agg(id, '' order by id) from perdure.history") == "ac"
    assert {id: row.status for id, row in (await store.rows("abc")).items()} == {
        "a": Status.COMPLETED,
        "b": Status.RUNNING,
        "c": Status.COMPLETED,
    }


@pytest.mark.parametrize("gone", [True, False])
async def test_a_row_that_changes_or_goes_while_the_batch_waits(make: Make, third: Third, gone: bool) -> None:
    store = await make()
    claim = await running(store, "a", "b")
    await third.hold("b")
    batch = asyncio.create_task(store.commit([unit(id, claim, records=[record(1)], change=close()) for id in "ab"]))
    await third.waiting()
    change = "delete from perdure.workflow" if gone else "update perdure.workflow set cancel = 'please'"
    await third.conn.execute(f"{change} where id = 'b'")
    await third.let_go()
    assert [v.applied for v in (await batch).verdicts] == [True, not gone]
    if not gone:  # the change of status is on top of what was changed meanwhile
        row = (await store.rows(["b"]))["b"]
        assert (row.status, row.cancel) == (Status.COMPLETED, "please")


async def test_a_run_begun_anew_while_the_batch_waits_is_fenced_by_its_number(make: Make, third: Third) -> None:
    store = await make()
    claim = await running(store, "a")
    await third.hold("a")
    batch = asyncio.create_task(one(store, unit("a", claim, records=[record(1)])))
    await third.waiting()
    await third.conn.execute("update perdure.workflow set run = 2 where id = 'a'")
    await third.let_go()
    assert not (await batch).applied
    assert await third.value("select count(*) from perdure.history") == 0


@pytest.mark.parametrize("with_start", [False, True])
@pytest.mark.parametrize(
    "meanwhile",
    ["update perdure.workflow set claim = 'x'", "update perdure.workflow set run = 2", "delete from perdure.workflow"],
)
async def test_a_row_that_is_lost_while_the_lone_end_waits(
    make: Make, third: Third, meanwhile: str, with_start: bool
) -> None:
    store = await make()
    claim = await running(store, "a")
    await third.hold("a")
    units = [unit("a", claim, records=[record(1)], change=close()), own("n", claim)][: 1 + with_start]
    batch = asyncio.create_task(store.commit(units))
    await third.waiting()
    await third.conn.execute(f"{meanwhile} where id = 'a'")
    await third.let_go()
    assert [v.applied for v in (await batch).verdicts] == [False, True][: 1 + with_start]
    assert await third.value("select count(*) from perdure.history") == 0
    assert await third.value("select count(*) from perdure.payload where outcome <> 0") == 0


@pytest.mark.parametrize(("cancel", "noted"), [("cancel", "enough"), ("'please'", "please")])
async def test_a_row_that_changes_while_the_lone_end_waits(make: Make, third: Third, cancel: str, noted: str) -> None:
    """The end is on top of what was changed meanwhile."""
    store = await make()
    claim = await running(store, "a")
    await store.cancel("a", "enough", command := tok("command"))
    await third.hold("a")
    u = unit("a", claim, records=[record(1)], woken=[command], change=close(Status.CANCELLED))
    batch = asyncio.create_task(one(store, u))
    await third.waiting()
    await third.conn.execute(f"update perdure.workflow set attempts = 7, cancel = {cancel} where id = 'a'")
    await third.let_go()
    assert (await batch).applied
    row = (await store.rows(["a"]))["a"]
    assert (row.status, row.attempts, row.cancel, row.last_seq) == (Status.CANCELLED, 7, noted, 1)
    assert await third.value("select count(*) from perdure.wake") == 0
    assert [r.seq for r in (await store.histories([row.key]))[row.key]] == [1]
    assert (await store.ended(["a"]))["a"].data == b'"end"'


async def test_a_repeated_end_and_start_that_meet_their_first_try_in_flight(make: Make, third: Third) -> None:
    first, second = await make(), await make()
    claim = await running(first, "a")
    await third.hold("a")
    units = [unit("a", claim, records=[record(1)], change=close()), own("n", claim)]
    tries: list[asyncio.Task[Any]] = []
    for count, store in enumerate((first, second), start=1):
        tries.append(asyncio.create_task(store.commit(units)))
        await third.waiting(count)
    await third.let_go()
    assert [[v.applied for v in (await t).verdicts] for t in tries] == [[True, True]] * 2
    assert await third.value("select count(*) from perdure.history") == 1
    assert await third.value("select count(*) from perdure.payload") == 2


@pytest.mark.parametrize("theirs", [True, False])
@pytest.mark.parametrize("with_end", [False, True])
async def test_a_lone_start_that_meets_another_of_its_id_in_flight(
    make: Make, third: Third, with_end: bool, theirs: bool
) -> None:
    store = await make()
    claim = await running(store, "a")
    begun = own("n", tok("claim"))
    assert begun.start is not None
    await third.conn.execute("begin")
    await third.conn.execute(
        """insert into perdure.workflow (app, id, run, lineage, name, version, status, claim, owner, created, updated,
            fingerprint, nonce)
        values ('app', 'n', 1, '', 'flow', 'v1', 2, $1, 'owner', 1, 1, '', $2)""",
        begun.claim, b"another's" if theirs else begun.start.nonce,
    )  # fmt: skip
    units = [begun, unit("a", claim, records=[record(1)], change=close())][: 1 + with_end]
    batch = asyncio.create_task(store.commit(units))
    await third.waiting()
    await third.let_go()
    verdict, *ended = (await batch).verdicts
    assert verdict.applied is not theirs
    assert set(verdict.exists) == ({"n"} if theirs else set())
    assert all(v.applied for v in ended)
    assert await third.value("select count(*) from perdure.payload where id = 'n'") == (0 if theirs else 1)
    assert await third.value("select count(*) from perdure.history") == with_end


async def test_a_cancel_that_commits_while_the_close_waits_does_not_reach_the_next_run(
    make: Make, third: Third
) -> None:
    """The statement that closes began before the command was there, and cannot clear it."""
    store = await make()
    claim = await running(store, "a")
    await third.hold("a")
    batch = asyncio.create_task(store.commit([unit("a", claim, change=close())]))
    await third.waiting()
    await third.conn.execute("insert into perdure.wake (app, dest, nonce, cancel) values ('app', 'a', 'late', 'stop')")
    await third.let_go()
    assert (await batch).verdicts[0].applied
    assert await store.replace(RunKey("a", 1), start("a"), tok())
    assert [(c.row.run, c.row.cancel) for c in await store.claim(want())] == [(2, None)]


async def test_a_repeated_start_that_meets_its_first_try_in_flight(make: Make, third: Third) -> None:
    first, second = await make(), await make()
    u = own("w", tok("claim"), records=[record(1)])
    await one(first, outside(children=[start("wall")]))
    await third.hold("wall")
    # The first try is kept in flight by a row of its batch that is locked elsewhere.
    wall = unit("wall", tok("claim"), records=[record(1)])
    tries = [asyncio.create_task(first.commit([u, wall]))]
    await third.waiting()
    tries.append(asyncio.create_task(second.commit([u])))
    await third.let_go()
    verdicts = [(await t).verdicts[0].applied for t in tries]
    assert verdicts == [True, True]
    assert await third.value("select count(*) from perdure.history") == 1


@pytest.mark.parametrize("closer_first", [True, False])
@pytest.mark.parametrize("what", ["close", "event", "terminate"])
async def test_parking_on_a_workflow_that_closes_meanwhile_wakes_the_waiter(
    make: Make, third: Third, closer_first: bool, what: str
) -> None:
    ours, theirs = await make(), await make()
    claim = await running(ours, "waiter", now=None)
    target = await running(theirs, "target", now=None)
    await third.hold("target")

    def end() -> Awaitable[Any]:
        if what == "terminate":
            return theirs.terminate("target", "enough", tok("nonce"))
        more: dict[str, Any] = {"change": close()} if what == "close" else {"events": [SetEvent("e", b"1")]}
        return theirs.commit([unit("target", target, records=[record(1)], **more)])

    def park() -> Awaitable[Any]:
        return ours.commit([unit("waiter", claim, change=Park(None, "", ("target",), (("target", "e"),)))])

    order = [end, park] if closer_first else [park, end]
    tasks: list[asyncio.Task[Any]] = []
    for count, act in enumerate(order, start=1):
        tasks.append(asyncio.ensure_future(act()))
        await third.waiting(count)
    await third.let_go()
    await asyncio.gather(*tasks)
    claimed = await ours.claim(want())
    assert [c.row.id for c in claimed] == ["waiter"]


@pytest.mark.slow
async def test_executors_that_exchange_messages_do_not_deadlock(make: Make, third: Third, refusals: list[str]) -> None:
    stores = {name: await make() for name in "ab"}
    ids = {name: [f"{name}{n}" for n in range(100)] for name in "ab"}
    claims = {name: await running(stores[name], *ids[name]) for name in "ab"}

    async def work(me: str, other: str) -> None:
        rng = random.Random(me)
        seqs = dict.fromkeys(ids[me], 0)
        for _ in range(60):
            batch: list[Unit] = []
            for id in rng.sample(ids[me], 40):
                seqs[id] += 1
                sends = [send(rng.choice(ids[other])), send(ids[other][0])]
                batch.append(unit(id, claims[me], records=[record(seqs[id])], sends=sends))
            assert all(v.applied and not v.undelivered for v in (await commit(stores[me], *batch)).verdicts)

    await asyncio.gather(work("a", "b"), work("b", "a"))
    assert DEADLOCK not in refusals
    assert await third.value("select count(*) from perdure.message") == 2 * 60 * 40 * 2


async def test_starts_of_the_same_ids_in_opposite_order_do_not_deadlock(make: Make, refusals: list[str]) -> None:
    one_, two = await make(), await make()
    for round_ in range(30):
        ids = [f"r{round_}-{n}" for n in range(20)]
        forth = [own(id, tok("claim")) for id in ids]
        back = [own(id, tok("claim")) for id in reversed(ids)]
        first, second = await asyncio.gather(one_.commit(forth), two.commit(back))
        won = [v.applied for v in first.verdicts] + [v.applied for v in reversed(second.verdicts)]
        assert all(won[n] != won[n + 20] for n in range(20))
        assert all(v.applied or v.exists for v in (*first.verdicts, *second.verdicts))
    assert DEADLOCK not in refusals


async def test_a_deadlock_with_a_stranger_is_retried_whole(make: Make, third: Third) -> None:
    store = await make()
    claim = await running(store, "a", "b")
    await third.hold("b")
    batch = asyncio.create_task(store.commit([unit(id, claim, records=[record(1)]) for id in "ab"]))
    await third.waiting()
    stranger = asyncio.create_task(third.conn.fetch("select 1 from perdure.workflow where id = 'a' for update"))
    done, _ = await asyncio.wait([stranger], timeout=20)
    assert done
    if stranger.exception() is not None:  # the server chose the stranger
        await third.conn.execute("rollback")
    else:
        await third.let_go()
    assert [v.applied for v in (await batch).verdicts] == [True, True]
    assert await third.value("select count(*) from perdure.history") == 2


async def test_two_processes_migrate_at_once_and_one_applies(bare_postgres_url: str) -> None:
    stores = [PostgresStore(bare_postgres_url, "app") for _ in range(4)]
    for store in stores:
        await store.open()
    applied = await asyncio.gather(*(store.migrate() for store in stores))
    names = [name for _, name, _ in migrations()]
    assert sorted(applied) == [[], [], [], names]
    assert await stores[0].schema_version() == (migrations()[-1][0],) * 2
    for store in stores:
        await store.close()


async def test_a_schema_of_the_future_is_refused(make: Make, third: Third, postgres_url: str) -> None:
    await make()
    await third.conn.execute("update perdure.meta set value = '999' where name = 'schema'")
    with pytest.raises(SchemaMismatch, match="999"):
        await PostgresStore(postgres_url, "app").open()


async def test_schemas_of_one_database_do_not_meet(postgres_url: str) -> None:
    stores = [PostgresStore(postgres_url, "app", schema) for schema in ("perdure", "other_place")]
    for store in stores:
        await store.open()
        await store.migrate()
    await running(stores[0], "w")
    assert await stores[1].rows(["w"]) == {}
    await running(stores[1], "w")
    for store in stores:
        await store.close()


async def test_a_rewind_from_outside_that_meets_a_write_of_the_holder(make: Make, third: Third) -> None:
    """Whichever locks the row first: the record is in the old run, or refused; never in the next."""
    first, second = await make(), await make()
    claim = await running(first, "w")
    await one(first, unit("w", claim, records=[record(1)]))
    seen = (await first.rows(["w"]))["w"]
    await third.hold("w")
    write = asyncio.create_task(one(first, unit("w", claim, records=[record(2)])))
    back = asyncio.create_task(second.rewind(seen, rewind("w", 1)))
    await third.waiting(2)
    await third.let_go()
    applied, done = (await write).applied, await back
    assert done
    histories = await first.histories([RunKey("w", 1), RunKey("w", 2)])
    assert [len(records) for records in histories.values()] == [2 if applied else 1, 2]
    assert not (await one(first, unit("w", claim, records=[record(3 if applied else 2)]))).applied


async def test_two_orders_that_meet_are_one(make: Make, third: Third) -> None:
    first, second = await make(), await make()
    claim = await running(first, "w")
    await one(first, unit("w", claim, change=close(Status.CANCELLED)))
    seen = (await first.rows(["w"]))["w"]
    await third.hold("w")
    orders = [asyncio.create_task(s.rewind(seen, rewind("w", 0))) for s in (first, second)]
    await third.waiting(2)
    await third.let_go()
    assert sorted([await order for order in orders]) == [False, True]
    assert (await first.rows(["w"]))["w"].run == 2


@pytest.mark.parametrize("same", [True, False])
async def test_two_forks_of_one_id_that_meet_are_one(make: Make, third: Third, same: bool) -> None:
    """Also if the second is the repeat of a first that is still under way."""
    first, second = await make(), await make()
    claim = await running(first, "w")
    await one(first, unit("w", claim, records=[record(1)]))
    await third.hold("w")
    begun = start("f")
    forks = [
        asyncio.create_task(s.fork(RunKey("w", 1), begun if same else start("f"), rewind("w", 1).mark))
        for s in (first, second)
    ]
    await third.waiting(2)
    await third.let_go()
    answers = [await fork for fork in forks]
    assert [answer is None for answer in answers].count(True) == (2 if same else 1)
    assert await third.value("select count(*) from perdure.history where id = 'f'") == 2


@pytest.mark.parametrize("counted", [False, True])
async def test_a_claim_that_comes_while_another_series_begins_takes_nothing(
    make: Make, third: Third, counted: bool
) -> None:
    """The answer to a claim was lost, and its statement arrives late."""
    store = await make()
    await store.register(Incarnation(id=ME, executor="me", version="v1"), SECOND, now=T)
    await store.declare_queues({"q": Limits(worker_concurrency=2, concurrency=5 if counted else None)}, now=T)
    await queued(store, "a", "b", queue="q")
    await third.conn.execute("begin")
    await third.conn.fetch("select 1 from perdure.incarnation where id = $1 for update", ME)
    await third.conn.execute("update perdure.incarnation set series = 1 where id = $1", ME)
    late = asyncio.create_task(store.claim_line(letin("q", 1, series=0), now=T))
    await third.waiting()
    await third.let_go()
    assert (await late).claimed == []
    assert [c.row.id for c in (await store.claim_line(letin("q", 1, series=1), now=T)).claimed] == ["a"]


async def test_who_gives_a_queue_limits_waits_for_claims_that_read_that_there_are_none(
    make: Make, third: Third
) -> None:
    store = await make()
    await store.make_queues(["q"])
    await third.conn.execute("begin")  # stands for such a claim
    await third.conn.fetch("select 1 from perdure.queue where name = 'q' for key share")
    change = asyncio.create_task(store.change_queue("q", QueueChange(limits={"concurrency": 1})))
    await third.waiting()
    assert not change.done()
    await third.let_go()
    assert (await change).limits.concurrency == 1


@pytest.mark.parametrize("limited", [True, False])
async def test_a_claim_waits_for_who_gives_the_queue_limits(make: Make, third: Third, limited: bool) -> None:
    """Having found somebody in line, and read that there are no limits."""
    store = await make()
    await store.make_queues(["q"])
    await queued(store, "a", "b", queue="q")
    await third.conn.execute("begin")
    await third.conn.fetch("select 1 from perdure.queue where name = 'q' for update")
    await third.conn.execute("update perdure.queue set concurrency = 1 where name = 'q'")
    claim = asyncio.create_task(store.claim_line(letin("q", limited=limited), now=T))
    await third.waiting()
    await third.let_go()
    assert len((await claim).claimed) == limited, "counted; or left to who knows of the limit"


async def test_who_knows_of_no_limit_takes_nothing_where_each_executor_has_one_by_now(make: Make) -> None:
    """The claim carries no series: should its answer be lost, nobody could tell that it came late."""
    store = await make()
    await store.declare_queues({"q": Limits(worker_concurrency=1)}, now=T)
    await queued(store, "a", queue="q")
    assert (await store.claim_line(letin("q", limited=False), now=T)).claimed == []


async def test_who_finds_nobody_in_line_locks_nothing(make: Make, third: Third) -> None:
    store = await make()
    await store.make_queues(["q"])
    await third.conn.execute("begin")
    await third.conn.fetch("select 1 from perdure.queue where name = 'q' for update")
    assert await asyncio.wait_for(store.claim_line(letin("q", limited=False), now=T), 5) == LineClaim()
    await third.let_go()


async def test_a_new_series_waits_for_a_claim_that_is_under_way(make: Make, third: Third) -> None:
    store = await make()
    await store.register(Incarnation(id=ME, executor="me", version="v1"), SECOND, now=T)
    await third.conn.execute("begin")  # stands for a claim that has looked at its series, and is not committed
    await third.conn.fetch("select 1 from perdure.incarnation where id = $1 for key share", ME)
    begins = asyncio.create_task(store.new_series(ME, 1))
    await third.waiting()
    assert not begins.done()
    await third.let_go()
    await begins
    assert await third.value("select series from perdure.incarnation") == 1


async def test_a_lease_is_renewed_while_a_claim_looks_at_its_series(make: Make, third: Third) -> None:
    store = await make()
    await store.register(Incarnation(id=ME, executor="me", version="v1"), SECOND, now=T)
    await third.conn.execute("begin")
    await third.conn.fetch("select 1 from perdure.incarnation where id = $1 for key share", ME)
    assert await store.heartbeat(ME, SECOND, now=T) is not None
    await third.let_go()


async def test_a_start_whose_key_is_taken_asks_for_no_lock_of_who_has_it(make: Make, third: Third) -> None:
    """Locked, it would be passed over by a claim, and those behind it in its line let in first."""
    store = await make()
    await store.make_queues(["q"], now=T)
    how = Deduplicated(key="k", debounce=None, debounce_max=None)
    assert await store.start_once(start("a", queue="q"), how, now=T) is None
    await third.hold("a")
    found = await asyncio.wait_for(store.start_once(start("b", queue="q"), how, now=T), 2)
    assert found is not None
    assert found.id == "a"
    await third.let_go()


async def keyed(store: PostgresStore, **keys: str) -> None:
    """Workflows with these keys, that have ended."""
    await store.make_queues(["q"], now=T)
    for id, key in keys.items():
        assert await store.start_once(start(id, queue="q"), Deduplicated(key=key), now=T) is None
        await store.terminate(id, "", tok("n"), now=T)


async def test_a_purge_waits_for_nobody_who_has_a_key_and_waits_for_its_workflow(make: Make, third: Third) -> None:
    store, other = await make(), await make()
    await keyed(store, a="k")
    await third.hold("a")
    begun = asyncio.create_task(other.start_once(start("b", queue="q"), Deduplicated(key="k"), now=T))
    await third.waiting()  # it has the key, and waits for the row
    assert await store.upkeep.purge([RunKey("a", 1)]) == [], "left to who has it"
    await third.let_go()
    assert await begun is None
    await third.conn.execute("begin")
    await third.conn.fetch("select 1 from perdure.dedup where key = 'k' for update")
    await store.terminate("b", "", tok("n"), now=T)
    assert await asyncio.wait_for(store.upkeep.purge([RunKey("a", 1), RunKey("b", 1)]), 2) == ["a", "b"]
    await third.let_go()
    assert await third.value("select id from perdure.dedup") == "b", "left to who had it locked"
    assert await store.start_once(start("c", queue="q"), Deduplicated(key="k"), now=T) is None


async def test_a_next_run_and_a_start_with_the_key_of_the_run_before_wait_in_one_order(
    make: Make, third: Third, refusals: list[str]
) -> None:
    store, other = await make(), await make()
    await keyed(store, a="k")
    await third.hold("a")
    begun = asyncio.create_task(other.start_once(start("b", queue="q"), Deduplicated(key="k"), now=T))
    await third.waiting()
    replaced = asyncio.create_task(store.replace(RunKey("a", 1), start("a", queue="q"), tok("n"), now=T))
    await third.waiting(2)
    await third.let_go()
    assert (await begun, await replaced) == (None, True)
    assert await third.value("select id from perdure.dedup") == "b"
    assert DEADLOCK not in refusals


async def test_next_runs_that_change_keys_wait_in_one_order(make: Make, third: Third, refusals: list[str]) -> None:
    store, other = await make(), await make()
    await keyed(store, a="k", b="l")
    await third.conn.execute("begin")
    await third.conn.fetch("select 1 from perdure.dedup where key = 'k' for update")
    tasks = []
    for n, (where, id, key) in enumerate([(store, "a", "l"), (other, "b", "k")], 1):
        how = Deduplicated(key=key, over=RunKey(id, 1))
        tasks.append(asyncio.create_task(where.start_once(start(id, queue="q"), how, now=T)))
        await third.waiting(n)
    await third.let_go()
    assert await asyncio.gather(*tasks) == [None, None]
    rows = await third.conn.fetch("select key, id from perdure.dedup order by key")
    assert [(r["key"], r["id"]) for r in rows] == [("k", "b"), ("l", "a")]
    assert DEADLOCK not in refusals
