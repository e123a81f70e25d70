"""What a workflow asks of others begins while this process goes on writing without a rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from perdure import App, recv
from perdure.core.run import Op, Run
from perdure.errors import WorkflowNotFound
from perdure.model.ids import RunKey
from perdure.model.records import Kind
from perdure.model.writes import Send, SetEvent, Unit, Verdict
from tests.runtime.support import executor, until


class Load:
    """A source that has something to write again as soon as it is told of the last."""

    def __init__(self, app: App) -> None:
        self.queued = False
        self.line = executor(app).line
        self.ends = False
        self.units = 0
        self.line.journal.put(self)

    def take(self) -> Unit:
        self.units += 1
        line = self.line
        return Unit(key=RunKey("", 0), sends=[Send("nobody", line.new_mid(), "", b"0", line.new_token())])

    def written(self, unit: Unit, verdict: Verdict) -> None:
        if not self.ends:
            self.line.journal.put(self)

    def broken(self, unit: Unit, error: Exception) -> None:
        raise error


@asynccontextmanager
async def under_load(app: App) -> AsyncIterator[Load]:
    """While the app works."""
    async with app:
        load = Load(app)
        try:
            yield load
        finally:
            load.ends = True


Asks = Callable[[Any, str], Coroutine[Any, Any, Any]]
QUESTIONS: dict[str, tuple[Asks, str]] = {
    "cancel": (lambda victim, v: victim.handle(v).cancel(), "cancelled"),
    "result of what is not there": (lambda victim, _: victim.handle("none").result(), "not there"),
    "info of what is not there": (lambda victim, _: victim.handle("none").info(), "not there"),
    "start with a key": (lambda victim, _: victim.options(queue="q", dedup="k").start(), "started"),
}


@pytest.mark.parametrize("question", QUESTIONS)
async def test_a_question_of_a_body_is_answered_though_the_journal_never_rests(app: App, question: str) -> None:
    asks, answer = QUESTIONS[question]
    app.queue("q", concurrency=1)

    @app.workflow
    async def victim() -> None:
        await recv("never")

    @app.workflow
    async def asker(id: str) -> str:
        try:
            given = await asks(victim, id)
        except WorkflowNotFound:
            return "not there"
        return str(given) if isinstance(given, str) else "started"

    async with under_load(app) as load:
        await victim.options(id="v").start()
        assert await asyncio.wait_for(asker("v"), 30) == answer
        assert load.line.journal.busy


async def test_a_child_that_is_no_longer_waited_for_is_cancelled_though_the_journal_never_rests(app: App) -> None:
    @app.workflow
    async def child() -> None:
        await recv("never")

    @app.workflow
    async def parent() -> None:
        call = asyncio.create_task(child.options(id="kid")())
        await recv("enough")
        call.cancel()
        await recv("never")

    async with under_load(app):

        async def is_now(wanted: str) -> bool:
            return [str(info.status) async for info in app.client.list() if info.id == "kid"] == [wanted]

        handle = await parent.options(id="p").start()
        await until(lambda: is_now("running"))
        await handle.send("", "enough")
        await until(lambda: is_now("cancelled"))


async def test_what_a_child_asks_in_its_first_burst_finds_what_it_has_begun(app: App) -> None:
    """Its own start goes with its parent's unit, and what it has begun with the one after that."""
    app.queue("q", concurrency=1)

    @app.workflow
    async def grandchild() -> None:
        await recv("never")

    @app.workflow
    async def child() -> str:
        begun = await grandchild.options(queue="q").start()
        return (await begun.info()).id

    @app.workflow
    async def parent() -> str:
        return await (await child.start()).result()

    async with under_load(app):
        for _ in range(5):
            assert (await asyncio.wait_for(parent(), 30)).count(":") == 2


def test_what_a_run_gathers_for_its_next_unit_is_not_copied_with_each_of_them() -> None:
    """A body may begin thousands of steps in one burst."""
    run = Run(RunKey("w", 1), b"", "v", 0)
    ops = iter([Op(str(n), Kind.STEP, "s", b"", print) for n in range(2)])

    def intend() -> None:
        run.intend(next(ops), once=False)

    def event() -> None:
        run.add_event(SetEvent("e", b"1"))

    for add, name in (
        (intend, "_pending_intents"), (event, "events"), (lambda: run.add_taken(b"m"), "taken"),
        (lambda: run.add_woken(b"n"), "woken"),
    ):  # fmt: skip
        add()
        kept = getattr(run, name)
        add()
        assert getattr(run, name) is kept
        assert len(kept) == 2
    unit = run.take()
    assert [intent.path for intent in unit.records[-1].intents] == ["0", "1"]
    assert run.take().records == []
