"""What a recovery policy may decide about a workflow whose executor died, and what becomes of it then."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest

from perdure import App, Router, Topic, current, recv, set_event
from perdure.errors import DefinitionError, StepFailed, WorkflowTerminated
from perdure.model.records import DecisionRow
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
from perdure.store.base import Filter
from perdure.testing import Harness, harness
from tests.runtime.support import Ledger, crash, history, in_memory, status, until

word = Topic[str]("word")


class Shop:
    """A workflow of three steps that can be stopped inside the second, under a harness."""

    def __init__(self, app: App, ledger: Ledger) -> None:
        self.app = app
        self.ledger = ledger
        self.gate = asyncio.Event()
        self.inside = asyncio.Event()
        self.seen: list[dict[str, Any]] = []

        @app.step(name="reserve")
        async def reserve(sku: str) -> str:
            ledger.note("reserve")
            return f"r-{sku}"

        @app.step(name="charge")
        async def charge(cents: int) -> int:
            ledger.note("charge")
            self.inside.set()
            await self.gate.wait()
            return cents

        @app.step(name="ship")
        async def ship() -> str:
            ledger.note(f"ship {current().parameters}")
            return "shipped"

        @app.step(name="undo")
        async def undo(what: str) -> None:
            ledger.note(f"undo {what}")

        @app.workflow(name="order", max_deaths=2)
        async def order(sku: str, cents: int) -> list[Any]:
            async with contextlib.AsyncExitStack() as undoing:
                self.seen.append(current().parameters)
                reserved = await reserve(sku)
                undoing.push_async_exit(undo_unless_done(undo, reserved))
                paid = await charge(cents)
                self.seen.append(current().parameters)
                return [reserved, paid, await ship()]

        self.order = order

    async def interrupt(self, h: Harness, id: str = "a", *, crashes: int = 1) -> None:
        """Start it, and crash while its second step is under way."""
        await self.order.options(id=id).start("sku", 5)
        for _ in range(crashes):
            await asyncio.wait_for(self.inside.wait(), 10)
            self.inside.clear()
            await h.crash()

    async def decisions(self, h: Harness, id: str = "a") -> list[DecisionRow]:
        return await h.store.decisions([id])


def undo_unless_done(undo: Any, what: str) -> Callable[..., Awaitable[bool | None]]:
    async def leave(kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool | None:
        if kind is not None:
            await undo(what)
        return None

    return leave


@pytest.fixture
def shop(app: App, ledger: Ledger) -> Shop:
    return Shop(app, ledger)


@pytest.fixture
async def h(shop: Shop, database: str, request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    async with harness(shop.app, database=database) as h:
        yield h


def evidence(row: DecisionRow) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(row.evidence)
    return found


def always(shop: Shop, decision: Decision, **more: Any) -> list[Incident]:
    """Declare a policy that answers so; what it is told."""
    told: list[Incident] = []

    @shop.app.recovery_policy(shop.order, **more)
    async def policy(incident: Incident) -> Decision:
        told.append(incident)
        return decision

    return told


# -- without a policy


async def test_without_a_policy_an_adoption_after_a_death_is_on_record(shop: Shop, h: Harness) -> None:
    await shop.interrupt(h)
    shop.gate.set()
    assert await shop.order.handle("a").result() == ["r-sku", 5, "shipped"]
    [row] = await shop.decisions(h)
    assert (row.cause, row.decision, row.policy, row.because, row.parameters) == ("crash", "resume", "", "", None)
    assert evidence(row)["attempt"] == 1
    assert evidence(row)["executor"] == row.executor != ""


async def test_past_the_limit_the_default_is_to_hold_and_that_is_what_the_record_says(shop: Shop, h: Harness) -> None:
    await shop.interrupt(h, crashes=3)
    await h.settle()
    info = await shop.order.handle("a").info()
    assert (info.status, info.reason) == ("held", "recovery_limit")
    [held] = [row for row in await shop.decisions(h) if row.decision == "hold"]
    assert (held.because, held.policy) == ("3 executors died while it was in flight (limit 2)", "")
    first = [row for row in await shop.decisions(h) if evidence(row).get("attempt") == 1]
    assert [row.decision for row in first] == ["resume"]


# -- what a policy is told


async def test_a_policy_is_told_what_happened(shop: Shop, h: Harness) -> None:
    told = always(shop, Resume())
    await shop.interrupt(h)
    shop.gate.set()
    await shop.order.handle("a").result()
    [incident] = told
    assert (incident.kind, incident.cause, incident.name, incident.id, incident.run) == (
        "workflow", "crash", "order", "a", 1,
    )  # fmt: skip
    assert incident.input == {"sku": "sku", "cents": 5}
    assert (incident.last_step, incident.attempt, incident.status) == ("reserve", 1, "running")
    assert [(step.path, step.name, step.attempt) for step in incident.in_flight] == [("2", "charge", 1)]
    steps = [(entry.name, entry.value) for entry in incident.history if entry.kind == "step"]
    assert steps == [("reserve", "r-sku")]
    assert incident.executor
    assert incident.default == Resume()
    with pytest.raises(AttributeError):
        incident.attempt = 3  # type: ignore[misc]


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
        [kid] = (await h.store.list(Filter(parent="p"))).rows
        [row] = await h.store.decisions([kid.id])
        assert "its parent p may wait for it" in row.because


async def test_compensate_raises_where_it_stood_and_undoes(shop: Shop, h: Harness) -> None:
    always(shop, Compensate(because="too late"))
    await shop.interrupt(h)
    with pytest.raises(StepFailed, match="Compensating: too late"):
        await shop.order.handle("a").result()
    assert shop.ledger == ["reserve", "charge", "undo r-sku"]
    assert await shop.order.handle("a").status() == "failed"


async def test_a_compensation_that_crashed_goes_on_and_is_not_begun_again(app: App, database: str, ledger: Ledger) -> None:
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


# -- who is asked


async def test_policies_are_asked_by_order_and_the_first_that_does_not_pass_decides(shop: Shop, h: Harness) -> None:
    asked: list[str] = []

    def policy(name: str, answer: Decision, **more: Any) -> None:
        def declared(incident: Incident) -> Decision:
            asked.append(name)
            return answer

        shop.app.recovery_policy(more.pop("target", None), **more)(declared)

    policy("late", Terminate(), order=200)
    policy("passes", Default(), order=1)
    policy("another workflow's", Delete(), target="other", order=1)
    policy("another cause", Delete(), on={"drained", "error"}, order=1)
    policy("decides", Hold(because="me"), order=50)
    await shop.interrupt(h)
    await h.settle()
    assert asked == ["passes", "decides"]
    assert (await shop.order.handle("a").info()).detail == "me"


async def test_the_class_form_is_asked_whether_it_is_needed_first(shop: Shop, h: Harness) -> None:
    asked: list[tuple[str, str, str]] = []

    class Restorer:
        wanted = False

        def needs(self, name: str, status: str) -> bool:
            asked.append((type(self).__name__, name, status))
            return self.wanted

        async def decide(self, incident: Incident) -> Decision:
            return Default()

    @shop.app.recovery_policy("order", order=1)
    class NotMe(Restorer): ...

    @shop.app.recovery_policy("order", order=2)
    class Me(Restorer):
        wanted = True

    always(shop, Terminate(), order=3)
    await shop.interrupt(h)
    shop.gate.set()
    assert await shop.order.handle("a").result() == ["r-sku", 5, "shipped"]
    assert asked == [("NotMe", "order", "running"), ("Me", "order", "running")]
    [row] = await shop.decisions(h)
    assert (row.decision, row.policy.endswith("Me")) == ("resume", True)


async def test_a_policy_is_asked_before_the_limit_holds_it(shop: Shop, h: Harness) -> None:
    told = always(shop, Resume(because="once more"))
    await shop.interrupt(h, crashes=3)
    shop.gate.set()
    assert await shop.order.handle("a").result() == ["r-sku", 5, "shipped"]
    assert [(i.attempt, type(i.default), i.status) for i in told] == [
        (1, Resume, "running"), (2, Resume, "running"), (3, Hold, "held"),
    ]  # fmt: skip


async def test_a_policy_of_a_router_is_asked_about_its_workflows_only(app: App, database: str) -> None:
    router = Router(prefix="billing.")

    def declare(home: Any, name: str) -> Any:
        @home.workflow(name=name)
        async def body() -> str:
            return str(await recv(word))

        return body

    inside, outside = declare(router, "run"), declare(app, "run")

    @router.recovery_policy()
    def policy(incident: Incident) -> Decision:
        return Hold(because="mine")

    app.include(router)
    async with harness(app, database=database) as h:
        await inside.options(id="in").start()
        await outside.options(id="out").start()
        await h.settle()
        await h.crash()
        await h.settle()
        assert await inside.handle("in").status() == "held"
        assert await outside.handle("out").status() != "held"


# -- policies that do not do as they should


def raises(incident: Incident) -> Decision:
    raise ValueError("no idea\0 at all")


async def hangs(incident: Incident) -> Decision:
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        if incident.id == "a":
            return Terminate()  # too late: nobody listens


async def exits(incident: Incident) -> Decision:
    raise SystemExit(3)


def nonsense(incident: Incident) -> Any:
    return "hold"


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        (raises, "raised ValueError: no idea"),
        (hangs, "did not answer within 0.05 s"),
        (exits, "raised SystemExit: 3"),
        (nonsense, "answered 'hold', which is no decision of perdure.recovery"),
    ],
)
async def test_a_policy_that_raises_hangs_or_answers_nonsense_gives_the_default(
    shop: Shop, h: Harness, policy: Any, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.runtime.executor.LIMIT_SECONDS", 0.05)
    shop.app.recovery_policy("order", order=1)(policy)
    later = always(shop, Terminate(), order=2)
    await shop.interrupt(h)
    shop.gate.set()
    assert await shop.order.handle("a").result() == ["r-sku", 5, "shipped"]
    [row] = await shop.decisions(h)
    assert row.decision == "resume"
    assert row.because.startswith(f"policy {policy.__name__} {why}")
    assert row.because.endswith("the default was applied")
    assert later == []  # a broken answer is an answer


async def test_a_blocking_policy_that_hangs_is_left_alone(
    shop: Shop, h: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.runtime.executor.LIMIT_SECONDS", 0.05)
    release = threading.Event()

    @shop.app.recovery_policy("order")
    def policy(incident: Incident) -> Decision:
        release.wait(30)
        return Terminate()

    await shop.interrupt(h)
    shop.gate.set()
    assert await shop.order.handle("a").result() == ["r-sku", 5, "shipped"]
    release.set()
    [row] = await shop.decisions(h)
    assert "did not answer within 0.05 s" in row.because


# -- declarations


@pytest.mark.parametrize(
    ("declare", "says"),
    [
        (lambda app: app.recovery_policy(on={"crashed"})(raises), "did you mean 'crash'"),
        (lambda app: app.recovery_policy(on="crash")(raises), "give a set"),
        (lambda app: app.recovery_policy(on=())(raises), "never asked"),
        (lambda app: app.recovery_policy(3)(raises), "give a workflow"),
        (lambda app: app.recovery_policy()(type("Half", (), {"needs": lambda *_: True})), "it needs needs"),
        (lambda app: app.recovery_policy()(3), "a function or a class"),
    ],
)
def test_what_can_never_be_asked_is_refused(app: App, declare: Callable[[App], Any], says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        declare(app)


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
