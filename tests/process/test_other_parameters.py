"""Other code, whose class has other parameters: what it can read goes on, what it cannot is held; nothing fails."""

from __future__ import annotations

import perdure.sync
from perdure import App, Client
from perdure.process import Process, State
from perdure.sync.process import Process as SyncProcess
from tests.process.test_lives import stands
from tests.runtime.support import row, until


async def version(app: App, id: str) -> str:
    return str((await row(app, id)).version)


async def test_a_parameter_that_the_class_has_no_more_is_left_behind(database: str) -> None:
    app = App("hr", database=database, version="v1")

    @app.process(name="P")
    class Old(Process):
        days: int
        note: str = "old"
        draft = State(initial=True)
        end = State(final=True)
        submit = draft.to(end)

    async with app:
        await stands(await Old.options(id="a").start(days=3, note="given"), "Idled", "draft")
    app = App("hr", database=database, version="v2")

    @app.process(name="P")
    class New(Process):
        days: int
        reason: str = "new"
        draft = State(initial=True)
        end = State(final=True)
        submit = draft.to(end)

    async with app:
        p = New.handle("a")

        async def adopted() -> bool:
            return await version(app, "a") == "v2"

        await until(adopted)
        await stands(p, "Idled", "draft")
        await p.execute("submit")
        assert await p.status() == "Finalized"
        assert await p.result() == New(days=3, reason="new")


async def test_one_that_it_needs_and_has_not_is_said_and_waits_for_code_that_fits(database: str) -> None:
    app = App("hr", database=database, version="v1")

    @app.process(name="P")
    class Old(Process):
        draft = State(initial=True)
        end = State(final=True)
        submit = draft.to(end)

    async with app:
        await stands(await Old.options(id="a").start(), "Idled", "draft")
    app = App("hr", database=database, version="v2")

    @app.process(name="P")
    class New(Process):
        days: int
        draft = State(initial=True)
        end = State(final=True)
        submit = draft.to(end)

    async with app:

        async def said() -> bool:
            found = await New.handle("a").problems()
            return any(
                "days: P needs it, and it was not stored; give it a default in the class" in p.text for p in found
            )

        await until(said)
        assert await New.handle("a").status() == "Idled"
    app = App("hr", database=database, version="v3")

    @app.process(name="P")
    class Newer(Process):
        days: int = 7
        draft = State(initial=True)
        end = State(final=True)
        submit = draft.to(end)

    async with app:
        await stands(Newer.handle("a"), "Idled", "draft")
        await Newer.handle("a").execute("submit")
        assert (await Newer.handle("a").result()).days == 7


async def test_what_a_client_starts_with_the_wrong_parameters_is_held(database: str) -> None:
    """It has not begun: what it was given and the code does not know is a mistake of now."""
    app = App("hr", database=database)

    @app.process(name="P")
    class P(Process):
        days: int
        draft = State(initial=True)
        end = State(final=True)
        submit = draft.to(end)

    async with app, Client(database, app="hr") as client:
        by_name = client.workflow("P", returns=dict[str, int])
        for id, given, said in (
            ("a", {"dayz": 3, "days": 3}, "dayz: P has no such parameter; it has: days"),
            ("b", {}, "days: P needs it, and it was not stored; give it a default in the class"),
        ):
            await by_name.options(id=id).start(**given)

            async def held(id: str = id) -> bool:
                return str((await P.handle(id).info()).status) == "held"

            await until(held)
            info = await P.handle(id).info()
            assert (str(info.reason), info.detail) == ("undecodable", said)


def test_the_same_of_blocking_code(database: str) -> None:
    app = perdure.sync.App("hr", database=database, version="v1")

    @app.process(name="P")
    class Old(SyncProcess):
        note: str = "old"
        draft = State(initial=True)
        end = State(final=True)
        submit = draft.to(end)

    with app:
        Old.options(id="a").start(note="given").within(10).execute("submit")
        Old.options(id="b").start(note="given")
    app = perdure.sync.App("hr", database=database, version="v2")

    @app.process(name="P")
    class New(SyncProcess):
        draft = State(initial=True)
        end = State(final=True)
        submit = draft.to(end)

    with app:
        New.handle("b").within(10).execute("submit")
        assert [New.handle(id).status() for id in "ab"] == ["Finalized", "Finalized"]
