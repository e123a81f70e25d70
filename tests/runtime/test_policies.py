"""Which recovery policies are asked, what they are told, and what becomes of those that do not answer."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

import pytest

from perdure import App, Router, recv
from perdure.errors import DefinitionError
from perdure.recovery import (
    Decision,
    Default,
    Delete,
    Hold,
    Incident,
    Resume,
    RunFrom,
    Terminate,
)
from perdure.testing import Harness, harness
from tests.runtime.interrupted import Shop, always, evidence, word

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


def no_text(incident: Incident) -> Decision:
    return Hold(because=3)  # type: ignore[arg-type]


def no_mapping(incident: Incident) -> Decision:
    return Resume(set=["was_failed"])  # type: ignore[arg-type]


def no_version(incident: Incident) -> Decision:
    return RunFrom("reserve", version=9)  # type: ignore[arg-type]


def no_value(incident: Incident) -> Decision:
    return Resume(set={"lock": object()})


class NoNeed:
    def needs(self, name: str, status: str) -> bool:
        raise ValueError("no idea")

    def decide(self, incident: Incident) -> Decision:
        return Terminate()


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        (raises, "raised ValueError: no idea"),
        (hangs, "did not answer within 0.05 s"),
        (exits, "raised SystemExit: 3"),
        (nonsense, "answered 'hold', which is no decision of perdure.recovery"),
        (no_text, "answered Hold with because=3; give text"),
        (no_mapping, "answered Resume with set=['was_failed']; give a mapping"),
        (no_version, "answered RunFrom with version=9; give the name of a version"),
        (no_value, "set['lock']: a value of type object cannot be stored"),
        (NoNeed, "its needs() raised ValueError: no idea"),
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


async def test_a_launch_tells_of_a_policy_for_a_workflow_that_is_not_there(
    app: App, said: pytest.LogCaptureFixture
) -> None:
    app.recovery_policy("ordre")(raises)

    @app.workflow(name="order")
    async def order() -> None: ...

    async with app:
        assert "is for workflow 'ordre', which this app does not have (it has: order)" in said.text


async def test_a_default_that_holds_keeps_its_own_reason(shop: Shop, h: Harness) -> None:
    shop.app.recovery_policy("order")(
        lambda incident: Default(because="as it is") if incident.attempt > 2 else Resume()
    )
    await shop.interrupt(h, crashes=3)
    await h.settle()
    info = await shop.order.handle("a").info()
    assert (info.reason, info.detail) == ("recovery_limit", "3 executors died while it was in flight (limit 2)")
    assert ("hold", "as it is") in [(row.decision, row.because) for row in await shop.decisions(h)]
