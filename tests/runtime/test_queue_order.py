"""First in, first out: what is started in order begins in order, though one commit has one time for all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from perdure import App, Workflow
from perdure.testing import harness

MANY = 24  # ids of two digits sort otherwise than numbers do

Way = Callable[["Workflow[[int], None]"], Awaitable[list[Any]]]


async def in_a_loop(job: Any) -> list[Any]:
    return [await job.start(n) for n in range(MANY)]


async def at_once(job: Any) -> list[Any]:
    return list(await asyncio.gather(*(job.start(n) for n in range(MANY))))


async def as_many(job: Any) -> list[Any]:
    return list(await job.start_many(range(MANY)))


async def as_many_with_ids(job: Any) -> list[Any]:
    return list(await job.start_many(range(MANY), id=lambda n: f"job-{n}"))


async def at_once_with_ids(job: Any) -> list[Any]:
    return list(await asyncio.gather(*(job.options(id=f"job-{n}").start(n) for n in range(MANY))))


async def delayed_at_once(job: Any) -> list[Any]:
    return list(await asyncio.gather(*(job.options(id=f"job-{n}", delay=0.01).start(n) for n in range(MANY))))


WAYS = [in_a_loop, at_once, as_many, as_many_with_ids, at_once_with_ids, delayed_at_once]


def noting(app: App) -> tuple[Any, list[int]]:
    began: list[int] = []

    @app.workflow(queue=app.queue("q", concurrency=1))
    async def job(n: int) -> None:
        began.append(n)

    return job, began


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_starts_outside_begin_in_order(app: App, way: Way) -> None:
    job, began = noting(app)
    async with app:
        for handle in await way(job):
            await handle.result()
    assert began == list(range(MANY))


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_children_of_one_parent_begin_in_order(app: App, way: Way) -> None:
    job, began = noting(app)

    @app.workflow
    async def parent() -> None:
        for handle in await way(job):
            await handle.result()

    async with app:
        await parent()
    assert began == list(range(MANY))


async def test_starts_of_one_id_in_one_call_keep_the_first_and_its_place(app: App) -> None:
    job, began = noting(app)
    async with app:
        for handle in await job.start_many([0, 1, 2, 1, 0], id=lambda n: f"job-{9 - n}"):
            await handle.result()
    assert began == [0, 1, 2]


async def test_starts_begin_in_order_while_the_clock_stands_still() -> None:
    app = App("shop")
    job, began = noting(app)
    async with harness(app):
        for handle in [await job.options(id=f"job-{n}").start(n) for n in range(MANY)]:
            await handle.result()
    assert began == list(range(MANY))
