"""Schedules at work: fired on a clock of the test's own, declared, changed, missed, overlapping, by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

import perdure.sync
from perdure import App, Codec, Event, FiringInfo, Router, ScheduleHandle, Topic, recv, set_event
from perdure.errors import DefinitionError, NotDurable, ScheduleConflict, ScheduleNotFound
from perdure.model.schedules import Reschedule, Schedule, Spec
from perdure.query.conditions import where
from perdure.testing import Harness, harness
from perdure.testing.clock import START
from tests.runtime.support import Ledger, executor, row, until

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
go = Topic[str]("go")


class Plan:
    """An app with schedules; what ran is in the ledger."""

    def __init__(self, app: App, ledger: Ledger) -> None:
        self.app = app

        @app.step
        async def note(what: str) -> None:
            ledger.note(what)

        @app.schedule("0 2 * * *", tz="Europe/Berlin")
        @app.workflow(name="nightly")
        async def nightly(due: datetime) -> str:
            await note(due.isoformat())
            return f"{due.tzinfo} {due:%H:%M}"

        @app.schedule(every=HOUR, overlap="skip")
        @app.workflow(name="hourly")
        async def hourly() -> str | None:
            await note("hourly")
            return await recv(go, timeout=90 * 60)

        self.note, self.nightly, self.hourly = note, nightly, hourly


@pytest.fixture
def plan(app: App, ledger: Ledger) -> Plan:
    return Plan(app, ledger)


@pytest.fixture
async def h(plan: Plan, database: str) -> AsyncIterator[Harness]:
    async with harness(plan.app, database=database) as h:
        yield h


def schedule(plan: Plan, name: str) -> ScheduleHandle:
    return plan.app.client.schedule(name)


def short(firings: list[FiringInfo]) -> list[str]:
    """Oldest first: hours from the start, what became of it, why."""
    told: list[str] = []
    for one in firings[::-1]:
        span = "" if one.until == one.at else f"..{(one.until - START) / HOUR:g}"
        told.append(f"{(one.at - START) / HOUR:g}{span} {one.state} {one.reason}".strip())
    return told


async def names(h: Harness) -> list[str]:
    return sorted(row.id for row in (await h.store.list(where(), limit=1000)).rows)


# -- firing


async def test_fires_at_its_times_with_the_nominal_time(h: Harness, plan: Plan, ledger: Ledger) -> None:
    await schedule(plan, "hourly").pause()
    await h.advance(3 * DAY)
    assert ledger == [f"2030-01-0{day}T02:00:00+01:00" for day in (1, 2, 3)]
    assert await names(h) == [f"nightly@2030-01-0{day}T01:00:00Z" for day in (1, 2, 3)]
    first = plan.nightly.handle("nightly@2030-01-01T01:00:00Z")
    assert await first.result() == "Europe/Berlin 02:00"
    seen = await schedule(plan, "nightly").info()
    assert seen.next == datetime(2030, 1, 4, 1, tzinfo=UTC)
    assert (seen.last, seen.declared, seen.changed_live) == ("nightly@2030-01-03T01:00:00Z", True, ())


async def test_no_overlap_skips_and_says_what_was_open(h: Harness, plan: Plan) -> None:
    await h.advance(4 * HOUR)
    firings = await schedule(plan, "hourly").firings()
    assert short(firings) == ["1 started", "2 skipped overlap", "3 started", "4 skipped overlap"]
    assert firings[0].detail == "hourly@2030-01-01T03:00:00Z was still open"


async def test_one_that_is_reset_is_accounted_for_and_open_again(h: Harness, plan: Plan) -> None:
    await h.advance(HOUR)
    first = plan.hourly.handle("hourly@2030-01-01T01:00:00Z")
    await first.send("on", go)
    assert await first.result() == "on"
    await first.reset("first", exclude="messages")
    await h.advance(HOUR)
    firings = await schedule(plan, "hourly").firings()
    assert short(firings) == ["1 started", "2 skipped overlap"]
    assert firings[0].detail == "hourly@2030-01-01T01:00:00Z was still open"


async def test_a_queue_starts_each_when_the_one_before_has_ended(h: Harness, plan: Plan, ledger: Ledger) -> None:
    hourly = schedule(plan, "hourly")
    await hourly.set(overlap="queue")
    await h.advance(3 * HOUR)
    assert short(await hourly.firings()) == ["1 started", "2 started", "3 waiting"]
    assert (await hourly.info()).waiting == 1
    await plan.hourly.handle("hourly@2030-01-01T02:00:00Z").send("on", go)
    await h.settle()
    assert short(await hourly.firings()) == ["1 started", "2 started", "3 started"]
    assert ledger.count("hourly") == 3


async def test_allow_starts_all_the_same(h: Harness, plan: Plan, ledger: Ledger) -> None:
    await schedule(plan, "hourly").set(overlap="allow")
    await h.advance(4 * HOUR)
    assert ledger.count("hourly") == 4


# -- missed: nobody is there


async def away(h: Harness, by: timedelta) -> None:
    """Time passes with nobody at work, as in an outage; then the executor looks again."""
    worker: Any = h._work.engine.executor
    worker.alive = False
    h.clock.advance(by // timedelta(microseconds=1))
    await h.settle()
    worker.alive = True
    worker.look()
    await h.settle()


@pytest.mark.parametrize(
    ("missed", "told"),
    [
        ("skip", ["1 skipped missed", "2 skipped missed", "3 skipped missed"]),
        ("once", ["1 skipped missed", "2 skipped missed", "3 started"]),
        ("all", ["1 started", "2 started", "3 started"]),
    ],
)
async def test_missed(h: Harness, plan: Plan, missed: Any, told: list[str]) -> None:
    hourly = schedule(plan, "hourly")
    await hourly.set(missed=missed, overlap="allow")
    await away(h, 3.5 * HOUR)
    assert short(await hourly.firings()) == told
    await h.advance(HOUR / 2)
    assert short(await hourly.firings()) == [*told, "4 started"]


async def test_a_long_outage_is_caught_up_in_batches_within_the_bound(h: Harness, plan: Plan) -> None:
    hourly = schedule(plan, "hourly")
    await hourly.set(missed="all", overlap="allow", catch_up=250)
    await away(h, timedelta(hours=400, minutes=1))
    firings = await hourly.firings(limit=1000)
    assert short(firings)[0] == "1..150 skipped catch_up"
    assert [one.state for one in firings[:-1]] == ["started"] * 250
    assert len([id for id in await names(h) if id.startswith("hourly@")]) == 250


# -- declared and live


async def relaunch(app: App, database: str, clock: Any = None) -> App:
    """The same app by name, with other code."""
    return App(app.name, database=database)


async def test_a_live_change_wins_over_the_next_deploy_until_reset(app: App, database: str, ledger: Ledger) -> None:
    Plan(app, ledger)
    async with app:
        await app.client.schedule("hourly").set(every=7200, missed="all")
        await app.client.schedule("nightly").pause(because="audit")
    later = App(app.name, database=database)

    @later.schedule(every=timedelta(minutes=30), overlap="queue")
    @later.workflow(name="hourly")
    async def hourly() -> None: ...

    @later.schedule("0 3 * * *")
    @later.workflow(name="nightly")
    async def nightly() -> None: ...

    async with later:
        seen = await later.client.schedule("hourly").info()
        assert (seen.every, seen.missed, seen.overlap) == (timedelta(hours=2), "all", "queue")
        assert seen.changed_live == ("cron", "every", "missed", "tz")
        nightly_seen = await later.client.schedule("nightly").info()
        assert (nightly_seen.paused, nightly_seen.cron, nightly_seen.next) == ("audit", "0 3 * * *", None)
        reset = await later.client.schedule("hourly").reset()
        assert (reset.every, reset.missed, reset.changed_live) == (timedelta(minutes=30), "once", ())
        assert (await later.client.schedule("nightly").reset()).paused is None


async def test_gone_from_the_code_is_paused_and_says_why(app: App, database: str, ledger: Ledger) -> None:
    Plan(app, ledger)
    async with app:
        pass
    later = App(app.name, database=database)

    @later.workflow(name="other")
    async def other() -> None: ...

    async with later:
        gone = await later.client.schedule("nightly").info()
        assert gone.paused is not None
        assert "of the code does not declare it" in gone.paused
        with pytest.raises(ScheduleConflict, match="does not declare it"):
            await later.client.schedule("nightly").resume()
        await later.client.schedule("hourly").delete()
        assert [one.name for one in await later.client.schedules()] == ["nightly"]
    back = App(app.name, database=database)
    Plan(back, ledger)
    async with back:  # an older version again, and current: nobody of the other lives
        assert [(one.name, one.paused) for one in await back.client.schedules()] == [
            ("hourly", None),
            ("nightly", None),
        ]


async def test_a_launch_that_is_not_current_declares_nothing(app: App, database: str, ledger: Ledger) -> None:
    Plan(app, ledger)
    async with app:
        canary = App(app.name, database=database, rollout="manual", executor_id="canary")

        @canary.schedule("* * * * *", name="new")
        @canary.workflow(name="hourly")
        async def hourly() -> None: ...

        async with canary:
            assert {one.name: one.paused for one in await app.client.schedules()} == {"hourly": None, "nightly": None}
            await app.client.deployment.set_current_version(executor(canary).version, allow_missing_workflows=True)
            await executor(canary)._round()
            paused = {one.name: one.paused is not None for one in await app.client.schedules()}
            assert paused == {"hourly": True, "nightly": True, "new": False}


async def test_what_was_made_at_run_time_keeps_its_changes_when_it_is_declared(app: App, database: str) -> None:
    @app.workflow
    async def report() -> None: ...

    async with app:
        await app.client.create_schedule("report", report, "0 5 * * *", missed="all")
    later = App(app.name, database=database)

    @later.schedule("0 6 * * *", name="report")
    @later.workflow(name=report.name)
    async def report2() -> None: ...

    async with later:
        seen = await later.client.schedule("report").info()
        assert (seen.declared, seen.cron, seen.changed_live) == (True, "0 5 * * *", ("cron", "missed"))


# -- by hand


async def test_pause_and_resume(h: Harness, plan: Plan) -> None:
    hourly = schedule(plan, "hourly")
    await h.advance(HOUR)
    assert (await hourly.pause(because="stocktaking")).paused == "stocktaking"
    await h.advance(5 * HOUR)
    assert (await hourly.resume()).next == START + 7 * HOUR
    await h.advance(HOUR)
    firings = await hourly.firings()
    assert short(firings) == ["1 started", "2..6 skipped paused", "7 started"]
    assert firings[1].detail == "stocktaking"


async def test_trigger(h: Harness, plan: Plan, ledger: Ledger) -> None:
    hourly = schedule(plan, "hourly")
    id = await hourly.trigger()
    assert id == "hourly@2030-01-01T00:00:00Z"
    h.clock.advance(1)
    with pytest.raises(ScheduleConflict, match="does not overlap, and hourly@2030-01-01T00:00:00Z is still open"):
        await hourly.trigger()
    await h.advance(HOUR)
    assert short(await hourly.firings()) == ["0 started", "1 skipped overlap"]
    await schedule(plan, "nightly").pause()
    night = await schedule(plan, "nightly").trigger()
    await h.settle()
    assert ledger == ["hourly", "2030-01-01T02:00:00+01:00", "2030-01-01T02:00:00.000001+01:00"]
    assert night == "nightly@2030-01-01T01:00:00.000001Z"


async def test_backfill(h: Harness, plan: Plan) -> None:
    hourly = schedule(plan, "hourly")
    await hourly.set(overlap="allow", missed="skip")
    await away(h, 3.5 * HOUR)
    ids = await hourly.backfill(START - 2 * HOUR, START + 2 * HOUR)
    assert ids == [
        "hourly@2029-12-31T22:00:00Z", "hourly@2029-12-31T23:00:00Z", "hourly@2030-01-01T00:00:00Z",
        "hourly@2030-01-01T01:00:00Z", "hourly@2030-01-01T02:00:00Z",
    ]  # fmt: skip
    assert await hourly.backfill(START - 2 * HOUR, START + 2 * HOUR) == []
    assert short(await hourly.firings())[-3:] == ["1 started", "2 started", "3 skipped missed"]
    assert await hourly.backfill(START + 3 * HOUR, START + 30 * HOUR) == ["hourly@2030-01-01T03:00:00Z"]


async def test_backfill_one_after_the_other_where_none_may_overlap(h: Harness, plan: Plan, ledger: Ledger) -> None:
    hourly = schedule(plan, "hourly")
    await hourly.backfill(START - 3 * HOUR, START)
    await h.settle()
    assert short(await hourly.firings()) == ["-3 started", "-2 waiting", "-1 waiting", "0 waiting"]
    for at in (21, 22, 23):
        await plan.hourly.handle(f"hourly@2029-12-31T{at}:00:00Z").send("on", go)
        await h.settle()
    assert short(await hourly.firings()) == ["-3 started", "-2 started", "-1 started", "0 started"]
    assert ledger.count("hourly") == 4


async def test_create_change_delete(h: Harness, plan: Plan, ledger: Ledger) -> None:
    client = plan.app.client
    made = await client.create_schedule("more", plan.nightly, every=1800, missed="all", catch_up=timedelta(days=2))
    again = await client.create_schedule("more", "nightly", every=1800, missed="all", catch_up=timedelta(days=2))
    assert repr(again) == repr(made) == "<schedule more>"
    with pytest.raises(ScheduleConflict, match=r"there is a schedule 'more' already \(every 1800 s, for nightly\)"):
        await client.create_schedule("more", "nightly", "0 4 * * *")
    await h.advance(1800)
    assert ledger == ["2030-01-01T00:30:00+00:00"]
    changed = await made.set(cron="0 0 2 * * *", tz="America/New_York")
    assert (changed.every, changed.cron, changed.tz) == (None, "0 0 2 * * *", "America/New_York")
    assert (changed.next, changed.catch_up) == (datetime(2030, 1, 1, 7, tzinfo=UTC), timedelta(days=2))
    await made.delete()
    with pytest.raises(ScheduleNotFound, match="has no schedule 'more'; it has: hourly, nightly"):
        await made.info()
    with pytest.raises(ScheduleConflict, match="is declared by the code"):
        await schedule(plan, "hourly").delete()
    with pytest.raises(ScheduleConflict, match="nothing that the code declares"):
        await (await client.create_schedule("x", "nightly", every=60)).reset()


async def test_other_times_leave_out_what_was_due_and_say_so(h: Harness, plan: Plan) -> None:
    hourly = schedule(plan, "hourly")
    worker: Any = h._work.engine.executor
    worker.alive = False
    h.clock.advance(2 * 3_600_000_000)
    await hourly.set(every=7200)
    worker.alive = True
    await h.settle()
    assert short(await hourly.firings()) == ["1..2 skipped changed"]
    assert (await hourly.info()).next == START + 4 * HOUR


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda s: s.set(nme="x"), "there is no 'nme' of a schedule to change"),
        (lambda s: s.set(cron="0 2 * *"), "has 4 fields"),
        (lambda s: s.set(cron="0 2 * * *", every=60), "were both given"),
        (lambda s: s.set(catch_up="much"), "catch_up='much' cannot be"),
        (lambda s: s.set(every=0.1), "is too often"),
        (lambda s: s.backfill(datetime(2029, 1, 1), datetime(2029, 1, 2)), "is no aware datetime"),
        (lambda s: s.backfill(START, START - HOUR), "give a span of the past"),
        (lambda s: s.backfill(START + HOUR, START + 2 * HOUR), "give a span of the past"),
        (lambda s: s.backfill(START - 600 * DAY, START), "has more than 10,000 times"),
    ],
)
async def test_what_cannot_be_changes_nothing(h: Harness, plan: Plan, call: Any, says: str) -> None:
    before = await schedule(plan, "hourly").info()
    with pytest.raises(DefinitionError) as raised:
        await call(schedule(plan, "hourly"))
    assert says in str(raised.value)
    assert await schedule(plan, "hourly").info() == before
    assert await schedule(plan, "hourly").firings() == []


async def test_a_body_may_not_touch_schedules(h: Harness, plan: Plan) -> None:
    @plan.app.workflow
    async def meddler() -> None:
        await schedule(plan, "hourly").pause()

    with pytest.raises(NotDurable, match="schedule 'hourly' was called in a workflow's body"):
        await h.run(meddler)


async def test_an_id_that_is_taken_by_another_workflow_is_skipped(h: Harness, plan: Plan) -> None:
    await plan.nightly.options(id="hourly@2030-01-01T01:00:00Z").start(START)
    await h.advance(2 * HOUR)
    firings = await schedule(plan, "hourly").firings()
    assert short(firings) == ["1 skipped id_taken", "2 started"]
    assert "is nightly, started by somebody else" in firings[1].detail


# -- declaring


def test_declarations_that_cannot_be(app: App) -> None:
    @app.workflow
    async def two(a: int, b: int) -> None: ...

    @app.workflow
    async def wrong(days: int) -> None: ...

    @app.workflow
    async def fine(days: int = 7) -> None: ...

    for workflow in (two, wrong):
        with pytest.raises(DefinitionError, match="cannot be scheduled: it takes nothing, or the nominal time"):
            app.schedule("0 2 * * *")(workflow)  # type: ignore[type-var]
    with pytest.raises(DefinitionError, match="stands above a workflow"):
        app.schedule("0 2 * * *")(print)  # type: ignore[type-var]
    with pytest.raises(DefinitionError, match="is no cron expression"):
        app.schedule(timedelta(minutes=5))(fine)  # type: ignore[arg-type]
    app.schedule("0 2 * * *")(fine)
    assert app._registry.schedules[fine.name].spec.takes_due is False
    with pytest.raises(DefinitionError, match="two schedules are named"):
        app.schedule("0 3 * * *")(fine)


def test_a_router_gives_its_prefix(app: App) -> None:
    router = Router(prefix="billing.")

    @router.schedule("0 2 * * *", name="late")
    @router.schedule(every=30)
    @router.workflow(name="poll")
    async def poll(due: datetime) -> None: ...

    app.include(router)
    specs = {name: one.spec for name, one in app._registry.schedules.items()}
    assert sorted(specs) == ["billing.late", "billing.poll"]
    assert all(spec.takes_due and spec.workflow == "billing.poll" for spec in specs.values())


# -- on real time


def test_the_sync_face(sync_app: perdure.sync.App) -> None:
    ran: list[datetime] = []

    @sync_app.schedule(every=1)
    @sync_app.workflow(name="tick")
    def tick(due: datetime) -> None:
        ran.append(due)

    with sync_app:
        handle = sync_app.client.schedule("tick")
        id = handle.trigger()
        sync_app.client.handle(id).result(timeout=20)
        first = handle.firings()[-1]
        assert first.workflow == id
        assert ran[0].tzinfo is not None
        assert handle.pause().paused == "paused by hand"
        assert [one.name for one in sync_app.client.schedules()] == ["tick"]


async def test_executors_share_the_firings(app: App, database: str, ledger: Ledger) -> None:
    """Three of them, a schedule of seconds: each time fires once, whoever wins."""
    apps = [app, *(App(app.name, database=database, executor_id=f"e{n}") for n in range(2))]
    for one in apps:

        @one.schedule(every=1, missed="all")
        @one.workflow(name="tick")
        async def tick(due: datetime) -> None:
            ledger.note(due)

    async with apps[0], apps[1], apps[2]:
        await until(lambda: len(ledger) >= 4)
        await app.client.schedule("tick").pause()
        firings = await app.client.schedule("tick").firings()
        await until(lambda: len(ledger) == len(firings))
    assert len(set(ledger)) == len(ledger)
    times = sorted(one.at for one in firings)
    assert {b - a for a, b in pairwise(times)} == {timedelta(seconds=1)}


async def test_values_are_coded_where_a_codec_is_set(app: App, database: str) -> None:
    codec = Codec(encode=lambda data: data[::-1], decode=lambda data: data[::-1])
    coded = App("coded", database=database, codec=codec)
    ran = Event[str]("ran")

    @coded.schedule(every=3600)
    @coded.workflow(name="tick")
    async def tick(due: datetime) -> str:
        await set_event(ran, due.isoformat())
        return due.isoformat()

    async with coded:
        id = await coded.client.schedule("tick").trigger()
        assert (await coded.client.handle(id).result()).endswith("+00:00")


async def test_idle_schedules_ask_nothing(app: App, ledger: Ledger) -> None:
    """Twenty of them: beside the one poll there is no query until one is due."""
    for n in range(20):

        @app.schedule("0 0 1 1 *", name=f"s{n}")
        @app.workflow(name=f"w{n}")
        async def yearly() -> None: ...

    async with app:
        worker = executor(app)
        asked: list[str] = []
        store = worker.line.store
        real = store.schedules

        async def counted(*args: Any, **kwargs: Any) -> Any:
            asked.append("schedules")
            return await real(*args, **kwargs)

        store.schedules = counted
        looks = worker.looks
        await until(lambda: worker.looks > looks + 3)
        assert asked == []


async def test_one_that_cannot_be_computed_here_keeps_no_other_from_firing(
    h: Harness, plan: Plan, said: pytest.LogCaptureFixture
) -> None:
    """A zone that this machine does not know: said once, and left to executors that know it."""
    spec = Spec(workflow="nightly", cron="0 * * * *", tz="Mars/Olympus")
    strange = Schedule(name="a", spec=spec, next=h.clock.now() + 60_000_000, anchor=0)
    assert await h.store.change_schedule(Reschedule(name="a", before=0, after=strange))
    await h.advance(2 * HOUR)
    assert short(await schedule(plan, "hourly").firings()) == ["1 started", "2 skipped overlap"]
    errors = [one.message for one in said.records if one.levelname == "ERROR"]
    assert len(errors) == 1
    assert "schedule a cannot be fired by this executor: tz='Mars/Olympus' is no time zone" in errors[0]


async def test_a_firing_goes_where_routing_says(app: App, database: str, ledger: Ledger) -> None:
    """Under a manual rollout the start takes the current version, whoever fires it."""
    manual = App(app.name, database=database, rollout="manual")
    Plan(manual, ledger)
    async with manual:
        await manual.client.deployment.set_current_version("another", allow_no_executors=True)
        id = await manual.client.schedule("nightly").trigger()
        assert (await row(manual, id)).version == "another"


async def test_a_change_that_is_refused_because_another_was_quicker_is_tried_again(h: Harness, plan: Plan) -> None:
    hourly = schedule(plan, "hourly")
    await hourly.set(overlap="queue")
    await asyncio.gather(
        hourly.pause(because="x"), hourly.set(missed="all"), hourly.set(catch_up=7), hourly.trigger(),
        schedule(plan, "nightly").trigger(), hourly.backfill(START - HOUR, START - HOUR),
    )  # fmt: skip
    seen = await hourly.info()
    assert (seen.paused, seen.missed, seen.catch_up) == ("x", "all", 7)
    assert {one.state for one in await hourly.firings()} <= {"started", "waiting"}
    assert len(await hourly.firings()) == 2
