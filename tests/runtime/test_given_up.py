"""Children that their parent gives up on: told to cancel once, whatever happens to the process meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Literal

import pytest

import perdure.sync
from perdure import App, Workflow, recv, set_event
from perdure.errors import Cancelled, DatabaseTrouble
from perdure.model.ids import RunKey, child_id
from perdure.model.records import Kind
from perdure.model.writes import Receipt, Start, Unit
from perdure.runtime.loop import WorkflowLoop
from tests.runtime.support import Ledger, crash, executor, history, in_memory, row, status, until, until_sync

CHILD = child_id(RunKey("p", 1), "1")


async def ended(app: App, id: str) -> bool:
    return not (await row(app, id)).status.open


async def recorded(app: App, kind: Kind) -> bool:
    return any(record.kind is kind for record in await history(app, "p"))


def waiting_child(app: App, *, in_line: bool = False) -> Workflow[[], None]:
    """A workflow that waits for a message; ``in_line``: once its queue has let it in."""
    if in_line:
        app.queue("q")

    @app.workflow(name="child", queue="q" if in_line else None)
    async def child() -> None:
        await recv()

    return child


def answer_late(
    app: App, monkeypatch: pytest.MonkeyPatch, starts: Callable[[Start], bool], when: Callable[[], Any]
) -> None:
    """The answer to a commit with such a start of a child comes only ``when`` that holds."""
    store = app._home.engine().line.store
    commit = store.commit

    async def late(batch: Sequence[Unit], **kwargs: Any) -> Receipt:
        receipt = await commit(batch, **kwargs)
        if any(starts(start) for unit in batch for start in unit.children):
            await until(when)
        return receipt

    monkeypatch.setattr(store, "commit", late)


async def test_a_child_that_was_given_up_is_cancelled_though_the_process_dies(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command itself does not arrive, for as long as the process lives; the parent goes on."""

    child = waiting_child(app)

    @app.workflow(name="parent")
    async def parent() -> None:
        try:
            async with asyncio.timeout(0.05):
                await child.options(on_parent_close="abandon")()
        except TimeoutError:
            await recv("first")
            await recv("second")

    asked: list[str] = []

    async def none(id: str, *_args: Any, **_kwargs: Any) -> Any:
        asked.append(id)
        raise DatabaseTrouble("not now")

    await app.open()
    monkeypatch.setattr(app._home.engine().line.store, "cancel", none)
    monkeypatch.setattr("perdure.runtime.executor.take_wakes", _no_wakes)
    await parent.options(id="p").start()
    await until(lambda: asked)
    await parent.handle("p").send(True, "first")
    await until(lambda: recorded(app, Kind.RECV))
    assert asked == [CHILD] * len(asked)
    assert not await ended(app, CHILD)
    await crash(app)
    monkeypatch.undo()
    async with app:
        await until(lambda: ended(app, CHILD))
        assert (await row(app, CHILD)).cancel == "its parent p no longer waits for it"
        assert not await ended(app, "p")


async def _no_wakes(*_args: object) -> None: ...


async def test_what_was_given_up_and_resumed_is_not_cancelled_again(app: App) -> None:
    """By a replay of its parent, which has got no further."""

    child = waiting_child(app)

    @app.workflow(name="parent")
    async def parent() -> None:
        try:
            async with asyncio.timeout(0.05):
                await child()
        except TimeoutError:
            await recv("on")
            await recv("end")

    async with app:
        await parent.options(id="p").start()
        await until(lambda: recorded(app, Kind.CANCEL_OTHER))
        await until(lambda: ended(app, CHILD))
    async with app:
        await child.handle(CHILD).resume(reason="it is wanted")
        await until(lambda: in_memory(app, CHILD))
    async with app:
        await parent.handle("p").send(True, "on")
        await until(lambda: recorded(app, Kind.RECV))
        assert (await row(app, CHILD)).cancel is None
        assert not await ended(app, CHILD)


def test_a_blocking_parent_gives_up_once(sync_app: perdure.sync.App, ledger: Ledger) -> None:
    app = sync_app

    @app.workflow(name="child")
    def child() -> None:
        try:
            perdure.sync.recv()
        except Cancelled:
            ledger.note("cancelled")
            raise

    @app.workflow(name="parent")
    def parent() -> None:
        child.options(id="c", on_parent_close="abandon")()

    with app:
        handle = parent.options(id="p").start()
        until_sync(lambda: in_memory(app, "c"))
        assert handle.cancel() == "cancelled"
        until_sync(lambda: child.handle("c").status() == "cancelled")
    assert ledger == ["cancelled"]


