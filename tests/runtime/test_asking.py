"""What a body, or a step, asks of workflows that have just begun, that take their time, or that are its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import perdure.sync
from perdure import App, current, now, recv, sleep
from perdure.errors import Misuse, ResultTimeout
from perdure.testing import harness
from tests.runtime.support import Ledger, history, in_memory, row, until

# -- what has just begun


async def test_a_child_that_was_just_begun_and_oneself_are_there(app: App) -> None:
    """Their starts are on their way to the database, with the body's first writes."""

    @app.workflow(name="child")
    async def child() -> None:
        await recv()

    @app.workflow
    async def body() -> list[str]:
        own = str(await body.handle(current().id).status())
        handle = await child.start()
        found = [own, str(await handle.status()), (await handle.info()).name]
        await handle.cancel()
        return found

    async with app:
        own, status, name = await body()
    assert (own, name) == ("running", "child")
    assert status in ("running", "waiting")


def test_in_blocking_code_too(sync_app: perdure.sync.App) -> None:
    @sync_app.workflow(name="child")
    def child() -> None:
        perdure.sync.recv()

    @sync_app.workflow
    def body() -> str:
        return child.start().info().name

    with sync_app:
        assert body() == "child"


# -- for so long, and no longer


async def test_a_result_is_waited_for_so_long(app: App, ledger: Ledger) -> None:
    @app.workflow(name="child")
    async def child() -> str:
        return await recv()

    @app.workflow
    async def body() -> str:
        handle = await child.options(id="child").start()
        try:
            await handle.result(timeout=0.2)
        except ResultTimeout as late:
            ledger.note(late)
        await child.handle("child").send("done")
        return await handle.result(timeout=60)

    async with app:
        assert await body.options(id="a").start() is not None
        assert await body.handle("a").result() == "done"
    assert ledger[0] == "workflow child did not end within 0.2 s; it goes on"


def test_in_blocking_code_for_so_long(sync_app: perdure.sync.App) -> None:
    @sync_app.workflow(name="child")
    def child() -> str:
        return perdure.sync.recv()

    @sync_app.workflow
    def body() -> str:
        handle = child.start()
        try:
            return handle.result(timeout=0.1)
        except ResultTimeout:
            handle.send("late")
            return handle.result()

    with sync_app:
        assert body() == "late"


async def test_it_is_waited_for_out_of_memory(app: App, quick_eviction: None) -> None:
    @app.workflow(name="stranger")
    async def stranger() -> None:
        await recv()

    @app.workflow
    async def body() -> str:
        try:
            await stranger.handle("s").result(timeout=0.5)
        except ResultTimeout:
            return "late"
        return "in time"

    async with app:
        await stranger.options(id="s").start()
        handle = await body.options(id="a").start()
        await until(lambda: not in_memory(app, "a"))
        assert (await row(app, "a")).detail == "waits for the end of s"
        assert await handle.result() == "late"
        assert [record.outcome.name for record in await history(app, "a")] == ["ERROR"]


Wait = Callable[[str], Awaitable[Any]]
long = App("long")


@long.workflow
async def silent() -> None:
    await recv()


async def for_the_end(id: str) -> None:
    with pytest.raises(ResultTimeout):
        await silent.handle(id).result(timeout=100)


async def for_an_event(id: str) -> None:
    assert await silent.handle(id).get_event("never", timeout=100) is None


WAITS: dict[str, Wait] = {"end": for_the_end, "event": for_an_event}


@long.workflow
async def meanwhile(what: str) -> float:
    """Waits, while other things of its own go on and are recorded."""

    async def others() -> None:
        for _ in range(10):
            await sleep(30)

    began = now()
    beside = asyncio.create_task(others())
    await WAITS[what](f"silent {what}")
    beside.cancel()
    return (now() - began).total_seconds()


@pytest.mark.parametrize("what", WAITS)
@pytest.mark.parametrize("crashes", [0, 1, 2])
async def test_a_deadline_is_of_the_call_whatever_crashes(what: str, crashes: int) -> None:
    async with harness(long) as h:
        await silent.options(id=f"silent {what}").start()
        handle = await meanwhile.start(what)
        for _ in range(crashes):
            await h.advance(40)
            await h.crash()
        await h.advance(200)
        assert await handle.result() == 100


# -- oneself


@pytest.mark.parametrize("how", ["result", "call"])
async def test_a_body_that_waits_for_its_own_end_is_told(app: App, how: str) -> None:
    @app.workflow
    async def body() -> None:
        own = current().id
        await (body.handle(own).result() if how == "result" else body.options(id=own)())

    async with app:
        with pytest.raises(Misuse, match=r"workflow 'a' waits for its own end.*continue_as_new"):
            await body.options(id="a")()


@pytest.mark.parametrize("how", ["result", "cancel"])
async def test_a_step_that_waits_for_the_end_of_its_workflow_is_told(app: App, how: str) -> None:
    @app.step(name="step")
    async def step(id: str) -> None:
        await (body.handle(id).result() if how == "result" else body.handle(id).cancel())

    @app.workflow
    async def body() -> None:
        await step(current().id)

    async with app:
        with pytest.raises(Misuse, match="step of workflow 'a' waits for the end of 'a', which waits for the step"):
            await body.options(id="a")()


def test_a_blocking_step_is_told_too(sync_app: perdure.sync.App) -> None:
    @sync_app.step(name="step")
    def step(id: str) -> None:
        body.handle(id).cancel()

    @sync_app.workflow
    def body() -> None:
        step(perdure.sync.current().id)

    with sync_app, pytest.raises(Misuse, match="which waits for the step"):
        body.options(id="a")()
