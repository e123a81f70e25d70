"""A fan-out over files, through a queue. With `track`: later/p3_pipeline.py."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from perdure import App, Rate, Retry

etl = App("etl", modules=["etl.reports"])
images = etl.queue("images", concurrency=64, worker_concurrency=8, rate=Rate(100, per=60))


@etl.resource
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient() as client:
        yield client


@etl.step
def list_files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


@etl.step(retry=Retry(3, on=(OSError, httpx.HTTPError)), timeout=30)
async def upload(path: Path) -> int:
    return (await http().put("https://x", content=path.read_bytes())).status_code


@etl.workflow(queue=images)
async def thumbnail(path: Path) -> int:
    return await upload(path)


@etl.workflow
async def folder(path: Path) -> int:
    handles = await thumbnail.start_many(await list_files(path))
    total = 0
    for done in asyncio.as_completed([h.result() for h in handles]):
        total += await done
    return total


async def enqueue_from_outside(paths: list[Path]) -> None:
    async with etl.connect():
        await thumbnail.options(priority=1).start_many(paths, id=lambda p: f"thumb-{p.name}")
