"""Fan out: children started in one batch, awaited with plain asyncio; each survives a crash on its own.

python examples/fan_out.py
"""

import asyncio

from perdure import App, Retry

etl = App("fan-out")


@etl.step
def list_files(folder: str) -> list[str]:  # a `def` step runs in a thread; its call is awaited all the same
    return [f"{folder}/{name}.png" for name in ("ant", "bee", "cat", "dog")]


@etl.step(retry=Retry(3, on=OSError, delay=0.1), timeout=30)
async def shrink(path: str) -> int:
    return len(path) * 10


@etl.workflow
async def thumbnail(path: str) -> int:
    return await shrink(path)


@etl.workflow
async def folder_of_thumbnails(folder: str) -> int:
    handles = await thumbnail.start_many(await list_files(folder))
    total = 0
    for done in asyncio.as_completed([handle.result() for handle in handles]):
        total += await done
    first, second = await asyncio.gather(thumbnail("extra/one.png"), thumbnail("extra/two.png"))
    return total + first + second


async def main() -> None:
    async with etl:
        handle = await folder_of_thumbnails.start("pets")
        print("bytes:", await handle.result())
        children = [info async for info in etl.client.list(f"parent = {handle.id}")]
        print("children:", len(children), sorted({str(info.status) for info in children}))


if __name__ == "__main__":
    asyncio.run(main())
