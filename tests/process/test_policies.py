"""Recovery policies of processes: the same objects as for workflows, asked about the persisted state."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import msgspec
import pytest

from perdure import App, current
from perdure.errors import Interrupted, WorkflowNotFound
from perdure.model.records import DecisionRow
from perdure.recovery import (
    Decision,
    Default,
    Delete,
    Hold,
    Incident,
    Rerun,
    Resume,
    RunFrom,
    SetStatus,
    Skip,
    Terminate,
)
from perdure.testing import Harness, harness
from tests.process.world import World, moves, names


async def of(h: Harness, id: str = "a") -> list[DecisionRow]:
    return [row for row in await h.store.decisions([id]) if row.policy or row.decision == "set_status"]


async def in_done(world: World, h: Harness, id: str = "a") -> Any:
    """Killed in Done's action: persisted is Booking, which has an automatic exit alone."""
    p = await world.start(h, id)
    await p.execute("submit")
    await world.killed_in(h, "Done", p.execute("approve"), id)
    return p


async def in_booking(world: World, h: Harness, id: str = "a") -> Any:
    """Killed in Booking's action: persisted is Review, which has commands."""
    p = await world.start(h, id)
    await p.execute("submit")
    await world.killed_in(h, "Booking", p.execute("approve"), id)
    return p


class Restorer:
    """The form of the seed: asked twice, so that what needs no thought costs none."""

    matched: ClassVar[list[tuple[str, str]]]
    decided: ClassVar[list[str]]
    wants: ClassVar[str]

    def needs(self, name: str, status: str) -> bool:
        self.matched.append((name, status))
        return status == self.wants

    def decide(self, incident: Incident) -> Decision:
        self.decided.append(incident.id)
        return Default()


def restorer(world: World, wanted: str, *, order: int = 100) -> type[Restorer]:
    class Own(Restorer):
        matched: ClassVar[list[tuple[str, str]]] = []
        decided: ClassVar[list[str]] = []
        wants = wanted

    world.app.recovery_policy(world.S, order=order)(Own)
    return Own


async def test_a_match_is_told_the_scheme_and_the_status_that_is_to_be(world: World, h: Harness) -> None:
    own = restorer(world, "Terminated")
    await in_booking(world, h, "one")
    assert (own.matched, own.decided) == ([("S", "Error")], [])
    await in_done(world, h, "two")
    assert (own.matched[1:], own.decided) == ([("S", "Terminated")], ["two"])
    assert await world.S.handle("two").status() == "Terminated"


async def test_of_two_that_match_the_lowest_order_decides_alone(world: World, h: Harness) -> None:
    later, first = restorer(world, "Terminated", order=20), restorer(world, "Terminated", order=10)
    await in_done(world, h)
    assert (first.decided, later.decided, later.matched) == (["a"], [], [])


async def test_delete(world: World, h: Harness) -> None:
    world.policy(Delete(because="no use"))
    other = await world.start(h, "other")
    before = await h.store.rows(["other"])
    await world.start(h)
    told = await world.killed_in(h, "Check", world.S.handle("a").execute("submit"))
    assert isinstance(told, (Interrupted, WorkflowNotFound))
    assert await h.store.rows(["a"]) == {}
    assert await h.store.rows(["other"]) == before
    assert world.counts["Check"] == 1
    assert await other.state() == "Draft"
    again = await world.start(h)
    assert await moves(again) == [">Draft start"]


async def test_run_again_from_the_current_state(world: World, h: Harness) -> None:
    world.policy(Rerun())
    p = await in_done(world, h)
    assert await p.status() == "Finalized"
    assert (world.counts["Booking"], world.counts["Done"]) == (2, 2)
    assert "Booking>Booking" not in await moves(p)


async def test_run_again_does_not_repeat_the_command(world: World, h: Harness) -> None:
    world.policy(Rerun())
    p = await in_booking(world, h)
    assert (await p.status(), await p.state()) == ("Idled", "Review")
    assert (world.counts["Review"], world.counts["Booking"]) == (2, 1)
    assert (await moves(p))[-1] == "=Review recovery"


async def test_run_from_a_new_state_with_parameters(world: World, h: Harness) -> None:
    world.policy(RunFrom(world.S.Draft, set={"was_failed": True}, because="executor lost"))
    p = await in_done(world, h)
    assert (await p.status(), await p.state()) == ("Idled", "Draft")
    assert world.seen[-1]["was_failed"] is True
    last = (await p.history())[-1]
    assert (last.source, last.target, last.trigger, last.because) == ("Booking", "Draft", "recovery", "executor lost")
    [row] = await of(h)
    assert (row.decision, row.cause, row.because) == ("run_from", "crash", "executor lost")
    assert msgspec.json.decode(row.parameters or b"null") == {"was_failed": True}
    await h.crash()
    assert (await p.parameters()).was_failed is True


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (RunFrom("Nowhere"), "no state 'Nowhere'"),
        (SetStatus("Error", set={"unknown": 1}), "no parameter"),
        (SetStatus("Error", set={"was_failed": "what?"}), "was_failed"),
        ("nonsense", "no decision"),
        (None, "no decision"),
    ],
)
async def test_what_cannot_be_done_is_the_default(world: World, h: Harness, said: Any, answer: Any, why: str) -> None:
    world.policy(lambda _incident: answer)
    p = await in_done(world, h)
    assert await p.status() == "Terminated"
    assert why in said.text
    [row] = await of(h)
    assert (row.decision, "the default was applied" in row.because) == ("set_status", True)


