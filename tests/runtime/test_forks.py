"""Restart and fork: what a new workflow keeps of an old one, which stays as it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import perdure.sync
from perdure import App, current, recv, sleep
from perdure.errors import (
    Misuse,
    StepNotFound,
    WorkflowConflict,
)
from perdure.model.ids import RunKey
from perdure.model.records import Kind
from perdure.model.states import Reason, Status
from tests.runtime.moving import at_rest, go, held, names, stage, store_of, trip
from tests.runtime.support import Ledger, executor, history, row, status, until, until_sync

# -- restart


async def test_restart_begins_anew_with_the_same_input(app: App, ledger: Ledger) -> None:
    workflow = trip(app, ledger)
    async with app:
        old = await workflow.options(id="a", attributes={"city": "Rome"}).start("ann")
        await old.send("one", go)
        assert (await old.result(timeout=15))[3] == "one"
        new = await old.restart(reason="once more")
        assert new.id == "a-2"
        await new.send("two", go)
        assert await new.result(timeout=15) == ["ann", "flight!", "hotel!", "two", "taxi!"]
        assert (await old.restart()).id == "a-3"
        found = await row(app, "a-2")
        assert found.attributes == b'{"city":"Rome"}'
        [mark] = [r for r in await history(app, "a-2") if r.kind is Kind.CUT]
        assert (mark.seq, mark.name) == (1, "restart")
        assert mark.shown.endswith(": once more")
        assert (await row(app, "a")).status is Status.COMPLETED
    keys = [line.split()[1] for line in ledger[:6]]
    assert len(set(keys)) == 6, "another workflow, other idempotency keys"


async def test_restart_with_terminate_ends_the_old_one_in_the_same_commit(app: App, ledger: Ledger) -> None:
    workflow = trip(app, ledger)
    async with app:
        old = await workflow.options(id="a").start("ann")
        await until(lambda: len(ledger) == 2)
        new = await old.restart(id="b", terminate=True, reason="stuck")
        assert await status(app, "a") == "terminated"
        assert "stuck" in (await row(app, "a")).detail
        again = await old.restart(id="b", terminate=True, reason="stuck")
        assert again.id == new.id == "b"
        await new.send("now", go)
        assert (await new.result(timeout=15))[0] == "ann"
    assert names(ledger).count("taxi") == 1


async def test_an_id_that_another_has_is_a_conflict(app: App, ledger: Ledger) -> None:
    workflow = trip(app, ledger)
    async with app.connect():
        old = await workflow.options(id="a").start("ann")
        await workflow.options(id="b").start("bob")
        with pytest.raises(WorkflowConflict, match=r"'b' is taken \(trip, queued\); this is a restart of run 1 of 'a'"):
            await old.restart(id="b")
        await old.restart(id="c")
        with pytest.raises(WorkflowConflict, match=r"'c' is taken \(trip, queued, a restart of run 1 of 'a'"):
            await old.fork(id="c")


# -- fork


@pytest.mark.parametrize(("step", "ran"), [
    ("flight", None), ("1", ["flight", "hotel", "taxi"]), (3, ["hotel", "taxi"]), ("#3", ["hotel", "taxi"]),
    ("3", ["hotel", "taxi"]), ("taxi", None), (None, ["taxi"]),
])  # fmt: skip
async def test_a_fork_keeps_what_came_before_the_step(
    app: App, ledger: Ledger, step: str | int | None, ran: list[str] | None
) -> None:
    workflow = trip(app, ledger)
    async with app:
        old = await workflow.options(id="a").start("ann")
        await until(lambda: len(ledger) == 2)
        await at_rest(app, "a")
        before, records = await row(app, "a"), await history(app, "a")
        source = await store_of(app).inputs([RunKey("a", 1)])
        if ran is None:
            with pytest.raises(
                StepNotFound, match=r"has no step '\w+'; it has: book \(path 1, #1\), book \(path 3, #3\)"
            ):
                await old.fork(step)
            return
        new = await old.fork(step, id="b", reason="another way")
        await new.send("now", go)
        assert await new.result(timeout=15) == ["ann", "flight!", "hotel!", "now", "taxi!"]
        assert await row(app, "a") == before
        assert await history(app, "a") == records
        assert await store_of(app).inputs([RunKey("a", 1)]) == source
        kept = await history(app, "b")
        [mark] = [r for r in kept if r.kind is Kind.CUT]
        assert kept[: mark.seq - 1] == records[: mark.seq - 1]
        assert await new.get_event(stage) == "slept"
        assert names(ledger)[2:] == ran
        keys = [line.split()[1] for line in ledger]
        assert len(set(keys)) == len(keys), "idempotency keys of a fork are its own"
        again = await old.fork(step, id="b")
        assert again.id == "b"
        assert await again.result(timeout=15) == ["ann", "flight!", "hotel!", "now", "taxi!"]


async def test_a_fork_of_all_is_the_same_fork_when_its_source_has_gone_on(app: App, ledger: Ledger) -> None:
    workflow = trip(app, ledger)
    async with app:
        old = await workflow.options(id="a").start("ann")
        await until(lambda: len(ledger) == 2)
        await at_rest(app, "a")
        await old.fork(id="b")
        await old.send("now", go)
        await old.result(timeout=15)
        assert (await old.fork(id="b")).id == "b"
        with pytest.raises(
            WorkflowConflict, match=r"a fork of run 1 of 'a' with 4 records\); this is a fork .* with 2"
        ):
            await old.fork("3", id="b")


async def test_a_name_that_several_steps_have_must_be_made_plain(app: App, ledger: Ledger) -> None:
    workflow = trip(app, ledger)
    async with app:
        old = await workflow.options(id="a").start("ann")
        await until(lambda: len(ledger) == 2)
        with pytest.raises(StepNotFound, match=r"called 'book' 2 times, at the paths 1 \(#1\), 3 \(#3\): say which by"):
            await old.fork("book")
        for unknown in ("#99", 99, "#0"):
            with pytest.raises(StepNotFound, match=r"has \d+ records; there is no #\d+"):
                await old.fork(unknown)


async def test_a_fork_before_a_retried_step_begins_with_its_first_attempt(app: App, ledger: Ledger) -> None:
    @app.step(name="flaky", retry=perdure.Retry(attempts=3))
    async def flaky() -> str:
        ledger.note("try")
        if len(ledger) % 3:
            raise ValueError("not yet")
        return "done"

    @app.workflow
    async def body() -> str:
        return await flaky()

    async with app:
        handle = await body.options(id="a").start()
        assert await handle.result(timeout=15) == "done"
        new = await handle.fork("flaky")
        assert await new.result(timeout=15) == "done"
        kinds = [r.kind for r in await history(app, "a-2")]
        assert kinds == [Kind.CUT, Kind.INTENT, Kind.ATTEMPT, Kind.ATTEMPT, Kind.STEP]
    assert len(ledger) == 6


async def test_events_of_a_fork_are_those_of_the_kept_records(app: App, ledger: Ledger) -> None:
    workflow = trip(app, ledger)
    async with app.connect():
        pass
    async with app:
        old = await workflow.options(id="a").start("ann")
        await until(lambda: len(ledger) == 2)
        await old.get_event(stage)
        await executor(app).line.journal.drained()
        store = store_of(app)
        executor(app).draining = True  # nobody goes on with the fork
        await old.fork("3", id="b")
        assert (await store.events([("b", "stage")]))[("b", "stage")] == b'"flown"'
        executor(app).draining = False


async def test_a_fork_of_a_step_in_flight_runs_it_itself(app: App, ledger: Ledger) -> None:
    leave = asyncio.Event()

    @app.step(name="work")
    async def work() -> str:
        ledger.note("work")
        if len(ledger) == 1:
            await leave.wait()
        return "worked"

    @app.workflow
    async def body() -> str:
        return await work()

    async with app:
        old = await body.options(id="a").start()
        await until(lambda: ledger == ["work"])
        new = await old.fork("work", id="b")
        assert await new.result(timeout=15) == "worked"
        leave.set()
        assert await old.result(timeout=15) == "worked"
    assert ledger == ["work", "work"]


async def test_a_step_that_may_run_once_at_most_runs_once_for_each_fork(app: App, ledger: Ledger) -> None:
    @app.step(name="wire", at_most_once=True)
    async def wire() -> str:
        ledger.note(current().idempotency_key)
        return "wired"

    @app.workflow
    async def body() -> str:
        return await wire()

    async with app:
        old = await body.options(id="a").start()
        assert await old.result(timeout=15) == "wired"
        assert await (await old.fork("wire")).result(timeout=15) == "wired"
    assert len(set(ledger)) == 2


async def test_another_input_for_a_fork(app: App, ledger: Ledger) -> None:
    workflow = trip(app, ledger)
    async with app:
        old = await workflow.options(id="a").start("ann")
        await until(lambda: len(ledger) == 2)
        new = await old.fork("1", id="b", input=["bob"])
        await new.send("now", go)
        assert (await new.result(timeout=15))[0] == "bob"
        with pytest.raises(WorkflowConflict):
            await old.fork("1", id="b", input=["carl"])


async def test_a_kept_record_that_another_input_does_not_repeat_holds_the_fork(app: App, ledger: Ledger) -> None:
    @app.step(name="book")
    async def book(what: str) -> str:
        ledger.note(what)
        return what

    @app.workflow
    async def body(what: str) -> str:
        await book(what)
        return await book("end")

    async with app:
        old = await body.options(id="a").start("x")
        await old.result(timeout=15)
        await old.fork("2", id="b", input=["y"])
        await until(lambda: held(app, "b"))
        assert (await row(app, "b")).reason is Reason.NONDETERMINISM
    assert ledger == ["x", "end"], "no effect"


async def test_children_of_the_kept_part_are_the_sources_and_left_alone(app: App, ledger: Ledger) -> None:
    @app.step(name="note")
    async def note(what: str) -> str:
        ledger.note(what)
        return what

    @app.workflow(name="child")
    async def child(what: str) -> str:
        await note(what)
        return await recv(go)

    @app.workflow(name="parent")
    async def parent() -> list[str]:
        first = await child.start("first")
        await note("between")
        second = await child.start("second")
        word = await recv(go)
        return [first.id, second.id, word]

    async with app:
        old = await parent.options(id="p").start()
        await until(lambda: sorted(ledger) == ["between", "first", "second"])
        await at_rest(app, "p")
        new = await old.fork("2", id="q")
        await new.send("enough", go)
        assert await new.result(timeout=15) == ["p:1", "q:3", "enough"]
        await until(lambda: closed(app, "q:3"))
        assert await status(app, "p:1") == "running", "the source's child outlives the fork"
        assert await status(app, "q:3") == "cancelled", "its own does not"
    assert ledger.counts == {"between": 2, "first": 1, "second": 2}


async def there(app: Any, id: str) -> bool:
    return id in await store_of(app).rows([id])


async def closed(app: Any, id: str) -> bool:
    return not (await row(app, id)).status.open


async def test_a_rewound_run_finds_the_children_that_it_had(app: App, ledger: Ledger) -> None:
    @app.workflow(name="child")
    async def child(what: str) -> str:
        ledger.note(what)
        return what

    @app.workflow(name="parent")
    async def parent() -> list[str]:
        one = await child("one")
        await recv(go)
        return [one, await child("two"), await recv(go)]

    async with app:
        handle = await parent.options(id="p").start()
        await until(lambda: ledger == ["one"])
        await handle.cancel()
        await handle.resume()
        await handle.send("on", go)
        await until(lambda: ledger == ["one", "two"])
        await until(lambda: there(app, "p:3"))
        await handle.cancel()
        await handle.resume()
        await handle.send("off", go)
        assert await handle.result(timeout=15) == ["one", "two", "off"]
        assert (await row(app, "p")).run == 3
    assert ledger == ["one", "two"]


# -- where they may be called


VERBS: dict[str, Callable[[Any], Any]] = {
    "resume": lambda h: h.resume(),
    "restart": lambda h: h.restart(),
    "fork": lambda h: h.fork(),
}


@pytest.mark.parametrize("verb", VERBS)
async def test_they_are_refused_in_a_body_and_welcome_in_a_step(app: App, verb: str) -> None:
    @app.workflow(name="other")
    async def other() -> None:
        await sleep(3600)

    @app.step
    async def order() -> None:
        await VERBS[verb](other.handle("o"))

    @app.workflow
    async def body(inside: bool) -> None:
        if inside:
            await VERBS[verb](other.handle("o"))
        else:
            await order()

    async with app:
        await other.options(id="o").start()
        with pytest.raises(Misuse, match=f"asked for {verb} of 'o'.*Call it in a step, or outside"):
            await body(True)
        await body(False)


def test_the_sync_face_has_them_too(sync_app: perdure.sync.App, ledger: Ledger) -> None:
    @sync_app.step(name="book")
    def book(what: str) -> str:
        ledger.note(what)
        return what

    @sync_app.workflow(name="trip")
    def workflow() -> list[str]:
        return [book("flight"), perdure.sync.recv(go), book("taxi")]

    with sync_app:
        handle = workflow.options(id="a").start()
        until_sync(lambda: ledger == ["flight"])
        assert handle.cancel() == "cancelled"
        assert handle.resume() == "queued"
        handle.send("now", go)
        assert handle.result(timeout=15) == ["flight", "now", "taxi"]
        new = handle.fork("3", id="b")
        assert new.result(timeout=15) == ["flight", "now", "taxi"]
        again = handle.restart()
        again.send("then", go)
        assert again.result(timeout=15) == ["flight", "then", "taxi"]
    assert ledger == ["flight", "taxi", "taxi", "flight", "taxi"]
