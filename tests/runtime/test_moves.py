"""Resume, restart, fork: what each does with a workflow of each status, and what it leaves alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import perdure.sync
from perdure import App, Event, Topic, current, recv, set_event, sleep
from perdure.errors import (
    Misuse,
    StepNotFound,
    WorkflowCancelled,
    WorkflowClosed,
    WorkflowConflict,
    WorkflowNotFound,
    WorkflowStranded,
    WorkflowTimedOut,
)
from perdure.model.ids import RunKey
from perdure.model.records import Incarnation, Kind, Record
from perdure.model.states import Reason, Status
from perdure.model.writes import Hold, Start, Unit
from perdure.store.base import ClaimRequest, Store
from tests.runtime.support import Ledger, executor, history, in_memory, row, status, until, until_sync

stage = Event[str]("stage")
go = Topic[str]("go")


def store_of(app: Any) -> Store:
    store: Store = app._home.engine().line.store
    return store


async def run_of(app: Any, id: str, run: int) -> tuple[Any, list[Record]]:
    key = RunKey(id, run)
    return await store_of(app).run(key), (await store_of(app).histories([key]))[key]


def trip(app: App, ledger: Ledger) -> Any:
    """Two steps, a wait for a word, a third step."""

    @app.step(name="book")
    async def book(what: str) -> str:
        ledger.note(f"{what} {current().idempotency_key}")
        return f"{what}!"

    @app.workflow(name="trip")
    async def trip(who: str) -> list[str]:
        flight = await book("flight")
        await set_event(stage, "flown")
        hotel = await book("hotel")
        await set_event(stage, "slept")
        word = await recv(go)
        return [who, flight, hotel, word, await book("taxi")]

    return trip


def names(ledger: Ledger) -> list[str]:
    return [line.split()[0] for line in ledger]


async def hold(app: Any, id: str, reason: Reason = Reason.POLICY) -> None:
    """Hold a run that waits here."""
    executor(app).executions[id].hold(reason, "by hand")
    await until(lambda: held(app, id))


async def held(app: Any, id: str) -> bool:
    return (await row(app, id)).status is Status.HELD


# -- resume


@pytest.mark.parametrize("reason", [Reason.POLICY, Reason.RECOVERY_LIMIT, Reason.PAUSED])
async def test_held_work_goes_on_from_its_last_step_in_the_same_run(app: App, ledger: Ledger, reason: Reason) -> None:
    workflow = trip(app, ledger)
    async with app:
        handle = await workflow.options(id="a", priority=3).start("ann")
        await until(lambda: len(ledger) == 2 and in_memory(app, "a"))
        await until(lambda: executor(app).executions["a"].waiting)
        await hold(app, "a", reason)
        assert await handle.resume(reason="looked at it") == "queued"
        await handle.send("now", go)
        assert await handle.result(timeout=15) == ["ann", "flight!", "hotel!", "now", "taxi!"]
        found = await row(app, "a")
        assert (found.run, found.attempts, found.priority) == (1, 0, 3)
        (order,) = [record for record in await history(app, "a") if record.kind is Kind.DECISION]
        assert order.name == "resume"
        assert order.shown.startswith("by ")
        assert order.shown.endswith(": looked at it")
    assert names(ledger) == ["flight", "hotel", "taxi"]


async def test_resume_forgets_the_deaths(app: App) -> None:
    async with app.connect():
        workflow = app.workflow(name="any")(_nothing)
        handle = await workflow.options(id="a").start()
        store, owner = store_of(app), b"o" * 16
        await store.claim(ClaimRequest(owner=owner, token=b"1" * 16, version="", limit=1))
        for n in range(3):
            (claimed,) = await store.adopt(
                [owner], ClaimRequest(owner=owner, token=bytes([n]) * 16, version="", limit=1)
            )
        assert claimed.row.attempts == 3
        await store.commit(
            [Unit(key=RunKey("a", 1), claim=claimed.row.claim, change=Hold(Reason.RECOVERY_LIMIT, "poison"))]
        )
        assert await handle.resume() == "queued"
        assert (await row(app, "a")).attempts == 0


async def _nothing() -> None:
    return None


async def test_a_cancelled_workflow_goes_on_as_if_it_had_not_been(app: App, ledger: Ledger) -> None:
    workflow = trip(app, ledger)
    async with app:
        handle = await workflow.options(id="a").start("ann")
        await until(lambda: len(ledger) == 2)
        assert await handle.cancel(reason="a slip") == "cancelled"
        with pytest.raises(WorkflowCancelled):
            await handle.result()
        assert await handle.resume(reason="it was a slip") == "queued"
        await handle.send("now", go)
        assert await handle.result(timeout=15) == ["ann", "flight!", "hotel!", "now", "taxi!"]
        before, records = await run_of(app, "a", 1)
        assert before.status is Status.SUPERSEDED
        assert [r.kind for r in records if r.kind is Kind.CANCEL] == [Kind.CANCEL]
        now, kept = await run_of(app, "a", 2)
        assert (now.status, now.run, now.cancel) == (Status.COMPLETED, 2, None)
        assert kept[: len(records) - 1] == records[:-1], "the kept records are the same"
        assert [r.name for r in kept if r.kind is Kind.CUT] == ["resume"]
        assert not [r for r in kept if r.kind is Kind.CANCEL]
        assert await handle.get_event(stage) == "slept"
    assert names(ledger) == ["flight", "hotel", "taxi"]


async def test_what_cleaned_up_after_a_cancel_is_cut_off_with_it(app: App, ledger: Ledger) -> None:
    @app.step
    async def do(what: str) -> str:
        ledger.note(what)
        return what

    @app.workflow
    async def body() -> str:
        await do("reserve")
        try:
            await recv(go)
        except asyncio.CancelledError:
            await do("undo")
            raise
        return await do("ship")

    async with app:
        handle = await body.options(id="a").start()
        await until(lambda: ledger == ["reserve"])
        assert await handle.cancel() == "cancelled"
        assert await handle.resume() == "queued"
        await handle.send("on", go)
        assert await handle.result(timeout=15) == "ship"
    assert ledger == ["reserve", "undo", "ship"]


async def test_cancelled_before_it_began_it_begins(app: App, ledger: Ledger) -> None:
    workflow = trip(app, ledger)
    async with app.connect():
        handle = await workflow.options(id="a").start("ann")
        assert await handle.cancel() == "cancelled"
        assert await handle.resume() == "queued"
        assert await handle.resume() == "queued"
    async with app:
        await workflow.handle("a").send("now", go)
        assert (await workflow.handle("a").result(timeout=15))[3] == "now"
    assert names(ledger) == ["flight", "hotel", "taxi"]


async def test_a_workflow_that_ran_out_of_time_gets_its_time_again(app: App, ledger: Ledger) -> None:
    workflow = trip(app, ledger)
    async with app:
        handle = await workflow.options(id="a", timeout=0.3).start("ann")
        with pytest.raises(WorkflowTimedOut):
            await handle.result(timeout=15)
        before = await row(app, "a")
        assert await handle.resume() == "queued"
        await handle.send("now", go)
        assert (await handle.result(timeout=15))[3] == "now"
        after = await row(app, "a")
        assert after.deadline == after.created + 300_000
        assert before.deadline is not None
        assert after.deadline > before.deadline


async def test_so_does_one_whose_time_the_decorator_gives(app: App, ledger: Ledger) -> None:
    @app.workflow(timeout=0.4)
    async def body() -> str:
        return await recv(go)

    async with app.connect():
        handle = await body.options(id="a").start()  # the caller's row knows no deadline
    async with app:
        handle = body.handle("a")
        with pytest.raises(WorkflowTimedOut):
            await handle.result(timeout=15)
        assert await handle.resume() == "queued"
        await handle.send("now", go)
        assert await handle.result(timeout=15) == "now"


async def test_queued_work_starts_before_all_others_and_outside_its_queue(app: App) -> None:
    workflow = app.workflow(name="any")(_nothing)
    async with app.connect():
        for id in ("a", "b", "c"):
            start = Start(
                id=id,
                lineage=b"l" * 16,
                name="any",
                version="",
                input=b"[]",
                fingerprint=b"",
                nonce=id.encode(),
                queue="emails",
            )
            await store_of(app).commit([Unit(key=RunKey("", 0), children=[start])])
        assert await workflow.handle("c").resume() == "queued"
        [first] = await store_of(app).claim(ClaimRequest(owner=b"o" * 16, token=b"t" * 16, version="", limit=1))
        assert (first.row.id, first.row.queue) == ("c", None)


async def test_scheduled_work_starts_now(app: App, ledger: Ledger) -> None:
    workflow = trip(app, ledger)
    async with app:
        handle = await workflow.options(id="a", delay=3600).start("ann")
        assert await handle.status() == "scheduled"
        assert await handle.resume() == "queued"
        await until(lambda: len(ledger) == 2)


async def test_what_runs_or_waits_is_left_alone(app: App, ledger: Ledger, quick_eviction: None) -> None:
    inside = asyncio.Event()
    leave = asyncio.Event()

    @app.step
    async def work() -> None:
        ledger.note("work")
        inside.set()
        await leave.wait()

    @app.workflow
    async def body() -> str:
        await work()
        return await recv(go)

    async with app:
        handle = await body.options(id="a").start()
        await inside.wait()
        before = await row(app, "a")
        assert [await handle.resume() for _ in range(3)] == ["running"] * 3
        assert await row(app, "a") == before
        leave.set()
        await until(lambda: not in_memory(app, "a"))
        assert await status(app, "a") == "waiting"
        before = await row(app, "a")
        assert await handle.resume() == "waiting"
        assert await row(app, "a") == before
        await handle.send("on", go)
        assert await handle.result(timeout=15) == "on"
    assert ledger == ["work"], "no second execution"


async def test_what_is_final_is_refused_with_the_way_out(app: App, ledger: Ledger) -> None:
    @app.workflow
    async def completes() -> int:
        return 1

    @app.workflow
    async def fails() -> None:
        raise ValueError("no")

    async with app:
        await completes.options(id="done").start()
        await fails.options(id="failed").start()
        await until(lambda: not in_memory(app, "done") and not in_memory(app, "failed"))
        await store_of(app).terminate("done-2", "", b"n" * 16)
        with pytest.raises(WorkflowClosed, match=r"'done' is completed, which is final.*perdure workflow restart done"):
            await completes.handle("done").resume()
        with pytest.raises(WorkflowClosed, match=r"restart failed .*; or perdure workflow fork failed --from STEP"):
            await fails.handle("failed").resume()
        handle = await completes.options(id="t", delay=60).start()
        await store_of(app).terminate("t", "by hand", b"n" * 16)
        with pytest.raises(WorkflowClosed, match="'t' is terminated"):
            await handle.resume()
        for verb in ("resume", "restart", "fork"):
            with pytest.raises(WorkflowNotFound, match="has no workflow 'nobody'"):
                await getattr(completes.handle("nobody"), verb)()


async def test_two_who_resume_at_once_do_it_once(app: App, ledger: Ledger) -> None:
    workflow = trip(app, ledger)
    async with app:
        handle = await workflow.options(id="a").start("ann")
        await until(lambda: len(ledger) == 2)
        await handle.cancel()
        answers = await asyncio.gather(*(handle.resume() for _ in range(5)))
        assert set(answers) <= {"queued", "running", "waiting"}
        await handle.send("now", go)
        await handle.result(timeout=15)
        assert (await row(app, "a")).run == 2
    assert names(ledger) == ["flight", "hotel", "taxi"]


# -- stranded


async def stranded(app: Any) -> tuple[Store, Any]:
    """Work of version v1, with a record, where the only live executor runs v2; its own is gone."""
    store = store_of(app)
    await store.register(Incarnation(id=b"2" * 16, executor="two", version="v2"), 60_000_000)
    (claimed,) = await store.claim(ClaimRequest(owner=b"1" * 16, token=b"t" * 16, version="v1", limit=1))
    record = Record(1, "1", Kind.STEP, "book", 1)
    await store.commit([Unit(key=claimed.row.key, claim=b"t" * 16, nonce=b"u" * 16, version="v1", records=[record])])
    return store, claimed.row


@pytest.mark.parametrize("state", ["running", "held"])
async def test_stranded_work_moves_if_somebody_has_checked_it_or_by_force(app: App, state: str) -> None:
    workflow = app.workflow(name="any")(_nothing)
    async with app.connect():
        handle = await workflow.options(id="a").start()
        store, was = await stranded(app)
        if state == "held":
            await store.commit([Unit(key=was.key, claim=b"t" * 16, change=Hold(Reason.NO_CODE, "none"))])
        line = app._home.engine().line
        with pytest.raises(WorkflowStranded, match=r"version 'v1' and was not moved to 'v2': nobody here can replay"):
            await handle.resume()

        async def differs(_row: Any, version: str) -> str:
            return f"at 1: history has step book; {version} has step pay"

        line.check_replay = differs
        with pytest.raises(WorkflowStranded, match=r"history has step book; v2 has step pay.*--force"):
            await handle.resume()
        assert (await row(app, "a")).version == "v1"

        async def fits(_row: Any, _version: str) -> None:
            return None

        line.check_replay = fits
        assert await handle.resume() == "queued"
        after = await row(app, "a")
        assert (after.version, after.status, after.run) == ("v2", Status.QUEUED, 1)
        [late] = (
            await store.commit(
                [Unit(key=was.key, claim=b"t" * 16, nonce=b"l" * 16, records=[Record(2, "2", Kind.STEP, "x", 1)])]
            )
        ).verdicts
        assert not late.applied, "who held it before writes no more"


async def test_by_force_without_a_check(app: App) -> None:
    workflow = app.workflow(name="any")(_nothing)
    async with app.connect():
        handle = await workflow.options(id="a").start()
        await stranded(app)
        assert await handle.resume(force=True) == "queued"
        assert (await row(app, "a")).version == "v2"


async def test_with_several_versions_alive_one_must_be_named(app: App) -> None:
    workflow = app.workflow(name="any")(_nothing)
    async with app.connect():
        handle = await workflow.options(id="a").start()
        store, _ = await stranded(app)
        await store.register(Incarnation(id=b"3" * 16, executor="three", version="v3"), 60_000_000)
        with pytest.raises(WorkflowStranded, match=r"they run v2, v3\. Say which"):
            await handle.resume()
        assert await handle.resume(version="v3", force=True) == "queued"
        assert (await row(app, "a")).version == "v3"


async def test_work_of_an_executor_that_lives_is_not_moved_without_force(app: App) -> None:
    workflow = app.workflow(name="any")(_nothing)
    async with app.connect():
        handle = await workflow.options(id="a").start()
        store, _ = await stranded(app)
        await store.register(Incarnation(id=b"1" * 16, executor="one", version="v1"), 60_000_000)
        assert await handle.resume() == "running"
        with pytest.raises(WorkflowStranded, match=r"whose executors are alive; to take it from them: .*--force"):
            await handle.resume(version="v2")
        assert await handle.resume(version="v2", force=True) == "queued"


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
        await until(lambda: executor(app).executions["p"].waiting)
        new = await old.fork("2", id="q")
        await new.send("enough", go)
        assert await new.result(timeout=15) == ["p:1", "q:3", "enough"]
        await until(lambda: closed(app, "q:3"))
        assert await status(app, "p:1") == "running", "the source's child outlives the fork"
        assert await status(app, "q:3") == "cancelled", "its own does not"
    assert ledger.counts == {"between": 2, "first": 1, "second": 2}


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
        assert await row(app, "p:3")
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