async def test_a_policy_that_raises_costs_the_others_nothing(world: World, h: Harness) -> None:
    def broken(incident: Incident) -> Decision:
        if incident.id == "b":
            raise RuntimeError("no idea")
        return RunFrom("Draft")

    world.policy(broken)
    handles = [await world.start(h, id) for id in "abc"]
    world.shut("Check")
    calls = [asyncio.ensure_future(p.execute("submit")) for p in handles]
    while len([line for line in world.ledger if line == "Check"]) < 3:  # noqa: ASYNC110  the steps write it
        await asyncio.sleep(0)
    await h.crash()
    world.open("Check")
    await h.settle()
    told = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(one, Interrupted) for one in told)
    assert [await p.status() for p in handles] == ["Idled", "Error", "Idled"]


async def test_a_policy_that_hangs_is_left_alone(world: World, h: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.runtime.executor.LIMIT_SECONDS", 0.05)

    @world.app.recovery_policy(world.S)
    async def hangs(incident: Incident) -> Decision:
        await asyncio.Event().wait()
        return Default()

    p = await in_done(world, h)
    assert await p.status() == "Terminated"
    [row] = await of(h)
    assert "did not answer within" in row.because


async def test_data_with_the_default_is_stored_with_the_status(world: World, h: Harness) -> None:
    world.policy(Default(set={"was_failed": True}))
    p = await in_done(world, h)
    assert (await p.status(), (await p.parameters()).was_failed) == ("Terminated", True)
    assert (await p.history())[-1].because.startswith("its executor died in actions of Done; no command")


async def test_the_history_says_why_a_policy_set_the_status(world: World, h: Harness) -> None:
    world.policy(SetStatus("Error", because="a person has to look"))
    p = await in_done(world, h)
    last = (await p.history())[-1]
    assert (last.trigger, last.status, last.because) == ("recovery", "Error", "a person has to look")


async def test_what_a_policy_is_told(world: World, h: Harness) -> None:
    told = world.policy(Default(because="seen"))
    await in_done(world, h)
    [incident] = told
    assert (incident.kind, incident.name, incident.id, incident.cause, incident.status) == (
        "process", "S", "a", "crash", "Terminated",
    )  # fmt: skip
    assert (incident.state, incident.previous, incident.entering, incident.command) == (
        "Booking", "Review", "Done", "",
    )  # fmt: skip
    assert dict(incident.parameters) == {"note": "DCRB", "was_failed": False, "lets": True}
    assert incident.version
    assert incident.executor
    assert (incident.attempt, incident.default) == (1, SetStatus("Terminated"))
    with pytest.raises(TypeError):
        incident.parameters["note"] = "mine"  # type: ignore[index]


@pytest.mark.parametrize(
    ("answer", "status", "state"),
    [
        (Resume(), "Finalized", "Done"),
        (Skip(), "Finalized", "Done"),
        (SetStatus("Idled"), "Idled", "Booking"),
        (SetStatus("Error"), "Error", "Booking"),
        (Hold(because="look"), "Terminated", "Booking"),
        (Terminate(), "Terminated", "Booking"),
    ],
)
async def test_the_other_decisions(world: World, h: Harness, answer: Decision, status: str, state: str) -> None:
    world.policy(answer)
    p = await in_done(world, h)
    assert (await p.status(), await p.state()) == (status, state)
    assert world.counts["Booking"] == 1
    info = await p.info()
    if isinstance(answer, Hold):
        assert (info.status, info.reason) == ("held", "policy")
    if isinstance(answer, Terminate):
        assert info.status == "terminated"
    if isinstance(answer, Skip):
        assert world.counts["Done"] == 1


async def test_a_poison_is_held_in_the_end(app: App, database: str) -> None:
    world = World(app, max_deaths=2)
    world.policy(Rerun())
    async with harness(app, database=database) as h:
        other = await world.start(h, "other")
        p = await world.start(h)
        await p.execute("submit")
        world.shut("Review")
        call = asyncio.ensure_future(p.set_state("Review"))
        for _ in range(3):
            await world.in_action("Review")
            world.inside["Review"].clear()
            await h.crash()
        await h.settle()
        info = await p.info()
        assert (info.status, info.reason) == ("held", "recovery_limit")
        assert isinstance((await asyncio.gather(call, return_exceptions=True))[0], Interrupted)
        world.open("Review")
        await other.execute("submit")
        assert await other.state() == "Review"


async def test_one_policy_for_a_workflow_and_a_process(app: App, database: str) -> None:
    """The same object, with the same marks on both: asked once a claim, the attempt counted, what it set kept."""
    world = World(app)
    inside, told = asyncio.Event(), list[Incident]()

    @app.step(name="charge")
    async def charge() -> int:
        if not inside.is_set():
            inside.set()
            await asyncio.Event().wait()
        return 1

    @app.workflow(name="pay")
    async def pay() -> dict[str, Any]:
        await charge()
        return current().parameters

    @app.recovery_policy()
    class Both:
        def needs(self, name: str, status: str) -> bool:
            return name in ("S", "pay")

        def decide(self, incident: Incident) -> Decision:
            told.append(incident)
            target = "charge" if incident.kind == "workflow" else "Draft"
            return RunFrom(target, set={"was_failed": True}, because="lost")

    async with harness(app, database=database) as h:
        p = await world.start(h)
        paying = await pay.options(id="w").start()
        world.shut("Check")
        call = asyncio.ensure_future(p.execute("submit"))
        await world.in_action("Check")
        await asyncio.wait_for(inside.wait(), 10)
        await h.crash()
        world.open("Check")
        assert await paying.result() == {"was_failed": True}
        await h.settle()
        assert isinstance((await asyncio.gather(call, return_exceptions=True))[0], Interrupted)
        assert (await p.state(), (await p.parameters()).was_failed) == ("Draft", True)
        assert sorted((i.kind, i.id, i.attempt, i.cause) for i in told) == [
            ("process", "a", 1, "crash"), ("workflow", "w", 1, "crash"),
        ]  # fmt: skip
        rows = [row for id in ("a", "w") for row in await of(h, id)]
        assert [(row.decision, row.policy.split(".")[-1], row.because) for row in rows] == [
            ("run_from", "Both", "lost")
        ] * 2
        assert [msgspec.json.decode(row.parameters or b"0") for row in rows] == [{"was_failed": True}] * 2
        assert all(msgspec.json.decode(row.evidence)["executor"] for row in rows)


# -- errors


async def test_an_error_is_no_crash(world: World, h: Harness) -> None:
    told = world.policy(Rerun())
    p = await world.start(h)
    world.fails["Check"] = [ValueError("no")]
    with pytest.raises(ValueError, match="no"):
        await p.execute("submit")
    assert (told, await p.status()) == ([], "Error")


async def test_a_policy_for_errors_is_told_and_may_suppress(world: World, h: Harness) -> None:
    told = world.policy(Skip(because="never mind"), on={"error"})
    p = await world.start(h)
    world.fails["Check"] = [ValueError("no")]
    await p.execute("submit")
    assert (await p.status(), await p.state()) == ("Idled", "Review")
    [incident] = told
    assert (incident.cause, incident.state, incident.entering, incident.command, str(incident.error)) == (
        "error", "Draft", "Check", "submit", "no",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "status", "state"),
    [(SetStatus("Terminated"), "Terminated", "Draft"), (RunFrom("Review"), "Idled", "Review")],
)
async def test_a_policy_for_errors_may_set_the_status_or_go_elsewhere(
    world: World, h: Harness, answer: Decision, status: str, state: str
) -> None:
    world.policy(answer, on={"error"})
    p = await world.start(h)
    world.fails["Check"] = [ValueError("no")]
    await p.execute("submit")
    assert (await p.status(), await p.state()) == (status, state)


