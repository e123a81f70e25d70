"""A client of the chaos run: starts, sends, cancels and waits as planned, and notes what it was told.

    python -m chaos.client URL FOLDER NAME SEED WORKFLOWS FLYING SHARE/OF

What it was told is in ``FOLDER/NAME.APP.history``. Killed and started again, it does once more what it has no answer
to: what was only invoked is unknown, to it as to the judge.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

from chaos import plan, programs
from chaos.executor import Lines, Told
from perdure import Client
from perdure.testing.histcheck import ClientHistory, read_lines

ENDS = ("ok", "fail")  # an answer; with less, whether it happened is unknown
APPS = {False: "chaos", True: "chaos-sync"}
TREES = {False: "tree", True: "sync_tree"}


class Teller:
    """One client's operations and its history."""

    def __init__(self, folder: Path, name: str, clients: dict[bool, Client]) -> None:
        self.clients = clients
        self.histories: dict[bool, ClientHistory] = {}
        self.answered: set[tuple[str, str, int]] = set()
        for face, app in APPS.items():
            path = folder / f"{name}.{app}.history"
            self.answered |= {(line["w"], line["op"], line["n"]) for line in read_lines(path) if line["type"] in ENDS}
            self.histories[face] = ClientHistory(f"{name}/{os.getpid()}", path)

    async def ask(
        self, planned: plan.Planned, op: str, call: Callable[[], Awaitable[Any]], n: int = 0, **more: Any
    ) -> None:
        """Do it, unless it was answered in an earlier life. What the workflow itself raised is an answer, too."""
        if (planned.id, op, n) in self.answered:
            return
        with suppress(Exception), self.histories[planned.blocking].call(op, planned.id, n=n, **more) as told:
            told.value = await call()

    async def serve(self, planned: plan.Planned) -> None:
        """All that is asked about one workflow."""
        client = self.clients[planned.blocking]
        workflow = client.workflow(TREES[planned.blocking], returns=list[Any])
        if planned.line is not None:
            line = planned.line
            workflow = workflow.options(
                queue=line.queue, partition=line.partition, priority=line.priority, delay=line.delay, dedup=planned.id
            )
        handle = workflow.handle(planned.id)

        async def start() -> str:
            return (await workflow.options(id=planned.id).start(planned.tree)).id

        async def again() -> str:
            return (await workflow.options(id=plan.twin(planned.id)).start([])).id

        async def cancel() -> str:
            return str(await handle.cancel(reason="chaos"))

        await self.ask(planned, "start", start)
        if planned.line is not None and planned.line.again:
            await self.ask(planned, "again", again)
        post = asyncio.create_task(self.send(planned, handle))
        rest = asyncio.create_task(self.pause(planned, handle))
        if planned.cancel is not None:
            await asyncio.sleep(planned.cancel)
            await self.ask(planned, "cancel", cancel)
        await post
        await rest
        if planned.ends != "waiting":
            await self.ask(planned, "result", handle.result)

    async def pause(self, planned: plan.Planned, handle: Any) -> None:
        async def pause() -> str:
            return str(await handle.pause(reason="chaos"))

        async def unpause() -> str:
            return str(await handle.unpause(reason="chaos"))

        if planned.pause is not None:
            at, lasts = planned.pause
            await asyncio.sleep(at)
            await self.ask(planned, "pause", pause)
            await asyncio.sleep(lasts)
            await self.ask(planned, "unpause", unpause)

    async def send(self, planned: plan.Planned, handle: Any) -> None:
        for n, letter in enumerate(planned.mail):
            key = str(n)

            async def post(letter: str = letter, key: str = key) -> None:
                await handle.send(letter, programs.letters, key=key)

            await self.ask(planned, "send", post, n, args=letter, key=key)


async def main(url: str, folder: Path, name: str, seed: int, count: int, flying: int, share: str) -> None:
    logging.getLogger("perdure").addHandler(Told(Lines(folder / f"{name}.log")))
    mine, of = map(int, share.split("/"))
    room = asyncio.Semaphore(max(1, flying // of))
    async with AsyncExitStack() as stack:
        clients = {face: await stack.enter_async_context(Client(url, app=app)) for face, app in APPS.items()}
        teller = Teller(folder, name, clients)

        async def serve(planned: plan.Planned) -> None:
            try:
                await teller.serve(planned)
            finally:
                room.release()

        async with asyncio.TaskGroup() as group:
            for n in range(mine, count, of):
                planned = plan.workflow(seed, n)
                await room.acquire()
                group.create_task(serve(planned))


if __name__ == "__main__":
    url, folder, name, seed, count, flying, share = sys.argv[1:]
    asyncio.run(main(url, Path(folder), name, int(seed), int(count), int(flying), share))
