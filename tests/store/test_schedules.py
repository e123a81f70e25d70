"""Writes of schedules in both dialects: compared and set, whole, and recognised; what the poll says of them."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perdure.model.ids import RunKey, TokenMaker
from perdure.model.schedules import KEEP, Firing, Reschedule, Schedule, Spec, State, Which
from perdure.model.writes import Start, Unit
from perdure.operations import schedules
from perdure.schedules.judge import workflow_id
from perdure.store.base import Store
from perdure.store.sqlite import SQLiteStore
from tests.store.conftest import make_postgres

SPEC = Spec(workflow="w", every=10)
token = TokenMaker()


def row(**fields: Any) -> Schedule:
    return msgspec.structs.replace(Schedule(name="s", spec=SPEC, next=100, anchor=0, live={"every": 10}), **fields)


def start(id: str, name: str = "w") -> Start:
    return Start(id=id, lineage=token(), name=name, version="", input=b"[]", fingerprint=b"", nonce=token())


def fired(at: int, id: str | None = None, state: State = State.STARTED, until: int | None = None) -> Firing:
    return Firing(at=at, until=until or at, state=state, workflow=id, reason="" if id else "missed")


async def put(store: Store, after: Schedule | None, before: int = 0, **rest: Any) -> bool:
    return await store.change_schedule(Reschedule(name="s", before=before, after=after, **rest), now=100)


async def test_comes_back_as_it_was_written(store: Store) -> None:
    spec = Spec(
        workflow="w", cron="0 2 * * *", tz="Europe/Berlin", missed="all", overlap="queue", catch_up=None,
        catch_up_span=5, takes_due=True, queue="q",
    )  # fmt: skip
    full = row(spec=spec, declared=SPEC, live={"cron": "x", "every": None}, paused="p", gone="g", last="l", waiting=2)
    assert await put(store, full)
    assert await store.schedules() == [full]
    assert await store.schedules(["other"]) == []


async def test_only_the_revision_that_was_seen_is_changed(store: Store) -> None:
    assert await put(store, row())
    assert not await put(store, row(next=200)), "there is one by now"
    assert await put(store, row(next=200, revision=2), before=1)
    assert not await put(store, row(next=300, revision=2), before=1, firings=(fired(100, "a"),), starts=(start("a"),))
    assert not await put(store, None, before=1)
    assert [one.next for one in await store.schedules()] == [200]
    assert await store.firings(Which(schedule="s")) == []
    assert await store.rows(["a"]) == {}
    assert await put(store, None, before=2)
    assert await store.schedules() == []


async def test_one_made_anew_is_not_taken_for_the_one_that_was_deleted(store: Store) -> None:
    """An executor has seen one that is due; by the time it writes, another has its name."""
    hourly, daily = Spec(workflow="old", every=3_600_000_000), Spec(workflow="new", every=86_400_000_000)
    seen = await schedules.create(store, "s", hourly)
    await schedules.delete(store, "s")
    await schedules.create(store, "s", daily)
    assert seen.next is not None
    assert not await schedules.fire(store, seen, seen.next, schedules.Hand(token, lambda _: "v1"))
    assert (await schedules.one(store, "s")).spec == daily
    assert await store.rows([workflow_id("s", seen.next)]) == {}


async def test_of_many_at_once_one_wins(store: Store) -> None:
    assert await put(store, row())
    tries = [
        put(store, row(next=110, revision=2), before=1, firings=(fired(100, "a"),), starts=(start("a"),))
        for _ in range(8)
    ]
    assert sorted(await asyncio.gather(*tries)) == [False] * 7 + [True]
    assert (await store.poll(None, None, now=100)).claimable == 100


async def test_starts_travel_with_it_and_taken_ids_are_told_apart(store: Store) -> None:
    await store.commit([Unit(key=RunKey("", 0), children=[start("same"), start("foreign", "v")])], now=1)
    firings = (fired(100, "new"), fired(110, "same"), fired(120, "foreign"), fired(130, None, State.SKIPPED))
    starts = tuple(start(id) for id in ("new", "same", "foreign"))
    assert await put(store, row(), firings=firings, starts=starts)
    found = await store.firings(Which(schedule="s", oldest_first=True))
    assert [(one.state, one.workflow, one.reason) for one in found] == [
        (State.STARTED, "new", ""), (State.STARTED, "same", ""), (State.SKIPPED, None, "id_taken"),
        (State.SKIPPED, None, "missed"),
    ]  # fmt: skip
    assert set(await store.rows(["new", "same", "foreign"])) == {"new", "same", "foreign"}


async def test_what_was_started_stays_started(store: Store) -> None:
    assert await put(store, row(), firings=(fired(100, "a"), fired(110, None, State.SKIPPED)), starts=(start("a"),))
    later = (fired(100, None, State.SKIPPED), fired(110, "b"), fired(100, None, State.SKIPPED, until=110))
    assert await put(store, row(revision=2), before=1, firings=later, starts=(start("b"),))
    found = await store.firings(Which(schedule="s", oldest_first=True))
    assert [(one.at, one.until, one.state) for one in found] == [
        (100, 100, State.STARTED), (100, 110, State.SKIPPED), (110, 110, State.STARTED),
    ]  # fmt: skip
    which = Which(schedule="s", since=105, until=109)
    assert [(one.at, one.until) for one in await store.firings(which)] == [(100, 110)]
    assert [one.at for one in await store.firings(Which(schedule="s", state=State.STARTED, limit=1))] == [110]


async def test_the_poll_says_when_there_is_something_to_do(store: Store) -> None:
    async def says(now: int) -> int | None:
        return (await store.poll(None, None, now=now)).schedule

    assert await says(1) is None
    assert await put(store, row())
    assert [await says(1), await says(100), await says(150)] == [100, 100, 150]
    assert await put(store, row(paused="p", revision=2), before=1)
    assert await says(150) is None
    assert await put(store, row(gone="g", revision=3), before=2)
    assert await says(150) is None
    waits = row(next=None, waiting=1, last="a", revision=4)
    assert await put(store, waits, before=3, firings=(fired(90, "a"),), starts=(start("a"),))
    assert await says(150) is None, "the one before is open"
    assert [one.busy for one in await store.schedules(due=150)] == [True]
    await store.terminate("a", "", token(), now=160)
    assert await says(170) == 170
    assert [one.busy for one in await store.schedules(due=170)] == [False]
    assert [one.due(170) for one in await store.schedules()] == [True]


async def test_old_firings_are_forgotten_but_for_the_latest(store: Store) -> None:
    firings = tuple(fired(at, None, State.SKIPPED) for at in range(1, KEEP + 11))
    assert await put(store, row(), firings=(*firings, fired(0, "w", State.WAITING)))
    assert await put(store, row(revision=2), before=1, forget=5)
    found = [one.at for one in await store.firings(Which(schedule="s", limit=5000, oldest_first=True))]
    assert found[:2] == [0, 5], "what waits is kept, and what is not old"
    assert await put(store, row(revision=3), before=2, forget=10_000)
    found = [one.at for one in await store.firings(Which(schedule="s", limit=5000, oldest_first=True))]
    assert found == [0, *range(10, KEEP + 11)]


async def test_apps_do_not_see_each_other(make_store: Any) -> None:
    one, two = await make_store("one"), await make_store("two")
    assert await put(one, row(), firings=(fired(100, "a"),), starts=(start("a"),))
    assert (await two.poll(None, None, now=200)).schedule is None
    assert await two.schedules() == await two.firings(Which(schedule="s")) == []
    assert await put(two, row())
    assert await one.apps() == ["one", "two"]


@pytest.mark.postgres
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_both_dialects_say_the_same_of_the_same_writes(seed: int, postgres_url: str, tmp_path: Path) -> None:
    rng = random.Random(seed)
    stores = (SQLiteStore(tmp_path / "pair.db", "app"), make_postgres(postgres_url, "app"))
    for store in stores:
        await store.open()
        await store.migrate()
    try:
        now = 100
        for _ in range(120):
            now += rng.randrange(3)
            name = rng.choice(["s", "ß"])
            seen = next(iter(await stores[0].schedules([name])), None)
            order = random_order(rng, name, seen, now)
            assert len({await store.change_schedule(order, now=now) for store in stores}) == 1, order
            if rng.random() < 0.2:
                id, nonce = f"w{rng.randrange(40)}", token()
                for store in stores:
                    await store.terminate(id, "", nonce, now=now)
            due = rng.choice([None, now])
            which = Which(
                schedule=name, since=rng.choice([None, now - 50]), until=rng.choice([None, now]), limit=30,
                state=rng.choice([None, *State]), oldest_first=rng.random() < 0.5,
            )  # fmt: skip
            said = [
                (await s.schedules(due=due), await s.firings(which), (await s.poll(None, None, now=now)).schedule)
                for s in stores
            ]
            assert said[0] == said[1], order
        ids = [f"w{n}" for n in range(40)]
        assert len({str(sorted(row.name for row in (await s.rows(ids)).values())) for s in stores}) == 1
    finally:
        for store in stores:
            await store.close()


def random_order(rng: random.Random, name: str, seen: Schedule | None, now: int) -> Reschedule:
    """Of the revision that is there, mostly; with firings old and new, and starts of ids that may be taken."""
    before = 0 if seen is None else seen.revision
    if rng.random() < 0.15:
        before = rng.choice([0, before + 1])
    if rng.random() < 0.05:
        return Reschedule(name=name, before=before, after=None)
    firings: list[Firing] = []
    starts: list[Start] = []
    for at in rng.sample(range(60, 140), rng.randrange(4)):
        state = rng.choice(list(State))
        id = None if state is State.SKIPPED else f"w{rng.randrange(40)}"
        if id is not None and id not in {one.id for one in starts} and state is State.STARTED:
            starts.append(start(id, rng.choice("wv")))
        firings.append(fired(at, id, state, until=at + rng.choice([0, 0, 5]) if id is None else at))
    after = row(
        name=name, next=rng.choice([None, now - 5, now, now + 5]), revision=before + 1, waiting=rng.randrange(2),
        last=rng.choice([None, f"w{rng.randrange(40)}"]), paused=rng.choice([None, None, "p"]),
        gone=rng.choice([None, None, "g"]), declared=rng.choice([None, SPEC]),
    )  # fmt: skip
    return Reschedule(
        name=name, before=before, after=after, firings=tuple(firings), starts=tuple(starts),
        forget=rng.choice([None, now]),
    )  # fmt: skip
