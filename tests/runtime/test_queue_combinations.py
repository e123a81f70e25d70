"""Options of queues together, and after a death: what each promises alone holds beside the others."""

# waits: `until` looks again until a workflow stands where it is wanted.

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from datetime import timedelta
from typing import Literal

import pytest

from perdure import App, Rate, recv
from perdure.errors import DefinitionError, WorkflowConflict, WorkflowTimedOut
from perdure.model.states import Status
from perdure.store.base import Store
from tests.runtime.support import Ledger, crash, row, status, until
from tests.runtime.test_queues import Gate, every, gated


async def is_(app: App, id: str, what: str) -> bool:
    return await status(app, id) == what


def executor_store(app: App) -> Store:
    return app._home.engine().line.store


# -- keys


async def test_a_key_of_another_workflow_is_a_conflict(app: App) -> None:
    queue = app.queue("q")

    @app.workflow(queue=queue)
    async def bill(n: int) -> int:
        return n

    @app.workflow(queue=queue)
    async def remind(who: str) -> str:
        return who

    async with app.connect():
        first = await bill.options(dedup="k", debounce=60).start(1)
        for how in (remind.options(dedup="k"), remind.options(dedup="k", debounce=60)):
            with pytest.raises(WorkflowConflict, match=rf"{first.id!r}, a .*bill .* and this call is one of .*remind"):
                await how.start("ann")
        assert (await first.info()).name == bill.name
        stored = await executor_store(app).inputs([(await row(app, first.id)).key])
        assert list(stored.values()) == [b"[1]"], "its input is its own"
        replaced = await remind.options(dedup="k", on_conflict="replace").start("ann")
        assert await first.status() == "cancelled"
        assert replaced.id != first.id


async def test_debounced_under_an_id_of_ones_own(app: App) -> None:
    gate = Gate()
    gate.open()
    work = gated(app, gate, queue=app.queue("q"))
    save = work.options(id="doc-1", dedup="doc-1", debounce=0.3)
    async with app:
        first = await save.start("v1")
        again = await save.start("v2")
        assert first.id == again.id == "doc-1"
        assert await again.result() == "v2"
    assert gate.order == ["v2"]


async def test_debounced_under_an_id_of_ones_own_that_has_begun(app: App) -> None:
    gate = Gate()
    work = gated(app, gate, queue=app.queue("q"))
    save = work.options(id="doc-1", dedup="doc-1", debounce=0.05)
    async with app:
        first = await save.start("v1")
        await until(lambda: gate.inside)
        assert (await save.start("v1")).id == first.id
        with pytest.raises(WorkflowConflict, match=r"v1.*v2"):
            await save.start("v2")
        gate.open()
        assert await first.result() == "v1"
        with pytest.raises(WorkflowConflict, match="One id is one call"):
            await save.start("v3")


async def test_debounced_in_a_body_under_an_id_of_ones_own(app: App, ledger: Ledger) -> None:
    gate = Gate()
    gate.open()
    work = gated(app, gate, queue=app.queue("q"))

    @app.workflow
    async def parent() -> str:
        save = work.options(id="doc", dedup="doc", debounce=0.3, on_parent_close="abandon")
        await save.start("v1")
        handle = await save.start("v2")
        ledger.note(handle.id)
        await recv("go")
        return await handle.result()

    async with app:
        handle = await parent.start()
        await until(lambda: ledger)
        await crash(app)
    async with app:
        await app.client.handle(handle.id).send(True, "go")
        assert await app.client.handle(handle.id).result() == "v2"
    assert gate.order == ["v2"]


async def test_debounced_and_expiring(app: App) -> None:
    work = gated(app, Gate(), queue=app.queue("q", concurrency=1))
    async with app.connect():
        handle = await work.options(dedup="k", debounce=60, expires=30).start("v1")
        one = await row(app, handle.id)
        await asyncio.sleep(0.05)
        await work.options(dedup="k", debounce=60, expires=30).start("v2")
        two = await row(app, handle.id)
        assert one.expires and two.expires and one.until and two.until  # noqa: PT018
        assert two.until > one.until
        assert two.expires - two.until == one.expires - one.until