@pytest.mark.parametrize("key", [None, "k"], ids=["id", "dedup"])
async def test_a_child_whose_start_was_given_up_ends_with_its_parent_after_a_crash(
    app: App, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    """The start is on its way when the parent stops waiting for it."""
    child = waiting_child(app, in_line=True)

    @app.workflow(name="parent")
    async def parent() -> None:
        try:
            async with asyncio.timeout(0.05):
                await (child.options(id="c") if key is None else child.options(id="c", dedup=key)).start()
        except TimeoutError:
            await recv("end")

    await app.open()
    store = app._home.engine().line.store
    once = store.start_once

    async def once_late(*args: Any, **kwargs: Any) -> Any:
        found = await once(*args, **kwargs)
        await until(gave_up)
        return found

    def gave_up() -> bool:
        return bool(executor(app).executions["p"].run.seq)

    answer_late(app, monkeypatch, lambda start: start.id == "c", gave_up)
    monkeypatch.setattr(store, "start_once", once_late)
    await parent.options(id="p").start()
    await until(lambda: recorded(app, Kind.TIMER))
    await until(lambda: store.rows(["c"]))
    assert not await recorded(app, Kind.CHILD)
    await crash(app)
    async with app:
        assert not await ended(app, "c")
        await parent.handle("p").send(True, "end")
        await parent.handle("p").result()
        await until(lambda: ended(app, "c"))


async def test_a_child_that_is_started_twice_ends_with_its_parent(app: App) -> None:
    """The second start finds the first: it is the parent's all the same."""

    child = waiting_child(app)

    @app.workflow(name="parent")
    async def parent() -> None:
        await child.options(id="c").start()
        await child.options(id="c").start()

    async with app:
        await parent.options(id="p")()
        await until(lambda: ended(app, "c"), 4)


async def test_a_fork_behind_a_child_that_was_given_up_goes_on(app: App) -> None:
    """The child is the other workflow's: it meets the note, and tells nobody."""

    @app.step(name="after")
    async def after() -> int:
        return 1

    child = waiting_child(app)

    @app.workflow(name="parent")
    async def parent() -> int:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await child()
        return await after()

    async with app:
        await parent.options(id="p")()
        assert await recorded(app, Kind.CANCEL_OTHER)
        fork = await parent.handle("p").fork("after", id="f")
        await until(lambda: ended(app, "f"), 4)
        assert await fork.result() == 1


async def test_a_child_is_told_though_its_parent_dies_in_the_burst_that_gives_it_up(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long burst is cut, and its first note is written alone."""
    monkeypatch.setattr(WorkflowLoop, "burst_callbacks_max", 1)

    child = waiting_child(app)

    @app.workflow(name="parent")
    async def parent() -> None:
        call = asyncio.ensure_future(child.options(on_parent_close="abandon")())
        await recv("on")
        await set_event("begun", True)
        for _ in range(1000):
            await asyncio.sleep(0)
        call.cancel()
        await recv("end")

    await app.open()
    store = app._home.engine().line.store
    commit = store.commit

    async def but_for_that(batch: Sequence[Unit], **kwargs: Any) -> Receipt:
        if any(unit.given_up for unit in batch):
            raise DatabaseTrouble("not now")
        return await commit(batch, **kwargs)

    monkeypatch.setattr(store, "commit", but_for_that)
    await parent.options(id="p").start()
    await parent.handle("p").send(True, "on")
    await until(lambda: recorded(app, Kind.EVENT))
    assert not await recorded(app, Kind.CANCEL_OTHER)
    await crash(app)
    async with app:
        await until(lambda: ended(app, CHILD), 4)


@pytest.mark.parametrize("policy", ["cancel", "wait", "abandon"])
async def test_a_child_whose_start_was_given_up_is_called_again(
    app: App, monkeypatch: pytest.MonkeyPatch, policy: Literal["cancel", "wait", "abandon"]
) -> None:
    """Its parent finds what it has begun itself, gives it up once more, and replays."""
    child = waiting_child(app, in_line=True)

    @app.workflow(name="parent")
    async def parent() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await child.options(id="c", on_parent_close=policy)()
        call = asyncio.ensure_future(child.options(id="c", on_parent_close=policy)())
        await recv("on")
        call.cancel()
        await recv("end")

    await app.open()
    answer_late(app, monkeypatch, lambda start: start.id == "c", lambda: executor(app).executions["p"].run.seq)
    await parent.options(id="p").start()
    await until(lambda: recorded(app, Kind.CHILD))
    await parent.handle("p").send(True, "on")
    await until(lambda: recorded(app, Kind.RECV))
    await crash(app)
    async with app:
        await parent.handle("p").send(True, "end")
        if policy == "wait":
            await child.handle("c").send(True)
        await until(lambda: ended(app, "p"), 4)


async def test_a_start_that_was_given_up_is_not_waited_for_in_the_end(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its key's verdict comes later: a replay would not know of it."""
    child = waiting_child(app, in_line=True)

    @app.workflow(name="parent")
    async def parent() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await child.options(id="c", dedup="k", on_parent_close="wait").start()
        await recv("end")

    await app.open()
    store = app._home.engine().line.store
    once, told = store.start_once, asyncio.Event()

    async def once_late(*args: Any, **kwargs: Any) -> Any:
        found = await once(*args, **kwargs)
        await until(lambda: executor(app).executions["p"].run.seq)
        asyncio.get_running_loop().call_soon(told.set)
        return found

    monkeypatch.setattr(store, "start_once", once_late)
    await parent.options(id="p").start()
    await told.wait()
    await parent.handle("p").send(True, "end")
    await until(lambda: ended(app, "p"), 4)


async def test_a_second_start_that_was_given_up_changes_nothing_of_the_first(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the end means to the child is what the first said, with the second's verdict or without."""

    child = waiting_child(app)

    @app.workflow(name="parent")
    async def parent() -> None:
        await child.options(id="c", on_parent_close="wait").start()
        with suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await child.options(id="c").start()

    await app.open()
    answer_late(app, monkeypatch, lambda start: start.parent_path == "2", lambda: executor(app).executions["p"].final)
    await parent.options(id="p").start()
    await until(lambda: recorded(app, Kind.TIMER))
    await child.handle("c").send(True)
    await until(lambda: ended(app, "p"), 4)
    assert await status(app, "c") == "completed"
