"""Children: awaited, started in the background, cancelled, abandoned or waited for when the parent ends."""

from __future__ import annotations

import asyncio

import pytest

import perdure.sync
from perdure import App, recv, sleep
from perdure.errors import WorkflowCancelled, WorkflowConflict
from tests.runtime.support import Ledger, crash, history, kinds, row, status, until


async def test_a_called_workflow_is_a_child_and_runs_once(app: App, ledger: Ledger) -> None:
    @app.step
    async def effect(x: int) -> int:
        ledger.note(x)
        return x * 10

    @app.workflow(name="child")
    async def child(x: int) -> int:
        return await effect(x)

    @app.workflow(name="parent")
    async def parent() -> list[int]:
        found = list(await asyncio.gather(*(child(x) for x in range(3))))
        await sleep(0.2)
        return found

    async with app:
        await parent.options(id="p").start()
        await until(lambda: ledger.counts == {"0": 1, "1": 1, "2": 1})
    async with app:
        assert await parent.handle("p").result() == [0, 10, 20]
        children = [i async for i in app.client.list("parent = p")]
        assert sorted(i.id for i in children) == ["p:1", "p:2", "p:3"]
        assert {str(i.status) for i in children} == {"completed"}
    assert sorted(ledger) == ["0", "1", "2"]


async def test_a_childs_exception_arrives_at_the_parent(app: App) -> None:
    @app.workflow
    async def child() -> None:
        raise LookupError("no stock")

    @app.workflow
    async def parent() -> str:
        try:
            await child()
        except LookupError as error:
            return f"caught {error.args}"
        return "no error"

    async with app:
        assert await parent() == "caught ('no stock',)"


async def test_a_child_with_an_id_and_a_conflict(app: App) -> None:
    @app.workflow
    async def child(x: int) -> int:
        return x

    @app.workflow
    async def parent() -> list[str]:
        first = await child.options(id="c").start(1)
        again = await child.options(id="c").start(1)  # attaches
        try:
            await child.options(id="c").start(2)
        except WorkflowConflict as error:
            said = "taken" in str(error) or "exists" in str(error)
        return [first.id, again.id, str(said), str(await first.result() + await again.result())]

    async with app:
        assert await parent() == ["c", "c", "True", "2"]


async def test_start_many_in_a_workflow(app: App) -> None:
    @app.workflow
    async def child(x: int) -> int:
        return x * x

    @app.workflow
    async def parent() -> int:
        handles = await child.start_many(range(5), id=lambda x: f"c{x}")
        total = 0
        for done in asyncio.as_completed([handle.result() for handle in handles]):
            total += await done
        return total

    async with app:
        assert await parent() == 30


@pytest.mark.parametrize("policy", ["cancel", "abandon", "wait"])
async def test_what_a_parents_end_means_for_its_children(app: App, ledger: Ledger, policy: str) -> None:
    @app.workflow(name="child")
    async def child() -> str:
        try:
            await recv("go")
        except asyncio.CancelledError:
            ledger.note("child cancelled")
            raise
        return "child done"

    @app.workflow(name="parent")
    async def parent() -> str:
        await child.options(id="c", on_parent_close=policy).start()  # type: ignore[typeddict-item]
        return "parent done"

    async with app:
        handle = await parent.options(id="p").start()
        if policy == "wait":
            await until(lambda: row(app, "c"))
            assert await status(app, "p") in ("running", "waiting")
            await child.handle("c").send(True, "go")
        assert await handle.result(timeout=10) == "parent done"
        if policy == "cancel":
            with pytest.raises(WorkflowCancelled):
                await child.handle("c").result(timeout=10)
            assert ledger == ["child cancelled"]
        elif policy == "abandon":
            assert await status(app, "c") in ("running", "waiting")
            await child.handle("c").send(True, "go")
            assert await child.handle("c").result(timeout=10) == "child done"
            assert ledger == []
        else:
            assert await status(app, "c") == "completed"


async def test_cancelling_a_parent_cancels_the_child_it_awaits(app: App, ledger: Ledger) -> None:
    @app.workflow(name="child")
    async def child() -> None:
        try:
            await recv()
        except asyncio.CancelledError:
            ledger.note("child cancelled")
            raise

    @app.workflow(name="parent")
    async def parent() -> None:
        await child.options(id="c")()

    async with app:
        handle = await parent.options(id="p").start()
        await until(lambda: app._home.engine().executor.has("c"))
        assert await handle.cancel() == "cancelled"
        with pytest.raises(WorkflowCancelled):
            await child.handle("c").result(timeout=10)
    assert ledger == ["child cancelled"]


