"""Progress: told now and then, of no consequence for the history, in bodies and steps of both faces."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

import perdure.sync
from perdure import App, Retry, current, recv, track
from perdure.errors import DefinitionError
from perdure.model.streams import PROGRESS
from perdure.runtime import progress
from tests.runtime.support import crash, executor, kinds, until


async def told(handle: Any) -> list[tuple[str, int, int | None]]:
    return [(one["label"], one["done"], one["total"]) async for one in handle.read_stream(PROGRESS)]


@pytest.fixture
def at_every_item(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_MIN", 0.0)


@pytest.mark.usefixtures("at_every_item")
async def test_a_body_tells_how_far_it_is_and_takes_no_path(app: App) -> None:
    @app.step
    async def act(n: int) -> int:
        return n

    @app.workflow
    async def body() -> list[int]:
        return [await act(n) for n in track([1, 2, 3], "rows")]

    async with app:
        handle = await body.options(id="a").start()
        assert await handle.result() == [1, 2, 3]
        assert await told(handle) == [("rows", n, 3) for n in range(4)]
        assert {what.split()[0] for what in await kinds(app, "a")} == {"STEP"}


@pytest.mark.usefixtures("at_every_item")
async def test_over_what_completes_in_any_order(app: App) -> None:
    @app.step
    async def act(n: int) -> int:
        await asyncio.sleep(0)
        return n

    @app.workflow
    async def body() -> int:
        total = 0
        for done in track(asyncio.as_completed([act(n) for n in range(4)]), "acts", total=4):
            total += await done
        return total

    async with app:
        handle = await body.start()
        assert await handle.result() == 6
        assert (await told(handle))[-1] == ("acts", 4, 4)


@pytest.mark.parametrize("threaded", [False, True])
async def test_a_million_rows_are_few_writes(app: App, threaded: bool) -> None:
    @app.step
    async def count() -> int:
        return sum(1 for _ in track(range(1_000_000), "rows"))

    @app.step
    def count_in_thread() -> int:
        return sum(1 for _ in perdure.sync.track(iter(range(1_000_000)), "rows"))

    @app.workflow
    async def body() -> int:
        return await (count_in_thread() if threaded else count())

    async with app:
        handle = await body.start()
        assert await handle.result() == 1_000_000
        found = await told(handle)
        assert found[0] == ("rows", 0, None if threaded else 1_000_000)
        assert found[-1] == ("rows", 1_000_000, 1_000_000)
        assert len(found) <= 110


@pytest.mark.usefixtures("at_every_item")
async def test_without_a_clock_in_the_way_it_is_still_few(app: App) -> None:
    """Only by how much is done: a hundredth of the total each, without a total a twentieth more than before."""

    @app.step
    async def count(known: bool) -> None:
        for _ in track(range(100_000) if known else iter(range(100_000)), "rows"):
            pass

    @app.workflow
    async def body(known: bool) -> None:
        await count(known)

    async with app:
        for known, most in ((True, 102), (False, 250)):
            handle = await body.start(known)
            await handle.result()
            assert 50 < len(await told(handle)) <= most


@pytest.mark.usefixtures("at_every_item")
async def test_a_retried_step_tells_anew(app: App) -> None:
    @app.step(retry=Retry(2, delay=0.001))
    async def act() -> None:
        for n in track([1, 2, 3], "rows"):
            if n == 2 and current().attempt == 1:
                raise ConnectionError("once")

    @app.workflow
    async def body() -> None:
        await act()

    async with app:
        handle = await body.start()
        await handle.result()
        done = [n for _, n, _ in await told(handle)]
        assert done == [0, 1, 0, 1, 2, 3]


@pytest.mark.usefixtures("at_every_item")
async def test_a_replay_tells_nothing_until_it_lives(app: App, database: str) -> None:
    def declared(app: App) -> Any:
        @app.step
        async def act(n: int) -> int:
            return n

        @app.workflow
        async def body() -> int:
            for n in track([1, 2, 3, 4], "rows"):
                await act(n)
                if n == 2:
                    await recv()
            return 4

        return body

    body = declared(app)
    await app.open()
    await body.options(id="a").start()
    await until(lambda: executor(app).executions["a"].waiting)
    await app._home.engine().line.journal.drained()
    await crash(app)
    second = App("shop", database=database)
    declared(second)
    async with second:
        handle = second.client.handle("a")
        await handle.send(True)
        assert await handle.result() == 4
        assert [n for _, n, _ in await told(handle)] == [0, 1, 2, 3, 4]


def test_the_same_in_blocking_code(sync_app: perdure.sync.App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_MIN", 0.0)

    @sync_app.step
    def act(n: int) -> int:
        return sum(perdure.sync.track([n, n], "inner"))

    @sync_app.workflow
    def body() -> int:
        return sum(act(n) for n in perdure.sync.track([1, 2], "outer"))

    with sync_app:
        handle = body.start()
        assert handle.result() == 6
        found = list(handle.read_stream(PROGRESS))
        assert [one["done"] for one in found if one["label"] == "outer"] == [0, 1, 2]
        assert [(one["path"], one["done"]) for one in found if one["label"] == "inner"] == [
            *(("1", n) for n in range(3)),
            *(("2", n) for n in range(3)),
        ]


def test_outside_a_workflow_it_only_yields() -> None:
    assert list(track([1, 2], "rows")) == [1, 2]
    assert list(track(iter("ab"), "letters", total=2)) == ["a", "b"]
    with pytest.raises(DefinitionError, match="total=-1"):
        track([1], "rows", total=-1)


def test_what_is_no_progress_is_passed_over() -> None:
    assert progress.read_told(b'{"label": 1}') is None
    assert progress.read_told(msgspec.json.encode(progress.Told("a", 1, None))) == progress.Told("a", 1, None)
