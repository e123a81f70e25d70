"""What each decision does to the workflow that it is about."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure import App, recv, set_event
from perdure.errors import StepFailed, WorkflowTerminated
from perdure.query.conditions import where
from perdure.recovery import (
    Compensate,
    Compensating,
    Decision,
    Default,
    Delete,
    Hold,
    Incident,
    MoveTo,
    Rerun,
    Resume,
    RunFrom,
    Skip,
    Terminate,
)
from perdure.testing import Harness, harness
from tests.runtime.interrupted import Shop, always, evidence, word
from tests.runtime.support import Ledger, crash, history, in_memory, status, until

# -- each decision


@pytest.mark.parametrize("decision", [Resume(because="why not"), Rerun(because="why not")])
async def test_resume_and_rerun_run_the_step_in_flight_again(shop: Shop, h: Harness, decision: Decision) -> None:
    always(shop, decision)
    await shop.interrupt(h)
    shop.gate.set()
    assert await shop.order.handle("a").result() == ["r-sku", 5, "shipped"]
    assert shop.ledger.counts == {"reserve": 1, "charge": 2, "ship {}": 1}
    [row] = await shop.decisions(h)
    assert (row.decision, row.because) == (decision.name, "why not")
    assert row.policy.endswith("policy")
    assert evidence(row)["in_flight"] == [["2", "charge", 1]]
    assert evidence(row)["last_step"] == "reserve"


async def test_what_a_decision_sets_is_seen_after_it_and_not_before_on_every_replay(shop: Shop, h: Harness) -> None:
    always(shop, Resume(set={"was_failed": True}))
    await shop.interrupt(h, crashes=2)
    shop.gate.set()
    assert await shop.order.handle("a").result() == ["r-sku", 5, "shipped"]
    assert shop.seen == [{}, {}, {}, {"was_failed": True}]  # three lives begin, one gets past the second step
    assert shop.ledger[-1] == "ship {'was_failed': True}"
    rows = await shop.decisions(h)
    assert [row.parameters for row in rows] == [b'{"was_failed":true}'] * 2


async def test_skip_records_an_outcome_for_the_step_in_flight(shop: Shop, h: Harness) -> None:
    always(shop, Skip(result=0, set={"free": True}))
    await shop.interrupt(h)
    assert await shop.order.handle("a").result() == ["r-sku", 0, "shipped"]
    assert shop.ledger == ["reserve", "charge", "ship {'free': True}"]


async def test_skip_with_a_value_of_another_type_is_the_default_and_says_so(shop: Shop, h: Harness) -> None:
    always(shop, Skip(result="five"))
    await shop.interrupt(h)
    shop.gate.set()
    assert await shop.order.handle("a").result() == ["r-sku", 5, "shipped"]
    [row] = await shop.decisions(h)
    assert row.decision == "resume"
    assert "answered skip for charge" in row.because
    assert row.because.endswith("the default was applied")


async def test_skip_is_the_default_where_nothing_is_in_flight(app: App, database: str, ledger: Ledger) -> None:
    @app.workflow(name="waits")
    async def waits() -> str:
        return str(await recv(word))

    @app.recovery_policy(waits)
    def policy(incident: Incident) -> Decision:
        return Skip(result=1)

    async with harness(app, database=database) as h:
        handle = await waits.options(id="a").start()
        await h.settle()
        await h.crash()
        await handle.send("on", word)
        assert await handle.result() == "on"
        [row] = await h.store.decisions(["a"])
        assert "not exactly one step is in flight: none" in row.because


async def test_hold_parks_with_the_reason_of_the_policy(shop: Shop, h: Harness) -> None:
    always(shop, Hold(because="poison"))
    await shop.interrupt(h)
    await h.settle()
    info = await shop.order.handle("a").info()
    assert (info.status, info.reason, info.detail) == ("held", "policy", "poison")
    assert shop.ledger == ["reserve", "charge"]
    assert [(row.decision, row.because) for row in await shop.decisions(h)] == [("hold", "poison")]


async def test_terminate_ends_at_once_without_cleanup(shop: Shop, h: Harness) -> None:
    always(shop, Terminate(because="enough"))
    await shop.interrupt(h)
    with pytest.raises(WorkflowTerminated):
        await shop.order.handle("a").result()
    assert shop.ledger == ["reserve", "charge"]
    assert [row.decision for row in await shop.decisions(h)] == ["terminate"]


async def test_delete_leaves_nothing_but_the_decision(shop: Shop, h: Harness) -> None:
    always(shop, Delete(because="a test order"))
    await shop.interrupt(h)
    await h.settle()
    assert await h.store.rows(["a"]) == {}
    key = (await h.store.decisions(["a"]))[0]
    assert (key.decision, key.because) == ("delete", "a test order")
    shop.gate.set()
    assert await shop.order.options(id="a")("other", 1) == ["r-other", 1, "shipped"]  # the id is free again


async def test_delete_of_a_child_is_refused_since_its_parent_waits(app: App, database: str, ledger: Ledger) -> None:
    gate, inside = asyncio.Event(), asyncio.Event()

    @app.step
    async def work() -> str:
        inside.set()
        await gate.wait()
        return "done"

    @app.workflow(name="child")
    async def child() -> str:
        return await work()

    @app.workflow(name="parent")
    async def parent() -> str:
        return await child()

    @app.recovery_policy("child")
    def policy(incident: Incident) -> Decision:
        return Delete()

    async with harness(app, database=database) as h:
        handle = await parent.options(id="p").start()
        await inside.wait()
        await h.crash()
        gate.set()
        assert await handle.result() == "done"
        [kid] = (await h.store.list(where(parent="p"))).rows
        [row] = await h.store.decisions([kid.id])
        assert "its parent p may wait for it" in row.because


async def test_compensate_raises_where_it_stood_and_undoes(shop: Shop, h: Harness) -> None:
    always(shop, Compensate(because="too late"))
    await shop.interrupt(h)
    with pytest.raises(StepFailed, match="Compensating: too late"):
        await shop.order.handle("a").result()
    assert shop.ledger == ["reserve", "charge", "undo r-sku"]
    assert await shop.order.handle("a").status() == "failed"


async def test_a_compensation_that_crashed_goes_on_and_is_not_begun_again(
    app: App, database: str, ledger: Ledger
) -> None:
    inside = asyncio.Event()
    hold = asyncio.Event()

    @app.step(name="act")
    async def act() -> None:
        ledger.note("act")
        inside.set()
        await hold.wait()

    @app.step(name="undo")
    async def undo(n: int) -> None:
        ledger.note(f"undo {n}")

    @app.workflow(name="saga")
    async def saga() -> str:
        try:
            await set_event("before", 1)
            await act()
        except Compensating as why:
            await undo(1)
            await undo(2)
            return f"undone: {why}"
        return "done"

    @app.recovery_policy(saga)
    def policy(incident: Incident) -> Decision:
        return Compensate(because="sorry")

    async with harness(app, database=database) as h:
        handle = await saga.options(id="a").start()
        await inside.wait()
        h.crash_after(undo)
        await h.crash()
        assert await handle.result() == "undone: sorry"
        assert ledger == ["act", "undo 1", "undo 2"]
        assert [row.decision for row in await h.store.decisions(["a"])] == ["compensate", "compensate"]


async def test_move_to_hands_it_to_the_executors_of_another_version(shop: Shop, h: Harness) -> None:
    always(shop, MoveTo("v9", because="fixed there"))
    await shop.interrupt(h)
    await h.settle()
    row = (await h.store.rows(["a"]))["a"]
    assert (row.status, row.version, row.owner, row.cause) == ("queued", "v9", None, "none")
    assert [(d.decision, evidence(d)["target"]) for d in await shop.decisions(h)] == [("move_to", "v9")]


# -- the next run


async def test_run_from_begins_the_next_run_with_what_came_before_the_step(shop: Shop, h: Harness) -> None:
    shop.app.recovery_policy(shop.order)(
        lambda incident: RunFrom("charge", set={"was_failed": True}, because="lost") if incident.run < 2 else Default()
    )
    await shop.interrupt(h)
    shop.gate.set()
    assert await shop.order.handle("a").result() == ["r-sku", 5, "shipped"]
    assert shop.ledger.counts == {"reserve": 1, "charge": 2, "ship {'was_failed': True}": 1}
    row = (await h.store.rows(["a"]))["a"]
    assert (row.run, row.status, row.attempts) == (2, "completed", 1)
    [decided] = await shop.decisions(h)
    assert (decided.run, decided.decision, evidence(decided)["target"]) == (1, "run_from", "charge")
    assert shop.seen[-1] == {"was_failed": True}


async def test_run_from_the_first_step_sees_what_was_set_from_the_beginning(shop: Shop, h: Harness) -> None:
    shop.app.recovery_policy(shop.order)(
        lambda incident: RunFrom("reserve", set={"again": incident.run}) if incident.run < 2 else Default()
    )
    await shop.interrupt(h)
    shop.gate.set()
    await shop.order.handle("a").result()
    await shop.order.handle("a").result()
    assert shop.seen == [{}, {"again": 1}, {"again": 1}]
    assert shop.ledger.counts["reserve"] == 2


async def test_run_from_a_step_that_is_not_there_is_the_default(shop: Shop, h: Harness) -> None:
    always(shop, RunFrom("nowhere"))
    await shop.interrupt(h)
    shop.gate.set()
    assert await shop.order.handle("a").result() == ["r-sku", 5, "shipped"]
    [row] = await shop.decisions(h)
    assert row.decision == "resume"
    assert "has no step 'nowhere'" in row.because


# -- other causes


async def test_an_error_may_be_held_back_and_the_code_mended(app: App, database: str, ledger: Ledger) -> None:
    told: list[Incident] = []

    @app.step(name="work")
    async def work() -> int:
        ledger.note("work")
        return len(ledger)

    @app.workflow(name="body")
    async def body() -> int:
        got = await work()
        if got < 2:
            raise ValueError("too little")
        return got

    @app.on_error(body)
    async def policy(incident: Incident) -> Decision:
        told.append(incident)
        return RunFrom(work, because="once more")

    async with harness(app, database=database) as h:
        handle = await body.options(id="a").start()
        assert await handle.result() == 2
        [incident] = told
        assert (incident.cause, incident.status, str(incident.error)) == ("error", "failed", "too little")
        assert isinstance(incident.default, Default)
        [row] = await h.store.decisions(["a"])
        assert (row.cause, row.decision, row.because, row.run) == ("error", "run_from", "once more", 1)
        assert evidence(row)["error"] == "ValueError: too little"


@pytest.mark.parametrize(
    ("answer", "status", "decision", "because"),
    [
        (Hold(because="look at it"), "held", "hold", "look at it"),
        (Terminate(because="no"), "terminated", "terminate", "no"),
        (Default(because="as it is"), "failed", "default", "as it is"),
        (Skip(result=1), "failed", "default", "answered skip, which cannot follow error"),
        (Resume(), "failed", "default", "answered resume, which cannot follow error"),
        (Default(), "failed", None, ""),
    ],
)
async def test_what_may_follow_an_error(
    app: App, database: str, answer: Decision, status: str, decision: str | None, because: str
) -> None:
    @app.workflow(name="body")
    async def body() -> None:
        raise ValueError("no")

    @app.on_error()
    def policy(incident: Incident) -> Decision:
        return answer

    async with harness(app, database=database) as h:
        await body.options(id="a").start()
        await h.settle()
        assert (await h.store.rows(["a"]))["a"].status == status
        found = [(row.decision, because in row.because) for row in await h.store.decisions(["a"])]
        assert found == ([] if decision is None else [(decision, True)])


async def test_work_that_was_drained_is_asked_about_where_it_goes_on(database: str, ledger: Ledger) -> None:
    told: list[Incident] = []

    def build() -> tuple[App, Any]:
        app = App("shop", database=database)

        @app.workflow(name="body")
        async def body() -> str:
            return str(await recv(word))

        @app.recovery_policy(body, on={"drained"})
        def policy(incident: Incident) -> Decision:
            told.append(incident)
            return Hold(because="not now")

        return app, body

    app, body = build()
    async with app:
        await body.options(id="a").start()
        await until(lambda: in_memory(app, "a"))
    app, body = build()
    async with app:
        await until(lambda: bool(told))
        await until(lambda: is_held(app))
        [row] = await app._home.engine().line.store.decisions(["a"])
    assert (told[0].cause, told[0].attempt, told[0].executor) == ("drained", 0, "")
    assert (row.cause, row.decision, row.because) == ("drained", "hold", "not now")


async def is_held(app: App) -> bool:
    return await status(app, "a") == "held"


async def test_what_does_not_fit_the_code_is_asked_about(database: str, ledger: Ledger) -> None:
    told: list[Incident] = []

    def build(name: str) -> tuple[App, Any]:
        app = App("shop", database=database)

        @app.step(name=name)
        async def first() -> str:
            ledger.note(name)
            return name

        @app.workflow(name="body")
        async def body() -> str:
            done = await first()
            return done + str(await recv(word))

        @app.recovery_policy(body, on={"version"})
        async def policy(incident: Incident) -> Decision:
            told.append(incident)
            return RunFrom("1", because="the step has another name") if incident.run == 1 else Default()

        return app, body

    app, body = build("old")
    await app.open()
    await body.options(id="a").start()
    await until(lambda: history(app, "a"))
    await crash(app)
    app, body = build("new")
    async with app:
        await body.handle("a").send("!", word)
        assert await body.handle("a").result(timeout=15) == "new!"
        rows = await app._home.engine().line.store.decisions(["a"])
    assert ledger == ["old", "new"]
    assert told[0].cause == "version"
    assert "history has step old" in str(told[0].error)
    assert (told[0].status, type(told[0].default)) == ("held", Hold)
    assert [(row.cause, row.decision) for row in rows] == [("version", "run_from")]


async def test_an_error_is_asked_about_while_another_step_is_still_being_stopped(app: App, database: str) -> None:
    begun = asyncio.Event()
    told: list[str] = []

    @app.step(name="slow")
    async def slow() -> None:
        begun.set()
        await asyncio.Event().wait()

    @app.step(name="fails")
    async def fails() -> None:
        await begun.wait()
        raise ValueError("no")

    @app.workflow(name="body")
    async def body() -> None:
        await asyncio.gather(slow(), fails())

    @app.on_error(body)
    async def policy(incident: Incident) -> Decision:
        told.append(str(incident.error))
        return Default()

    async with harness(app, database=database) as h:
        handle = await body.options(id="a").start()
        with h.waiting(), pytest.raises(ValueError, match="no"):
            await handle.result()
    assert told == ["no"]
