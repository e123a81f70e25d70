"""A program to be killed: an executor whose workflows write to streams, in their bodies and in steps of both kinds.

    python -m tests.crash.writer URL

Marker: ``wrote ID N`` now and then, while a step is in the middle of its values. It never ends by itself.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

import perdure.sync
from perdure import App, Retry, Stream, close_stream, current, write_stream

VALUES = 40  # of each step
EXPECTED = ["begin", *(f"{who} {n}" for who in ("loop", "thread") for n in range(VALUES)), "end"]
app = App("writer", lease=30)
words = Stream[str]("words")


def say(*what: object) -> None:
    os.write(1, f"{' '.join(map(str, what))}\n".encode())


@app.step(retry=Retry(3, on=ConnectionError, delay=0.01))
async def on_the_loop(id: str) -> None:
    for n in range(VALUES):
        await write_stream(words, f"loop {n}")
        await asyncio.sleep(0.002)  # waits: a step takes its time, or no kill would find it half way
        if n % 10 == 5:
            say("wrote", id, n)
        if n == VALUES // 2 and current().attempt == 1:
            raise ConnectionError("half way")


@app.step
def in_a_thread(id: str) -> None:
    for n in range(VALUES):
        perdure.sync.write_stream(words, f"thread {n}")
        time.sleep(0.002)  # waits: as above
        if n % 10 == 5:
            say("wrote", id, n)


@app.workflow
async def story(id: str) -> str:
    await write_stream(words, "begin")
    await on_the_loop(id)
    await in_a_thread(id)
    await write_stream(words, "end")
    await close_stream(words)
    return id


async def main(url: str) -> None:
    app._home.arguments["database"] = url
    async with app:
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