async def test_debounced_it_keeps_the_place_that_it_was_given_first(app: App) -> None:
    work = gated(app, Gate(), queue=app.queue("q", concurrency=1))
    async with app.connect():
        handle = await work.options(dedup="k", debounce=60, partition="a", priority=5).start("v1")
        await work.options(dedup="k", debounce=60, partition="b", priority=-5).start("v2")
        found = await row(app, handle.id)
        assert (found.partition, found.priority) == ("a", 5)


async def test_cancelled_before_it_began_a_debounced_key_is_free(app: App) -> None:
    gate = Gate()
    gate.open()
    work = gated(app, gate, queue=app.queue("q"))
    async with app:
        first = await work.options(dedup="k", debounce=60).start("v1")
        assert await first.cancel() == "cancelled"
        second = await work.options(dedup="k", debounce=0.1).start("v2")
        assert second.id != first.id
        assert await second.result() == "v2"
        assert await first.resume() == "queued"
        assert await first.result() == "v1", "it has its own input, and no key any more"


async def test_a_paused_debounced_one_waits_on_and_has_the_last_input(app: App) -> None:
    gate = Gate()
    gate.open()
    work = gated(app, gate, queue=app.queue("q"))
    async with app:
        first = await work.options(dedup="k", debounce=60).start("v1")
        await first.pause()
        again = await work.options(dedup="k", debounce=0.05).start("v2")
        assert again.id == first.id
        assert (await first.info()).status == "held"
        await first.unpause()
        assert await first.result() == "v2"
    assert gate.order == ["v2"]


@pytest.mark.parametrize("how", ["fail", "replace"])
async def test_debounced_there_is_no_conflict_to_decide(app: App, how: Literal["fail", "replace"]) -> None:
    work = gated(app, Gate(), queue=app.queue("q"))
    async with app.connect():
        await work.options(dedup="k", debounce=60, on_conflict="attach").start("a")
        with pytest.raises(DefinitionError, match=f"debounce= and on_conflict='{how}' were given for 'work'"):
            await work.options(dedup="k", debounce=60, on_conflict=how).start("a")


# -- keys and chosen ids


async def test_an_id_of_a_deleted_workflow_has_not_its_key(app: App) -> None:
    gate = Gate()
    gate.open()
    work = gated(app, gate, queue=app.queue("q"))
    async with app:
        first = await work.options(id="a", dedup="k").start("1")
        await first.result()
        await first.delete()
    async with app.connect():
        assert (await work.options(id="a").start("2")).id == "a"
        assert (await work.options(id="b", dedup="k").start("3")).id == "b"


async def test_replaced_under_its_id_it_has_the_key_that_it_is_given(app: App) -> None:
    work = gated(app, Gate(), queue=app.queue("q"))
    async with app.connect():
        first = await work.options(id="a", dedup="k").start("1")
        other = await work.options(id="b", dedup="l").start("2")
        again = await work.options(id="a", dedup="l", on_conflict="replace").start("3")
        assert (again.id, (await again.info()).run, await again.status()) == (first.id, 2, "queued")
        assert await other.status() == "cancelled", "it had the key"
        assert (await work.options(dedup="l").start("4")).id == "a"
        assert (await work.options(id="c", dedup="k").start("5")).id == "c"
        with pytest.raises(WorkflowConflict, match="on_conflict='fail'"):
            await work.options(id="a", dedup="x", on_conflict="fail").start("3")


@pytest.mark.parametrize("died", [False, True])
async def test_in_a_body_a_taken_id_with_a_key_is_what_on_conflict_says(app: App, died: bool) -> None:
    gate = Gate()
    gate.open()
    work = gated(app, gate, queue=app.queue("q"))

    @app.workflow
    async def parent() -> list[str]:
        child = work.options(id="a", dedup="k", on_conflict="fail")
        try:
            await child.start("1")
        except WorkflowConflict as conflict:
            said = str(conflict)
        again = await work.options(id="a", dedup="new", on_conflict="replace").start("2")
        await recv("go")
        return [said, await again.result()]

    @app.workflow
    async def itself() -> str:
        return (await work.options(id="me", dedup="k", on_conflict="replace").start("1")).id

    async with app:
        assert await work.options(id="a", dedup="k")("1") == "1"
        handle = await parent.start()

        async def ended() -> bool:
            found = await row(app, "a")
            return found.run == 2 and found.status is Status.COMPLETED  # a step in flight would run again

        await until(ended)
        if died:
            await crash(app)
    async with app:
        handle = app.client.handle(handle.id)
        await handle.send(True, "go")
        said, result = await handle.result()
        assert "workflow id 'a' exists already (work, completed); on_conflict='fail' asked for this error" in said
        assert result == "2"
        assert (await row(app, "a")).run == 2
        with pytest.raises(WorkflowConflict, match="asked to replace itself"):
            await itself.options(id="me")()
    assert gate.order == ["1", "2"]


