"""What user code raises beside ordinary exceptions: recorded where an outcome, held where it counts as a crash."""

from __future__ import annotations

import asyncio
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
    mended.append("yes")
    with sync_app:
        assert body.handle("a").result(timeout=15) == "done"


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
        assert await history(app, "a") == []


def held(info: Any) -> Any:
    return info if info.status == "held" else None