async def test_cancelling_the_task_that_awaits_a_child_cancels_the_child(app: App) -> None:
    @app.workflow(name="child")
    async def child() -> None:
        await recv()

    @app.workflow(name="parent")
    async def parent() -> str:
        try:
            async with asyncio.timeout(0.05):
                await child.options(id="c")()
        except TimeoutError:
            return "gave up"
        return "no timeout"

    async with app:
        assert await parent() == "gave up"
        with pytest.raises(WorkflowCancelled):
            await child.handle("c").result(timeout=10)


async def test_a_cancelled_child_is_an_exception_of_its_parent_not_its_cancellation(app: App) -> None:
    @app.workflow(name="child")
    async def child() -> None:
        await recv()

    @app.workflow(name="parent")
    async def parent() -> str:
        handle = await child.options(id="c").start()
        assert await handle.cancel(reason="not needed") == "cancelled"
        try:
            await handle.result()
        except WorkflowCancelled as error:
            return f"{error.id} {error.status}: {error}"
        return "no error"

    async with app:
        said = await parent()
    assert said.startswith("c cancelled: workflow c was cancelled")
    assert "not needed" in said


async def test_children_survive_a_crash_of_the_process(app: App, ledger: Ledger) -> None:
    @app.step
    async def effect(x: int) -> int:
        ledger.note(x)
        return x

    @app.workflow(name="child")
    async def child(x: int) -> int:
        await recv("go")
        return await effect(x)

    @app.workflow(name="parent")
    async def parent() -> int:
        return sum(await asyncio.gather(*(child.options(id=f"c{x}")(x) for x in range(3))))

    await app.open()
    await parent.options(id="p").start()
    for x in range(3):
        await until(lambda x=x: app._home.engine().executor.has(f"c{x}"))
    await until(lambda: history(app, "p"))
    await crash(app)
    async with app:
        for x in range(3):
            await child.handle(f"c{x}").send(True, "go")
        assert await parent.handle("p").result() == 3
    assert sorted(ledger) == ["0", "1", "2"]


async def test_grandchildren(app: App) -> None:
    @app.workflow(name="tree")
    async def tree(depth: int) -> int:
        if depth == 0:
            return 1
        left, right = await asyncio.gather(tree(depth - 1), tree(depth - 1))
        return left + right

    async with app:
        assert await tree.options(id="t")(4) == 16
        assert len([i async for i in app.client.list("type = tree")]) == 31


async def test_a_parent_may_speak_to_its_child(app: App) -> None:
    @app.workflow(name="child")
    async def child() -> str:
        from perdure import set_event

        await set_event("ready", 7)
        return f"got {await recv('work')}"

    @app.workflow(name="parent")
    async def parent() -> list[str]:
        handle = await child.start()
        ready = await handle.get_event("ready")
        await handle.send("this", "work")
        result = await handle.result()
        return [str(ready), result, str(await handle.status())]

    async with app:
        await parent.options(id="p").start()
        assert await parent.handle("p").result() == ["7", "got this", "completed"]
        assert [kind.split()[0] for kind in await kinds(app, "p")] == ["CHILD", "READ", "SEND", "RESULT", "READ"]


def test_children_of_the_sync_face(sync_app: perdure.sync.App, ledger: Ledger) -> None:
    @sync_app.step
    def effect(x: int) -> int:
        ledger.note(x)
        return x * 10

    @sync_app.workflow
    def child(x: int) -> int:
        return effect(x)

    @sync_app.workflow
    def parent() -> list[int]:
        handles = child.start_many(range(3))
        return [child(7), *(handle.result() for handle in handles)]

    with sync_app:
        assert parent() == [70, 0, 10, 20]
    assert sorted(ledger) == ["0", "1", "2", "7"]


@pytest.mark.parametrize("closed", [False, True], ids=["running", "closed"])
async def test_a_child_may_replace_what_has_its_id(app: App, ledger: Ledger, closed: bool) -> None:
    @app.step
    async def move_in(who: str) -> None:
        ledger.note(who)

    @app.workflow(name="tenant")
    async def tenant(who: str) -> str:
        await move_in(who)
        if who == "first":
            await recv("leave")
        return who

    @app.workflow(name="parent")
    async def parent() -> str:
        handle = await tenant.options(id="flat", on_conflict="replace").start("second")
        return await handle.result()

    async with app:
        first = await tenant.options(id="flat").start("first")
        if closed:
            await first.send(1, "leave")
            assert await first.result() == "first"
        assert await parent.options(id="p")() == "second"
        found = await row(app, "flat")
        assert (found.run, found.parent, found.parent_path) == (2, "p", "1")
        assert await kinds(app, "p") == ["CHILD tenant VALUE", "RESULT flat VALUE"]
    assert ledger == ["first", "second"]


async def test_a_workflow_does_not_replace_itself(app: App) -> None:
    @app.workflow(name="self")
    async def body() -> str:
        try:
            await body.options(id="s", on_conflict="replace").start()
        except WorkflowConflict as conflict:
            return str(conflict)
        return "replaced"

    async with app:
        assert "continue_as_new" in await body.options(id="s")()