async def test_start_many_with_a_key(app: App) -> None:
    gate = Gate()
    work = gated(app, gate, queue=app.queue("q", concurrency=1))
    async with app:
        handles = await work.options(dedup="k").start_many(["a", "b", "c"])
        assert len({h.id for h in handles}) == 1
        gate.open()
        assert await every(handles) == ["a"] * 3


async def test_a_key_is_held_through_a_death(app: App) -> None:
    gate = Gate()
    work = gated(app, gate, queue=app.queue("q", concurrency=1))
    async with app:
        first = await work.options(dedup="k").start("a")
        await until(lambda: gate.inside)
        await crash(app)
    async with app:
        again = await work.options(dedup="k").start("b")
        assert again.id == first.id
        gate.open()
        assert await again.result() == "a"
        third = await work.options(dedup="k").start("c")
        assert third.id != first.id
        assert await third.result() == "c"


async def test_a_timeout_of_queued_work_outlives_a_death_and_frees_its_place(app: App) -> None:
    gate = Gate()

    @app.step
    async def enter(who: str) -> str:
        return await gate.enter(who)

    @app.workflow(queue=app.queue("q", concurrency=1))
    async def work(who: str) -> str:
        if who == "second":
            return await enter(who)
        gate.inside.append(who)
        return str(await recv("never"))

    async with app:
        first = await work.options(timeout=1.0, id="first").start("first")
        await work.options(id="second").start("second")
        await until(lambda: gate.inside)
        deadline = (await first.info()).deadline
        await crash(app)
    gate.inside.clear()
    async with app:
        assert (await app.client.handle("first").info()).deadline == deadline
        gate.open()
        with pytest.raises(WorkflowTimedOut):
            await app.client.handle("first").result()
        assert await app.client.handle("second").result() == "second"


async def test_a_poison_frees_its_place_and_resumed_stands_in_line_again(app: App) -> None:
    gate = Gate()
    work = gated(app, gate, queue=app.queue("q", concurrency=1), max_deaths=1)
    await app.open()
    await work.options(id="poison").start("poison")
    for _ in range(2):
        await until(lambda: "poison" in gate.inside)
        await crash(app)
        gate.inside.clear()
        await app.open()
    await until(lambda: is_(app, "poison", "held"))
    assert (await row(app, "poison")).reason == "recovery_limit"
    other = await work.options(id="other").start("other")
    await until(lambda: gate.inside == ["other"])
    assert await app.client.handle("poison").resume() == "queued"
    info = await app.client.handle("poison").info()
    assert info.in_line
    assert info.queue == "q"
    gate.open()
    assert await every([other, app.client.handle("poison")]) == ["other", "poison"]
    assert gate.most == 1


async def test_cancelled_in_a_queue_and_resumed_it_stands_in_line_again(app: App) -> None:
    gate = Gate()
    work = gated(app, gate, queue=app.queue("q", concurrency=1))
    async with app:
        blocker = await work.options(id="blocker").start("blocker")
        await until(lambda: gate.inside)
        second = await work.options(id="second").start("second")
        assert await second.cancel() == "cancelled"
        assert await second.resume() == "queued"
        assert (await second.info()).in_line
        gate.open()
        assert await every([blocker, second]) == ["blocker", "second"]
    assert gate.most == 1


async def test_delayed_listed_cancelled_and_resumed(app: App) -> None:
    gate = Gate()
    gate.open()
    work = gated(app, gate, queue=app.queue("q"))
    async with app:
        handle = await work.options(id="late", delay=3600).start("late")
        assert [i.id async for i in app.client.list("status = scheduled AND queue = q")] == ["late"]
        assert await handle.cancel() == "cancelled"
        assert await handle.resume() == "queued"
        assert await handle.result() == "late"


