"""Resume: what it does with a workflow of each status, and what it leaves alone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure import App, recv
from perdure.errors import (
    WorkflowCancelled,
    WorkflowClosed,
    WorkflowNotFound,
    WorkflowStranded,
    WorkflowTimedOut,
)
from perdure.model.ids import RunKey
from perdure.model.records import Incarnation, Kind, Record
from perdure.model.states import Reason, Status
from perdure.model.writes import Hold, Start, Unit
from perdure.operations import ask
from perdure.store.asks import ClaimRequest
from perdure.store.base import Store
from perdure.store.lines import LineRequest
from tests.runtime.moving import at_rest, go, hold, names, run_of, stage, store_of, trip
from tests.runtime.support import Ledger, history, in_memory, row, status, until

# -- resume


@pytest.mark.parametrize("reason", [Reason.POLICY, Reason.RECOVERY_LIMIT, Reason.NO_EXIT])
async def test_held_work_goes_on_from_its_last_step_in_the_same_run(app: App, ledger: Ledger, reason: Reason) -> None:
    workflow = trip(app, ledger)
    async with app:
        handle = await workflow.options(id="a", priority=3).start("ann")
        await until(lambda: len(ledger) == 2 and in_memory(app, "a"))
        await at_rest(app, "a")
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
        await store.register(Incarnation(id=owner, executor="o"), 60_000_000)
        await store.claim(ClaimRequest(owner=owner, token=b"1" * 16, version="", limit=1))
        for n in range(3):
            (claimed,) = await store.adopt(
                [owner], ClaimRequest(owner=owner, token=bytes([n]) * 16, version="", limit=1), suspects=n > 0
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


async def test_asked_for_twice_it_is_done_once(app: App) -> None:
    """Held work that was resumed is queued; a second resume must not take it out of its queue."""
    workflow = app.workflow(name="any")(_nothing)
    async with app.connect():
        store = store_of(app)
        for id, status in (("held", Status.HELD), ("queued", Status.QUEUED), ("cancelled", Status.CANCELLED)):
            start = Start(
                id=id, lineage=b"l" * 16, name="any", version="", input=b"[]", fingerprint=b"", nonce=id.encode(),
                queue="emails",
            )  # fmt: skip
            await store.commit([Unit(key=RunKey("", 0), children=[start])])
            if status is Status.HELD:
                await store.make_queues(["emails"])
                await store.claim_line(
                    LineRequest(queue="emails", owner=b"o" * 16, token=b"t" * 16, version="", limit=1)
                )
                await store.commit([Unit(key=RunKey(id, 1), claim=b"t" * 16, change=Hold(Reason.POLICY, ""))])
            elif status is Status.CANCELLED:
                await workflow.handle(id).cancel()
            assert await workflow.handle(id).resume() == "queued"
            once = (await row(app, id), await history(app, id))
            assert await workflow.handle(id).resume() == "queued"
            assert (await row(app, id), await history(app, id)) == once
            assert once[0].queue == (None if status is Status.QUEUED else "emails")


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
async def test_stranded_work_moves_if_somebody_has_checked_it_or_by_force(
    app: App, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ask, "PATIENCE_SECONDS", 0.1)
    workflow = app.workflow(name="any")(_nothing)
    async with app.connect():
        handle = await workflow.options(id="a").start()
        store, was = await stranded(app)
        if state == "held":
            await store.commit([Unit(key=was.key, claim=b"t" * 16, change=Hold(Reason.NO_CODE, "none"))])
        line = app._home.engine().line
        unanswered = r"version 'v1' and was not moved to 'v2': no live executor of version 'v2' answered"
        with pytest.raises(WorkflowStranded, match=unanswered):
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
