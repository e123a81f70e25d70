"""A run that is lost, or a start, while what was written of it is on its way: who is told what, and what still happens.

``Held`` keeps the units of some workflows from being written; what becomes of the rows meanwhile is another's doing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from perdure import App, Client, Topic, recv
from perdure.errors import LostAnswer, RowLocked, WorkflowTerminated
from perdure.model.writes import Receipt, Unit
from perdure.query.conditions import Fact, OneOf, Query
from perdure.recovery import Default, Incident
from perdure.runtime import engine as engines
from perdure.store.asks import Fates
from tests.runtime.support import executor, status, until

GO = Topic[str]("go")


class Held:
    """While ``ids`` names a workflow, its units wait; ``records``: only those that have some."""

    def __init__(self, app: App, monkeypatch: pytest.MonkeyPatch, *, records: bool = False) -> None:
        self.engine: Any = app._home.engine()
        self.store: Any = self.engine.line.store
        self.ids: set[str] = set()
        self.tried = asyncio.Event()
        self.loses = False  # the first try is written, and its answer lost
        self._records = records
        self._commit = self.store.commit
        monkeypatch.setattr(self.store, "commit", self.commit)

    async def commit(self, batch: Sequence[Unit], *, now: int | None = None) -> Receipt:
        if any(unit.key.id in self.ids and (unit.records or not self._records) for unit in batch):
            self.tried.set()
            if self.loses:
                self.loses = False
                await self._commit(batch, now=now)
                raise LostAnswer("broken off")
            raise RowLocked("another transaction has it")
        receipt: Receipt = await self._commit(batch, now=now)
        return receipt

    async def terminate(self, id: str) -> None:
        """By somebody elsewhere: whoever holds it writes nothing more."""
        await self.store.terminate(id, "terminated", b"t" * 16)

    def let_go(self) -> None:
        self.ids = set()


async def nothing_is_under_way(app: App) -> None:
    await until(lambda: not executor(app)._tasks)


@pytest.mark.parametrize("what", ["cancels another", "starts one with a key", "gives a child up", "replaces another"])
async def test_a_run_that_was_lost_has_no_more_effects_outside(
    app: App, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """It waits until what it rests on is written; and then that it may have been refused is looked at."""
    app.queue("later", concurrency=5)
    go_on = asyncio.Event()

    @app.step
    async def first() -> None: ...

    @app.step
    async def second() -> None:
        await go_on.wait()

    @app.workflow
    async def waiting() -> str:
        return await recv(GO)

    async def cancels() -> None:
        await waiting.handle("other").cancel()

    async def starts() -> None:
        await waiting.options(queue="later", dedup="k").start()

    async def replaces() -> None:
        await waiting.options(queue="later", dedup="o", on_conflict="replace").start()

    does: dict[str, Callable[[], Awaitable[None]]] = {
        "cancels another": cancels, "starts one with a key": starts, "replaces another": replaces,
    }  # fmt: skip

    @app.workflow
    async def parent() -> None:
        calling = asyncio.ensure_future(waiting.options(on_parent_close="abandon")())
        await asyncio.gather(first(), second())
        if what in does:
            await does[what]()
        else:
            calling.cancel()
            await asyncio.gather(calling, return_exceptions=True)

    async with app:
        held = Held(app, monkeypatch, records=True)
        await waiting.options(id="other", queue="later", dedup="o").start()
        await until(lambda: executor(app).has("other"))
        await parent.options(id="p").start()
        await until(lambda: executor(app).has("p:1"))
        await nothing_is_under_way(app)
        held.ids = {"p"}
        go_on.set()
        await held.tried.wait()
        await until(lambda: held.engine.line.journal._aside.units)
        await until(lambda: executor(app)._tasks)
        await held.terminate("p")
        held.let_go()
        await until(lambda: not executor(app).has("p"))
        await nothing_is_under_way(app)
        assert (await status(app, "other"), await status(app, "p:1")) == ("running", "running")
        children = (await held.store.list(Query(condition=OneOf(Fact.PARENT, ("p",))), limit=9)).rows
        assert [row.id for row in children] == ["p:1"]


async def test_whom_a_policy_would_decide_about_is_let_go_when_its_start_never_comes(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waited for its own writes, of which there were to be none, in a loop without end."""

    @app.step
    async def first() -> None: ...

    @app.workflow
    async def child() -> None:
        raise ValueError("at once")

    @app.on_error(child)
    def decide(_incident: Incident) -> Default:
        raise AssertionError("nobody asks about what never was")

    @app.workflow
    async def parent() -> None:
        await first()
        await child()

    async with app:
        held = Held(app, monkeypatch, records=True)
        held.ids = {"p"}
        await parent.options(id="p").start()
        await held.tried.wait()
        await until(lambda: any(one._asking for one in executor(app).executions.values()))
        await held.terminate("p")
        held.let_go()
        await until(lambda: not executor(app).executions)
        await nothing_is_under_way(app)


