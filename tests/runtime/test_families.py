"""Children of a workflow that its own body does not end, or that began anew in between."""

from __future__ import annotations

import asyncio

import pytest

from perdure import App, current, recv, sleep
from perdure.errors import WorkflowTerminated
from perdure.recovery import Decision, Delete, Incident, Terminate
from perdure.testing import harness
from tests.runtime.support import Ledger, crash, row, status, until


async def ends(app: App, id: str) -> str:
    """The status that it comes to."""
    await until(lambda: _closed(app, id))
    return await status(app, id)


async def _closed(app: App, id: str) -> bool:
    return not (await row(app, id)).status.open


@pytest.mark.parametrize("how", ["completed", "failed", "cancelled", "terminated"])
async def test_the_end_of_a_chain_of_runs_is_for_the_children_of_all_of_them(app: App, how: str) -> None:
    @app.workflow(name="kid")
    async def kid() -> None:
        await recv("stop")

    @app.workflow(name="chain")
    async def chain(n: int) -> None:
        await kid.options(id=f"kid-{n}").start()
        if n == 0:
            await kid.options(id="left", on_parent_close="abandon").start()
        if n < 2:
            chain.continue_as_new(n + 1)
        if await recv("end") == "failed":
            raise ValueError

    async with app:
        handle = await chain.options(id="c").start(0)
        await until(lambda: _is_there(app, "kid-2"))
        assert [await kid.handle(f"kid-{n}").status() in ("running", "waiting") for n in range(3)] == [True] * 3
        if how == "cancelled":
            await handle.cancel()
        elif how == "terminated":
            await handle.terminate()
        else:
            await handle.send(how, "end")
        assert await ends(app, "c") == how
        assert [await ends(app, f"kid-{n}") for n in range(3)] == ["cancelled"] * 3
        assert (await kid.handle("left").status()) in ("running", "waiting")


async def _is_there(app: App, id: str) -> bool:
    return id in await app._home.engine().line.store.rows([id])


async def test_a_run_that_continues_waits_for_those_that_are_to_be_waited_for(app: App) -> None:
    @app.workflow(name="kid")
    async def kid() -> None:
        await recv("stop")

    @app.workflow(name="chain")
    async def chain(n: int) -> int:
        if n == 0:
            await kid.options(id="kid", on_parent_close="wait").start()
            chain.continue_as_new(1)
        return current().run

    async with app:
        handle = await chain.options(id="c").start(0)
        await until(lambda: _is_there(app, "kid"))
        assert (await row(app, "c")).run == 1
        await kid.handle("kid").send(1, "stop")
        assert await handle.result() == 2


async def test_who_terminates_a_workflow_ends_what_it_has_begun_with_cleanup(app: App, ledger: Ledger) -> None:
    @app.workflow(name="grandchild")
    async def grandchild() -> None:
        await recv("stop")

    @app.workflow(name="kid")
    async def kid() -> None:
        await grandchild.options(id="gk").start()
        try:
            await recv("stop")
        finally:
            ledger.note("cleaned up")

    @app.workflow(name="parent")
    async def parent() -> None:
        await kid.options(id="k").start()
        await sleep(3600)

    async with app:
        handle = await parent.options(id="p").start()
        await until(lambda: _is_there(app, "gk"))
        await handle.terminate()
        with pytest.raises(WorkflowTerminated):
            await handle.result()
        assert await ends(app, "k") == "cancelled"
        assert await ends(app, "gk") == "cancelled"
    assert ledger == ["cleaned up"]


async def test_the_children_of_one_that_is_replaced_end_with_it_though_it_is_held(
    database: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A held workflow has no body to end them, nor has a held child one to clean up."""
    monkeypatch.setenv("PERDURE_VERSION", "1")

    def build(changed: bool) -> App:
        app = App("shop", database=database)

        @app.step
        async def before() -> None: ...

        @app.step
        async def other() -> None: ...

        @app.workflow(name="grandchild")
        async def grandchild() -> None:
            await recv("stop")

        @app.workflow(name="kid")
        async def kid() -> None:
            await (other if changed else before)()
            await grandchild.options(id="gk").start()
            await recv("stop")

        @app.workflow(name="parent")
        async def parent(n: int) -> None:
            await (other if changed else before)()
            if n == 0:
                await kid.options(id="k").start()
                await recv("go")

        app.parent = parent  # type: ignore[attr-defined]
        return app

    app = build(changed=False)
    await app.open()
    await app.parent.options(id="p").start(0)  # type: ignore[attr-defined]
    await until(lambda: _is_there(app, "gk"))
    await crash(app)
    app = build(changed=True)
    async with app:
        await until(lambda: _is(app, "p", "held"))
        await until(lambda: _is(app, "k", "held"))
        assert (await status(app, "gk")) in ("running", "waiting")
        await app.parent.options(id="p", on_conflict="replace")(1)  # type: ignore[attr-defined]
        assert await ends(app, "k") == "cancelled"
        assert await ends(app, "gk") == "cancelled"


async def _is(app: App, id: str, wanted: str) -> bool:
    return await status(app, id) == wanted


@pytest.mark.parametrize("decision", [Terminate(), Delete()], ids=["terminate", "delete"])
async def test_a_policy_that_ends_a_workflow_ends_what_it_has_begun(
    app: App, database: str, decision: Decision
) -> None:
    inside = asyncio.Event()

    @app.step
    async def work() -> None:
        inside.set()
        await asyncio.Event().wait()

    @app.workflow(name="kid")
    async def kid() -> None:
        await recv("stop")

    @app.workflow(name="parent")
    async def parent() -> None:
        await kid.options(id="k").start()
        await work()

    @app.recovery_policy("parent")
    def policy(incident: Incident) -> Decision:
        return decision

    async with harness(app, database=database) as h:
        await parent.options(id="p").start()
        await inside.wait()
        await h.crash()
        assert await ends(app, "k") == "cancelled"