async def test_again_so_many_times_then_the_next_policy(world: World, h: Harness) -> None:
    world.policy(lambda i: Rerun() if i.attempt <= 3 else Default(), on={"error"}, order=1)
    last = world.policy(RunFrom("Draft"), on={"error"}, order=2)
    p = await world.start(h)
    world.fails["Check"] = [ValueError(str(n)) for n in range(10)]
    await p.execute("submit")
    assert world.counts["Check"] == 4
    assert [str(incident.error) for incident in last] == ["3"]
    assert await p.state() == "Draft"


async def test_a_crash_asks_no_policy_for_errors(world: World, h: Harness) -> None:
    told = world.policy(Skip(), on={"error"})
    p = await in_done(world, h)
    assert (told, await p.status()) == ([], "Terminated")


async def test_killed_while_it_decides_it_is_decided_once_for_each_claim(world: World, h: Harness) -> None:
    asked = asyncio.Event()
    calls = 0

    @world.app.recovery_policy(world.S)
    async def slow(incident: Incident) -> Decision:
        nonlocal calls
        calls += 1
        asked.set()
        if calls == 1:
            await asyncio.Event().wait()
        return RunFrom("Draft", because=f"try {calls}")

    p = await world.start(h)
    world.shut("Check")
    call = asyncio.ensure_future(p.execute("submit"))
    await world.in_action("Check")
    crashed = asyncio.ensure_future(h.crash())
    await asyncio.wait_for(asked.wait(), 10)
    await crashed
    await h.crash()
    world.open("Check")
    await h.settle()
    await asyncio.gather(call, return_exceptions=True)
    assert (await p.state(), calls) == ("Draft", 2)
    assert [row.because for row in await of(h)] == ["try 2"]
    assert await names(p) == ["submit"]
