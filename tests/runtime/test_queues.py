"""Queues as their users see them: order, limits, options, operators, and what a bad item does to its neighbours."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

import perdure.sync
from perdure import App, Client, Queue, Rate, recv
from perdure.errors import DatabaseTrouble, DefinitionError, LostAnswer, WorkflowConflict, WorkflowTimedOut
from perdure.runtime.queues import AHEAD
from tests.runtime.support import Ledger, crash, executor, row, status, until


class Gate:
    """Runs that wait inside, so that a test sees how many there are."""

    def __init__(self) -> None:
        self.inside: list[str] = []
        self.most = 0
        self.order: list[str] = []
        self._open = asyncio.Event()

    async def enter(self, who: str) -> str:
        self.inside.append(who)
        self.order.append(who)
        self.most = max(self.most, len(self.inside))
        await self._open.wait()
        self.inside.remove(who)
        return who

    def open(self) -> None:
        self._open.set()


def gated(app: App, gate: Gate, **options: Any) -> Any:
    @app.step(name="enter")
    async def enter(who: str) -> str:
        return await gate.enter(who)

    @app.workflow(name="work", **options)
    async def work(who: str) -> str:
        return await enter(who)

    return work


async def every(handles: Sequence[Any]) -> list[Any]:
    return [await handle.result() for handle in handles]


async def test_one_at_a_time_in_the_order_of_their_start(app: App) -> None:
    gate = Gate()
    gate.open()
    work = gated(app, gate, queue=app.queue("q", concurrency=1))
    async with app:
        handles = [await work.start(str(n)) for n in range(10)]
        assert await every(handles) == [str(n) for n in range(10)]
    assert gate.order == [str(n) for n in range(10)]
    assert gate.most == 1


async def test_a_queue_lets_through_what_its_concurrency_allows(app: App) -> None:
    gate = Gate()
    work = gated(app, gate, queue=app.queue("q", concurrency=3))
    async with app:
        handles = await work.start_many([str(n) for n in range(12)])
        await until(lambda: len(gate.inside) == 3)
        [info] = await app.client.queues()
        assert (info.in_line, info.in_progress) == (9, 3)
        gate.open()
        await every(handles)
    assert gate.most == 3


async def test_priority_decides_who_is_next(app: App) -> None:
    gate = Gate()
    work = gated(app, gate, queue=app.queue("q", concurrency=1))
    async with app:
        first = await work.start("first")
        await until(lambda: gate.inside)
        later = [await work.options(priority=p).start(f"p{p}") for p in (3, 1, 2, 1, -1)]
        gate.open()
        await every([first, *later])
    assert gate.order == ["first", "p-1", "p1", "p1", "p2", "p3"]


async def test_a_rate_is_kept_and_used_up(app: App) -> None:
    gate = Gate()
    gate.open()
    work = gated(app, gate, queue=app.queue("q", rate=Rate(3, per=0.4)))
    async with app:
        handles = await work.start_many([str(n) for n in range(9)])
        await every(handles)
        began = sorted([(await handle.info()).started for handle in handles])
    for n in range(len(began) - 3):
        assert began[n + 3] - began[n] > timedelta(seconds=0.4)
    assert began[-1] - began[0] < timedelta(seconds=10), "it goes on as soon as the window lets it"


async def test_each_executor_keeps_to_its_own_limit_over_one_queue(database: str) -> None:
    gates = [Gate(), Gate()]
    apps = [App("shop", database=database, executor_id=f"e{n}") for n in range(2)]
    pairs = zip(apps, gates, strict=True)
    works = [gated(app, gate, queue=app.queue("q", worker_concurrency=2)) for app, gate in pairs]
    async with apps[0], apps[1]:
        handles = await works[0].start_many([str(n) for n in range(8)])
        await until(lambda: all(len(gate.inside) == 2 for gate in gates))
        for gate in gates:
            gate.open()
        await every(handles)
    assert [gate.most for gate in gates] == [2, 2]


async def test_who_takes_over_at_its_launch_keeps_to_its_limit(database: str) -> None:
    gates = [Gate(), Gate(), Gate()]
    apps = [App("shop", database=database, executor_id=f"e{n}") for n in range(3)]
    works = [gated(a, g, queue=a.queue("q", worker_concurrency=2)) for a, g in zip(apps, gates, strict=True)]
    for app in apps[:2]:
        await app.open()
    await works[0].start_many([str(n) for n in range(4)])
    await until(lambda: all(len(gate.inside) == 2 for gate in gates[:2]))
    for app in apps[:2]:
        await crash(app)
    async with apps[2]:
        await until(lambda: gates[2].inside)
        gates[2].open()
        infos = [info async for info in apps[2].client.list("status = open")]
        await every([apps[2].client.handle(info.id) for info in infos])
    assert len(gates[2].order) == 4
    assert gates[2].most == 2


async def test_while_an_answer_is_lost_nothing_more_is_taken_over(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    work = gated(app, gate, queue=app.queue("q", worker_concurrency=2))
    gone = False
    async with app:
        store = executor(app).line.store
        let_in, poll = store.claim_line, store.poll

        async def lost(*given: Any, **kwargs: Any) -> Any:
            nonlocal gone
            claim = await let_in(*given, **kwargs)
            if claim.claimed and not gone:
                gone = True
                raise LostAnswer("the connection broke")
            return claim

        async def nothing(*given: Any, **kwargs: Any) -> Any:
            if gone:
                raise DatabaseTrouble("the database cannot be reached")
            return await poll(*given, **kwargs)

        monkeypatch.setattr(store, "claim_line", lost)
        monkeypatch.setattr(store, "poll", nothing)
        handle = await work.start("lost")
        await until(lambda: executor(app).queues.unsure)
        assert executor(app).request(1).full == ("q",)
        monkeypatch.setattr(store, "poll", poll)
        await until(lambda: gate.inside == ["lost"])
        assert executor(app).request(1).some == (("q", 1),)
        gate.open()
        await handle.result()


async def test_what_wakes_up_waits_for_its_executor_to_have_room(app: App, quick_eviction: None) -> None:
    gate = Gate()

    @app.step
    async def enter(who: str) -> str:
        return await gate.enter(who)

    @app.workflow(queue=app.queue("q", worker_concurrency=1))
    async def work(who: str) -> str:
        if who == "sleeper":
            await recv("go")
        return await enter(who)

    async with app:
        sleeper = await work.options(id="sleeper").start("sleeper")
        await until(lambda: _is(app, "sleeper", "waiting"))
        other = await work.options(id="other").start("other")
        await until(lambda: gate.inside == ["other"])
        await sleeper.send(True, "go")
        for _ in range(3):
            await executor(app)._look_once()
        assert await status(app, "sleeper") == "waiting"
        gate.open()
        assert await every([sleeper, other]) == ["sleeper", "other"]
    assert gate.most == 1


async def _is(app: App, id: str, what: str) -> bool:
    return await status(app, id) == what


async def test_listen_restricts_what_an_executor_works(database: str) -> None:
    app = App("shop", database=database, listen=["mine"])
    gate = Gate()
    gate.open()
    work = gated(app, gate)
    async with app:
        other = await work.options(queue="other").start("other")
        await work.options(queue="mine").start("mine")
        await work("direct")
        await until(lambda: len(gate.order) == 2)
        assert (await other.info()).in_line
    everything = App("shop", database=database)
    gated(everything, gate)
    async with everything:
        assert await everything.client.handle(other.id).result() == "other"


async def test_a_queue_that_no_code_declares_has_no_limits_until_somebody_sets_some(app: App) -> None:
    gate = Gate()
    work = gated(app, gate)
    async with app:
        handles = await work.options(queue="adhoc").start_many([str(n) for n in range(5)])
        await until(lambda: len(gate.inside) == 5)
        await app.client.set_queue("adhoc", concurrency=5)
        unknown: dict[str, Any] = {"conc": 0}
        with pytest.raises(DefinitionError, match="there is no limit 'conc' of a queue; there is: concurrency, worker"):
            await app.client.set_queue("adhoc", **unknown)
        late = await work.options(queue="adhoc").start("late")
        await executor(app)._look_once()
        assert len(gate.inside) == 5
        await app.client.set_queue("adhoc", concurrency=6)
        await until(lambda: len(gate.inside) == 6)
        gate.open()
        await every([*handles, late])
        [info] = await app.client.queues()
        assert (info.name, info.declared, info.concurrency, info.live) == ("adhoc", False, 6, ("concurrency",))


async def test_pause_and_resume(app: App) -> None:
    gate = Gate()
    gate.open()
    work = gated(app, gate, queue=app.queue("q"))
    async with app:
        await app.client.pause_queue("q")
        handle = await work.start("a")
        await executor(app)._look_once()
        assert (await handle.info()).in_line
        assert [info.paused for info in await app.client.queues()] == [True]
        await app.client.resume_queue("q")
        assert await handle.result() == "a"


async def test_a_live_change_outlives_a_deploy_until_it_is_reset(database: str) -> None:
    def deploy(concurrency: int) -> App:
        app = App("shop", database=database)
        app.queue("q", concurrency=concurrency, rate=Rate(5, per=1))
        return app

    async with deploy(1) as app:
        await app.client.set_queue("q", concurrency=7)
    async with deploy(2) as app:
        [info] = await app.client.queues()
        assert (info.concurrency, info.rate, info.live) == (7, Rate(5, per=1), ("concurrency",))
        await app.client.reset_queue("q")
        [info] = await app.client.queues()
        assert (info.concurrency, info.live) == (2, ())


# -- starts


async def test_a_client_that_runs_nothing_enqueues_and_reads(app: App, database: str) -> None:
    gate = Gate()
    gate.open()
    gated(app, gate, queue=app.queue("q", concurrency=2))
    async with Client(database, app="shop") as client:
        work = client.workflow("work", returns=str).options(queue="q", id="a")
        handle = await work.start("x")
        assert [info.in_line for info in await client.queues()] == [1]
        async with app:
            assert await handle.result() == "x"
            assert (await (await work.start("x")).result()) == "x", "the same id attaches"


async def test_children_stand_in_line_and_go_on_with_their_parent(app: App) -> None:
    gate = Gate()
    gate.open()
    work = gated(app, gate, queue=app.queue("q", concurrency=2))

    @app.workflow
    async def parent(n: int) -> list[str]:
        handles = await work.start_many([str(i) for i in range(n)])
        return [await handle.result() for handle in handles]

    async with app:
        assert await parent(7) == [str(i) for i in range(7)]
    assert gate.most <= 2


async def test_children_in_line_are_cancelled_with_their_parent_and_never_run(app: App) -> None:
    gate = Gate()
    work = gated(app, gate, queue=app.queue("q", concurrency=1))

    @app.workflow
    async def parent() -> None:
        await work.options(id="first").start("first")
        await work.options(id="second").start("second")
        await recv("go")

    async with app:
        handle = await parent.start()
        await until(lambda: gate.inside == ["first"])
        await handle.send(True, "go")
        await handle.result()
        await until(lambda: _is(app, "second", "cancelled"))
        gate.open()
        await until(lambda: _is(app, "first", "cancelled"))
    assert gate.order == ["first"]


async def test_a_cancelled_one_leaves_the_line_at_once(app: App) -> None:
    gate = Gate()
    work = gated(app, gate, queue=app.queue("q", concurrency=1))
    async with app:
        handles = [await work.start(str(n)) for n in range(3)]
        await until(lambda: gate.inside == ["0"])
        assert str(await handles[1].cancel()) == "cancelled"
        gate.open()
        assert await handles[2].result() == "2"
    assert gate.order == ["0", "2"]


async def test_a_timeout_begins_when_it_is_let_through(app: App) -> None:
    gate = Gate()
    work = gated(app, gate, queue=app.queue("q", concurrency=1))
    async with app:
        first = await work.start("first")
        await until(lambda: gate.inside)
        second = await work.options(timeout=30).start("second")
        assert (await second.info()).deadline is None
        gate.open()
        await every([first, second])
        assert (await second.info()).deadline is not None


async def test_delay_then_the_line(app: App) -> None:
    gate = Gate()
    gate.open()
    work = gated(app, gate, queue=app.queue("q"))
    async with app:
        handle = await work.options(delay=0.3).start("a")
        assert (await handle.info()).status == "scheduled"
        assert await handle.result() == "a"
        info = await handle.info()
        assert info.started is not None
        assert info.started - info.created >= timedelta(seconds=0.3)


async def test_who_waits_too_long_is_told(app: App) -> None:
    gate = Gate()
    work = gated(app, gate, queue=app.queue("q", concurrency=1))
    async with app:
        first = await work.start("first")
        await until(lambda: gate.inside)
        second = await work.options(expires=0.2).start("second")
        with pytest.raises(WorkflowTimedOut, match="stood in line of queue q for longer than it may"):
            await second.result()
        gate.open()
        await first.result()
    assert gate.order == ["first"]


async def test_large_batches_are_started_in_bounded_pieces(app: App) -> None:
    gate = Gate()
    work = gated(app, gate, queue=app.queue("q"))
    async with app.connect():
        handles = await work.start_many([str(n) for n in range(1201)], id=lambda n: f"w-{n}")
        assert len({handle.id for handle in handles}) == 1201
        again = await work.start_many([str(n) for n in range(1201)], id=lambda n: f"w-{n}")
        assert [h.id for h in again] == [h.id for h in handles]
        [info] = await app.client.queues()
        assert info.in_line == 1201


async def test_no_more_is_let_in_than_can_soon_begin(app: App) -> None:
    gate = Gate()
    work = gated(app, gate, queue=app.queue("q"))
    async with app:
        handles = await work.start_many([str(n) for n in range(AHEAD + 300)])
        await until(lambda: len(gate.inside) == AHEAD, 30)
        await executor(app)._look_once()
        assert len(gate.inside) == AHEAD
        gate.open()
        await every(handles)


# -- partitions


async def test_a_busy_partition_does_not_starve_the_others(app: App) -> None:
    gate = Gate()
    gate.open()
    work = gated(app, gate, queue=app.queue("q", concurrency=1))
    async with app.connect():
        for partition, n in (("big", 20), ("small", 2), ("tiny", 1)):
            await work.options(partition=partition).start_many([f"{partition}{i}" for i in range(n)])
    async with app:
        await until(lambda: len(gate.order) == 23)
    assert gate.order.index("tiny0") <= 2
    assert gate.order.index("small1") <= 5


async def test_partitions_are_limited_each_and_together(app: App) -> None:
    gate = Gate()
    work = gated(app, gate, queue=app.queue("q", concurrency=5, partition_concurrency=2))
    async with app:
        for partition in "abcd":
            await work.options(partition=partition).start_many([f"{partition}{i}" for i in range(4)])
        await until(lambda: len(gate.inside) == 5)
        assert max([sum(who[0] == p for who in gate.inside) for p in "abcd"]) == 2
        gate.open()
        await until(lambda: len(gate.order) == 16)
    assert gate.most == 5


# -- deduplication and debounce


async def test_a_key_is_one_open_workflows(app: App) -> None:
    gate = Gate()
    work = gated(app, gate, queue=app.queue("q"))
    keyed = work.options(dedup="customer-7")
    async with app:
        first = await keyed.start("a")
        assert (await keyed.start("b")).id == first.id
        with pytest.raises(WorkflowConflict, match=f"open workflow with dedup='customer-7' already: {first.id!r}"):
            await keyed.options(on_conflict="fail").start("c")
        gate.open()
        assert await first.result() == "a"
        again = await keyed.start("d")
        assert again.id != first.id
        assert await again.result() == "d"


async def test_replace_cancels_the_one_that_has_the_key(app: App) -> None:
    gate = Gate()
    work = gated(app, gate, queue=app.queue("q", concurrency=1))
    async with app:
        blocker = await work.start("blocker")
        await until(lambda: gate.inside)
        first = await work.options(dedup="k").start("a")
        second = await work.options(dedup="k", on_conflict="replace").start("b")
        assert await status(app, first.id) == "cancelled"
        gate.open()
        assert await every([blocker, second]) == ["blocker", "b"]
    assert gate.order == ["blocker", "b"]


async def test_a_deduplicated_child_is_recorded_with_what_the_database_said(app: App, ledger: Ledger) -> None:
    gate = Gate()
    work = gated(app, gate, queue=app.queue("q"))

    @app.workflow
    async def parent(who: str) -> list[str]:
        handle = await work.options(dedup="k").start(who)
        ledger.note(handle.id)
        await recv("go")
        return [handle.id, await handle.result()]

    async with app:
        one = await parent.options(id="one").start("a")
        await until(lambda: len(ledger) == 1)
        two = await parent.options(id="two").start("b")
        await until(lambda: len(ledger) == 2)
        assert ledger[0] == ledger[1]
        await crash(app)
    async with app:
        await until(lambda: len(ledger) == 4)
        for handle in (one, two):
            await app.client.handle(handle.id).send(True, "go")
        gate.open()
        assert await app.client.handle("two").result() == [ledger[0], "a"]
        assert await app.client.handle("one").result() == [ledger[0], "a"]
    assert len(set(ledger)) == 1


async def test_debounce_begins_once_with_the_last_input(app: App) -> None:
    gate = Gate()
    gate.open()
    work = gated(app, gate, queue=app.queue("q"))
    save = work.options(dedup="doc-1", debounce=0.4, debounce_max=5)
    async with app:
        handles = [await save.start(f"v{n}") for n in range(4)]
        assert len({handle.id for handle in handles}) == 1
        assert await handles[0].result() == "v3"
        assert await (await save.start("v9")).result() == "v9"
    assert gate.order == ["v3", "v9"]


# -- what is bad costs the others nothing


async def test_an_item_that_cannot_run_blocks_nobody_and_takes_no_slot(app: App, database: str) -> None:
    gate = Gate()
    gate.open()
    work = gated(app, gate, queue=app.queue("q", concurrency=1))

    @app.workflow(name="typed", queue="q")
    async def typed(n: int) -> int:
        return n

    async with Client(database, app="shop") as client:
        unknown = await client.workflow("nowhere", returns=str).options(queue="q").start()
        broken = await client.workflow("typed", returns=int).options(queue="q").start("no number")
    async with app:
        assert await (await work.start("fine")).result() == "fine"
        assert (await row(app, unknown.id)).reason == "no_code"
        assert (await row(app, broken.id)).reason == "undecodable"
        [info] = await app.client.queues()
        assert (info.in_line, info.in_progress) == (0, 0)


async def test_recovered_work_keeps_its_queue_and_its_slots(app: App) -> None:
    gate = Gate()
    work = gated(app, gate, queue=app.queue("q", concurrency=2))
    async with app:
        handles = await work.start_many([str(n) for n in range(6)])
        await until(lambda: len(gate.inside) == 2)
        await crash(app)
    gate.inside.clear()
    gate.most = 0
    async with app:
        await until(lambda: len(gate.inside) == 2)
        gate.open()
        assert await every([app.client.handle(handle.id) for handle in handles]) == [str(n) for n in range(6)]
    assert gate.most == 2


# -- declaring, and the sync face


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"concurrency": 0}, "concurrency=0 is no limit"),
        ({"worker_concurrency": 1.5}, "worker_concurrency=1.5 is no limit"),
        ({"concurrency": 2**31}, "concurrency=2147483648 is no limit"),
        ({"concurrency": 10**30}, "concurrency=1000000000000000000000000000000 is no limit"),
        ({"rate": 5}, "rate=5 is no rate: give such as Rate"),
    ],
)
def test_limits_that_mean_nothing_are_refused(limits: dict[str, Any], says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        App("shop").queue("q", **limits)


@pytest.mark.parametrize("name", ["", " q", "a\nb", "x" * 101, 7])
def test_names_that_cannot_be_queues_are_refused(name: Any) -> None:
    with pytest.raises(DefinitionError, match="cannot name a queue"):
        App("shop").queue(name)


def test_one_name_is_one_queue() -> None:
    app = App("shop")
    assert isinstance(app.queue("q"), Queue)
    with pytest.raises(DefinitionError, match="two queues are named 'q'"):
        app.queue("q", concurrency=1)


async def test_options_that_need_a_queue_say_so(app: App) -> None:
    @app.workflow
    async def work() -> None: ...

    async with app.connect():
        for options in ({"dedup": "k"}, {"partition": "p"}, {"expires": 1}):
            with pytest.raises(DefinitionError, match="which stands in no queue: give queue= as well"):
                await work.options(**options).start()  # type: ignore[arg-type]
        with pytest.raises(DefinitionError, match=r"debounce= was given for .* without a key"):
            await work.options(queue="q", debounce=1).start()


def test_the_sync_face(sync_app: perdure.sync.App) -> None:
    app = sync_app
    emails = app.queue("emails", concurrency=2, rate=perdure.sync.Rate(100, per=1))

    @app.step
    def double(n: int) -> int:
        return 2 * n

    @app.workflow(queue=emails)
    def work(n: int) -> int:
        return double(n)

    with app:
        assert work(4) == 8
        assert [handle.result() for handle in work.start_many(range(10))] == [2 * n for n in range(10)]
        assert work.options(dedup="k").start(1).result() == 2
        app.client.set_queue("emails", concurrency=None)
        assert [info.concurrency for info in app.client.queues()] == [None]
