"""Retention: rules by workflow, status and age, run by executors themselves; what a parent needs of its children."""

# waits: `until` looks again until an executor has purged.

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

import perdure.sync
from perdure import App, Router, recv
from perdure.errors import DefinitionError, WorkflowNotFound
from perdure.model.retention import FOREVER, Rules, read_retention
from perdure.operations import retention
from perdure.operations.retention import Position, Tally, purge, purge_page
from perdure.runtime import sweeper
from tests.runtime.support import Ledger, kinds, row, until

DAY = 86_400 * 1_000_000
LATER = 100 * 365 * DAY  # beyond every rule


def rules_of(app: Any) -> Rules:
    found: Rules = app._registry.rules
    return found


def upkeep(app: Any) -> Any:
    return app._home.engine().line.store.upkeep


async def ids(app: App) -> list[str]:
    return sorted([i.id async for i in app.client.list()])


def everything(age: float = 0) -> Rules:
    return Rules({}, read_retention(age))


def test_rules_are_by_workflow_and_status_with_the_apps_behind_them() -> None:
    app = App("shop", retain={"completed": timedelta(days=30), "past": 60})
    router = Router("r.")

    @app.workflow(name="a", retain={"failed": timedelta(days=1), "completed": "forever"})
    async def a() -> None: ...

    @router.workflow(name="b", retain=timedelta(hours=1))
    async def b() -> None: ...

    @app.workflow(name="c")
    async def c() -> None: ...

    app.include(router)
    rules = rules_of(app)
    assert rules.age("a", "completed") is None
    assert rules.age("a", "failed") == DAY
    assert rules.age("a", "past") == 60_000_000
    assert rules.age("r.b", "cancelled") == DAY // 24
    assert rules.age("c", "completed") == rules.age("gone", "completed") == 30 * DAY
    assert rules.age("c", "failed") is None
    assert (rules.shortest, rules.shortest_past, rules.keeps_all) == (DAY // 24, 60_000_000, False)
    assert rules_of(App("other")).keeps_all
    assert read_retention("forever").ages["past"] == FOREVER
    assert a.name == "a"
    assert b.name == "r.b"
    assert c.name == "c"


@pytest.mark.parametrize(
    ("retain", "said"),
    [
        ({"complete": 1}, "did you mean 'completed'?"),
        ({"running": 1}, "'running' is no end of a workflow; one of completed, failed"),
        (-1, "retain=-1 is negative"),
        ({"failed": "long"}, r"retain\['failed'\]='long' is not a duration"),
        ("forever ", "is not a duration"),
    ],
)
def test_a_rule_that_cannot_be_says_why(retain: Any, said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        App("shop", retain=retain)
    with pytest.raises(DefinitionError, match=said):
        perdure.sync.App("shop").workflow(retain=retain)(lambda: None)


@pytest.fixture
def jobs(app: App) -> Any:
    @app.workflow(name="job")
    async def job(n: int) -> int:
        if n < 0:
            raise ValueError(n)
        return n

    @app.workflow(name="loop")
    async def loop(n: int) -> int:
        if n > 0:
            await loop.continue_as_new(n - 1)
        await recv("go")
        return n

    return job, loop


async def test_a_plan_tells_what_a_purge_then_does(app: App, jobs: Any) -> None:
    job, loop = jobs
    async with app:
        for n in (1, 2, 3, -1):
            await (await job.options(id=f"j{n}").start(n)).result() if n > 0 else await fails(job, n)
        await loop.options(id="l").start(3)
        await until(lambda: settled(app, "l", 4))
        rules = Rules({"job": read_retention({"completed": 0}), "loop": read_retention({"past": 0, "completed": 0})})
        planned = await purge(upkeep(app), rules, plan=True, now=LATER)
        assert [(p.name, p.status, p.count) for p in planned] == [("job", "completed", 3), ("loop", "past", 3)]
        assert all(p.rows >= p.count * 2 and p.bytes > 100 for p in planned)
        assert await ids(app) == ["j-1", "j1", "j2", "j3", "l"]
        done = await purge(upkeep(app), rules, now=LATER)
        assert [(p.name, p.status, p.count) for p in done] == [("job", "completed", 3), ("loop", "past", 3)]
        assert await ids(app) == ["j-1", "l"]
        assert await purge(upkeep(app), rules, now=LATER) == []
        await loop.handle("l").send("x", "go")
        assert await loop.handle("l").result() == 0
        assert await job.options(id="j1").start(7) is not None, "an id used again"
        assert await job.handle("j1").result() == 7


async def fails(job: Any, n: int) -> None:
    with pytest.raises(ValueError, match=str(n)):
        await (await job.options(id=f"j{n}").start(n)).result()


async def settled(app: App, id: str, run: int) -> bool:
    found = await upkeep(app).ended((-1, ""), LATER, 10)
    return any(c.id == id and c.run == run for c in found)


async def test_only_what_is_old_enough_goes(app: App, jobs: Any) -> None:
    job, _ = jobs
    async with app:
        await (await job.options(id="old").start(1)).result()
        await (await job.options(id="new").start(2)).result()
        old, new = await row(app, "old"), await row(app, "new")
        assert old.closed is not None
        assert new.closed is not None
        assert old.closed < new.closed
        assert [p.count for p in await purge(upkeep(app), everything(60), now=old.closed + 60_000_000)] == [1]
        assert await ids(app) == ["new"]


async def test_pages_and_batches_are_bounded(app: App, jobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    job, _ = jobs
    monkeypatch.setattr(retention, "PAGE", 4)
    monkeypatch.setattr(retention, "BATCH", 3)
    sizes: list[int] = []
    async with app:
        handles = await job.start_many(range(1, 11), id=lambda n: f"j{n}")
        for handle in handles:
            await handle.result()
        real = upkeep(app)

        class Counting:
            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

            async def purge(self, keys: Any) -> Any:
                sizes.append(len(keys))
                return await real.purge(keys)

        tally, position, pages = Tally(), Position(), 0
        at: Any = position
        while at is not None:
            at = await purge_page(Counting(), everything(), LATER, at, tally)  # type: ignore[arg-type]
            pages += 1
        assert sizes == [3, 1, 3, 1, 2]
        assert pages == 4  # three of workflows, one of earlier runs
        assert tally.count == 10


async def test_executors_purge_by_themselves_one_at_a_time(
    database: str, jobs: Any, app: App, said: pytest.LogCaptureFixture
) -> None:
    job, _ = jobs
    async with app:
        for n in (1, 2):
            await (await job.options(id=f"j{n}").start(n)).result()
        await fails(job, -1)
    assert await purge_by_itself(database, {"completed": 0}) == ["j-1"]
    assert "retention: purged 2 of job, completed" in said.text
    marks = await notes(database)
    assert marks == {"retention": "", "left": ""}
    said.clear()
    # It is done for an hour: another executor leaves it alone, and without a rule nothing is purged at all.
    async with App("shop", database=database, retain=0, lease=1, executor_id="b") as other:
        await other._home.engine().executor.sweeper.round()  # type: ignore[union-attr]
        assert await ids(other) == ["j-1"]
    async with App("shop", database=database, lease=1) as none:
        await none._home.engine().executor.sweeper.round()  # type: ignore[union-attr]
        assert await ids(none) == ["j-1"]


async def purge_by_itself(database: str, retain: Any) -> list[str]:
    """What is left once an executor has done its rounds."""
    async with App("shop", database=database, retain=retain, lease=1) as again:
        await until(lambda: finished(again))
        return await ids(again)


async def finished(app: App) -> bool:
    """Whether both chores have been done."""
    executor: Any = app._home.engine().executor
    return not executor.sweeper._busy and set(await upkeep(app).marks()) == {"retention", "left"}


async def notes(database: str) -> dict[str, str]:
    async with App("shop", database=database).connect() as client:
        found: dict[str, str] = dict(await client._home.engine().line.store.upkeep.marks())
        return found


async def test_the_next_executor_goes_on_where_one_died(
    app: App, jobs: Any, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, _ = jobs
    monkeypatch.setattr(retention, "PAGE", 2)
    async with app:
        for n in range(1, 8):
            await (await job.options(id=f"j{n}").start(n)).result()
        rows = [await row(app, f"j{n}") for n in range(1, 8)]
        store = upkeep(app)
        turn = await store.take(sweeper.RETENTION, b"dead".ljust(16, b"."), 1)
        assert turn.note == ""
        # It died after it had noted the page that ends with the fourth: those before are not looked at again.
        note = f'[false,{rows[3].created},"j4"]'
        assert await store.note(sweeper.RETENTION, b"dead".ljust(16, b"."), note, 0)
    assert await purge_by_itself(database, 0) == ["j1", "j2", "j3", "j4"]


# -- parents and children


@pytest.fixture
def family(app: App, ledger: Ledger) -> Any:
    @app.workflow(name="child")
    async def child(x: int) -> int:
        ledger.note(f"child {x}")
        return x * 10

    @app.workflow(name="parent")
    async def parent() -> object:
        first = await child(1)
        second = await child.options(id="second").start(2)
        word = await recv("go")
        try:
            return [first, word, await second.result()]
        except WorkflowNotFound as error:
            return [first, word, str(error)]

    return parent, child


async def test_children_stay_while_their_parent_is_open_and_it_needs_none_that_it_has_heard_of(
    app: App, family: Any, ledger: Ledger
) -> None:
    parent, _ = family
    async with app:
        await parent.options(id="p").start()
        await until(lambda: len(ledger) == 2)
        await until(lambda: all_closed(app, "p:1", "second"))
        assert await purge(upkeep(app), everything(), now=LATER) == []
        assert await ids(app) == ["p", "p:1", "second"]
        assert await parent.handle("p").cancel() == "cancelled"
        assert [
            (p.name, p.count) for p in await purge(upkeep(app), Rules({"child": read_retention(0)}), now=LATER)
        ] == [("child", 2)]
        assert await ids(app) == ["p"]
        # Its replay reads the first child's result in its own history; of the other it never heard, and is told so.
        assert await parent.handle("p").resume() == "queued"
        await parent.handle("p").send("on", "go")
        first, word, gone = await parent.handle("p").result(timeout=20)
        assert (first, word) == (10, "on")
        assert "'second'" in gone
        assert "CHILD child VALUE" in await kinds(app, "p")
    assert ledger == ["child 1", "child 2"], "no child ran again"


async def all_closed(app: App, *wanted: str) -> bool:
    rows = await app._home.engine().line.store.rows(wanted)
    return len(rows) == len(wanted) and not any(r.status.open for r in rows.values())


async def test_waiting_for_what_was_purged_is_an_error_not_a_wait(app: App, jobs: Any) -> None:
    job, _ = jobs
    async with app:
        handle = await job.options(id="j").start(1)
        await handle.result()
        await purge(upkeep(app), everything(), now=LATER)
        with pytest.raises(WorkflowNotFound, match="'j'"):
            await job.handle("j").result(timeout=5)