async def test_the_same_id_in_another_queue_attaches(app: App) -> None:
    work = gated(app, Gate(), queue=app.queue("q"))
    async with app.connect():
        one = await work.options(id="a").start("a")
        two = await work.options(id="a", queue="other").start("a")
        assert one.id == two.id
        assert (await two.info()).queue == "q"


async def test_paused_queue_lines_up_and_expires(app: App) -> None:
    work = gated(app, Gate(), queue=app.queue("q"))
    async with app:
        await app.client.pause_queue("q")
        handle = await work.options(delay=0.1, expires=0.2).start("a")
        with pytest.raises(WorkflowTimedOut, match="stood in line of queue q"):
            await handle.result()
        info = await handle.info()
        assert info.closed is not None
        assert info.closed - info.created >= timedelta(seconds=0.3)


async def test_a_child_in_a_queue_nobody_here_listens_to(database: str) -> None:
    gate = Gate()
    gate.open()
    one = App("shop", database=database, listen=["mine"], executor_id="one")
    two = App("shop", database=database, listen=["theirs"], executor_id="two")

    def declare(app: App) -> None:
        work = gated(app, gate)

        @app.workflow(name="parent", queue="mine")
        async def parent() -> str:
            return str(await work.options(queue="theirs")("child"))

    declare(one)
    declare(two)
    async with one:
        handle = await one.client.workflow("parent", returns=str).options(queue="mine").start()
        async with two:
            assert await handle.result() == "child"


async def test_rate_with_partitions_and_priorities(app: App) -> None:
    gate = Gate()
    gate.open()
    work = gated(app, gate, queue=app.queue("q", concurrency=1, partition_rate=Rate(1, per=0.3)))
    async with app.connect():
        for p in "ab":
            for n in (2, 1):
                await work.options(partition=p, priority=n).start(f"{p}{n}")
    async with app:
        await until(lambda: len(gate.order) == 4)
    assert {who[0] for who in gate.order[:2]} == {"a", "b"}
    assert {who[1] for who in gate.order[:2]} == {"1"}


async def test_each_version_keeps_to_the_limit_of_an_executor(database: str) -> None:
    """Two versions work one queue: each lets in what is its own, as many as an executor may have at a time."""
    gates = {version: Gate() for version in ("v1", "v2")}
    apps = {v: App("shop", database=database, executor_id=v, version=v) for v in gates}
    works = {v: gated(apps[v], gates[v], queue=apps[v].queue("q", worker_concurrency=2)) for v in gates}
    async with apps["v1"], apps["v2"]:
        handles = [await works[v].options(version=v).start(f"{v}-{n}") for n in range(5) for v in gates]
        await until(lambda: all(len(gate.inside) == 2 for gate in gates.values()))
        for gate in gates.values():
            gate.open()
        assert sorted(await every(handles)) == sorted(f"{v}-{n}" for n in range(5) for v in gates)
    for version, gate in gates.items():
        assert gate.most == 2
        assert {who.partition("-")[0] for who in gate.order} == {version}


@pytest.fixture
def quick_collector() -> Iterator[None]:
    """It looks at what a test makes, not at what others have left: else each look takes a tenth of a second."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("quick_collector")
async def test_what_waits_in_line_needs_nobody_to_hold_its_handle(app: App) -> None:
    gate = Gate()
    work = gated(app, gate, queue=app.queue("q", concurrency=1))
    async with app:
        for n in range(5):
            await work.options(id=f"w{n}").start(str(n))
        await until(lambda: gate.inside)
        gc.collect()
        gate.open()
        while len(gate.order) < 5:  # waits: and the collector comes by at each turn
            gc.collect()
            await asyncio.sleep(0)
        assert await app.client.handle("w4").result() == "4"


async def test_debounced_in_bulk_the_last_of_them_counts(app: App) -> None:
    gate = Gate()
    gate.open()
    work = gated(app, gate, queue=app.queue("q"))
    async with app:
        for n in range(5):
            handles = await work.options(dedup=f"k{n}", debounce=0.1).start_many([f"{n}{c}" for c in "abcdefgh"])
            assert len({handle.id for handle in handles}) == 1
            assert await handles[0].result() == f"{n}h"
