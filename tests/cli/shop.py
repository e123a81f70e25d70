"""The app that the tests of the command line run, in their own process or by ``perdure run shop``."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import perdure.sync
from perdure import App, Retry, Secret, Topic, close_stream, recv, track, write_stream
from perdure.sync import App as SyncApp

app = App("shop", lease=5)
blocking = SyncApp("blocking", lease=5)
shipped = Topic[bool]("shipped")
tries: dict[str, int] = {}


@app.step(retry=Retry(attempts=3, on=ConnectionError, delay=0.01))
async def charge(order: str, cents: int) -> str:
    tries[order] = tries.get(order, 0) + 1
    if tries[order] < 2:
        raise ConnectionError("no route")
    return f"charge-{order}"


@app.step
async def decline(card: Secret[str]) -> None:
    raise ValueError("card\x1b[31m declined")


@app.step
async def stall(mark: str) -> None:
    """Tells that it is under way, then never ends by itself (once: a second try does)."""
    if first_at(Path(mark)):
        await asyncio.Event().wait()


def first_at(mark: Path) -> bool:
    """Whether nobody was here before."""
    if mark.exists():
        return False
    mark.write_text(str(os.getpid()))
    return True


@app.step(at_most_once=True)
async def dare(mark: str) -> None:
    if first_at(Path(mark)):
        await asyncio.Event().wait()


@app.workflow
async def risky(mark: str) -> None:
    await dare(mark)


@app.step(retry=Retry(attempts=3, delay=3600))
async def deliver(order: str) -> None:
    raise ConnectionError("no road")


@app.workflow
async def delivery(order: str) -> None:
    await deliver(order)


@app.workflow
async def checkout(order: str, cents: int = 5) -> dict[str, object]:
    return {"charge": await charge(order, cents), "cents": cents}


@app.workflow
async def refuse(card: str) -> None:
    await decline(Secret(card))


@app.workflow
async def parcel() -> bool | None:
    return await recv(shipped)


@app.workflow
async def stalled(mark: str) -> str:
    await charge("stalled", 1)
    await stall(mark)
    return "went on"


@app.workflow
async def family(order: str) -> object:
    first, _ = await asyncio.gather(checkout(order, 7), asyncio.sleep(0.01))
    return first


@app.step
async def tell(words: list[str]) -> int:
    for word in track(words, "words"):
        await write_stream("words", word)
    await write_stream("words", Secret("hidden"))
    return len(words)


@app.workflow
async def teller(words: list[str]) -> int:
    told = await tell(words)
    await close_stream("words")
    return told


@blocking.step
def add(a: int, b: int) -> int:
    return a + b


@blocking.workflow
def total(a: int, b: int) -> int:
    perdure.sync.sleep(0.01)
    return add(a, b)
