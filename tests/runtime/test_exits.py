"""What user code raises beside ordinary exceptions: recorded where an outcome, held where it counts as a crash."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import perdure.sync
from perdure import App
from perdure.errors import StepFailed
from tests.runtime.support import history, until, until_sync


class Stop(BaseException):
    """Neither an Exception nor a crash, as pytest.fail raises and some frameworks do."""


RAISED: dict[str, BaseException] = {
    "exit": SystemExit(3), "interrupt": KeyboardInterrupt(), "memory": MemoryError(),
    "other": Stop("enough"), "generator": GeneratorExit(),
}  # fmt: skip


@pytest.mark.parametrize("where", ["def step", "async step", "body"])
async def test_other_exceptions_are_outcomes(app: App, where: str) -> None:
    @app.step
    def blocking() -> None:
        raise RAISED["other"]

    @app.step
    async def awaiting() -> None:
        raise RAISED["other"]

    @app.workflow
    async def body() -> str:
        if where == "body":
            raise RAISED["other"]
        await (blocking() if where == "def step" else awaiting())
        return "not reached"

    async with app:
        handle = await body.start()
        with pytest.raises(StepFailed, match=r"test_exits\.Stop: enough") as caught:
            await handle.result(timeout=15)
        assert "test_exits.py" in vars(caught.value)["__perdure_traceback__"]
        assert await handle.status() == "failed"


@pytest.mark.parametrize("where", ["step", "body"])
@pytest.mark.parametrize("kind", ["other", "generator"])
def test_other_exceptions_are_outcomes_in_threads(sync_app: perdure.sync.App, where: str, kind: str) -> None:
    @sync_app.step
    def step() -> None:
        raise RAISED[kind]

    @sync_app.workflow
    def body() -> None:
        if where == "body":
            raise RAISED[kind]
        step()

    with sync_app, pytest.raises(StepFailed, match=type(RAISED[kind]).__name__):
        body.start().result(timeout=15)


@pytest.mark.parametrize("where", ["step", "async step", "body"])
@pytest.mark.parametrize("kind", ["exit", "interrupt", "memory"])
def test_a_crash_in_a_thread_holds_the_workflow_and_the_next_launch_tries_again(
    sync_app: perdure.sync.App, where: str, kind: str
) -> None:
    mended: list[str] = []

    @sync_app.step
    def step() -> str:
        if not mended:
            raise RAISED[kind]
        return "done"

    @sync_app.step
    async def awaiting() -> str:
        if not mended:
            await asyncio.sleep(0)
            raise RAISED[kind]
        return "done"

    @sync_app.workflow
    def body() -> str:
        if where == "body":
            if not mended:
                raise RAISED[kind]
            return "done"
        return step() if where == "step" else awaiting()

    with sync_app:
        body.options(id="a").start()
        info = until_sync(lambda: held(body.handle("a").info()))
        name = {"step": "step", "async step": "step", "body": "the body of"}[where]
        assert info.detail.startswith(name)
        assert f"raised {type(RAISED[kind]).__name__}" in info.detail
        assert "counts as a crash" in info.detail
        assert (info.reason, info.problem) == ("crashed", "crashed")
    mended.append("yes")
    with sync_app:
        assert body.handle("a").result(timeout=15) == "done"


@pytest.mark.parametrize("of", ["step", "transaction"])
@pytest.mark.parametrize("kind", ["exit", "interrupt"])
async def test_a_crash_of_a_blocking_step_does_not_end_the_process_of_an_async_app(
    app: App, of: str, kind: str, tmp_path: Path
) -> None:
    @app.step
    def step() -> None:
        raise RAISED[kind]

    @contextlib.contextmanager
    def rows() -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(tmp_path / "rows.db", check_same_thread=False)) as connection:
            yield connection

    @app.transaction(rows)
    def transaction(_rows: sqlite3.Connection) -> None:
        raise RAISED[kind]

    @app.workflow
    async def body() -> None:
        await (step() if of == "step" else transaction())

    async with app:
        handle = await body.options(id="a").start()

        async def look() -> Any:
            return held(await handle.info())

        info = await until(look)
        assert (info.reason, info.problem) == ("crashed", "crashed")
        assert info.detail.startswith(of)
        assert f".{of} raised {type(RAISED[kind]).__name__}" in info.detail
        [problem] = await handle.problems()
        assert (problem.kind, problem.text) == ("crashed", info.detail)
        assert await history(app, "a") == []


PROGRAM = """
import asyncio, sys
from perdure import App
app = App("shop", database=sys.argv[1], version="v1")
@app.step
async def step() -> None:
    sys.exit(7)
@app.workflow
async def body() -> None:
    if sys.argv[2] == "body":
        sys.exit(7)
    await step()
async def main() -> None:
    async with app:
        await (await body.options(id="a").start()).result(timeout=15)
asyncio.run(main())
"""


@pytest.mark.parametrize("where", ["async step", "body"])
def test_on_the_main_thread_it_ends_the_process(tmp_path: Path, where: str) -> None:
    """As a handler of SIGTERM that calls sys.exit() wants it, wherever the main thread is just then."""
    url = f"sqlite:///{tmp_path}/shop.db"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, url, where], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 7, done.stderr


async def test_too_little_memory_holds_and_records_nothing(app: App) -> None:
    @app.step
    async def step() -> None:
        raise RAISED["memory"]

    @app.workflow
    async def body() -> None:
        await step()

    async with app:
        handle = await body.options(id="a").start()

        async def look() -> Any:
            return held(await handle.info())

        info = await until(look)
        assert "raised MemoryError" in info.detail
        assert info.reason == "crashed"
        assert await history(app, "a") == []


def held(info: Any) -> Any:
    return info if info.status == "held" else None