@pytest.mark.parametrize("on_conflict", ["fail", "replace"])
async def test_who_started_what_another_has_taken_over_before_the_answer_came_is_told_that_it_is_started(
    app: App, monkeypatch: pytest.MonkeyPatch, on_conflict: Any
) -> None:
    """Its own first try has the id: that is no conflict, and nothing to be replaced."""

    @app.workflow
    async def body() -> str:
        return await recv(GO)

    async with app:
        held = Held(app, monkeypatch)
        held.ids, held.loses = {"p"}, True
        starting = asyncio.create_task(body.options(id="p", on_conflict=on_conflict).start())
        await until(lambda: held.tried.is_set() and not held.loses and held.engine.line.journal.trouble)
        await held.terminate("p")
        held.let_go()
        handle = await starting
        with pytest.raises(WorkflowTerminated):
            await handle.result()
        assert (await held.store.rows(["p"]))["p"].run == 1


async def test_who_waits_for_the_next_run_is_not_told_what_was_read_before_it_began(
    app: App, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of the run before it was read for somebody else, and its answer came late."""

    @app.workflow
    async def body() -> str:
        return await recv(GO)

    line: Any = app._home.engine().line
    fates, holds = line.store.fates, False
    was_read, go_on = asyncio.Event(), asyncio.Event()

    async def slow(ids: Sequence[str]) -> Fates:
        found: Fates = await fates(ids)
        if holds and found.ended:
            was_read.set()
            await go_on.wait()
        return found

    monkeypatch.setattr(line.store, "fates", slow)
    first = await body.options(id="a").start()
    one = asyncio.create_task(first.result())
    await until(lambda: line.watcher.awaited("a"))
    holds = True
    await line.store.terminate("a", "the first", b"t" * 16)
    await was_read.wait()
    second = await body.options(id="a", on_conflict="replace").start()
    holds = False
    another = asyncio.create_task(second.result())
    await until(lambda: len(line.watcher._ends["a"]) == 2)
    go_on.set()
    with pytest.raises(WorkflowTerminated, match="the first"):
        await one
    await line.store.terminate("a", "the second", b"u" * 16)
    with pytest.raises(WorkflowTerminated, match="the second"):
        await another


async def test_who_calls_is_not_told_that_there_is_none_while_the_start_is_on_its_way(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its executor is declared dead meanwhile, and begins anew."""
    monkeypatch.setattr(engines, "SETTLE_SECONDS", 0.01)
    app = App("shop", database=database, lease=1)

    @app.step
    async def first() -> str:
        return "done"

    @app.workflow
    async def body() -> str:
        return await first()

    async with app:
        held = Held(app, monkeypatch)
        held.ids = {"p"}
        calling = asyncio.create_task(body.options(id="p")())
        await held.tried.wait()
        await body.options(id="other").start()
        await until(lambda: held.engine.line.journal._aside.units)
        was = executor(app).me.id
        await held.store.bury([was], expired_only=False)  # its next renewal tells it so
        await until(lambda: executor(app).alive and executor(app).me.id != was)
        assert not executor(app).has("p")
        early = calling.done()
        held.let_go()
        assert not early
        assert await asyncio.wait_for(calling, 15) == "done"


async def test_the_end_does_not_wait_for_a_child_whose_start_was_given_up(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its start was on its way, and its id is another's; nor would a replay know of it."""

    @app.step
    async def first() -> None: ...

    @app.workflow
    async def waiting() -> str:
        return await recv(GO)

    @app.workflow
    async def parent() -> str:
        await first()
        try:
            async with asyncio.timeout(0.001):
                await waiting.options(id="other", on_parent_close="wait").start()
        except TimeoutError:
            return "given up"
        return "started"

    async with app:
        await waiting.options(id="other").start()
        held = Held(app, monkeypatch, records=True)
        held.ids = {"p"}
        handle = await parent.options(id="p").start()
        await until(lambda: executor(app).executions["p"].final)
        held.let_go()
        assert await handle.result(timeout=10) == "given up"
